// Waiting for the kernel to change something, by its own announcements instead of by the clock.
// bridge waits with it for duplicate address detection, and for the host end to carry traffic.
import { NETLINK_ROUTE, type NetlinkSocket, openNetlinkSocket } from '../linux/netlink-socket.ts';
import type { Netns } from '../linux/netns.ts';
import { SystemError } from '../linux/system-error.ts';
import {
  RTNLGRP_IPV4_IFADDR,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_IPV6_IFADDR,
  RTNLGRP_IPV6_ROUTE,
  RTNLGRP_LINK,
  RTNLGRP_NEIGH,
} from './constants.ts';

const GROUPS = {
  link: RTNLGRP_LINK,
  neigh: RTNLGRP_NEIGH,
  'ipv4-ifaddr': RTNLGRP_IPV4_IFADDR,
  'ipv4-route': RTNLGRP_IPV4_ROUTE,
  'ipv6-ifaddr': RTNLGRP_IPV6_IFADDR,
  'ipv6-route': RTNLGRP_IPV6_ROUTE,
} as const;

export type MonitorGroup = keyof typeof GROUPS;

/**
 * Tells *that* something changed, never what: announcements may be merged or lost, so the caller asks for the fact
 * itself each time. Open it, look at the fact, then wait: in this order no change falls between the two.
 */
export interface RtnetlinkMonitor extends Disposable {
  /** Blocks until something was announced (true) or the time is over (false). */
  wait(milliseconds: number): boolean;
}

/** Throws SystemError. Equivalent to: `ip monitor link` */
export function openRtnetlinkMonitor(options: {
  readonly groups: readonly MonitorGroup[];
  readonly netns?: Netns | undefined;
}): RtnetlinkMonitor {
  const groups = options.groups.map((group) => GROUPS[group]);
  return new Monitor(openNetlinkSocket(NETLINK_ROUTE, { netns: options.netns, groups }));
}

// On a busy node announcements may arrive faster than they are read: enough is enough.
const DRAIN_LIMIT = 1024;

class Monitor implements RtnetlinkMonitor {
  readonly #socket: NetlinkSocket;

  constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  wait(milliseconds: number): boolean {
    try {
      if (this.#socket.receiveWithin(milliseconds) === undefined) return false;
      for (let drained = 0; drained < DRAIN_LIMIT; drained += 1) {
        if (this.#socket.receiveIfReady() === undefined) break;
      }
    } catch (error) {
      // The kernel had to drop announcements: then there was something to announce.
      if (!(error instanceof SystemError && error.code === 'ENOBUFS')) throw error;
    }
    return true;
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}
