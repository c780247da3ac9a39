// The loopback plugin's CHECK. Called by dispatch, with a prevResult or without; reads only.
import { checkFailed } from '../../shared/cni/error.ts';
import type { CheckCall } from '../../shared/cni/plugin.ts';
import type { Result } from '../../shared/cni/result.ts';
import { formatCidr } from '../../shared/ip/cidr.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { openSandbox } from '../../shared/sandbox/open.ts';
import { LOOPBACK } from './add.ts';

/**
 * Returns when `lo` is up and has the addresses that the prevResult gives it, if it gives any; throws checkFailed (107)
 * naming what is different (CNI SPEC 1.1.0, section 2, "CHECK").
 */
export function check(call: CheckCall<undefined>): void {
  using netns = openSandbox(call.netns);
  using inside = openRtnetlink({ netns });
  const link = inside.link.get({ name: LOOPBACK });
  if (!link.isUp) throw checkFailed(`Link "${LOOPBACK}" in sandbox "${call.netns}" is down`);
  const present = inside.addr.list({ index: link.index }).map(({ address }) => formatCidr(address));
  const missing = reportedAddresses(call.network.prevResult).find((address) => !present.includes(address));
  if (missing !== undefined) {
    throw checkFailed(`Link "${LOOPBACK}" in sandbox "${call.netns}" lacks the address "${missing}"`);
  }
}

function reportedAddresses({ interfaces = [], ips = [] }: Result = {}): string[] {
  const isOnLoopback = (index: number | undefined) =>
    index !== undefined && interfaces[index]?.name === LOOPBACK;
  return ips.filter((ip) => isOnLoopback(ip.interface)).map(({ address }) => address);
}
