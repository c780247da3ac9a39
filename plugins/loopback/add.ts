// The loopback plugin's ADD. Called by dispatch, often while the ADD of the pod's network is at work in the same sandbox.
import { addressConflict } from '../../shared/cni/error.ts';
import type { AddCall } from '../../shared/cni/plugin.ts';
import type { Result } from '../../shared/cni/result.ts';
import { Rollback } from '../../shared/cni/rollback.ts';
import { formatCidr, isLoopback } from '../../shared/ip/cidr.ts';
import type { Addr } from '../../shared/rtnetlink/addr.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { openSandbox } from '../../shared/sandbox/open.ts';

/** The name that the kernel gives the loopback link of every network namespace; CNI_IFNAME does not matter. */
export const LOOPBACK = 'lo';

/**
 * Sets `lo` up and reports it with its first address of each family, or passes on what plugins before it reported (CNI
 * SPEC 1.1.0, section 2, "ADD"). Throws addressConflict (104) when `lo` has another address than those of the loopback
 * networks, and changes nothing then.
 * Equivalent to: `ip -n sandbox link set lo up`
 */
export function add(call: AddCall<undefined>): Result {
  using netns = openSandbox(call.netns);
  using inside = openRtnetlink({ netns });
  const link = inside.link.get({ name: LOOPBACK });
  refuseForeign(inside.addr.list({ index: link.index }), call.netns);
  using rollback = new Rollback(call.log);
  if (!link.isUp) {
    rollback.add(`set "${LOOPBACK}" down`, () => inside.link.set(link.index, { up: false }));
    inside.link.set(link.index, { up: true });
  }
  // Read anew, for the kernel adds 127.0.0.1 and ::1 when the link comes up.
  const result =
    call.network.prevResult ?? describe(link, inside.addr.list({ index: link.index }), call.netns);
  rollback.commit();
  return result;
}

/**
 * What has addresses on `lo` was set up for something else, and our DEL would take it down. Asked first: a link that goes
 * down again loses its IPv6 addresses.
 */
function refuseForeign(addrs: readonly Addr[], netns: string): void {
  const foreign = addrs.find(({ address }) => !isLoopback(address.ip));
  if (foreign === undefined) return;
  const shown = formatCidr(foreign.address);
  throw addressConflict(
    `Link "${LOOPBACK}" in sandbox "${netns}" has the address "${shown}", which is no loopback address; remove it first`,
  );
}

function describe({ name, mac }: Link, addrs: readonly Addr[], sandbox: string): Result {
  const ips = ([4, 6] as const).flatMap((family) => {
    const addr = addrs.find(({ address }) => address.ip.family === family);
    return addr === undefined ? [] : [{ address: formatCidr(addr.address), interface: 0 }];
  });
  return { interfaces: [{ name, mac, sandbox }], ips };
}
