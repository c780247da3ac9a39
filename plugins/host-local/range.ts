// The ranges of a host-local network as plain values: what they hold, in which order, and where two overlap.
// Pure; config.ts makes them from a config, the allocator walks them, STATUS counts them.
import { invalidConfig, quote } from '../../shared/cni/error.ts';
import {
  addToIp,
  broadcastOf,
  type Cidr,
  compareIp,
  contains,
  type Family,
  formatCidr,
  formatIp,
  type Ip,
  ipEquals,
  lastOf,
  networkOf,
} from '../../shared/ip/cidr.ts';

/** A range as a config words it. */
export interface RangeSpec {
  readonly subnet: Cidr;
  readonly rangeStart: Ip | undefined;
  readonly rangeEnd: Ip | undefined;
  readonly gateway: Ip | undefined;
}

/** A range with nothing left open: every address from `start` to `end`, both included, except the gateway. */
export interface Range {
  readonly subnet: Cidr;
  readonly start: Ip;
  readonly end: Ip;
  /** May lie outside the subnet; the host has it, so it is never handed out from this range. */
  readonly gateway: Ip;
}

/** The pool one address is taken from: ranges of one family, tried in this order. */
export type RangeSet = readonly [Range, ...Range[]];

/** An address that may be handed out, and the range it was found in. */
export interface Candidate {
  readonly ip: Ip;
  readonly range: Range;
}

/**
 * Fills in what the config left open: the gateway is the first address of the network, the range goes from there to
 * the last one. The network and broadcast address of an IPv4 subnet are no addresses of a container (RFC 922,
 * section 7), so a range that names them as its bounds begins and ends beside them.
 * `where` names the range in errors. Throws invalidConfig.
 */
export function canonicalRange(spec: RangeSpec, where: string): Range {
  const { subnet } = spec;
  expectUsableSubnet(subnet, where);
  const start = spec.rangeStart ?? addToIp(subnet.ip, 1n);
  const end = spec.rangeEnd ?? lastAddressOf(subnet);
  expectInside(subnet, start, `${where}.rangeStart`);
  expectInside(subnet, end, `${where}.rangeEnd`);
  if (compareIp(start, end) > 0) {
    throw invalidConfig(`Invalid "${where}": the range starts at ${text(start)}, after its end ${text(end)}`);
  }
  const gateway = spec.gateway ?? addToIp(subnet.ip, 1n);
  if (gateway.family !== subnet.ip.family) {
    throw invalidConfig(
      `Invalid "${where}.gateway" ${text(gateway)}: the subnet ${quote(formatCidr(subnet))} is IPv${subnet.ip.family}`,
    );
  }
  return withoutEdges({ subnet, start, end, gateway }, where);
}

/** The range of the set that holds the address. */
export function findRange(set: RangeSet, ip: Ip): Range | undefined {
  return set.find((range) => isInRange(range, ip));
}

/**
 * Every address of the set once, in the order of the round robin: it goes on after `last`, the address handed out
 * last, and comes to that one at the very end; without one, or with one outside the set, it begins at the beginning.
 */
export function* candidatesAfter(set: RangeSet, last: Ip | undefined): Generator<Candidate, void> {
  const current = last === undefined ? -1 : set.findIndex((range) => isInRange(range, last));
  const home = set[current];
  if (last === undefined || home === undefined) {
    for (const range of set) yield* addressesOf(range, range.start.value, range.end.value);
    return;
  }
  yield* addressesOf(home, last.value + 1n, home.end.value);
  for (const range of [...set.slice(current + 1), ...set.slice(0, current)]) {
    yield* addressesOf(range, range.start.value, range.end.value);
  }
  yield* addressesOf(home, home.start.value, last.value);
}

/** How many addresses the set can hand out. */
export function countAddresses(set: RangeSet): bigint {
  let count = 0n;
  for (const range of set) {
    count += range.end.value - range.start.value + 1n;
    if (isInRange(range, range.gateway)) count -= 1n;
  }
  return count;
}

export function familyOf(set: RangeSet): Family {
  return set[0].subnet.ip.family;
}

/** `10.1.0.2-10.1.0.6,10.2.0.2-10.2.0.6`: how messages name a set. */
export function formatRangeSet(set: RangeSet): string {
  return set.map((range) => `${formatIp(range.start)}-${formatIp(range.end)}`).join(',');
}

/** The count in digits, or as a power of two where digits tell nobody anything. */
export function formatCount(count: bigint): string {
  return count < 1_000_000_000n ? String(count) : `about 2^${Math.round(Math.log2(Number(count)))}`;
}

/** Where a range stands among all of them. */
export interface RangePlace {
  readonly set: number;
  readonly range: Range;
}

/**
 * Two ranges that share an address, if there are any. Sorted first, because a config can hold thousands of ranges
 * and comparing each with each would take minutes.
 */
export function findOverlap(sets: readonly RangeSet[]): [RangePlace, RangePlace] | undefined {
  const places = sets.flatMap((set, index) => set.map((range): RangePlace => ({ set: index, range })));
  places.sort(
    (a, b) => a.range.start.family - b.range.start.family || compareIp(a.range.start, b.range.start),
  );
  for (const [position, place] of places.entries()) {
    const next = places[position + 1];
    if (next !== undefined && overlaps(place.range, next.range)) return [place, next];
  }
  return undefined;
}

// The longest prefixes that leave room for a gateway and a container: include/linux/inetdevice.h treats /31 and /32
// as point to point, and the reference refuses them too.
const LONGEST_PREFIX = { 4: 30, 6: 126 } as const;

function expectUsableSubnet(subnet: Cidr, where: string): void {
  const shown = `Invalid "${where}.subnet" ${quote(formatCidr(subnet))}`;
  const longest = LONGEST_PREFIX[subnet.ip.family];
  if (subnet.prefix > longest) {
    throw invalidConfig(`${shown}: the network is too small, its prefix must not be longer than /${longest}`);
  }
  const network = networkOf(subnet);
  if (!ipEquals(network.ip, subnet.ip)) {
    throw invalidConfig(`${shown}: host bits are set, the network address is ${quote(formatCidr(network))}`);
  }
}

function lastAddressOf(subnet: Cidr): Ip {
  return subnet.ip.family === 4 ? addToIp(broadcastOf(subnet), -1n) : lastOf(subnet);
}

function expectInside(subnet: Cidr, ip: Ip, where: string): void {
  if (ip.family === subnet.ip.family && contains(subnet, ip)) return;
  throw invalidConfig(`Invalid "${where}" ${text(ip)}: it is not in network ${quote(formatCidr(subnet))}`);
}

function withoutEdges(range: Range, where: string): Range {
  const { subnet } = range;
  if (subnet.ip.family === 6) return range;
  const start = ipEquals(range.start, subnet.ip) ? addToIp(range.start, 1n) : range.start;
  const end = ipEquals(range.end, broadcastOf(subnet)) ? addToIp(range.end, -1n) : range.end;
  if (compareIp(start, end) > 0) {
    throw invalidConfig(
      `Invalid "${where}": the range holds nothing but the network or broadcast address of ${quote(formatCidr(subnet))}`,
    );
  }
  return { ...range, start, end };
}

function isInRange(range: Range, ip: Ip): boolean {
  return ip.family === range.start.family && ip.value >= range.start.value && ip.value <= range.end.value;
}

// Counts in numbers and not in addresses: there is none after the last one of all.
function* addressesOf(range: Range, first: bigint, last: bigint): Generator<Candidate, void> {
  const { family } = range.start;
  for (let value = first; value <= last; value += 1n) {
    const ip = { family, value };
    if (!ipEquals(ip, range.gateway)) yield { ip, range };
  }
}

function overlaps(a: Range, b: Range): boolean {
  return isInRange(a, b.start) || isInRange(b, a.start);
}

function text(ip: Ip): string {
  return quote(formatIp(ip));
}
