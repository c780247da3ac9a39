// Which host ports stand in each other's way: the same port twice, or one on every address and one on a single one.
// Called by config.ts for the ports of one request.
import type { HostPort } from './port-mapping.ts';

/** Two ports that one packet could be meant for. */
export interface Overlap<P> {
  readonly earlier: P;
  readonly later: P;
}

/** The first port of a list that overlaps an earlier one. Takes one or two look-ups a port, however many there are. */
export function findOverlap<P extends HostPort>(ports: readonly P[]): Overlap<P> | undefined {
  const index: PortIndex<P> = new Map();
  for (const later of ports) {
    const key = `${later.family} ${later.protocol} ${later.hostPort}`;
    const same = index.get(key);
    const earlier = same && findEarlier(same, later);
    if (earlier !== undefined) return { earlier, later };
    const byAddress = same?.byAddress ?? new Map<bigint | undefined, P>();
    index.set(key, { first: same?.first ?? later, byAddress: byAddress.set(later.hostIp?.value, later) });
  }
  return undefined;
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
