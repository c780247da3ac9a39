// Routes: what `ip route` shows and changes. rtnetlink.ts offers RouteService as `.route` to the plugins.
import { type Cidr, type Family, formatCidr, formatIp, type Ip, ipFromBytes, ipToBytes } from '../ip/cidr.ts';
import { type Attributes, AttributeWriter, readAttributes } from '../netlink/attributes.ts';
import { align, HOST_LITTLE_ENDIAN, viewOf } from '../netlink/bytes.ts';
import type { NetlinkConnection } from '../netlink/connection.ts';
import { type NetlinkMessage, type NetlinkRequest, NLM_F_CREATE } from '../netlink/message.ts';
import { decodeReply, NetlinkError } from '../netlink/netlink-error.ts';
import {
  AF_INET,
  AF_INET6,
  RT_TABLE_MAIN,
  RT_TABLE_UNSPEC,
  RTA_DST,
  RTA_GATEWAY,
  RTA_METRICS,
  RTA_MULTIPATH,
  RTA_OIF,
  RTA_PREFSRC,
  RTA_PRIORITY,
  RTA_TABLE,
  RTA_VIA,
  RTAX_ADVMSS,
  RTAX_MTU,
  RTM_DELROUTE,
  RTM_F_LOOKUP_TABLE,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  RTN_UNICAST,
  RTNH_F_ONLINK,
  RTPROT_BOOT,
} from './constants.ts';

/** A wish. Absent means the kernel's choice, or the default named here. */
export interface RouteSpec {
  readonly dst: Cidr;
  readonly gw?: Ip;
  /** The link to leave by, by index. */
  readonly oif: number;
  /** The metric: lower is preferred. */
  readonly priority?: number;
  /** Main (254) if absent. */
  readonly table?: number;
  /** RT_SCOPE_…: 0 universe (if absent, also without gateway: `ip` would say link then), 253 link, 254 host. */
  readonly scope?: number;
  /** RTPROT_…: boot (3) if absent. */
  readonly protocol?: number;
  /** The source address to prefer. */
  readonly src?: Ip;
  readonly mtu?: number;
  readonly advmss?: number;
  /** Believe that the gateway is on the link even if no address says so. */
  readonly onlink?: boolean;
}

/** A route as the kernel reports it. One with several next hops appears once for each. */
export interface Route {
  readonly family: Family;
  readonly dst: Cidr;
  readonly gw: Ip | undefined;
  readonly oif: number | undefined;
  readonly priority: number | undefined;
  readonly table: number;
  readonly scope: number;
  readonly protocol: number;
  /** RTN_…: 1 unicast, 2 local, 3 broadcast, 7 unreachable … */
  readonly type: number;
  readonly src: Ip | undefined;
  readonly mtu: number | undefined;
  readonly advmss: number | undefined;
}

export interface RouteFilter {
  readonly family: Family;
  /** Main (254) if absent, as with `ip route`; "all" for every table. */
  readonly table?: number | 'all';
  readonly oif?: number;
}

export class RouteService {
  readonly #connection: NetlinkConnection;

  constructor(connection: NetlinkConnection) {
    this.#connection = connection;
  }

  /**
   * Adds a route beside those that are there: an identical IPv4 one is EEXIST, a second IPv6 one with the same
   * destination and metric becomes a further next hop.
   *
   * Throws NetlinkError: ENETUNREACH when the gateway is on no network of the link, ENETDOWN when that is down.
   * Equivalent to: `ip route prepend 10.1.0.0/16 via 10.22.0.1 dev eth0 metric 5 table 100 mtu 1400 advmss 1360`
   */
  add(spec: RouteSpec): void {
    this.#connection.request(`add route ${describe(spec)}`, encodeNewRoute(spec));
  }

  /** The route must exist. Throws NetlinkError ESRCH. Equivalent to: `ip route del 10.1.0.0/16 via 10.22.0.1 dev eth0` */
  delete(spec: RouteSpec): void {
    this.#connection.request(`delete route ${describe(spec)}`, encodeDeleteRoute(spec));
  }

  /** The kernel filters; we look again at what older ones do not. Equivalent to: `ip -6 route show table 100 dev eth0` */
  list(filter: RouteFilter): Route[] {
    const table = filter.table ?? RT_TABLE_MAIN;
    const routes: Route[] = [];
    for (const message of this.#listMessages(filter)) {
      for (const route of decodeReply(LISTING, message, decodeRoutes)) {
        // A kernel without IPv6 answers a question for it with everything else.
        if (route.family !== filter.family) continue;
        if (filter.oif !== undefined && route.oif !== filter.oif) continue;
        if (table === 'all' || route.table === table) routes.push(route);
      }
    }
    return routes;
  }

  /** Where a packet to `ip` would go; `undefined` when nowhere. Throws NetlinkError. Equivalent to: `ip route get 10.1.2.3` */
  lookup(ip: Ip): Route | undefined {
    const operation = `look up route to "${formatIp(ip)}"`;
    try {
      return decodeReply(operation, this.#connection.get(operation, encodeLookup(ip)), decodeRoutes)[0];
    } catch (error) {
      if (error instanceof NetlinkError && isNowhere(error)) return undefined;
      throw error;
    }
  }

  /** A table nobody has written to does not exist: no routes. */
  #listMessages(filter: RouteFilter): NetlinkMessage[] {
    try {
      return this.#connection.list(LISTING, encodeListRoutes(filter));
    } catch (error) {
      if (error instanceof NetlinkError && (error.code === 'ENOENT' || error.code === 'ENODEV')) return [];
      throw error;
    }
  }
}

/**
 * What no route at all, unreachable, prohibit and blackhole routes answer. The last one's EINVAL is told from a request
 * that the kernel finds invalid by what it says about those.
 */
function isNowhere({ code, kernelMessage }: NetlinkError): boolean {
  return (
    code === 'ENETUNREACH' ||
    code === 'EHOSTUNREACH' ||
    code === 'EACCES' ||
    (code === 'EINVAL' && kernelMessage === undefined)
  );
}

const LISTING = 'list routes';

export function encodeNewRoute(spec: RouteSpec): NetlinkRequest {
  return { type: RTM_NEWROUTE, flags: NLM_F_CREATE, body: encodeRoute(spec) };
}

export function encodeDeleteRoute(spec: RouteSpec): NetlinkRequest {
  return { type: RTM_DELROUTE, flags: 0, body: encodeRoute(spec) };
}

export function encodeListRoutes(filter: RouteFilter): NetlinkRequest {
  const table = filter.table === 'all' ? RT_TABLE_UNSPEC : (filter.table ?? RT_TABLE_MAIN);
  const writer = new AttributeWriter(encodeHeader({ family: filter.family, table }));
  if (table > 255) writer.u32(RTA_TABLE, table);
  if (filter.oif !== undefined) writer.u32(RTA_OIF, filter.oif);
  return { type: RTM_GETROUTE, flags: 0, body: writer.done() };
}

export function encodeLookup(ip: Ip): NetlinkRequest {
  // Asks IPv4 for the table the route is in; IPv6 always tells, and refuses the flag under strict checking.
  const header =
    ip.family === 4
      ? { family: ip.family, dstLength: 32, flags: RTM_F_LOOKUP_TABLE }
      : { family: ip.family, dstLength: 128, flags: 0 };
  const writer = new AttributeWriter(encodeHeader(header)).bytes(RTA_DST, ipToBytes(ip));
  return { type: RTM_GETROUTE, flags: 0, body: writer.done() };
}

/** One route for each next hop. */
export function decodeRoutes(message: NetlinkMessage): Route[] {
  const attributes = readAttributes(message.body, ROUTE_HEADER);
  const route = decodeRoute(message.body, attributes);
  const hops = attributes.bytes(RTA_MULTIPATH);
  return hops === undefined ? [route] : decodeHops(hops).map((hop) => ({ ...route, ...hop }));
}

/** The size of `struct rtmsg`. */
const ROUTE_HEADER = 12;

interface RouteHeader {
  readonly family: Family;
  readonly dstLength?: number;
  readonly table?: number;
  readonly protocol?: number;
  readonly scope?: number;
  readonly type?: number;
  readonly flags?: number;
}

/**
 * `struct rtmsg { unsigned char family, dst_len, src_len, tos, table, protocol, scope, type; unsigned flags; };`
 *
 * A table above 255 does not fit here and travels as RTA_TABLE.
 */
function encodeHeader(header: RouteHeader): Uint8Array {
  const table = header.table ?? RT_TABLE_UNSPEC;
  const view = new DataView(new ArrayBuffer(ROUTE_HEADER));
  view.setUint8(0, header.family === 4 ? AF_INET : AF_INET6);
  view.setUint8(1, header.dstLength ?? 0);
  view.setUint8(4, table > 255 ? RT_TABLE_UNSPEC : table);
  view.setUint8(5, header.protocol ?? 0);
  view.setUint8(6, header.scope ?? 0);
  view.setUint8(7, header.type ?? 0);
  view.setUint32(8, header.flags ?? 0, HOST_LITTLE_ENDIAN);
  return new Uint8Array(view.buffer);
}

function encodeRoute(spec: RouteSpec): Uint8Array {
  const { family } = spec.dst.ip;
  const table = spec.table ?? RT_TABLE_MAIN;
  const header = encodeHeader({
    family,
    table,
    dstLength: spec.dst.prefix,
    protocol: spec.protocol ?? RTPROT_BOOT,
    scope: spec.scope ?? 0,
    type: RTN_UNICAST,
    flags: spec.onlink === true ? RTNH_F_ONLINK : 0,
  });
  const writer = new AttributeWriter(header);
  if (spec.dst.prefix > 0) writer.bytes(RTA_DST, ipToBytes(spec.dst.ip));
  if (spec.gw !== undefined) writeGateway(writer, family, spec.gw);
  if (spec.src !== undefined) writer.bytes(RTA_PREFSRC, ipToBytes(spec.src));
  if (spec.priority !== undefined) writer.u32(RTA_PRIORITY, spec.priority);
  if (table > 255) writer.u32(RTA_TABLE, table);
  writer.u32(RTA_OIF, spec.oif);
  writeMetrics(writer, spec);
  return writer.done();
}

/** A gateway of the other family (IPv4 over an IPv6 neighbour) travels as RTA_VIA, `struct rtvia`. */
function writeGateway(writer: AttributeWriter, family: Family, gw: Ip): void {
  const bytes = ipToBytes(gw);
  if (gw.family === family) {
    writer.bytes(RTA_GATEWAY, bytes);
    return;
  }
  const via = new Uint8Array(2 + bytes.length);
  viewOf(via).setUint16(0, gw.family === 4 ? AF_INET : AF_INET6, HOST_LITTLE_ENDIAN);
  via.set(bytes, 2);
  writer.bytes(RTA_VIA, via);
}

function writeMetrics(writer: AttributeWriter, spec: RouteSpec): void {
  const { mtu, advmss } = spec;
  if (mtu === undefined && advmss === undefined) return;
  writer.nest(RTA_METRICS, (metrics) => {
    if (mtu !== undefined) metrics.u32(RTAX_MTU, mtu);
    if (advmss !== undefined) metrics.u32(RTAX_ADVMSS, advmss);
  });
}

function decodeRoute(body: Uint8Array, attributes: Attributes): Route {
  const header = viewOf(body);
  const family = header.getUint8(0) === AF_INET ? 4 : 6;
  const dst = attributes.bytes(RTA_DST);
  const src = attributes.bytes(RTA_PREFSRC);
  const metrics = attributes.nest(RTA_METRICS);
  return {
    family,
    dst: { ip: dst === undefined ? { family, value: 0n } : ipFromBytes(dst), prefix: header.getUint8(1) },
    gw: decodeGateway(attributes),
    oif: attributes.u32(RTA_OIF),
    priority: attributes.u32(RTA_PRIORITY),
    table: attributes.u32(RTA_TABLE) ?? header.getUint8(4),
    scope: header.getUint8(6),
    protocol: header.getUint8(5),
    type: header.getUint8(7),
    src: src === undefined ? undefined : ipFromBytes(src),
    mtu: metrics?.u32(RTAX_MTU),
    advmss: metrics?.u32(RTAX_ADVMSS),
  };
}

function decodeGateway(attributes: Attributes): Ip | undefined {
  const gateway = attributes.bytes(RTA_GATEWAY) ?? attributes.bytes(RTA_VIA)?.subarray(2);
  return gateway === undefined ? undefined : ipFromBytes(gateway);
}

/** `struct rtnexthop { unsigned short len; unsigned char flags, hops; int ifindex; };` and attributes, repeated. */
function decodeHops(bytes: Uint8Array): { gw: Ip | undefined; oif: number }[] {
  const view = viewOf(bytes);
  const hops: { gw: Ip | undefined; oif: number }[] = [];
  let at = 0;
  while (bytes.length - at >= 8) {
    const length = view.getUint16(at, HOST_LITTLE_ENDIAN);
    if (length < 8 || length > bytes.length - at) {
      throw new Error(
        `Malformed netlink attribute: next hop of ${length} bytes with ${bytes.length - at} left`,
      );
    }
    const attributes = readAttributes(bytes.subarray(at, at + length), 8);
    hops.push({ gw: decodeGateway(attributes), oif: view.getInt32(at + 4, HOST_LITTLE_ENDIAN) });
    at += align(length);
  }
  return hops;
}

function describe(spec: RouteSpec): string {
  const via = spec.gw === undefined ? '' : ` via "${formatIp(spec.gw)}"`;
  return `to "${formatCidr(spec.dst)}"${via} on link ${spec.oif}`;
}
