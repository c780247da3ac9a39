// What an ADD finds when its attachment holds addresses already: a living one, or one that died without a DEL.
// Called by add.ts; where there is none it costs nothing.
import type { AddCall } from '../../shared/cni/plugin.ts';
import { formatIp } from '../../shared/ip/cidr.ts';
import { findNetns } from '../../shared/linux/netns.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import type { HostLocalConfig } from './config.ts';
import { deadAddresses, isUnlinked } from './dead-addresses.ts';
import type { KernelView } from './kernel-view.ts';
import { findRange } from './range.ts';
import type { HeldAddress, Store } from './store.ts';

/** Addresses by their records: an address that was given anew meanwhile is another one. */
export type Suspects = ReadonlySet<string>;

export interface Earlier {
  /** Proven dead. */
  readonly dead: readonly HeldAddress[];
  /** Dead if this look finds them so once more, LINK_GRACE_MS later and without the lock in between. */
  readonly suspects: Suspects;
}

/**
 * The attachment's own addresses in the ranges of the config that nobody uses any more; `suspected` is what an earlier
 * look said. Whatever made the attachment, it is alive while the sandbox has the link, so nothing is proven where that
 * can't be looked at.
 */
export function findEarlier(
  { config, attachment, network, netns }: AddCall<HostLocalConfig>,
  store: Store,
  kernel: KernelView,
  suspected: Suspects,
): Earlier {
  const own = store
    .findHeld(attachment)
    .own.filter(({ ip }) => config.sets.some((set) => findRange(set, ip) !== undefined));
  if (own.length === 0 || !isSandboxWithout(netns, attachment.ifname)) return NONE;
  const names = new Set(own.map(({ ip }) => formatIp(ip)));
  const bygone = [...deadAddresses(store, kernel, ({ ip }) => names.has(formatIp(ip)))];
  const unlinked = own.filter((address) => isUnlinked(store, kernel, address, network.type));
  const recordOf = ({ ip }: HeldAddress) => `${formatIp(ip)} ${store.vintageOf(ip).writtenMs}`;
  return {
    dead: [...bygone, ...unlinked.filter((address) => suspected.has(recordOf(address)))],
    suspects: new Set(unlinked.map(recordOf)),
  };
}

const NONE: Earlier = { dead: [], suspects: new Set() };

function isSandboxWithout(path: string, ifname: string): boolean {
  try {
    using netns = findNetns(path);
    if (netns === undefined) return false;
    using inside = openRtnetlink({ netns });
    return inside.link.find({ name: ifname }) === undefined;
  } catch {
    return false;
  }
}
