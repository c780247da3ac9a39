// The sandbox's side of an attachment: sysctls, addresses, link up, routes, in this order. Called by ADD.
// Nothing here needs an undo of its own: it all goes with the link.
import { hasCode } from '../../shared/cni/error.ts';
import { formatCidr, formatIp } from '../../shared/ip/cidr.ts';
import { type Netns, withNetns } from '../../shared/linux/netns.ts';
import { setSysctl } from '../../shared/linux/sysctl.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import { openRtnetlinkMonitor } from '../../shared/rtnetlink/monitor.ts';
import type { Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import type { BridgeConfig } from './config.ts';
import { describeRefusal, ensureLinkSysctl, setLinkSysctl } from './link-sysctl.ts';
import type { Addressing, PlannedRoute } from './plan.ts';

/** Duplicate address detection takes 1 to 2 s; after this it will not end well any more. */
const DAD_DEADLINE_MS = 5000;

/** What the sandbox side needs to know of its surroundings. */
export interface Sandbox {
  readonly netns: Netns;
  readonly inside: Rtnetlink;
  readonly link: Link;
  readonly log: (line: string) => void;
}

/**
 * Gives the sandbox link its addresses and routes and sets it up; in layer-2 mode only sets it up.
 * Throws kernelRefused naming the address or route.
 * Equivalent to: `ip -n sandbox addr add …; ip -n sandbox link set eth0 up; ip -n sandbox route add …`
 */
export function configureSandbox(sandbox: Sandbox, config: BridgeConfig, plan: Addressing): void {
  const { inside, link } = sandbox;
  if (plan.addresses.length > 0) {
    tuneSandbox(sandbox, config, plan);
  }
  for (const { address, broadcast } of plan.addresses) {
    attempt(
      () => `Cannot add address "${formatCidr(address)}" to "${link.name}"`,
      () =>
        inside.addr.add({
          index: link.index,
          address,
          ...(broadcast && { broadcast }),
          noDad: !config.enableDad,
        }),
    );
  }
  inside.link.set(link.index, { up: true });
  if (config.enableDad) {
    waitForDad(sandbox, plan);
  }
  for (const route of plan.routes) {
    addRoute(sandbox, route);
  }
}

/** The only work done with the thread inside the sandbox: /proc/sys shows the namespace of the task that opens it. */
function tuneSandbox({ netns, link, log }: Sandbox, config: BridgeConfig, plan: Addressing): void {
  const usesIpv6 = plan.addresses.some(({ address }) => address.ip.family === 6);
  withNetns(netns, () => {
    if (config.enableDad) {
      ensureLinkSysctl('ipv6', link.name, 'enhanced_dad', '1', log);
    }
    setLinkSysctl('ipv6', link.name, 'accept_dad', config.enableDad ? '1' : '0', log);
    if (config.ipSpoofCheck) {
      // The one link-local address that is let through is the one that follows from the MAC.
      ensureLinkSysctl('ipv6', link.name, 'addr_gen_mode', '0', log);
    }
    // The kernel announces the address when the link comes up, so neighbours forget who had it before.
    setLinkSysctl('ipv4', link.name, 'arp_notify', '1', log);
    if (usesIpv6) {
      enableIpv6(link.name, log);
    }
    if (plan.routes.some(({ dst }) => dst.ip.family === 6 && dst.prefix === 0)) {
      // Who was told the way out takes no other from a neighbour (CVE-2020-10749).
      setLinkSysctl('ipv6', link.name, 'accept_ra', '0', log);
    }
  });
}

/** Runtimes switch IPv6 off in new sandboxes; whoever leases an IPv6 address wants it on. */
function enableIpv6(link: string, log: (line: string) => void): void {
  for (const name of ['lo', link]) {
    ensureLinkSysctl('ipv6', name, 'disable_ipv6', '0', log);
  }
  try {
    setSysctl(`net/ipv6/conf/${link}/keep_addr_on_down`, '1');
  } catch (cause) {
    if (hasCode(cause, 'ENOENT')) {
      const next = 'remove the IPv6 range';
      throw new Error(`Sandbox has no IPv6, but IPAM leased an IPv6 address for "${link}"; ${next}`, {
        cause,
      });
    }
    if (!hasCode(cause, 'EROFS') && !hasCode(cause, 'EACCES')) {
      throw cause;
    }
    log(describeRefusal(cause)); // the address works all the same
  }
}

function addRoute({ inside, link }: Sandbox, route: PlannedRoute): void {
  const via = () => (route.gw === undefined ? '' : ` via "${formatIp(route.gw)}"`);
  attempt(
    () => `Cannot add route to "${formatCidr(route.dst)}"${via()} on "${link.name}"`,
    () =>
      inside.route.add({
        dst: route.dst,
        oif: link.index,
        ...(route.gw && { gw: route.gw }),
        ...(route.priority !== undefined && { priority: route.priority }),
        ...(route.table !== undefined && { table: route.table }),
        ...(route.scope !== undefined && { scope: route.scope }),
        ...(route.mtu !== undefined && { mtu: route.mtu }),
        ...(route.advmss !== undefined && { advmss: route.advmss }),
      }),
  );
}

/** Waits by events until no IPv6 address of ours is tentative any more; a duplicate is an error that names it. */
function waitForDad({ netns, inside, link }: Sandbox, plan: Addressing): void {
  if (!plan.addresses.some(({ address }) => address.ip.family === 6)) {
    return;
  }
  using monitor = openRtnetlinkMonitor({ netns, groups: ['ipv6-ifaddr'] });
  const deadline = Date.now() + DAD_DEADLINE_MS;
  for (;;) {
    const addresses = inside.addr.list({ index: link.index, family: 6 });
    const duplicate = addresses.find(({ isDadFailed }) => isDadFailed);
    if (duplicate !== undefined) {
      throw new Error(
        `Address "${formatCidr(duplicate.address)}" is in use by another station on the network`,
      );
    }
    const tentative = addresses.find(({ isTentative }) => isTentative);
    if (tentative === undefined) {
      return;
    }
    const left = deadline - Date.now();
    if (left <= 0) {
      const shown = formatCidr(tentative.address);
      throw new Error(
        `Address "${shown}" is still tentative after ${DAD_DEADLINE_MS} ms of duplicate detection`,
      );
    }
    monitor.wait(left);
  }
}

function attempt(what: () => string, step: () => void): void {
  try {
    step();
  } catch (cause) {
    throw new Error(what(), { cause });
  }
}
