// host-local GC: frees the addresses of attachments that are gone, and files that name no holder.
// Called by the dispatcher through index.ts, by the runtime itself or forwarded by the main plugin.
import { Failures } from '../../shared/cni/failures.ts';
import type { AttachmentKey } from '../../shared/cni/network-config.ts';
import type { GcCall } from '../../shared/cni/plugin.ts';
import { formatIp } from '../../shared/ip/cidr.ts';
import { pause } from '../../shared/linux/clock.ts';
import type { HostLocalTeardown } from './config.ts';
import { deadAddresses, isUnlinked, LINK_GRACE_MS } from './dead-addresses.ts';
import { type KernelView, openKernelView } from './kernel-view.ts';
import { describeHolder, findStoreToFree, type HeldAddress, isHeld, type Store } from './store.ts';

/**
 * A list of valid attachments, be it empty, decides for every address of the network. Without one only what is proven
 * gone is freed: addresses of an earlier boot, and those whose host link is gone where the main plugin makes one.
 * Goes on after failures and throws them at the end; throws tryAgainLater (the lock).
 */
export function gc(call: GcCall<HostLocalTeardown>): void {
  const { config, network, log } = call;
  using kernel = openKernelView();
  using store = findStoreToFree({ dataDir: config.dataDir, network: network.name });
  if (store === undefined) return;
  const stale =
    call.validAttachments === undefined
      ? listGone(store, kernel, network.type)
      : listUnlisted(store, call.validAttachments);
  const failures = new Failures();
  for (const address of [...store.list().filter(({ holder }) => holder === 'nobody'), ...stale]) {
    failures.attempt(`release ${formatIp(address.ip)}`, () => {
      store.release(address);
      log(`Released ${formatIp(address.ip)}, ${describeHolder(address)}`);
    });
  }
  failures.throwIfAny();
}

// A record with the container id alone stands for every ifname of it.
function listUnlisted(store: Store, valid: readonly AttachmentKey[]): HeldAddress[] {
  const containers = new Set(valid.map(({ containerId }) => containerId));
  const attachments = new Set(valid.map(({ containerId, ifname }) => `${containerId}\0${ifname}`));
  return store
    .list()
    .filter(isHeld)
    .filter(({ holder: { containerId, ifname } }) =>
      ifname === undefined ? !containers.has(containerId) : !attachments.has(`${containerId}\0${ifname}`),
    );
}

function listGone(store: Store, kernel: KernelView, mainPlugin: string | undefined): HeldAddress[] {
  return [...deadAddresses(store, kernel, () => true), ...listUnlinked(store, kernel, mainPlugin)];
}

function listUnlinked(store: Store, kernel: KernelView, mainPlugin: string | undefined): HeldAddress[] {
  const isGone = (address: HeldAddress) => isUnlinked(store, kernel, address, mainPlugin);
  const suspects = store.list().filter(isHeld).filter(isGone);
  if (suspects.length === 0) return [];
  pause(LINK_GRACE_MS);
  return suspects.filter(isGone);
}
