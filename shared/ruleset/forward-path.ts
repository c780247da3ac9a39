// Chains of others on the forward hook that would drop what a container sends or is sent: an accept of ours cannot
// overrule them. Called by the firewall plugin to find out what else this host needs, and to say what it cannot do.
import { type Family, type Ip, ipToBytes } from '../ip/cidr.ts';
import { decodeExprs } from '../nftables/decode.ts';
import type { Expr } from '../nftables/exprs/expr.ts';
import type { ChainFact, Nftables } from '../nftables/nftables.ts';
import type { ChainRef, TableRef } from '../nftables/objects.ts';
import { CT_STATE_NEW, CT_STATUS_DNAT, judgeRule, type Packet } from './packet.ts';
import { TABLE } from './table.ts';

/** Whose packets are tried: the container's addresses, behind a link of this host. */
export interface Passage {
  readonly bridge: string;
  readonly addresses: readonly Ip[];
}

/** A chain that drops a new connection of the container, or to a port of it that this host publishes. */
export interface Obstacle {
  readonly chain: ChainRef;
  readonly family: Family;
}

/** NF_INET_FORWARD of linux/netfilter.h. */
const HOOK_FORWARD = 2;

/**
 * The base chains of other tables on the forward hook that would drop the container's packets, each once per family. A
 * rule that hangs on something else than links, addresses and the state of the flow is passed over: it concerns some
 * packets only. Reads the list of tables, and of each table that may forward as many chains as a packet would come to.
 */
export function findObstacles(nft: Nftables, passage: Passage): Obstacle[] {
  const addresses = passage.addresses.map(ipToBytes);
  const trial: Trial = { hopeful: false, addresses, read: new Map() };
  return listForwardChains(nft).flatMap((chain) =>
    familiesOf(chain.table, passage.addresses).flatMap((family) => {
      const packets = packetsOf(passage, family);
      return packets.some((packet) => isDropped(nft, chain, packet, trial)) ? [{ chain, family }] : [];
    }),
  );
}

/**
 * The base chains of other tables on the forward hook that drop what no rule speaks of and have no rule either that lets
 * the packets of some link or address through: for those who ask before there is a container.
 */
export function findClosedChains(nft: Nftables): ChainRef[] {
  const trial: Trial = { hopeful: true, read: new Map() };
  const unknown = { ctState: CT_STATE_NEW, ctStatus: 0 };
  return listForwardChains(nft).filter((chain) => {
    const families: readonly Family[] =
      chain.table.family === 'inet' ? [4, 6] : [chain.table.family === 'ip6' ? 6 : 4];
    return families.some((family) => isDropped(nft, chain, { family, ...unknown }, trial));
  });
}

/**
 * Names the chain and the line that lets the bridge's containers through: their own connections, answers, and published
 * ports. Without a bridge its name is left for the reader to fill in.
 */
export function explainObstacle(chain: ChainRef, bridge = 'BRIDGE'): string {
  const where = `${chain.table.family} ${chain.table.name} ${chain.name}`;
  const what = `Chain "${chain.name}" of table "${chain.table.family} ${chain.table.name}" drops forwarded packets of containers`;
  if (!/^[A-Za-z0-9_./ -]+$/.test(where)) {
    return `${what}; add rules there that accept what comes from and goes to "${bridge}"`;
  }
  const rules = [
    `iifname "${bridge}" accept`,
    `oifname "${bridge}" ct state established,related accept`,
    `oifname "${bridge}" ct status dnat accept`,
  ];
  return `${what}; let them through: nft '${rules.map((rule) => `insert rule ${where} ${rule}`).join('; ')}'`;
}

/** Base chains on the hook, without ours. Tables that translate addresses, of which some have thousands of chains, drop nothing. */
function listForwardChains(nft: Nftables): ChainFact[] {
  const tables = nft.listTables().filter(({ family, name }) => {
    const isOurs = family === TABLE.family && name === TABLE.name;
    const isOfIptables = family !== 'inet' && ['nat', 'raw', 'mangle', 'security'].includes(name);
    return ['inet', 'ip', 'ip6'].includes(family) && !isOurs && !isOfIptables;
  });
  return tables
    .flatMap((table) => forwardChainsOf(nft, table))
    .filter(({ base }) => base?.hook === HOOK_FORWARD && base.type === 'filter');
}

/** iptables knows one chain of that kind, by a name of its own. */
function forwardChainsOf(nft: Nftables, table: TableRef): ChainFact[] {
  if (table.family === 'inet' || table.name !== 'filter') {
    return nft.listChains(table);
  }
  const found = nft.findChain({ table, name: 'FORWARD' });
  return found === undefined ? nft.listChains(table) : [found];
}

function familiesOf({ family }: TableRef, addresses: readonly Ip[]): Family[] {
  const seen = family === 'inet' ? [4, 6] : [family === 'ip6' ? 6 : 4];
  return ([4, 6] as const).filter(
    (candidate) => seen.includes(candidate) && addresses.some((ip) => ip.family === candidate),
  );
}

/** A new connection from each address, and one to it that this host has redirected. */
function packetsOf({ bridge, addresses }: Passage, family: Family): Packet[] {
  return addresses
    .filter((address) => address.family === family)
    .flatMap((address) => [
      { family, iifname: bridge, saddr: address, ctState: CT_STATE_NEW, ctStatus: 0 },
      { family, oifname: bridge, daddr: address, ctState: CT_STATE_NEW, ctStatus: CT_STATUS_DNAT },
    ]);
}

interface Trial {
  /** What is unknown is taken to fit rules that accept. */
  readonly hopeful: boolean;
  /** Undefined for any. */
  readonly addresses?: readonly Uint8Array[];
  /** Chains as far as they were read, with their rules' expressions. */
  readonly read: Map<string, readonly Expr[][]>;
}

function isDropped(nft: Nftables, chain: ChainFact, packet: Packet, trial: Trial): boolean {
  const verdict = walk(nft, chain, packet, trial);
  return verdict === 'drop' || (verdict === undefined && chain.base?.policy === 'drop');
}

/** What becomes of the packet in the chain; undefined when it comes out at its end. */
function walk(nft: Nftables, chain: ChainRef, packet: Packet, trial: Trial): 'accept' | 'drop' | undefined {
  for (const exprs of rulesOf(nft, chain, trial)) {
    const { fits, verdict } = judgeRule(nft, chain.table, exprs, packet);
    const isCertain = fits === true;
    const isPossible = fits === undefined && trial.hopeful;
    if (verdict?.code === 'accept' && (isCertain || isPossible)) return 'accept';
    if (verdict?.code === 'drop' && isCertain) return 'drop';
    if (verdict?.code === 'return' && isCertain) return undefined;
    if (verdict?.chain !== undefined && (isCertain || isPossible)) {
      const outcome = walk(nft, { table: chain.table, name: verdict.chain }, packet, trial);
      const isFinal = outcome === 'accept' || (outcome === 'drop' && isCertain);
      if (isFinal) return outcome;
      if (verdict.code === 'goto' && isCertain) return undefined;
    }
  }
  return undefined;
}

function rulesOf(nft: Nftables, chain: ChainRef, { read, addresses }: Trial): readonly Expr[][] {
  const { table, name } = chain;
  const key = `${table.family} ${table.name} ${name}`;
  let known = read.get(key);
  if (known === undefined) {
    const isWanted = addresses !== undefined && isListOfAddresses(chain) ? aboutOneOf(addresses) : undefined;
    known = nft.listRules({ table, chain: name, isWanted }).map(({ program }) => decodeExprs(program));
    read.set(key, known);
  }
  return known;
}

/** The chain with three rules for each container of the host: only those of one container need be decoded. */
function isListOfAddresses({ table, name }: ChainRef): boolean {
  return table.name === 'filter' && name === 'CNI-FORWARD';
}

/** A rule that holds one of the addresses, or looks at no address. */
function aboutOneOf(addresses: readonly Uint8Array[]): (message: Buffer) => boolean {
  return (message) => !message.includes('payload') || addresses.some((address) => message.includes(address));
}
