// The host's end of a VLAN: a veth pair between the bridge and an addressed link, shared by every attachment of that VLAN
// and removed with the last. Called by ADD, and by DEL and GC, under one lock: who comes must not lose it to who goes.
import { hostLinkName } from '../../shared/cni/attachment.ts';
import { bridgeFull, hasCode, wrongLinkKind } from '../../shared/cni/error.ts';
import { lockHost } from '../../shared/cni/host-lock.ts';
import { randomMac } from '../../shared/ip/mac.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import type { Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import type { BridgeConfig } from './config.ts';
import { ensureLinkSysctl } from './link-sysctl.ts';
import { explainMissingVlans, joinVlans } from './port-vlans.ts';
import { vlanGatewayName } from './vlan-plan.ts';

/** A bridge and one of its VLANs. */
export interface BridgeVlan {
  readonly bridge: string;
  readonly vlan: number;
}

/** Held from the look at a gateway to the end of what is done about it. Undefined where /run cannot be written. */
export function lockVlanGateways(): Disposable | undefined {
  return lockHost('vlans');
}

/**
 * Returns the link with the gateway of the VLAN, up, and makes it where it is missing. Throws wrongLinkKind when another
 * kind of link has its name, kernelRefused otherwise.
 * Equivalent to: `ip link add cni0.100 type veth peer name vethX master cni0; bridge vlan add vid 100 dev vethX pvid untagged`
 */
export function ensureVlanGateway(
  host: Rtnetlink,
  bridge: Link,
  config: BridgeConfig,
  vlan: number,
  log: (line: string) => void,
): Link {
  const where = { bridge: bridge.name, vlan };
  const name = vlanGatewayName(bridge.name, vlan);
  const found = host.link.find({ name });
  if (found !== undefined && found.kind !== 'veth') {
    const kind = found.kind ?? 'physical or loopback';
    throw wrongLinkKind(
      `Link "${name}" is of kind "${kind}" instead of "veth"; name another bridge in "bridge"`,
    );
  }
  const isHalf = found !== undefined && isOurs(host, found, where) && !isJoined(host, bridge, where);
  if (isHalf) {
    host.link.remove({ index: found.index }); // whoever made it was killed
  }
  if (found === undefined || isHalf) {
    addPair(host, bridge, config, where, log);
  }
  const gateway = host.link.get({ name });
  if (!gateway.isUp) {
    host.link.set(gateway.index, { up: true });
  }
  return gateway;
}

/** Removes the gateway of the VLAN if it is one of ours and no port is left in the VLAN. Not to be called under the lock. */
export function removeUnusedVlanGateway(host: Rtnetlink, where: BridgeVlan): void {
  const name = vlanGatewayName(where.bridge, where.vlan);
  const find = () => {
    const gateway = host.link.find({ name });
    return gateway !== undefined && isOurs(host, gateway, where) ? gateway : undefined;
  };
  if (find() === undefined) {
    return; // the usual case, which needs no lock
  }
  using _lock = lockVlanGateways();
  const gateway = find();
  if (gateway !== undefined) {
    removeIfUnused(host, gateway, where);
  }
}

/** The VLANs of a bridge that have a gateway of ours among the links given. */
export function listVlanGateways(bridge: string, links: readonly Link[]): BridgeVlan[] {
  return links.flatMap((link) => {
    const where = ownerOf(link);
    const isGateway = where !== undefined && link.name === vlanGatewayName(where.bridge, where.vlan);
    return isGateway && where.bridge === bridge ? [where] : [];
  });
}

function removeIfUnused(host: Rtnetlink, gateway: Link, where: BridgeVlan): void {
  const bridge = host.link.find({ name: where.bridge });
  const farEnd = farEndName(where);
  const ports = bridge === undefined ? [] : host.link.list({ master: bridge.index });
  const others = new Set(ports.filter(({ name }) => name !== farEnd).map(({ index }) => index));
  const isUsed = host.vlan.list().some(({ index, first, last }) => {
    return others.has(index) && first <= where.vlan && where.vlan <= last;
  });
  if (!isUsed) {
    host.link.remove({ index: gateway.index });
  }
}

function addPair(
  host: Rtnetlink,
  bridge: Link,
  config: BridgeConfig,
  where: BridgeVlan,
  log: (line: string) => void,
): void {
  const name = vlanGatewayName(where.bridge, where.vlan);
  const mtu = config.mtu === undefined ? {} : { mtu: config.mtu };
  const peer = { name: farEndName(where), mac: randomMac(), ...mtu };
  host.link.add({ kind: 'veth', name, mac: randomMac(), ...mtu, peer });
  try {
    host.link.set(host.link.get({ name }).index, { alias: aliasOf(where) });
    joinBridge(host, bridge, where, host.link.get({ name: peer.name }), log);
    ensureLinkSysctl('ipv6', name, 'accept_ra', '0', log);
    if (!config.enableDad) {
      ensureLinkSysctl('ipv6', name, 'accept_dad', '0', log);
    }
  } catch (cause) {
    host.link.remove({ name });
    throw hasCode(cause, 'EXFULL')
      ? bridgeFull(`Bridge "${bridge.name}" has no port left for the gateway of VLAN ${where.vlan}`, {
          cause,
        })
      : explainMissingVlans(cause);
  }
}

/** The far end is in its VLAN before it is up, so that nothing of the default VLAN passes. */
function joinBridge(
  host: Rtnetlink,
  bridge: Link,
  where: BridgeVlan,
  farEnd: Link,
  log: (line: string) => void,
): void {
  ensureLinkSysctl('ipv6', farEnd.name, 'disable_ipv6', '1', log);
  host.link.set(farEnd.index, { alias: aliasOf(where), master: bridge.index });
  joinVlans(host, farEnd, bridge, { access: where.vlan, id: where.vlan, trunk: [], keepsDefault: false });
  host.link.set(farEnd.index, { up: true });
}

/** Whether the far end is a port of the bridge and in the VLAN. */
function isJoined(host: Rtnetlink, bridge: Link, where: BridgeVlan): boolean {
  const farEnd = host.link.find({ name: farEndName(where) });
  if (farEnd === undefined || !farEnd.isUp || farEnd.master !== bridge.index) {
    return false;
  }
  return host.vlan.list({ index: farEnd.index }).some(({ first, pvid }) => pvid && first === where.vlan);
}

/** As the host ends of attachments are called. */
function farEndName({ bridge, vlan }: BridgeVlan): string {
  return hostLinkName({ network: bridge, containerId: '', ifname: `vlan ${vlan}` }); // no attachment is without an id
}

function aliasOf({ bridge, vlan }: BridgeVlan): string {
  return `patchbay gateway of bridge ${bridge}, vlan ${vlan}`;
}

function ownerOf({ alias }: Link): BridgeVlan | undefined {
  const [, bridge, vlan] = /^patchbay gateway of bridge ([^ ,]+), vlan (\d{1,4})$/.exec(alias ?? '') ?? [];
  return bridge === undefined || vlan === undefined ? undefined : { bridge, vlan: Number(vlan) };
}

/** By its alias; by its other end, should its maker have been killed before it had one. */
function isOurs(host: Rtnetlink, link: Link, where: BridgeVlan): boolean {
  const owner = ownerOf(link);
  if (owner !== undefined) {
    return owner.bridge === where.bridge && owner.vlan === where.vlan;
  }
  return host.link.find({ name: farEndName(where) })?.peerIndex === link.index;
}
