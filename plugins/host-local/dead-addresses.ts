// Addresses whose container can't be alive, because the kernel it lived in is not running any more.
// Called by the allocator when a range is exhausted, and by GC.

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
