// The kernel's links, addresses, routes and neighbours in one namespace, as services on one socket.
// The plugins hold one for the host and one for the sandbox.
import { NETLINK_ROUTE } from '../linux/netlink-socket.ts';
import type { Netns } from '../linux/netns.ts';
import { type NetlinkConnection, openNetlink } from '../netlink/connection.ts';
import { AddrService } from './addr.ts';
import { VLAN_HEADER, VlanService } from './bridge-vlan.ts';
import { RTM_GETVLAN, RTM_NEWVLAN } from './constants.ts';
import { LinkService } from './link.ts';
import { NeighService } from './neigh.ts';
import { RouteService } from './route.ts';

export interface Rtnetlink extends Disposable {
  readonly link: LinkService;
  readonly addr: AddrService;
  readonly route: RouteService;
  readonly neigh: NeighService;
  readonly vlan: VlanService;
}

/**
 * Opens the services of a namespace, of this process's own if none is given. The socket is born there and stays; this
 * thread does not. Throws SystemError.
 */
export function openRtnetlink(options: { readonly netns?: Netns | undefined } = {}): Rtnetlink {
  return rtnetlinkOver(openNetlink(NETLINK_ROUTE, { netns: options.netns, headerLength, phase: 'links' }));
}

/** The same over any connection: tests serve a fake kernel here. */
export function rtnetlinkOver(connection: NetlinkConnection): Rtnetlink {
  return {
    link: new LinkService(connection),
    addr: new AddrService(connection),
    route: new RouteService(connection),
    neigh: new NeighService(connection),
    vlan: new VlanService(connection),
    [Symbol.dispose]: () => connection[Symbol.dispose](),
  };
}

/** The sizes of ifinfomsg, ifaddrmsg, rtmsg and ndmsg: message types come in fours, one four an object. */
function headerLength(type: number): number {
  if (type === RTM_NEWVLAN || type === RTM_GETVLAN) return VLAN_HEADER;
  return [16, 8, 12, 12][(type - 16) >> 2] ?? 0;
}
