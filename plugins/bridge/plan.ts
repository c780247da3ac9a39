// What a bridge ADD will do inside the sandbox and on the bridge, decided from the config and the IPAM result alone.
// Pure: add.ts carries the plan out, check.ts compares the kernel with it.
import { invalidConfig, quote } from '../../shared/cni/error.ts';
import type { Result, ResultIp, ResultRoute } from '../../shared/cni/result.ts';
import {
  addToIp,
  broadcastOf,
  type Cidr,
  contains,
  type Family,
  formatIp,
  type Ip,
  ipEquals,
  networkOf,
  parseCidr,
  parseIp,
} from '../../shared/ip/cidr.ts';
import type { BridgeConfig } from './config.ts';

/** The sandbox link is the third interface of every result: bridge, host veth, sandbox veth. */
export const SANDBOX_INTERFACE = 2;

/** include/uapi/linux/rtnetlink.h, RT_SCOPE_LINK: the destination is on the link itself. */
const SCOPE_LINK = 253;

/** One address of the sandbox link. */
export interface PlannedAddress {
  readonly address: Cidr;
  readonly broadcast: Ip | undefined;
  readonly gateway: Ip | undefined;
}

/** One route of the sandbox; `gw` is absent for what is reached on the link. */
export interface PlannedRoute {
  readonly dst: Cidr;
  readonly gw: Ip | undefined;
  readonly priority: number | undefined;
  readonly table: number | undefined;
  readonly scope: number | undefined;
  readonly mtu: number | undefined;
  readonly advmss: number | undefined;
}

/** The layer-3 half of an attachment; everything is empty in layer-2 mode. */
export interface Addressing {
  readonly addresses: readonly PlannedAddress[];
  readonly routes: readonly PlannedRoute[];
  /** Addresses the bridge must hold, IPv4 first; empty unless the bridge is a gateway. */
  readonly gateways: readonly Cidr[];
  /** Families the host must forward. */
  readonly forwarded: readonly Family[];
  /** Addresses whose traffic leaves under the host's address. */
  readonly masqueraded: readonly Cidr[];
  /** `ips`, `routes` and `dns` as the result reports them. */
  readonly reported: Pick<Result, 'ips' | 'routes' | 'dns'>;
}

/** Layer 2: the runtime, or the container itself, takes care of addresses. */
export function planLayer2(config: BridgeConfig): Addressing {
  const reported = config.dns === undefined ? {} : { dns: config.dns };
  return { addresses: [], routes: [], gateways: [], forwarded: [], masqueraded: [], reported };
}

/**
 * Decides addresses, routes, gateways and masquerading from what IPAM leased.
 * Throws invalidConfig when the IPAM result holds no address, or an address or route that cannot be parsed.
 */
export function planAddressing(config: BridgeConfig, leases: Result): Addressing {
  const ips = leases.ips ?? [];
  if (ips.length === 0) {
    throw invalidConfig(
      `IPAM plugin "${config.ipamType}" returned no address; add a range or address to "ipam"`,
    );
  }

  const addresses = ips.map((ip) => planAddress(config, ip));
  for (const route of leases.routes ?? []) expectReadable(config, route);
  const reportedRoutes = withDefaultRoutes(config, addresses, leases.routes ?? []);
  const gateways = config.isGateway ? gatewayAddresses(addresses) : [];

  return {
    addresses,
    routes: distinct(reportedRoutes.map((route) => planRoute(route, addresses))),
    gateways,
    forwarded: [...new Set(gateways.map((gateway) => gateway.ip.family))],
    masqueraded: config.ipMasq ? addresses.map(({ address }) => address) : [],
    reported: describeAddressing(config, leases, addresses, reportedRoutes),
  };
}

/** What Go reads as a route and we do not, such as a prefix of "024": from here on every route can be parsed. */
function expectReadable(config: BridgeConfig, { dst, gw }: ResultRoute): void {
  parsed(() => parseCidr(dst), config, 'routes.dst', dst);
  if (gw) parsed(() => parseIp(gw), config, 'routes.gw', gw);
}

function planAddress(config: BridgeConfig, ip: ResultIp): PlannedAddress {
  const address = parsed(() => parseCidr(ip.address), config, 'ips.address', ip.address);
  const gateway = ip.gateway
    ? parsed(() => parseIp(ip.gateway ?? ''), config, 'ips.gateway', ip.gateway)
    : config.isGateway
      ? computedGateway(address)
      : undefined;
  if (config.isGateway && gateway !== undefined && !contains(networkOf(address), gateway)) {
    const next = 'give a gateway inside the subnet, or set "isGateway" and "isDefaultGateway" to false';
    throw invalidConfig(
      `Field "gateway" names ${quote(ip.gateway)}, which is outside "${ip.address}"; ${next}`,
    );
  }
  const broadcast = address.ip.family === 4 && address.prefix < 31 ? broadcastOf(address) : undefined;
  return { address, broadcast, gateway };
}

/** Without a word from IPAM the gateway is the first address of the subnet; a lone host address has none. */
function computedGateway(address: Cidr): Ip | undefined {
  const bits = address.ip.family === 4 ? 32 : 128;
  if (address.prefix === bits) {
    return undefined;
  }
  const network = networkOf(address).ip;
  const first = addToIp(network, 1n);
  const isPointToPoint = address.prefix === bits - 1;
  return isPointToPoint && ipEquals(first, address.ip) ? network : first;
}

/**
 * `isDefaultGateway` wants one default route a family: a configured one with a gateway is honoured, a configured one
 * without a gateway gets ours, and where there is none it is appended. Two default routes would be refused by the kernel.
 */
function withDefaultRoutes(
  config: BridgeConfig,
  addresses: readonly PlannedAddress[],
  routes: readonly ResultRoute[],
): ResultRoute[] {
  const completed = [...routes];
  if (!config.isDefaultGateway) {
    return completed;
  }
  for (const family of [4, 6] as const) {
    const gateway = firstGateway(addresses, family);
    if (gateway === undefined) {
      continue;
    }
    const dst = family === 4 ? '0.0.0.0/0' : '::/0';
    const configured = completed.findIndex((route) => isDefault(route, family));
    const existing = completed[configured];
    if (existing === undefined) {
      completed.push({ dst, gw: formatIp(gateway) });
    } else if (!existing.gw) {
      completed[configured] = { ...existing, gw: formatIp(gateway) };
    }
  }
  return completed;
}

/** A default route in the main table; one in a table of its own serves policy routing and does not count. */
function isDefault(route: ResultRoute, family: Family): boolean {
  const dst = parseCidr(route.dst);
  return dst.prefix === 0 && dst.ip.family === family && (route.table ?? 254) === 254;
}

function firstGateway(addresses: readonly PlannedAddress[], family: Family): Ip | undefined {
  return addresses.find(({ gateway }) => gateway?.family === family)?.gateway;
}

function planRoute(route: ResultRoute, addresses: readonly PlannedAddress[]): PlannedRoute {
  const dst = networkOf(parseCidr(route.dst));
  const inherited = route.scope === SCOPE_LINK ? undefined : firstGateway(addresses, dst.ip.family);
  return {
    dst,
    gw: route.gw ? parseIp(route.gw) : inherited,
    priority: route.priority,
    table: route.table,
    scope: route.scope,
    mtu: route.mtu,
    advmss: route.advmss,
  };
}

/** A route listed twice is one wish; the kernel would refuse the second with EEXIST. */
function distinct(routes: readonly PlannedRoute[]): PlannedRoute[] {
  const byKey = new Map<string, PlannedRoute>();
  for (const route of routes) {
    const gw = route.gw === undefined ? '' : formatIp(route.gw);
    const key = [formatIp(route.dst.ip), route.dst.prefix, gw, route.priority, route.table].join(' ');
    if (!byKey.has(key)) {
      byKey.set(key, route);
    }
  }
  return [...byKey.values()];
}

/** The bridge holds each gateway once, with the prefix length of the address it serves. */
function gatewayAddresses(addresses: readonly PlannedAddress[]): Cidr[] {
  const gateways: Cidr[] = [];
  for (const family of [4, 6] as const) {
    for (const { address, gateway } of addresses) {
      const isKnown = gateways.some(({ ip }) => gateway !== undefined && ipEquals(ip, gateway));
      if (gateway?.family === family && !isKnown) {
        gateways.push({ ip: gateway, prefix: address.prefix });
      }
    }
  }
  return gateways;
}

function describeAddressing(
  config: BridgeConfig,
  leases: Result,
  addresses: readonly PlannedAddress[],
  routes: readonly ResultRoute[],
): Pick<Result, 'ips' | 'routes' | 'dns'> {
  const ips = (leases.ips ?? []).map((ip, index) => {
    const gateway = addresses[index]?.gateway;
    return { ...ip, ...(gateway && { gateway: formatIp(gateway) }), interface: SANDBOX_INTERFACE };
  });
  const dns = config.dns ?? leases.dns;
  return { ips, ...(routes.length > 0 && { routes: [...routes] }), ...(dns && { dns }) };
}

function parsed<T>(parse: () => T, config: BridgeConfig, field: string, value: string): T {
  try {
    return parse();
  } catch (cause) {
    throw invalidConfig(`IPAM plugin "${config.ipamType}" returned "${value}" as "${field}"`, { cause });
  }
}
