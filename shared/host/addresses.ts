// The addresses of a container as the plugins before this one reported them.
// Called by the chained plugins: ADD wants each to be right, DEL takes what it can read.
import { invalidConfig, quote } from '../cni/error.ts';
import type { Result, ResultIp } from '../cni/result.ts';
import { type Cidr, parseCidr } from '../ip/cidr.ts';

/** One address of a prevResult; `position` is its place in `ips`. Throws invalidConfig naming the field. */
export function parseAddress({ address }: ResultIp, position: number): Cidr {
  try {
    return parseCidr(address);
  } catch (cause) {
    const field = `Field "prevResult.ips[${position}].address" of the network configuration`;
    throw invalidConfig(`${field} must be an IP address with prefix length, not ${quote(address)}`, {
      cause,
    });
  }
}

/** Those addresses of a prevResult that can be read; none without one. */
export function readableAddresses(prevResult: Result | undefined): Cidr[] {
  return (prevResult?.ips ?? []).flatMap(({ address }) => {
    try {
      return [parseCidr(address)];
    } catch {
      return [];
    }
  });
}
