// UDP and SCTP flows that began before a port was published, or outlive it, and would go on past the rules.
// Called by ADD, DEL and GC; never fails a verb, for the flows end by themselves.

import { isConntrackMissing, openConntrack } from '../../shared/conntrack/conntrack.ts';
import { filtersOf, flowsToForget, type PublishedPort } from '../../shared/conntrack/forget.ts';
import { formatIp, type Ip } from '../../shared/ip/cidr.ts';
import type { Protocol } from '../../shared/nftables/datatypes.ts';
import { openRtnetlink, type Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';

/** include/uapi/linux/rtnetlink.h, RTN_LOCAL. */
const ROUTE_LOCAL = 2;

/** Whose flows are meant. */
export interface FlowScope {
  readonly ports: readonly {
    readonly protocol: Protocol;
    readonly hostIp: Ip | undefined;
    readonly hostPort: number;
    readonly target: Ip;
  }[];
  /** Only flows that one of these addresses answers; undefined for whoever answers. */
  readonly replySource: readonly Ip[] | undefined;
}

/**
 * Makes the kernel forget the flows to the published ports of this host, so that their next packet meets the rules as
 * they are now. Flows that merely pass through are left alone. Equivalent to: `conntrack -D -p udp --orig-port-dst 53 …`
 */
export function forgetFlows(scope: FlowScope, log: (line: string) => void): void {
  const mappings = scope.ports.map(
    ({ protocol, hostIp, hostPort, target }): PublishedPort => ({
      protocol,
      hostPort,
      ...(hostIp && { hostIp }),
      families: [target.family],
    }),
  );
  const filters = filtersOf(mappings);
  if (filters.length === 0) {
    return;
  }
  try {
    using conntrack = openConntrack();
    const flows = conntrack.list(filters);
    if (flows.length === 0) {
      return;
    }
    using host = openRtnetlink();
    const { replySource } = scope;
    const options = { mappings, isLocal: localAddresses(host), ...(replySource && { replySource }) };
    for (const flow of flowsToForget(flows, options)) {
      conntrack.delete(flow);
    }
  } catch (error) {
    if (!isConntrackMissing(error)) {
      log(`Cannot forget UDP flows: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

/** The same for ports that are gone, as far as their containers answer. */
export function forgetRemoved(ports: FlowScope['ports'], log: (line: string) => void): void {
  forgetFlows({ ports, replySource: ports.map(({ target }) => target) }, log);
}

/** Many flows have few destinations: each is looked up once. */
function localAddresses(host: Rtnetlink): (ip: Ip) => boolean {
  const known = new Map<string, boolean>();
  return (ip) => {
    const text = formatIp(ip);
    const isLocal = known.get(text) ?? host.route.lookup(ip)?.type === ROUTE_LOCAL;
    known.set(text, isLocal);
    return isLocal;
  };
}
