// The published ports that the reference plugins leave: its native nftables rules, found for CHECK and removed by DEL in
// the caller's own batch; CHECK takes its iptables chains as well. Called by plugins; it only ever lists a table that
// most hosts don't have.

import type { Attachment } from '../cni/attachment.ts';
import { type Cidr, type Family, type Ip, ipEquals, ipFromBytes, ipToBytes } from '../ip/cidr.ts';
import { type ConditionList, readConditions, readPort } from '../nftables/conditions.ts';
import type { Protocol } from '../nftables/datatypes.ts';
import { decodeExprs } from '../nftables/decode.ts';
import type { Expr } from '../nftables/exprs/expr.ts';
import type { Nftables, RuleFact } from '../nftables/nftables.ts';
import { type Command, delete_, type TableRef } from '../nftables/objects.ts';
import { hasHostports, publishedFamilies } from './hostports.ts';
import {
  addressOf,
  type HostportMapping,
  type HostportsPlan,
  isOfFamily,
  specificHostIp,
} from './hostports-plan.ts';

const TABLES: Readonly<Record<Family, TableRef>> = {
  4: { family: 'ip', name: 'cni_hostport' },
  6: { family: 'ip6', name: 'cni_hostport' },
};

/** The second is left over from releases that told mappings with a host address apart. */
const PORT_CHAINS: readonly string[] = ['hostports', 'hostip_hostports'];
const MASQUERADE_CHAIN = 'masquerading';

/** A hook of the reference's table and where its packets are sent. */
const HOOKS = ['prerouting', 'output'] as const;
const HOOK_TARGET = 'hostports_all';

const PROTOCOL_NUMBERS = { tcp: 6, udp: 17, sctp: 132 } as const;

/** A port as a rule of the reference publishes it; protocol and port are undefined in its other rules. */
export interface ReferencePort {
  readonly rule: RuleFact;
  readonly protocol: Protocol | undefined;
  readonly hostPort: number | undefined;
  readonly conditions: ConditionList;
  /** The container's address: where packets are led, or whose are masqueraded. */
  readonly target: Ip | undefined;
}

/** What the reference's nftables backend has in a family, for whomever: rules that publish and rules that masquerade. */
export function listReferencePorts(nft: Nftables, family: Family): ReferencePort[] {
  return listRulesOf(nft, family).map((rule) => {
    const exprs = decodeExprs(rule.program);
    const { protocol, port: hostPort } = readPort(exprs);
    const conditions = readConditions(exprs, family);
    return { rule, protocol, hostPort, conditions, target: targetOf(exprs) };
  });
}

/**
 * Commands that delete the rules the reference made for an attachment, to be committed under the generation that was
 * read before. Their comment is the container id and nothing else, so only the address a rule leads to tells to which of
 * a container's networks it belongs. With `addresses` those that lead to one of them go; without (nobody knows what the
 * attachment had) all of the container's, because a rule left behind would take the port from whoever gets it next.
 *
 * Equivalent to: `nft delete rule ip cni_hostport hostports handle …`
 */
export function planReferenceHostportsCleanup(
  nft: Nftables,
  attachment: Pick<Attachment, 'containerId'>,
  addresses: readonly Cidr[] | undefined,
): Command[] {
  const ips = addresses?.map(({ ip }) => ip);
  return listRules(nft)
    .filter((rule) => rule.comment === attachment.containerId)
    .filter((rule) => ips === undefined || leadsToAny(rule, ips))
    .map(delete_);
}

/**
 * Whether the reference publishes all that a plan says, each family through its nftables or its iptables backend. CHECK
 * accepts that in place of our own after a node was upgraded. Conditions are compared in iptables alone: in the nftables
 * backend they belong to no attachment. Throws CniError `notAvailable` when there is an iptables chain and no program.
 */
export function hasReferenceHostports(nft: Nftables | undefined, plan: HostportsPlan): boolean {
  return publishedFamilies(plan).every(
    (family) =>
      (nft !== undefined && hasNativeHostports(nft, plan, family)) || hasHostports(nft, plan, family),
  );
}

function hasNativeHostports(nft: Nftables, plan: HostportsPlan, family: Family): boolean {
  const table = TABLES[family];
  const address = addressOf(plan, family);
  const rules = nft.listRules({ table });
  if (rules.length === 0 || address === undefined) return false; // the usual case
  const mappings = plan.mappings.filter((mapping) => isOfFamily(mapping, family));
  const own = rules.filter((rule) => rule.comment === plan.containerId);
  return (
    HOOKS.every((hook) => isHooked(nft, table, hook) && rules.some((rule) => isJump(rule, hook))) &&
    mappings.every((mapping) => own.some((rule) => publishes(rule, mapping, address))) &&
    (!plan.snat || (isHooked(nft, table, MASQUERADE_CHAIN) && masquerades(own, plan, address)))
  );
}

function isHooked(nft: Nftables, table: TableRef, name: string): boolean {
  return nft.findChain({ table, name })?.base?.type === 'nat';
}

function isJump(rule: RuleFact, hook: string): boolean {
  const last = decodeExprs(rule.program).at(-1);
  return (
    rule.chain.name === hook &&
    last?.kind === 'immediate' &&
    'kind' in last.data &&
    last.data.chain === HOOK_TARGET
  );
}

// `ip daddr 192.0.2.7 tcp dport 8443 dnat to 10.22.0.2:443`, the first part only with a host address.
function publishes(rule: RuleFact, mapping: HostportMapping, address: Cidr): boolean {
  if (!PORT_CHAINS.includes(rule.chain.name)) return false;
  const exprs = decodeExprs(rule.program);
  const hostIp = specificHostIp(mapping);
  const target = dnatOf(exprs);
  const compared = [
    ...(hostIp === undefined ? [] : [ipToBytes(hostIp)]),
    Uint8Array.of(PROTOCOL_NUMBERS[mapping.protocol]),
    portBytes(mapping.hostPort),
  ];
  return (
    target !== undefined &&
    sameBytes(target.address, ipToBytes(address.ip)) &&
    sameBytes(target.port, portBytes(mapping.containerPort)) &&
    sameList(comparisonsOf(exprs), compared)
  );
}

// `ip saddr 10.22.0.2 ip daddr 10.22.0.2 masquerade`, and for IPv4 the same from 127.0.0.1. With masqAll the releases
// differ: one rule for every source, or these two.
function masquerades(rules: readonly RuleFact[], plan: HostportsPlan, address: Cidr): boolean {
  const found = rules.filter(({ chain }) => chain.name === MASQUERADE_CHAIN);
  const own = ipToBytes(address.ip);
  const sources = address.ip.family === 4 ? [own, Uint8Array.of(127, 0, 0, 1)] : [own];
  const hasAll = sources.every((source) => found.some((rule) => sameList(comparedBy(rule), [source, own])));
  return hasAll || (plan.masqAll && found.some((rule) => leadsToAny(rule, [address.ip])));
}

function comparedBy(rule: RuleFact): Uint8Array[] {
  return comparisonsOf(decodeExprs(rule.program));
}

/** Most hosts don't have the tables, which one question tells. */
function listRules(nft: Nftables): RuleFact[] {
  const present = nft.listTables();
  return ([4, 6] as const)
    .filter((family) => present.some((table) => isSameTable(table, TABLES[family])))
    .flatMap((family) => listRulesOf(nft, family));
}

function isSameTable(one: TableRef, other: TableRef): boolean {
  return one.family === other.family && one.name === other.name;
}

function listRulesOf(nft: Nftables, family: Family): RuleFact[] {
  return nft
    .listRules({ table: TABLES[family] })
    .filter(({ chain }) => PORT_CHAINS.includes(chain.name) || chain.name === MASQUERADE_CHAIN);
}

function leadsToAny(rule: RuleFact, addresses: readonly Ip[]): boolean {
  const target = targetOf(decodeExprs(rule.program));
  return target !== undefined && addresses.some((address) => ipEquals(address, target));
}

/** The container's address: where a rule translates to, or the destination it masquerades for. */
function targetOf(exprs: readonly Expr[]): Ip | undefined {
  const bytes = dnatOf(exprs)?.address ?? (isMasquerade(exprs) ? comparisonsOf(exprs).at(-1) : undefined);
  return bytes?.length === 4 || bytes?.length === 16 ? ipFromBytes(bytes) : undefined;
}

function isMasquerade(exprs: readonly Expr[]): boolean {
  return exprs.some(({ kind }) => kind === 'masq');
}

/** What the registers hold that a `dnat` takes address and port from. */
function dnatOf(exprs: readonly Expr[]): { address: Uint8Array; port: Uint8Array } | undefined {
  const nat = exprs.find((expr) => expr.kind === 'nat');
  if (nat?.kind !== 'nat') return undefined;
  const address = constantIn(exprs, nat.addrMin);
  const port = constantIn(exprs, nat.protoMin);
  return address === undefined || port === undefined ? undefined : { address, port };
}

function constantIn(exprs: readonly Expr[], register: number | undefined): Uint8Array | undefined {
  const expr = exprs.find((candidate) => candidate.kind === 'immediate' && candidate.dreg === register);
  return expr?.kind === 'immediate' && !('kind' in expr.data) ? expr.data : undefined;
}

/** What the packet is compared with, in order. */
function comparisonsOf(exprs: readonly Expr[]): Uint8Array[] {
  return exprs.flatMap((expr) => (expr.kind === 'cmp' ? [expr.data] : []));
}

function portBytes(port: number): Uint8Array {
  return Uint8Array.of(port >> 8, port & 0xff);
}

function sameList(a: readonly Uint8Array[], b: readonly Uint8Array[]): boolean {
  return a.length === b.length && a.every((bytes, index) => sameBytes(bytes, b[index]));
}

function sameBytes(a: Uint8Array, b: Uint8Array | undefined): boolean {
  return b !== undefined && Buffer.compare(a, b) === 0;
}
