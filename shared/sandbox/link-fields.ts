// What a config may wish of the link in the sandbox: its MTU and its MAC address, with the kernel's limits.
// Called by the config parsers of bridge and tuning.
import * as v from 'valibot';
import { invalidConfig, quote } from '../cni/error.ts';
import { parseMac } from '../ip/mac.ts';

/** include/uapi/linux/if_ether.h: ETH_MIN_MTU and ETH_MAX_MTU. */
const MIN_MTU = 68;
const MAX_MTU = 65535;

/** A schema for an MTU in bytes; 0 means that nothing is wished. */
export function mtuField() {
  return v.pipe(v.number(), v.integer(), v.check(isMtu, `0, or ${MIN_MTU} to ${MAX_MTU}`));
}

/**
 * The six bytes of a MAC address that a link can have: the kernel gives it no group address and no zero one
 * (net/ethernet/eth.c, is_valid_ether_addr). Throws invalidConfig (7) naming the field and its value.
 */
export function parseStationMac(field: string, text: string): Uint8Array {
  let mac: Uint8Array;
  try {
    mac = parseMac(text);
  } catch (cause) {
    const wanted = 'give six bytes such as "02:42:ac:11:00:02"';
    throw invalidConfig(`Field "${field}" holds no MAC address: ${quote(text)}; ${wanted}`, { cause });
  }
  const isGroup = ((mac[0] ?? 0) & 1) === 1;
  if (isGroup || mac.every((byte) => byte === 0)) {
    const what = isGroup ? 'multicast' : 'zero';
    throw invalidConfig(
      `Field "${field}" holds the ${what} address ${quote(text)}; a link needs a unicast one`,
    );
  }
  return mac;
}

function isMtu(mtu: number): boolean {
  return mtu === 0 || (mtu >= MIN_MTU && mtu <= MAX_MTU);
}
