// The veth pair of one attachment: host end on the bridge, sandbox end born under its final name inside the sandbox.
// Called by ADD, which arms the undo, and by DEL and GC through the owner's name.
import { type Attachment, hostLinkName, ownerComment } from '../../shared/cni/attachment.ts';
import { bridgeFull, duplicateAttachment, hasCode } from '../../shared/cni/error.ts';
import type { Rollback } from '../../shared/cni/rollback.ts';
import { randomMac } from '../../shared/ip/mac.ts';
import { pause } from '../../shared/linux/clock.ts';
import type { Netns } from '../../shared/linux/netns.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import { openRtnetlinkMonitor } from '../../shared/rtnetlink/monitor.ts';
import type { Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import type { BridgeConfig } from './config.ts';
import { setLinkSysctl } from './link-sysctl.ts';
import { joinVlans } from './port-vlans.ts';

/** net/bridge/br_private.h: BR_PORT_BITS is 10, and port 0 does not exist. */
const BRIDGE_PORT_LIMIT = 1023;
/** How long a bridge port may take to forward; the kernel needs microseconds, a bridge with STP half a minute. */
const FORWARDING_DEADLINE_MS = 2550;

/** How long the host end of a sandbox that is gone may still be seen, and how often that is asked. */
const REMOVAL_DEADLINE_MS = 1000;
const REMOVAL_PAUSE_MS = 20;

/** Where the pair goes, and who undoes it. */
export interface PairContext {
  readonly host: Rtnetlink;
  readonly inside: Rtnetlink;
  readonly netns: Netns;
  readonly bridge: Link;
  readonly rollback: Rollback;
}

export interface VethPair {
  readonly host: Link;
  readonly sandbox: Link;
}

/**
 * Refuses an attachment that is already there, before anything is leased: undoing a second ADD would release the
 * addresses of the first. Throws duplicateAttachment.
 */
export function refuseExisting(
  host: Rtnetlink,
  inside: Rtnetlink,
  attachment: Attachment,
  netns: string,
): void {
  const next = 'run DEL for it first';
  if (inside.link.find({ name: attachment.ifname }) !== undefined) {
    throw duplicateAttachment(`Link "${attachment.ifname}" already exists in sandbox "${netns}"; ${next}`);
  }
  const name = hostLinkName(attachment);
  if (!isGoneSoon(host, name)) {
    const who = `container "${attachment.containerId}" to network "${attachment.network}" as "${attachment.ifname}"`;
    throw duplicateAttachment(`Link "${name}" on the host shows an earlier attachment of ${who}; ${next}`);
  }
}

/** A kernel takes its time to remove the links of a sandbox that is gone: what is there is looked at for a second. */
function isGoneSoon(host: Rtnetlink, name: string): boolean {
  const deadline = Date.now() + REMOVAL_DEADLINE_MS;
  while (host.link.find({ name }) !== undefined) {
    if (Date.now() >= deadline) return false;
    pause(REMOVAL_PAUSE_MS);
  }
  return true;
}

/**
 * Creates the pair in one message, the host end a port of the bridge with its owner in the alias, and still down.
 * Throws duplicateAttachment when either name is taken, bridgeFull at the kernel's limit, kernelFeatureMissing when it
 * filters no VLANs, kernelRefused otherwise.
 * Equivalent to: `ip link add vethX mtu … address … master cni0 type veth peer name eth0 netns … ; ip link set vethX alias …`
 */
export function addVethPair(
  context: PairContext,
  config: BridgeConfig,
  attachment: Attachment,
  log: (line: string) => void,
): VethPair {
  const { host } = context;
  let { hostEnd, sandboxEnd } = makePair(context, config, attachment);
  if (hostEnd.index === sandboxEnd.index) {
    // The kernel then takes the pair for one link and may announce its carrier a second late (net/core/link_watch.c).
    host.link.remove({ index: hostEnd.index });
    ({ hostEnd, sandboxEnd } = makePair(context, config, attachment));
  }
  silenceIpv6(hostEnd, log);
  configurePort(host, hostEnd, config);
  if (config.vlans !== undefined) {
    joinVlans(host, hostEnd, context.bridge, config.vlans);
  }
  if (config.macSpoofCheck) {
    host.neigh.addFdb({ index: hostEnd.index, lladdr: sandboxEnd.mac });
  }
  host.link.set(hostEnd.index, { alias: ownerComment(attachment) }); // the kernel ignores it in the creating message
  return { host: hostEnd, sandbox: sandboxEnd };
}

/**
 * A checked port does not learn: the bridge takes the source of frames for link-local groups (01:80:c2:00:00:0X) for true
 * before any rule sees them (net/bridge/br_input.c), and would send a neighbour's frames to whoever claimed his MAC.
 */
function configurePort(host: Rtnetlink, hostEnd: Link, config: BridgeConfig): void {
  const { hairpinMode, portIsolation, macSpoofCheck } = config;
  if (hairpinMode || portIsolation || macSpoofCheck) {
    const learning = macSpoofCheck ? { learning: false } : {};
    host.link.setPort(hostEnd.index, { hairpin: hairpinMode, isolated: portIsolation, ...learning });
  }
}

/** Lets frames in and out. Equivalent to: `ip link set vethX up` */
export function bringUp(host: Rtnetlink, hostEnd: Link): void {
  host.link.set(hostEnd.index, { up: true });
}

/**
 * A bridge port needs no IPv6 of its own, and without it nothing that a container sends is believed there. It has to be
 * off before the link is up: what IPv6 joins then costs DEL a second grace period, 16 ms.
 */
function silenceIpv6(hostEnd: Link, log: (line: string) => void): void {
  setLinkSysctl('ipv6', hostEnd.name, 'accept_ra', '0', log);
  setLinkSysctl('ipv6', hostEnd.name, 'disable_ipv6', '1', log);
}

function makePair(
  { host, inside, netns, bridge, rollback }: PairContext,
  config: BridgeConfig,
  attachment: Attachment,
): { hostEnd: Link; sandboxEnd: Link } {
  const name = hostLinkName(attachment);
  const mtu = config.mtu === undefined ? {} : { mtu: config.mtu };
  try {
    host.link.add({
      kind: 'veth',
      name,
      mac: randomMac(),
      master: bridge.index,
      ...mtu,
      peer: { name: attachment.ifname, netns, mac: config.mac ?? randomMac(), ...mtu },
    });
  } catch (error) {
    throw explainRefusal(error, config, attachment, netns);
  }
  rollback.add(`delete link "${name}"`, () => host.link.remove({ name })); // not before: the name may be another ADD's
  return { hostEnd: host.link.get({ name }), sandboxEnd: inside.link.get({ name: attachment.ifname }) };
}

/**
 * Waits, by events, until the host end carries traffic. Throws kernelRefused naming the state after 2.55 s.
 */
export function waitUntilUp(host: Rtnetlink, hostEnd: Link): void {
  if (isOperational(host, hostEnd)) {
    return;
  }
  using monitor = openRtnetlinkMonitor({ groups: ['link'] });
  const deadline = Date.now() + FORWARDING_DEADLINE_MS;
  while (!isOperational(host, hostEnd)) {
    monitor.wait(Math.max(1, deadline - Date.now()));
    if (Date.now() >= deadline) {
      const { operstate } = host.link.get({ index: hostEnd.index });
      throw new Error(`Link "${hostEnd.name}" is still "${operstate}" after ${FORWARDING_DEADLINE_MS} ms`);
    }
  }
}

function isOperational(host: Rtnetlink, link: Link): boolean {
  return host.link.get({ index: link.index }).operstate === 'up';
}

function explainRefusal(error: unknown, config: BridgeConfig, attachment: Attachment, netns: Netns): unknown {
  if (hasCode(error, 'EEXIST')) {
    const who = `"${attachment.ifname}" of container "${attachment.containerId}"`;
    return duplicateAttachment(
      `Link ${who} already exists in sandbox "${netns.path}"; run DEL for it first`,
      {
        cause: error,
      },
    );
  }
  if (hasCode(error, 'EXFULL')) {
    const next = 'spread the containers over several networks with bridges of their own';
    return bridgeFull(`Bridge "${config.bridge}" has all its ${BRIDGE_PORT_LIMIT} ports in use; ${next}`, {
      cause: error,
    });
  }
  return error;
}
