// What masquerades a container in the reference's iptables format, and the iptables-restore text that makes, repairs
// or removes it. Called by masquerade.ts, pure: text is built from checked names and formatted addresses alone, or
// repeats what iptables-save printed.

import { type Cidr, contains, type Family, formatCidr, formatIp, networkOf, parseCidr } from '../ip/cidr.ts';
import { type ChainOwner, masqueradeChain, masqueradeComment } from './names.ts';
import { commentMatch, encodeTable, type SavedRule, type SavedTable } from './save-format.ts';

/** A wish: these addresses of a container are masqueraded unless they talk to their own subnets. */
export interface MasqueradePlan extends ChainOwner {
  readonly chain: string;
  readonly comment: string;
  /** Host bits kept: address and subnet in one. */
  readonly addresses: readonly Cidr[];
}

/** Whose addresses go. `addresses` undefined: all of the chain's; `keep` names those that stay all the same. */
export interface RemovalScope {
  readonly addresses?: readonly Cidr[] | undefined;
  readonly keep?: readonly Cidr[] | undefined;
}

const EVERYTHING_BUT_MULTICAST = { 4: '! -d 224.0.0.0/4', 6: '! -d ff00::/8' } as const;
const FULL_PREFIX = { 4: 32, 6: 128 } as const;

/** Decides the masquerade of one attachment. Throws Error when a name breaks its grammar. */
export function planMasquerade(wish: ChainOwner & { readonly addresses: readonly Cidr[] }): MasqueradePlan {
  const { network, containerId, addresses } = wish;
  const owner = { network, containerId };
  return { ...owner, chain: masqueradeChain(owner), comment: masqueradeComment(owner), addresses };
}

/** The families a plan speaks of, IPv4 first. */
export function familiesOf(plan: Pick<MasqueradePlan, 'addresses'>): Family[] {
  return ([4, 6] as const).filter((family) => addressesOf(plan, family).length > 0);
}

/**
 * iptables-restore text that makes the chain of one family. It fails as a whole, changing nothing, where the chain
 * exists: that spares the usual ADD a look at the table.
 *
 * Equivalent to: `iptables -t nat -N CNI-…`, an ACCEPT a subnet, MASQUERADE, and a jump an address.
 */
export function encodeNewChain(plan: MasqueradePlan, family: Family): string {
  const addresses = addressesOf(plan, family);
  const accepts = unique(addresses.map((address) => accept(plan, address)));
  return encodeTable([
    `-N ${plan.chain}`,
    ...accepts.map((rule) => `-A ${plan.chain} ${rule}`),
    `-A ${plan.chain} ${masquerade(plan, family)}`,
    ...unique(addresses.map((address) => jump(plan, address))).map((rule) => `-A POSTROUTING ${rule}`),
  ]);
}

/**
 * iptables-restore text that brings a chain that exists to what the plan wants beside what others of the container
 * want, undefined when nothing is missing. Every ACCEPT comes before MASQUERADE, also one the reference put behind it;
 * rules are inserted rather than rewritten, so that two attachments made at once can't undo each other.
 */
export function encodeRepair(plan: MasqueradePlan, family: Family, saved: SavedTable): string | undefined {
  const rules = saved.rules.filter((rule) => rule.chain === plan.chain);
  const masqueradeAt = rules.findIndex((rule) => rule.target === 'MASQUERADE');
  const late = masqueradeAt < 0 ? [] : rules.slice(masqueradeAt).filter((rule) => rule.target === 'ACCEPT');
  const addresses = addressesOf(plan, family);
  const subnets = uniqueBy(addresses.map(networkOf), formatCidr);
  const commands = [
    ...late.map((rule) => `-D ${plan.chain} ${rule.spec}`),
    ...late.map((rule) => `-I ${plan.chain} ${rule.spec}`),
    ...subnets
      .filter((subnet) => !rules.some((rule) => isAcceptOf(rule, subnet)))
      .map((subnet) => `-I ${plan.chain} ${accept(plan, subnet)}`),
    ...(masqueradeAt < 0 ? [`-A ${plan.chain} ${masquerade(plan, family)}`] : []),
    ...uniqueBy(addresses, formatHost)
      .filter((address) => !saved.rules.some((rule) => isJumpOf(rule, plan.chain, address)))
      .map((address) => `-A POSTROUTING ${jump(plan, address)}`),
  ];
  return commands.length === 0 ? undefined : encodeTable(commands);
}

/** The first thing a plan wants and a listing lacks, in words, undefined when all is there. */
export function findMissing(plan: MasqueradePlan, family: Family, saved: SavedTable): string | undefined {
  if (!saved.chains.includes(plan.chain)) return `chain "${plan.chain}"`;
  const rules = saved.rules.filter((rule) => rule.chain === plan.chain);
  const masqueradeAt = rules.findIndex((rule) => rule.target === 'MASQUERADE');
  if (masqueradeAt < 0) return `the masquerade rule of chain "${plan.chain}"`;
  for (const address of addressesOf(plan, family)) {
    const subnet = networkOf(address);
    if (!saved.rules.some((rule) => isJumpOf(rule, plan.chain, address))) {
      return `the jump of address "${formatIp(address.ip)}" to chain "${plan.chain}"`;
    }
    if (!rules.some((rule) => isAcceptOf(rule, subnet))) {
      return `the exception of subnet "${formatCidr(subnet)}" in chain "${plan.chain}"`;
    }
  }
  return undefined;
}

/**
 * iptables-restore text that removes a chain which holds what the plan says and nothing of another attachment. It
 * fails as a whole, changing nothing, where that isn't so: that spares the usual DEL a look at the table.
 *
 * Equivalent to: `iptables -t nat -D POSTROUTING … -j CNI-…`, `-F CNI-…`, `-X CNI-…`
 */
export function encodeUsualRemoval(plan: MasqueradePlan, family: Family): string {
  const jumps = unique(addressesOf(plan, family).map((address) => jump(plan, address)));
  return encodeTable([
    ...jumps.map((rule) => `-D POSTROUTING ${rule}`),
    `-F ${plan.chain}`,
    `-X ${plan.chain}`,
  ]);
}

/**
 * iptables-restore text that removes the jumps in scope, and the chain when no jump is left; undefined when a listing
 * holds nothing of it. Jumps are known by their target, so every spelling of the source goes, `-s IP` as well as the
 * historic `-s IP/prefix`.
 */
export function encodeRemoval(chain: string, saved: SavedTable, scope: RemovalScope): string | undefined {
  const jumps = saved.rules.filter((rule) => rule.target === chain);
  const going = jumps.filter((rule) => isInScope(rule, scope));
  const staying = jumps.filter((rule) => !going.includes(rule));
  const declared = saved.chains.includes(chain);
  if (going.length === 0 && (!declared || staying.length > 0)) return undefined;
  const commands = going.map((rule) => `-D ${rule.chain} ${rule.spec}`);
  if (staying.length === 0 && declared) return encodeTable([...commands, `-F ${chain}`, `-X ${chain}`]);
  const idle = saved.rules.filter((rule) => rule.chain === chain && isIdleAccept(rule, staying));
  return encodeTable([...commands, ...idle.map((rule) => `-D ${chain} ${rule.spec}`)]);
}

function isInScope(rule: SavedRule, { addresses, keep }: RemovalScope): boolean {
  if (keep?.some((address) => isSource(rule, address))) return false;
  return addresses === undefined || addresses.some((address) => isSource(rule, address));
}

function isSource(rule: SavedRule, address: Cidr): boolean {
  return isSame(rule.source, hostOf(address)) || isSame(rule.source, networkOf(address));
}

// The exception of a subnet that none of the remaining addresses lies in.
function isIdleAccept(rule: SavedRule, staying: readonly SavedRule[]): boolean {
  const subnet = rule.target === 'ACCEPT' ? parseSaved(rule.destination) : undefined;
  if (subnet === undefined) return false;
  return !staying.some((other) => {
    const source = parseSaved(other.source);
    return source !== undefined && contains(subnet, source.ip);
  });
}

function isAcceptOf(rule: SavedRule, subnet: Cidr): boolean {
  return rule.target === 'ACCEPT' && isSame(rule.destination, subnet);
}

function isJumpOf(rule: SavedRule, chain: string, address: Cidr): boolean {
  return rule.chain === 'POSTROUTING' && rule.target === chain && isSame(rule.source, hostOf(address));
}

function isSame(saved: string | undefined, cidr: Cidr): boolean {
  const found = parseSaved(saved);
  return found !== undefined && formatCidr(found) === formatCidr(cidr);
}

function parseSaved(text: string | undefined): Cidr | undefined {
  if (text === undefined) return undefined;
  try {
    return parseCidr(text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`);
  } catch {
    return undefined; // not a rule of this format: a mask that is no prefix
  }
}

function jump(plan: MasqueradePlan, address: Cidr): string {
  return `-s ${formatHost(address)} ${commentMatch(plan.comment)} -j ${plan.chain}`;
}

function accept(plan: MasqueradePlan, address: Cidr): string {
  return `-d ${formatCidr(networkOf(address))} ${commentMatch(plan.comment)} -j ACCEPT`;
}

function masquerade(plan: MasqueradePlan, family: Family): string {
  return `${EVERYTHING_BUT_MULTICAST[family]} ${commentMatch(plan.comment)} -j MASQUERADE`;
}

function formatHost(address: Cidr): string {
  return formatCidr(hostOf(address));
}

function hostOf(address: Cidr): Cidr {
  return { ip: address.ip, prefix: FULL_PREFIX[address.ip.family] };
}

function addressesOf(plan: Pick<MasqueradePlan, 'addresses'>, family: Family): Cidr[] {
  return plan.addresses.filter((address) => address.ip.family === family);
}

function unique(texts: readonly string[]): string[] {
  return [...new Set(texts)];
}

function uniqueBy(addresses: readonly Cidr[], key: (address: Cidr) => string): Cidr[] {
  return [...new Map(addresses.map((address) => [key(address), address])).values()];
}
