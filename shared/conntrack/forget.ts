// Which flows a change of published ports makes stale. Pure: portmap lists the flows by `filtersOf`, has them judged by
// `flowsToForget`, and deletes those.
import { type Family, type Ip, ipEquals } from '../ip/cidr.ts';
import type { Flow, FlowFilter, FlowProtocol } from './flow.ts';

/** A published port, as far as flows to it are concerned. */
export interface PublishedPort {
  readonly protocol: FlowProtocol;
  readonly hostPort: number;
  /** The one address it is published on; absent: any address of `families`. */
  readonly hostIp?: Ip | undefined;
  readonly families: readonly Family[];
}

export interface ForgetOptions {
  readonly mappings: readonly PublishedPort[];
  /**
   * Whether packets to the address are for this host: its route is of type RTN_LOCAL. Asked last, and only about
   * destinations of flows that match in all else; often several times about one.
   */
  readonly isLocal: (ip: Ip) => boolean;
  /** The addresses of the container: only flows that it answers are meant. Absent: whoever answers. */
  readonly replySource?: readonly Ip[] | undefined;
}

/** What to list for `flowsToForget`: a filter for each family and port, TCP left out. */
export function filtersOf(mappings: readonly PublishedPort[]): FlowFilter[] {
  const filters = new Map<string, FlowFilter>();
  for (const { protocol, hostPort, hostIp, families } of mappings) {
    if (!isForgettable(protocol)) continue;
    for (const family of families) {
      if (hostIp === undefined || hostIp.family === family)
        filters.set(`${family} ${protocol} ${hostPort}`, { family, protocol, dstPort: hostPort });
    }
  }
  return [...filters.values()];
}

/**
 * The flows that were begun to one of the published ports at this host, and so keep a translation of before (or none).
 *
 * Only UDP, whose flows live on for as long as anybody sends, and SCTP, whose heartbeats do that: TCP finds out, breaks
 * off and begins anew. Only flows to this host: what merely passes through to the same port elsewhere was never ours.
 */
export function flowsToForget(flows: readonly Flow[], options: ForgetOptions): Flow[] {
  const { mappings, isLocal, replySource } = options;
  const mappingsByPort = Map.groupBy(mappings, ({ protocol, hostPort }) => `${protocol} ${hostPort}`);
  return flows.filter((flow) => {
    const { protocol, original, reply } = flow;
    if (!isForgettable(protocol)) return false;
    if (replySource !== undefined && !replySource.some((ip) => ipEquals(ip, reply.src))) return false;
    const candidates = mappingsByPort.get(`${protocol} ${original.dstPort}`) ?? [];
    return candidates.some((mapping) => isPublishedAt(mapping, original.dst)) && isLocal(original.dst);
  });
}

function isForgettable(protocol: FlowProtocol): boolean {
  return protocol === 'udp' || protocol === 'sctp';
}

function isPublishedAt(mapping: PublishedPort, dst: Ip): boolean {
  const { hostIp, families } = mapping;
  return families.includes(dst.family) && (hostIp === undefined || ipEquals(hostIp, dst));
}
