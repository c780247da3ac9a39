// host-local DEL: frees whatever the attachment holds, whichever ranges the config names by now.
// Called by the dispatcher through index.ts.
import { Failures } from '../../shared/cni/failures.ts';
import type { DelCall } from '../../shared/cni/plugin.ts';
import { formatIp } from '../../shared/ip/cidr.ts';
import type { HostLocalTeardown } from './config.ts';
import { findStoreToFree } from './store.ts';

/**
 * Nothing found is success. Addresses recorded for the container id alone go only when none is recorded for the
 * attachment itself. Throws tryAgainLater (the lock) and storeFailure after freeing as much as it could.
 */
export function del(call: DelCall<HostLocalTeardown>): void {
  const { config, attachment } = call;
  using store = findStoreToFree({ dataDir: config.dataDir, network: attachment.network });
  if (store === undefined) return;
  const { own, legacy } = store.findHeld(attachment);
  const failures = new Failures();
  for (const address of own.length > 0 ? own : legacy) {
    failures.attempt(`release ${formatIp(address.ip)}`, () => store.release(address));
  }
  failures.throwIfAny();
}
