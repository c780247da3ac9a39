// host-local ADD: one address from each range set, written to the store, and the IPAM result that tells of it.
// Called by the dispatcher through index.ts.
import type { AddCall } from '../../shared/cni/plugin.ts';
import type { Dns, Result } from '../../shared/cni/result.ts';
import { Rollback } from '../../shared/cni/rollback.ts';
import { formatCidr, formatIp } from '../../shared/ip/cidr.ts';
import { pause } from '../../shared/linux/clock.ts';
import { planRequests, takeAddresses } from './allocator.ts';
import type { HostLocalConfig } from './config.ts';
import { LINK_GRACE_MS } from './dead-addresses.ts';
import { findEarlier, type Suspects } from './earlier-attachment.ts';
import { type KernelView, openKernelView } from './kernel-view.ts';
import { type Candidate, findRange, type RangeSet } from './range.ts';
import { readResolvConf } from './resolv-conf.ts';
import { describeExposure, describeHolder, type HeldAddress, openStore } from './store.ts';

/**
 * All or nothing. An attachment that died without a DEL is forgotten, and its addresses are given to it again. Throws
 * duplicateAttachment, addressUnavailable, addressesExhausted, tryAgainLater (the lock), storeFailure, and invalidConfig
 * for an unreadable resolvConf.
 */
export function add(call: AddCall<HostLocalConfig>): Result {
  const { config, network, log } = call;
  const requests = planRequests(config.sets, config.requested);
  const dns = config.resolvConf === undefined ? undefined : readResolvConf(config.resolvConf);

  // First, so that it closes last: closing an nf_tables socket can wait for what others delete, and holding the store
  // meanwhile would make everybody wait.
  using kernel = openKernelView();
  const exposure = describeExposure({ dataDir: config.dataDir, network: network.name });
  if (exposure !== undefined) log(exposure);
  let { taken, suspects } = take(call, kernel, requests, NO_SUSPECTS);
  if (suspects.size > 0) {
    pause(LINK_GRACE_MS); // without the lock, which others want
    ({ taken, suspects } = take(call, kernel, requests, suspects));
  }
  return describe(config, taken, dns);
}

const NO_SUSPECTS: Suspects = new Set();

interface Outcome {
  readonly taken: readonly Candidate[];
  /** When there are any, nothing was taken, and another look with them is due. */
  readonly suspects: Suspects;
}

function take(
  call: AddCall<HostLocalConfig>,
  kernel: KernelView,
  requests: Requests,
  suspected: Suspects,
): Outcome {
  const { config, attachment, log } = call;
  using store = openStore({ dataDir: config.dataDir, network: attachment.network });
  const { dead, suspects } = findEarlier(call, store, kernel, suspected);
  if (suspects.size > 0 && suspected.size === 0) return { taken: [], suspects };
  for (const address of dead) {
    log(`${formatIp(address.ip)} is ${describeHolder(address)}, which is dead; it is given to it again`);
    store.release(address);
  }
  using rollback = new Rollback(log);
  const wanted = requests.map((request, position) => request ?? findAgain(config.sets[position], dead));
  const taken = takeAddresses({ store, kernel, attachment, log }, config.sets, wanted, rollback);
  rollback.commit();
  return { taken, suspects: NO_SUSPECTS };
}

type Requests = ReturnType<typeof planRequests>;

/** What the attachment had from the set, if that is free now. */
function findAgain(set: RangeSet | undefined, dead: readonly HeldAddress[]): Candidate | undefined {
  return dead.flatMap(({ ip }): Candidate[] => {
    const range = set && findRange(set, ip);
    return range === undefined ? [] : [{ ip, range }];
  })[0];
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
