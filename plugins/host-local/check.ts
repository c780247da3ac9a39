// host-local CHECK: the store still says what ADD wrote into it.
// Called by the dispatcher through index.ts.
import { checkFailed, quote } from '../../shared/cni/error.ts';
import type { CheckCall } from '../../shared/cni/plugin.ts';
import { formatIp, type Ip, ipEquals, parseCidr } from '../../shared/ip/cidr.ts';
import type { HostLocalConfig } from './config.ts';
import { findRange } from './range.ts';
import { describeHolder, findStore, type HeldAddress, type Store } from './store.ts';

/**
 * Promises that the attachment holds an address, and each one of prevResult that lies in a range of this config.
 * Throws checkFailed naming what differs, tryAgainLater (the lock), storeFailure.
 */
export function check(call: CheckCall<HostLocalConfig>): void {
  const { config, attachment, network } = call;
  using store = findStore({ dataDir: config.dataDir, network: attachment.network });
  const { own, legacy } = store?.findHeld(attachment) ?? { own: [], legacy: [] };
  const held = own.length > 0 ? own : legacy;
  const who = `${quote(attachment.containerId)} ${quote(attachment.ifname)}`;
  if (store === undefined || held.length === 0) {
    throw checkFailed(
      `${who} holds no address on network ${quote(attachment.network)} in ${quote(config.dataDir)}`,
    );
  }
  for (const ip of addressesIn(network.prevResult?.ips ?? [])) {
    if (config.sets.some((set) => findRange(set, ip) !== undefined)) expectHeld(store, held, ip, who);
  }
}

function addressesIn(ips: readonly { readonly address: string }[]): Ip[] {
  return ips.map(({ address }) => parseCidr(address).ip);
}

function expectHeld(store: Store, held: readonly HeldAddress[], ip: Ip, who: string): void {
  if (held.some((address) => ipEquals(address.ip, ip))) return;
  const stored = store.find(ip);
  const found = stored === undefined ? 'free' : describeHolder(stored);
  const own = held.map((address) => formatIp(address.ip)).join(', ');
  throw checkFailed(
    `The address ${quote(formatIp(ip))} of ${who} is ${found} in the store ${quote(store.directory)}, which has ${quote(own)} for it`,
  );
}
