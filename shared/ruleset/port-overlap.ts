// Which host ports stand in each other's way: one packet could be meant for both. The one place that decides it, for the
// ports of a request, for those of several attachments, and for what other formats publish.
import type { Family, Ip } from '../ip/cidr.ts';
import { areExclusive, type ConditionList } from '../nftables/conditions.ts';
import type { Protocol } from '../nftables/datatypes.ts';

/** A port of the host in one family. */
export interface HostPort {
  readonly family: Family;
  readonly protocol: Protocol;
  /** The only address that is meant; undefined for every address of the family. */
  readonly hostIp: Ip | undefined;
  readonly hostPort: number;
}

/** A port of the host and which of the packets for it are taken. */
export interface PortClaim extends HostPort {
  /** Alternatives, one of which a packet must fulfil besides; none of them: any packet will do. */
  readonly conditions: readonly ConditionList[];
}

/** Two ports that one packet could be meant for. */
export interface Overlap<P> {
  readonly earlier: P;
  readonly later: P;
}

/** The first port of a list that overlaps an earlier one. Takes one or two look-ups a port, however many there are. */
export function findOverlap<P extends HostPort>(ports: readonly P[]): Overlap<P> | undefined {
  const index: PortIndex<P> = new Map();
  for (const later of ports) {
    const key = portKey(later);
    const same = index.get(key);
    const earlier = same && findEarlier(same, later);
    if (earlier !== undefined) return { earlier, later };
    const byAddress = same?.byAddress ?? new Map<bigint | undefined, P>();
    index.set(key, { first: same?.first ?? later, byAddress: byAddress.set(later.hostIp?.value, later) });
  }
  return undefined;
}

/** What ports must share to be in each other's way at all. */
export function portKey({ family, protocol, hostPort }: HostPort): string {
  return `${family} ${protocol} ${hostPort}`;
}

/** Whether a packet could be meant for both. An address and a condition on the destination are the same to a packet. */
export function areInEachOthersWay(one: PortClaim, other: PortClaim): boolean {
  if (portKey(one) !== portKey(other)) return false;
  return listsOf(one).some((a) => listsOf(other).some((b) => !areExclusive(a, b)));
}

function listsOf({ family, hostIp, conditions }: PortClaim): readonly ConditionList[] {
  const alternatives = conditions.length === 0 ? [[]] : conditions;
  if (hostIp === undefined) return alternatives;
  const cidr = { ip: hostIp, prefix: family === 4 ? 32 : 128 };
  return alternatives.map((list) => [...list, { kind: 'daddr', cidr, negated: false }]);
}

/** The ports of one number, protocol and family; the address of one on every address is undefined. */
interface SamePort<P> {
  readonly first: P;
  readonly byAddress: Map<bigint | undefined, P>;
}

type PortIndex<P> = Map<string, SamePort<P>>;

function findEarlier<P extends HostPort>({ first, byAddress }: SamePort<P>, later: HostPort): P | undefined {
  return later.hostIp === undefined ? first : (byAddress.get(undefined) ?? byAddress.get(later.hostIp.value));
}
