// Ports change hands: what an attachment publishes, together with what others and it itself published before, in our own
// table, in iptables, and in the reference's. Called by ADD, which opens, logs and undoes.
import { type Attachment, type Owner, ownerHash } from '../../shared/cni/attachment.ts';
import { lockHost } from '../../shared/cni/host-lock.ts';
import type { Cidr } from '../../shared/ip/cidr.ts';
import {
  type ForeignPort,
  type IptablesChain,
  listForeignPorts,
} from '../../shared/iptables/foreign-ports.ts';
import { removeChains } from '../../shared/iptables/hostports.ts';
import type { Nftables, RuleFact } from '../../shared/nftables/nftables.ts';
import { type Command, delete_ } from '../../shared/nftables/objects.ts';
import { commitGuarded } from '../../shared/ruleset/commit.ts';
import {
  hasHostportsTable,
  type PortsWish,
  planHostportsAddition,
  planHostportsHandover,
  planHostportsRemoval,
  type Takeover,
} from '../../shared/ruleset/hostports.ts';
import { findRuleset } from '../../shared/ruleset/open.ts';
import type { FlowScope } from './flows.ts';

/** What went so that the ports could be published. */
export interface Moved {
  /** A line for each port that somebody else loses. */
  readonly lines: readonly string[];
  readonly removed: FlowScope['ports'];
}

/**
 * Publishes through our own table, in one batch, and tells `afterwards` what moved. Throws portConflict when a living owner has
 * one of the ports, in whatever format.
 */
export function publishNatively(
  nft: Nftables,
  wish: PortsWish,
  isAlive: (owner: Owner) => boolean,
  afterwards: (moved: Moved) => void,
): void {
  let takeover = NOTHING;
  let leftovers: Leftovers = [];
  const plan = (nft: Nftables) => {
    const foreign = listForeignPorts(nft, seekerOf(wish), wish.ports);
    takeover = planHostportsAddition(nft, wish, { isAlive, foreign: foreign.ports });
    leftovers = [...foreign.own, ...takeover.superseded.map(({ node }) => node)];
    return [...takeover.commands, ...planRules(leftovers)];
  };
  commitGuarded(nft, plan, {
    afterwards: () => afterwards(describe(takeover, removeChains(chainsIn(leftovers)))),
  });
}

/**
 * Publishes through iptables, by `apply`. Throws portConflict as above. Nobody of ours publishes between the look at the
 * ports of others and the change, because both are under the lock that native changes take.
 */
export function publishByIptables(
  wish: PortsWish,
  isAlive: (owner: Owner) => boolean,
  apply: () => void,
): Moved {
  using nft = findRuleset();
  if (nft === undefined) {
    apply();
    return { lines: [], removed: [] };
  }
  const { before, leftovers, removed } = underLock(() => {
    const foreign = listForeignPorts(nft, seekerOf(wish), wish.ports);
    const before = planHostportsHandover(nft, wish, { isAlive, foreign: foreign.ports });
    const superseded = before.superseded.map(({ node }) => node);
    const removed = removeChains(chainsIn(superseded)); // its own chain is replaced by what is applied
    apply();
    return { before, leftovers: [...foreign.own, ...superseded], removed };
  });
  commitGuarded(nft, (nft) => [
    ...planHostportsHandover(nft, wish, { isAlive, foreign: [] }).commands,
    ...planRules(leftovers),
  ]);
  return describe(before, removed);
}

/** Takes back all that an attachment published, wherever it can be seen over netlink, and tells `afterwards` those ports. */
export function withdrawPorts(
  nft: Nftables,
  attachment: Attachment,
  addresses: readonly Cidr[],
  afterwards: (removed: FlowScope['ports']) => void,
): void {
  const hash = ownerHash(attachment);
  const seeker = { ...attachment, addresses: addresses.map(({ ip }) => ip) };
  let removed: FlowScope['ports'] = [];
  let leftovers: Leftovers = [];
  const plan = (nft: Nftables) => {
    const own = hasHostportsTable(nft)
      ? planHostportsRemoval(nft, ({ ownerHash }) => ownerHash === hash, { commentPrefix: hash })
      : { commands: [], removed: [] };
    leftovers = listForeignPorts(nft, seeker, []).own;
    removed = own.removed;
    return [...own.commands, ...planRules(leftovers)];
  };
  commitGuarded(nft, plan, {
    afterwards: () => afterwards([...removed, ...removeChains(chainsIn(leftovers))]),
  });
}

/** What is not of our own table. */
type Leftovers = readonly (RuleFact | IptablesChain)[];

const NOTHING: Takeover<ForeignPort> = { commands: [], lines: [], removed: [], superseded: [] };

function seekerOf({ attachment, ports }: PortsWish): Parameters<typeof listForeignPorts>[1] {
  return { ...attachment, addresses: ports.map(({ target }) => target) };
}

function underLock<T>(work: () => T): T {
  using _lock = lockHost('nftables');
  return work();
}

function planRules(leftovers: Leftovers): Command[] {
  return leftovers.flatMap((node) => (node.kind === 'rule' ? [delete_(node)] : []));
}

function chainsIn(leftovers: Leftovers): IptablesChain[] {
  return leftovers.flatMap((node) => (node.kind === 'iptables-chain' ? [node] : []));
}

function describe(
  { lines, removed, superseded }: Takeover<ForeignPort>,
  ofIptables: FlowScope['ports'],
): Moved {
  const ofReference = superseded.flatMap(({ target, ...port }) =>
    target === undefined ? [] : [{ ...port, target }],
  );
  return { lines, removed: [...removed, ...ofReference, ...ofIptables] };
}
