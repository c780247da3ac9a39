// Containers let through the chain FORWARD in the reference's iptables format: made where its policy would drop them or
// the config asks for it, looked up by CHECK, and removed wherever the reference or we left it. Called by firewall.

import { checkFailed } from '../cni/error.ts';
import { lockHost } from '../cni/host-lock.ts';
import { type Family, type Ip, ipToBytes } from '../ip/cidr.ts';
import { NFT_CMP_EQ } from '../nftables/constants.ts';
import { decodeExprs } from '../nftables/decode.ts';
import type { Expr } from '../nftables/exprs/expr.ts';
import type { Nftables, RuleFact } from '../nftables/nftables.ts';
import { type Command, delete_ } from '../nftables/objects.ts';
import {
  encodeAddition,
  encodeForwardRemoval,
  encodeUsualAddition,
  expectPlainBridge,
  FORWARD_CHAIN,
  type ForwardWish,
  familiesOf,
  findForwardDifference,
  STAGE_1,
  STAGE_2,
} from './forward-plan.ts';
import { changeTable, findProgramFor, type IptablesTable, readTable, restoreTable } from './programs.ts';
import { findTables, hasLegacyTable, nftablesTable } from './tables.ts';

export type { ForwardWish } from './forward-plan.ts';
export { expectPlainBridge } from './forward-plan.ts';

/**
 * Lets the addresses through in the tables given, one iptables-restore a table where the shared chains are there already.
 * Repeating it changes nothing. Throws CniError `notAvailable` when the program is missing, `tryAgainLater` when another
 * process keeps the lock for 30 s, Error naming the chain when the program refuses.
 *
 * Equivalent to: `iptables -A CNI-FORWARD -s 10.22.0.2/32 -j ACCEPT`, and the rest of the format.
 */
export function addForward(
  nft: Nftables | undefined,
  wish: ForwardWish,
  tables: readonly IptablesTable[],
): void {
  expectPlainBridge(wish);
  for (const table of tables) {
    const isNew = wish.ingress === undefined && !isNamed(nft, table.family, wish.addresses);
    if (isNew && restoreTable(table, encodeUsualAddition(wish, table.family)).applied) {
      continue;
    }
    using _lock = lockHost('iptables'); // two that miss the same jump must not both make it
    changeTable(table, {
      encode: (saved) => encodeAddition(wish, table.family, saved),
      failure: `Cannot add rules to chain "${FORWARD_CHAIN}"`,
    });
  }
}

/** The tables in which the host's own iptables lets the wish's addresses through. */
export function defaultTables(wish: ForwardWish): IptablesTable[] {
  return familiesOf(wish).map((family) => ({ name: 'filter', family, flavour: 'default' }));
}

/** Throws CniError `checkFailed` naming the first rule that is missing in one of the tables, or against the policy. */
export function expectForward(wish: ForwardWish, tables: readonly IptablesTable[]): void {
  for (const table of tables) {
    const difference = findForwardDifference(wish, table.family, readTable(table));
    if (difference !== undefined) {
      throw checkFailed(`In table filter of IPv${table.family}, ${difference}`);
    }
  }
}

/** Whether rules of this format let all addresses through, in either iptables: an attachment from before an upgrade. */
export function hasForward(nft: Nftables | undefined, wish: ForwardWish): boolean {
  const tables = findForward(nft, wish.addresses);
  return familiesOf(wish).every((family) =>
    tables.some(
      (table) =>
        table.family === family && findForwardDifference(wish, family, readTable(table)) === undefined,
    ),
  );
}

/**
 * Commands that delete all rules of iptables-nft which let the addresses through, whoever made them, and the ingress rules
 * of the bridges. Such rules are rules of nf_tables, so no program has to run, and they go in one batch with whatever else
 * goes. Shared chains and jumps stay: another ADD may be about to use them. `isFree` is asked for addresses that such a
 * rule names: whether nobody else has it now.
 *
 * Equivalent to: `iptables -D CNI-FORWARD -s 10.22.0.2/32 -j ACCEPT`, and the rest of the format.
 */
export function planForwardRemoval(
  nft: Nftables,
  addresses: readonly Ip[],
  bridges: readonly string[],
  isFree: (ip: Ip) => boolean = () => true,
): Command[] {
  return ([4, 6] as const).flatMap((family) => {
    const own = addresses.filter((ip) => ip.family === family);
    const accepts = own.flatMap((ip) => {
      const rules = listAccepts(nft, family, [ip]);
      return rules.length > 0 && isFree(ip) ? rules : [];
    });
    const table = nftablesTable('filter', family);
    const ingress =
      bridges.length === 0
        ? []
        : [STAGE_1, STAGE_2]
            .flatMap((chain) => nft.listRules({ table, chain }))
            .filter((rule) => bridges.some((name) => isAbout(rule, name)));
    return [...accepts, ...ingress].map(delete_);
  });
}

/** Bridges with ingress rules in iptables-nft, of those given. */
export function bridgesWithIngress(nft: Nftables, bridges: readonly string[]): string[] {
  const rules = ([4, 6] as const).flatMap((family) =>
    nft.listRules({ table: nftablesTable('filter', family), chain: STAGE_2 }),
  );
  return bridges.filter((bridge) => rules.some((rule) => isAbout(rule, bridge)));
}

/**
 * The same for legacy tables, where a program has to do it; none runs where there is no such table. Throws as `addForward`
 * does.
 */
export function removeLegacyForward(addresses: readonly Ip[], bridges: readonly string[]): void {
  for (const table of findTables('filter', undefined, () => false)) {
    changeTable(table, {
      encode: (saved) => encodeForwardRemoval(addresses, bridges, table.family, saved),
      failure: `Cannot remove rules from chain "${FORWARD_CHAIN}"`,
    });
  }
}

/** Families whose legacy table drops what no rule speaks of in FORWARD; takes a program where there is such a table. */
export function findLegacyDrops(addresses: readonly Ip[]): IptablesTable[] {
  return ([4, 6] as const)
    .filter((family) => addresses.some((ip) => ip.family === family) && hasLegacyTable('filter', family))
    .map((family): IptablesTable => ({ name: 'filter', family, flavour: 'legacy' }))
    .filter((table) => isForwardDropped(table));
}

/** Whether the program that writes the table is installed. */
export function isWritable(table: IptablesTable): boolean {
  return findProgramFor(table, 'restore') !== undefined;
}

function isForwardDropped(table: IptablesTable): boolean {
  const { policies, rules } = readTable(table);
  const last = rules.filter(({ chain }) => chain === 'FORWARD').at(-1);
  return policies.get('FORWARD') === 'DROP' || /^-j (DROP|REJECT)\b/.test(last?.spec ?? '');
}

function findForward(nft: Nftables | undefined, addresses: readonly Ip[]): IptablesTable[] {
  return findTables('filter', nft, (open, _, family) => isNamed(open, family, addresses));
}

/** Whether a rule of the chain lets one of the addresses through, as far as nf_tables knows. */
function isNamed(nft: Nftables | undefined, family: Family, addresses: readonly Ip[]): boolean {
  const own = addresses.filter((ip) => ip.family === family);
  return nft !== undefined && listAccepts(nft, family, own).length > 0;
}

/** The rules of the chain that let one of the addresses through. Most are about others, and not even decoded. */
function listAccepts(nft: Nftables, family: Family, addresses: readonly Ip[]): RuleFact[] {
  if (addresses.length === 0) {
    return [];
  }
  const keys = addresses.map(ipToBytes);
  const isWanted = (message: Buffer) => keys.some((key) => message.includes(key));
  const table = nftablesTable('filter', family);
  return nft.listRules({ table, chain: FORWARD_CHAIN, isWanted }).filter((rule) => letsThrough(rule, keys));
}

/** Whether a rule accepts what comes from or goes to one of the addresses, and asks for nothing else but the flow's state. */
function letsThrough({ program }: RuleFact, keys: readonly Uint8Array[]): boolean {
  const exprs = decodeExprs(program);
  const compared = exprs.flatMap((expr) => (expr.kind === 'cmp' ? [expr.data] : []));
  const last = exprs.at(-1);
  const accepts = last?.kind === 'immediate' && 'kind' in last.data && last.data.code === 'accept';
  const isOfOneAddress = exprs.filter(({ kind }) => kind === 'payload').length === 1;
  const isOfKey = compared.some((data) => keys.some((key) => Buffer.compare(key, data) === 0));
  return accepts && isOfOneAddress && isOfKey && exprs.every(isOfFormat);
}

/** The expressions of which iptables-nft makes the rules of an address; newer releases write `ct` where others match. */
function isOfFormat(expr: Expr): boolean {
  if (expr.kind === 'xt') {
    return expr.role === 'match' && ['conntrack', 'comment'].includes(expr.name);
  }
  return expr.kind === 'unknown'
    ? expr.name === 'counter'
    : ['payload', 'cmp', 'ct', 'bitwise', 'immediate'].includes(expr.kind);
}

/** Whether the first thing that a rule compares is the whole name of the link. */
function isAbout({ program }: RuleFact, bridge: string): boolean {
  const [first, second] = decodeExprs(program);
  const name = Buffer.from(`${bridge}\0`);
  return (
    first?.kind === 'meta' &&
    second?.kind === 'cmp' &&
    second.op === NFT_CMP_EQ &&
    Buffer.compare(second.data.subarray(0, name.length), name) === 0
  );
}
