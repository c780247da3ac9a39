// host-local ADD: one address from each range set, written to the store, and the IPAM result that tells of it.
// Called by the dispatcher through index.ts.
import type { AddCall } from '../../shared/cni/plugin.ts';
import type { Dns, Result } from '../../shared/cni/result.ts';
import { Rollback } from '../../shared/cni/rollback.ts';
import { formatCidr, formatIp } from '../../shared/ip/cidr.ts';
import { planRequests, takeAddresses } from './allocator.ts';
import type { HostLocalConfig } from './config.ts';
import { openKernelView } from './kernel-view.ts';
import type { Candidate } from './range.ts';
import { readResolvConf } from './resolv-conf.ts';
import { openStore } from './store.ts';

/**
 * All or nothing. Throws duplicateAttachment, addressUnavailable, addressesExhausted, tryAgainLater (the lock),
 * storeFailure, and invalidConfig for an unreadable resolvConf.
 */
export function add(call: AddCall<HostLocalConfig>): Result {
  const { config, attachment, log } = call;
  const requests = planRequests(config.sets, config.requested);
  const dns = config.resolvConf === undefined ? undefined : readResolvConf(config.resolvConf);

  // First, so that it closes last: closing an nf_tables socket can wait for what others delete, and holding the store
  // meanwhile would make everybody wait.
  using kernel = openKernelView();
  using store = openStore({ dataDir: config.dataDir, network: attachment.network });
  using rollback = new Rollback(log);
  const taken = takeAddresses({ store, kernel, attachment, log }, config.sets, requests, rollback);

  rollback.commit();
  return describe(config, taken, dns);
}

function describe(config: HostLocalConfig, taken: readonly Candidate[], dns: Dns | undefined): Result {
  return {
    ips: taken.map(({ ip, range }) => ({
      address: formatCidr({ ip, prefix: range.subnet.prefix }),
      gateway: formatIp(range.gateway),
    })),
    ...(config.routes.length === 0 ? {} : { routes: config.routes }),
    ...(dns === undefined ? {} : { dns }),
  };
}
