// The host as the containers' gateway: addresses on the bridge, and forwarding. Called by ADD; what it makes serves
// the next container too, so nothing here is undone.
import { networkOf as networkIn } from '../../shared/cni/attachment.ts';
import { addressConflict, hasCode } from '../../shared/cni/error.ts';
import {
  type Cidr,
  contains,
  type Family,
  formatCidr,
  ipEquals,
  networkOf,
  parseCidr,
} from '../../shared/ip/cidr.ts';
import { ensureSysctl } from '../../shared/linux/sysctl.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import type { Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import type { BridgeConfig } from './config.ts';
import type { Addressing } from './plan.ts';

/** The switch of each family, as a path below /proc/sys. */
export const FORWARDING: Readonly<Record<Family, string>> = {
  4: 'net/ipv4/ip_forward',
  6: 'net/ipv6/conf/all/forwarding',
};

/**
 * Makes the bridge hold each planned gateway address and the host forward its family.
 * Throws addressConflict when the bridge serves another subnet and `forceAddress` is off, kernelRefused otherwise.
 * Equivalent to: `ip addr add 10.22.0.1/24 dev cni0; sysctl -w net.ipv4.ip_forward=1`
 */
export function serveGateways(host: Rtnetlink, bridge: Link, config: BridgeConfig, plan: Addressing): void {
  if (plan.gateways.length > 0) {
    const present = host.addr.list({ index: bridge.index }).map(({ address }) => address);
    for (const gateway of plan.gateways) {
      ensureGateway({ host, bridge, present }, config, plan, gateway);
    }
  }
  for (const family of plan.forwarded) {
    enableForwarding(family);
  }
}

/** The bridge, and the addresses it had before this ADD gave it any. */
interface GatewayBridge {
  readonly host: Rtnetlink;
  readonly bridge: Link;
  readonly present: readonly Cidr[];
}

function ensureGateway(
  { host, bridge, present }: GatewayBridge,
  config: BridgeConfig,
  plan: Addressing,
  gateway: Cidr,
): void {
  const rivals = present.filter(({ ip }) => ip.family === gateway.ip.family);
  if (rivals.some((address) => isSame(address, gateway))) {
    return;
  }
  for (const address of rivals.filter((other) => conflicts(other, gateway, config, plan))) {
    if (!config.forceAddress) {
      throw explainConflict(host, bridge, address, gateway);
    }
    host.addr.remove({ index: bridge.index, address }); // gone already where it was in the way of two gateways
  }
  try {
    // Nobody else may claim the gateway's address on our own bridge, so IPv6 need not ask around first.
    host.addr.add({ index: bridge.index, address: gateway, noDad: !config.enableDad });
  } catch (error) {
    // A parallel ADD of the same network was faster.
    if (!hasCode(error, 'EEXIST')) {
      throw explainDisabledIpv6(error, bridge, gateway);
    }
  }
}

/**
 * A second IPv4 address, or an overlapping IPv6 one, means that the bridge serves something else, unless it belongs
 * to this network as well: another gateway of this ADD, or an address from one of the network's own subnets.
 */
function conflicts(other: Cidr, gateway: Cidr, config: BridgeConfig, plan: Addressing): boolean {
  const isOwn =
    plan.gateways.some((own) => isSame(own, other)) ||
    config.ownSubnets.some((subnet) => isInside(other, subnet));
  if (gateway.ip.family === 4) {
    return !isOwn;
  }
  const overlaps = contains(networkOf(other), gateway.ip) || contains(networkOf(gateway), other.ip);
  return overlaps && !isOwn;
}

/** The config's subnets are IPAM's to validate, so here one that cannot be parsed holds nothing. */
function isInside(address: Cidr, subnet: string): boolean {
  try {
    const parsed = parseCidr(subnet);
    return address.prefix === parsed.prefix && contains(parsed, address.ip);
  } catch {
    return false;
  }
}

function isSame(one: Cidr, other: Cidr): boolean {
  return one.prefix === other.prefix && ipEquals(one.ip, other.ip);
}

/** Tells whose address it is, and whether somebody still needs it: the operator has to choose. */
function explainConflict(host: Rtnetlink, bridge: Link, address: Cidr, wanted: Cidr): unknown {
  const ports = host.link.list({ master: bridge.index });
  const networks = new Set(ports.map(({ alias }) => alias && networkIn(alias)).filter(Boolean));
  const owner = networks.size > 0 ? `, used by network ${[...networks].map((n) => `"${n}"`).join(', ')}` : '';
  const users = ports.length === 0 ? 'no container is attached to it' : `${ports.length} attached to it`;
  const next =
    ports.length === 0
      ? `delete the address with "ip addr del ${formatCidr(address)} dev ${bridge.name}" or set "forceAddress" to true`
      : 'give this network a bridge of its own, or set "forceAddress" to true to take the bridge over';
  return addressConflict(
    `Bridge "${bridge.name}" has address "${formatCidr(address)}"${owner} (${users}), so it cannot get gateway address "${formatCidr(wanted)}"; ${next}`,
  );
}

function explainDisabledIpv6(error: unknown, bridge: Link, gateway: Cidr): unknown {
  if (gateway.ip.family === 4 || !(hasCode(error, 'EACCES') || hasCode(error, 'EOPNOTSUPP'))) {
    return error;
  }
  const next = `set sysctl "net.ipv6.conf.${bridge.name}.disable_ipv6" to 0 or remove the IPv6 range`;
  return new Error(
    `Cannot add "${formatCidr(gateway)}" to bridge "${bridge.name}": IPv6 is off there; ${next}`,
    {
      cause: error,
    },
  );
}

/** Never switched off again: others on this host may rely on it by now. */
function enableForwarding(family: Family): void {
  const name = FORWARDING[family];
  try {
    ensureSysctl(name, '1');
  } catch (cause) {
    const next = 'set it on the host, or mount /proc/sys writable';
    throw new Error(`Cannot switch on IPv${family} forwarding by sysctl "${name}"; ${next}`, { cause });
  }
}
