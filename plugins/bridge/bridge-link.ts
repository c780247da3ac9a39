// The bridge itself: created once, shared by every attachment, never removed and never reconfigured behind the
// operator's back. Called by ADD; CHECK and STATUS only look.
import { type CniError, hasCode, wrongLinkKind } from '../../shared/cni/error.ts';
import { randomMac } from '../../shared/ip/mac.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import type { Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import type { BridgeConfig } from './config.ts';
import { ensureLinkSysctl } from './link-sysctl.ts';
import { explainMissingVlans } from './port-vlans.ts';

/**
 * The bridge if it is there already. Throws wrongLinkKind, or what `fail` makes, when another kind of link has the name.
 * Equivalent to: `ip link show dev cni0 type bridge`
 */
export function findBridge(
  host: Rtnetlink,
  config: BridgeConfig,
  fail: (msg: string) => CniError = wrongLinkKind,
): Link | undefined {
  const link = host.link.find({ name: config.bridge });
  if (link !== undefined) {
    expectBridge(link, fail);
  }
  return link;
}

/**
 * Returns the bridge of this network, up, and makes it where none was `found`. An existing bridge keeps its MTU and MAC.
 * A new one gets its MAC at birth: without that it would follow its ports, and peers would hold stale neighbours.
 * Throws wrongLinkKind when another kind of link has the name, kernelFeatureMissing when the kernel filters no VLANs,
 * kernelRefused otherwise.
 * Equivalent to: `ip link add cni0 address … mtu … type bridge vlan_filtering …; ip link set cni0 up`
 */
export function ensureBridge(
  host: Rtnetlink,
  found: Link | undefined,
  config: BridgeConfig,
  log: (line: string) => void,
): Link {
  const bridge = found ?? addBridge(host, config, log);
  if (config.vlans !== undefined && bridge.vlans?.filtering === false) {
    const next = `run "ip link set ${bridge.name} type bridge vlan_filtering 1"`;
    log(`Bridge "${bridge.name}" does not filter VLANs, so they do not keep containers apart; ${next}`);
  }
  ensureLinkSysctl('ipv6', bridge.name, 'accept_ra', '0', log); // a container is no router of the host's
  if (!bridge.isUp && !config.enableDad) {
    // Neighbour discovery asks by the bridge's link-local address: tentative for two seconds, it would keep every
    // first connection to a container waiting.
    ensureLinkSysctl('ipv6', bridge.name, 'accept_dad', '0', log);
  }
  if (!bridge.isUp) {
    host.link.set(bridge.index, { up: true });
  }
  return bridge;
}

/**
 * What a network wants of a bridge that others may use as well. Nothing may fail behind it: it is never taken back, since
 * another ADD may want it by then. Throws kernelRefused. Equivalent to: `ip link set cni0 promisc on`
 */
export function ensurePromiscuity(host: Rtnetlink, bridge: Link, config: BridgeConfig): void {
  if (config.promiscMode && !bridge.isPromiscuous) {
    host.link.set(bridge.index, { promiscuous: true });
  }
}

/** Throws wrongLinkKind, or what `fail` makes, unless the link can take ports. */
export function expectBridge(link: Link, fail: (msg: string) => CniError = wrongLinkKind): void {
  if (link.kind !== 'bridge') {
    const kind = link.kind ?? 'physical or loopback';
    throw fail(`Link "${link.name}" is no bridge but of kind "${kind}"; name another link in "bridge"`);
  }
}

function addBridge(host: Rtnetlink, config: BridgeConfig, log: (line: string) => void): Link {
  warnAboutLargeMtu(host, config, log);
  try {
    host.link.add({
      kind: 'bridge',
      name: config.bridge,
      mac: randomMac(),
      ...(config.mtu && { mtu: config.mtu }),
      ...(config.vlans && { vlanFiltering: true }),
    });
  } catch (error) {
    // A parallel first ADD of the same network was faster: its bridge is as good as ours.
    if (!hasCode(error, 'EEXIST')) {
      throw config.vlans === undefined ? error : explainMissingVlans(error);
    }
  }
  return host.link.get({ name: config.bridge });
}

/** Packets larger than the uplink takes are dropped or fragmented far from where anybody would look. */
function warnAboutLargeMtu(host: Rtnetlink, config: BridgeConfig, log: (line: string) => void): void {
  if (config.mtu === undefined) {
    return;
  }
  const uplink = findUplink(host);
  if (uplink !== undefined && config.mtu > uplink.mtu) {
    log(
      `MTU ${config.mtu} of network bridge "${config.bridge}" is larger than MTU ${uplink.mtu} of uplink "${uplink.name}"; larger packets may be lost`,
    );
  }
}

/** The link of the first default route, IPv4 before IPv6. */
function findUplink(host: Rtnetlink): Link | undefined {
  for (const family of [4, 6] as const) {
    const route = host.route.list({ family }).find(({ dst, oif }) => dst.prefix === 0 && oif !== undefined);
    if (route?.oif !== undefined) {
      return host.link.find({ index: route.oif });
    }
  }
  return undefined;
}
