// Addresses whose container can't be alive: the kernel it lived in is not running any more, or its link is gone.
// Called by the allocator when a range is exhausted, by an ADD whose attachment holds addresses already, and by GC.

import { isOnLocalFileSystem } from '../../shared/linux/files.ts';
import type { KernelView } from './kernel-view.ts';
import { type HeldAddress, isHeld, type Store, type StoredAddress } from './store.ts';

/**
 * The held addresses that `isWanted` picks and that are proven dead, oldest record first. Proof takes three things:
 * the record tells another boot than this one, the store is on a disk of this machine (another machine has
 * another boot too, and lives), and the kernel has no trace of address or holder. A record without boot, so any of
 * the reference, is never proven dead. File times only decide the order; clocks jump.
 */
export function* deadAddresses(
  store: Store,
  kernel: KernelView,
  isWanted: (address: StoredAddress) => boolean,
): Generator<HeldAddress, void> {
  const { bootId } = store;
  if (bootId === undefined || !isOnLocalFileSystem(store.directory)) return;
  const earlier = store
    .list()
    .filter(isHeld)
    .filter(isWanted)
    .map((address) => ({ address, vintage: store.vintageOf(address.ip) }))
    .filter(({ vintage }) => vintage.bootId !== undefined && vintage.bootId !== bootId)
    .sort((a, b) => a.vintage.writtenMs - b.vintage.writtenMs);
  for (const { address } of earlier) {
    const { containerId, ifname } = address.holder;
    if (ifname === undefined) continue;
    if (!kernel.hasTraceOf(address.ip, { containerId, ifname }, store.network)) yield address;
  }
}

/**
 * How long it takes at most until a link is there whose address is taken, or is gone with a container: a main plugin
 * takes the address first and makes the link a few milliseconds later, and a kernel removes links late.
 */
export const LINK_GRACE_MS = 1000;

/** Main plugins that name a host link after its attachment. */
const MAKES_HOST_LINKS: ReadonlySet<string> = new Set(['bridge', 'patchbay']);

/**
 * Whether the address was given in this boot to an attachment whose host link is missing, and is behind no other link.
 * Asked once it proves nothing; asked again after LINK_GRACE_MS it does. Of main plugins that give their links
 * other names, and of records without a boot, which the reference wrote, nothing can be said.
 */
export function isUnlinked(
  store: Store,
  kernel: KernelView,
  { ip, holder: { containerId, ifname } }: HeldAddress,
  mainPlugin: string | undefined,
): boolean {
  return (
    mainPlugin !== undefined &&
    MAKES_HOST_LINKS.has(mainPlugin) &&
    ifname !== undefined &&
    store.bootId !== undefined &&
    store.vintageOf(ip).bootId === store.bootId &&
    !kernel.hasHostLink({ containerId, ifname }, store.network) &&
    kernel.listUsers(ip).length === 0
  );
}
