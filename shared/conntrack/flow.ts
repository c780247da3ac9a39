// A flow, what a line of `conntrack -L` shows: the two tuples it is known by, and the messages that ask for flows and
// delete one. Nothing here does I/O, and nothing a reply holds can make it throw. conntrack.ts sends and reads them.
import { type Family, formatIp, type Ip, ipFromBytes, ipToBytes } from '../ip/cidr.ts';
import { type Attributes, AttributeWriter, readAttributes } from '../netlink/attributes.ts';
import type { NetlinkMessage, NetlinkRequest } from '../netlink/message.ts';
import {
  CTA_FILTER,
  CTA_FILTER_F_CTA_PROTO_DST_PORT,
  CTA_FILTER_F_CTA_PROTO_NUM,
  CTA_FILTER_ORIG_FLAGS,
  CTA_ID,
  CTA_IP_V4_DST,
  CTA_IP_V4_SRC,
  CTA_IP_V6_DST,
  CTA_IP_V6_SRC,
  CTA_PROTO_DST_PORT,
  CTA_PROTO_NUM,
  CTA_PROTO_SRC_PORT,
  CTA_STATS_GLOBAL_ENTRIES,
  CTA_TUPLE_IP,
  CTA_TUPLE_ORIG,
  CTA_TUPLE_PROTO,
  CTA_TUPLE_REPLY,
  CTA_TUPLE_ZONE,
  CTA_ZONE,
  IPCTNL_MSG_CT_DELETE,
  IPCTNL_MSG_CT_GET,
  IPCTNL_MSG_CT_GET_STATS,
  IPCTNL_MSG_CT_NEW,
  IPPROTO_SCTP,
  IPPROTO_TCP,
  IPPROTO_UDP,
  NFNETLINK_V0,
  NFNL_SUBSYS_CTNETLINK,
  NFPROTO_IPV4,
  NFPROTO_IPV6,
  NFPROTO_UNSPEC,
} from './constants.ts';

/** The protocols whose flows have ports. */
export type FlowProtocol = 'tcp' | 'udp' | 'sctp';

/** One direction of a flow, as its packets look when they arrive. */
export interface Tuple {
  readonly src: Ip;
  readonly dst: Ip;
  readonly srcPort: number;
  readonly dstPort: number;
}

/** What tells a flow from all others of its time. */
export interface FlowIdentity {
  readonly family: Family;
  readonly protocol: FlowProtocol;
  /** What the first packet said, before any translation. */
  readonly original: Tuple;
  /** The tracking zone of the original direction, 0 unless rules say otherwise. */
  readonly zone: number;
}

/** A flow as the kernel reports it. */
export interface Flow extends FlowIdentity {
  /** What an answer says when it leaves whoever answers: its `src` is where the flow was translated to. */
  readonly reply: Tuple;
  /** Tells this flow from a later one with the same tuples, unless the kernel keeps that in the same place. */
  readonly id: number;
}

/** Flows whose first packet went to this port. */
export interface FlowFilter {
  readonly family: Family;
  readonly protocol: FlowProtocol;
  readonly dstPort: number;
}

/** What the kernel is asked to compare in a dump: it takes no protocol without a family, and no port without both. */
export interface FlowQuery {
  readonly family: Family;
  readonly protocol: FlowProtocol;
  readonly dstPort?: number | undefined;
}

/** Whether a flow, as far as filters look at it, is one of those asked for. */
export function matches(query: FlowQuery, key: FlowFilter | undefined): boolean {
  return (
    key?.family === query.family &&
    key.protocol === query.protocol &&
    (query.dstPort === undefined || key.dstPort === query.dstPort)
  );
}

/** Every flow in the namespace. */
export function encodeListAll(): NetlinkRequest {
  return request(IPCTNL_MSG_CT_GET, beginFamily(NFPROTO_UNSPEC));
}

/**
 * The flows that match. Kernels before 5.8 skip CTA_FILTER and tell of the whole family.
 *
 * Addresses are never part of the filter: in IPv6 the kernel compares them the wrong way round, up to 6.18 at least.
 */
export function encodeList(query: FlowQuery): NetlinkRequest {
  const { family, protocol, dstPort } = query;
  const port = dstPort === undefined ? 0 : CTA_FILTER_F_CTA_PROTO_DST_PORT;
  const writer = beginFamily(NFPROTOS[family])
    .nest(CTA_TUPLE_ORIG, (tuple) =>
      tuple.nest(CTA_TUPLE_PROTO, (proto) => {
        proto.u8(CTA_PROTO_NUM, IPPROTOS[protocol]);
        if (dstPort !== undefined) proto.u16be(CTA_PROTO_DST_PORT, dstPort);
      }),
    )
    .nest(CTA_FILTER, (filter) => filter.u32(CTA_FILTER_ORIG_FLAGS, CTA_FILTER_F_CTA_PROTO_NUM | port));
  return request(IPCTNL_MSG_CT_GET, writer);
}

/** The flow of that identity, if there still is one. */
export function encodeGet(flow: FlowIdentity): NetlinkRequest {
  return request(IPCTNL_MSG_CT_GET, identify(flow));
}

/**
 * This flow and no other. The tuple is always there: a delete without one makes the kernel forget every flow. So is the
 * id, lest a flow that was born since, with the same tuples, is taken for this one.
 */
export function encodeDelete(flow: Flow): NetlinkRequest {
  return request(IPCTNL_MSG_CT_DELETE, identify(flow).u32be(CTA_ID, flow.id));
}

/** How many flows there are in the namespace. */
export function encodeCount(): NetlinkRequest {
  return request(IPCTNL_MSG_CT_GET_STATS, beginFamily(NFPROTO_UNSPEC));
}

/** `undefined` when the message is another. */
export function decodeCount(message: NetlinkMessage): number | undefined {
  if (message.type !== messageType(IPCTNL_MSG_CT_GET_STATS)) return undefined;
  return guard(() => readAttributes(message.body, HEADER).u32be(CTA_STATS_GLOBAL_ENTRIES));
}

/** `undefined` for a flow without ports (ICMP …), and for what is no flow at all. */
export function decodeFlow(message: NetlinkMessage): Flow | undefined {
  return read(message, (family, attributes) => {
    const orig = attributes.nest(CTA_TUPLE_ORIG);
    const protocol = PROTOCOLS[orig?.nest(CTA_TUPLE_PROTO)?.u8(CTA_PROTO_NUM) ?? -1];
    const original = decodeTuple(family, orig);
    const reply = decodeTuple(family, attributes.nest(CTA_TUPLE_REPLY));
    const id = attributes.u32be(CTA_ID);
    if (protocol === undefined || original === undefined || reply === undefined || id === undefined)
      return undefined;
    // Which of the two it is depends on whether the zone holds for one direction or for both.
    const zone = attributes.u16be(CTA_ZONE) ?? orig?.u16be(CTA_TUPLE_ZONE) ?? 0;
    return { family, protocol, original, reply, id, zone };
  });
}

/** What filters look at, without the rest: most flows of a long list are unwanted. `undefined` as in `decodeFlow`. */
export function decodeKey(message: NetlinkMessage): FlowFilter | undefined {
  return read(message, (family, attributes) => {
    const proto = attributes.nest(CTA_TUPLE_ORIG)?.nest(CTA_TUPLE_PROTO);
    const protocol = PROTOCOLS[proto?.u8(CTA_PROTO_NUM) ?? -1];
    const dstPort = proto?.u16be(CTA_PROTO_DST_PORT);
    return protocol === undefined || dstPort === undefined ? undefined : { family, protocol, dstPort };
  });
}

/** For errors: `udp 192.0.2.1:4000 to 203.0.113.1:53`. */
export function describeFlow(flow: FlowIdentity): string {
  const { src, dst, srcPort, dstPort } = flow.original;
  return `${flow.protocol} ${endpoint(src, srcPort)} to ${endpoint(dst, dstPort)}`;
}

/** `nlmsg_type`: the subsystem in the upper byte. */
export function messageType(type: number): number {
  return (NFNL_SUBSYS_CTNETLINK << 8) | type;
}

/** `struct nfgenmsg { __u8 nfgen_family; __u8 version; __be16 res_id; };` */
const HEADER = 4;

const NFPROTOS = { 4: NFPROTO_IPV4, 6: NFPROTO_IPV6 } as const;
const FAMILIES: Readonly<Record<number, Family>> = { [NFPROTO_IPV4]: 4, [NFPROTO_IPV6]: 6 };
const IPPROTOS = { tcp: IPPROTO_TCP, udp: IPPROTO_UDP, sctp: IPPROTO_SCTP } as const;
const PROTOCOLS: Readonly<Record<number, FlowProtocol>> = {
  [IPPROTO_TCP]: 'tcp',
  [IPPROTO_UDP]: 'udp',
  [IPPROTO_SCTP]: 'sctp',
};
/** Source and destination. */
const IP_TYPES = { 4: [CTA_IP_V4_SRC, CTA_IP_V4_DST], 6: [CTA_IP_V6_SRC, CTA_IP_V6_DST] } as const;

function request(type: number, writer: AttributeWriter): NetlinkRequest {
  return { type: messageType(type), flags: 0, body: writer.done() };
}

function identify({ family, protocol, original, zone }: FlowIdentity): AttributeWriter {
  const { src, dst, srcPort, dstPort } = original;
  const [srcType, dstType] = IP_TYPES[family];
  const writer = beginFamily(NFPROTOS[family]).nest(CTA_TUPLE_ORIG, (tuple) =>
    tuple
      .nest(CTA_TUPLE_IP, (ip) => ip.bytes(srcType, ipToBytes(src)).bytes(dstType, ipToBytes(dst)))
      .nest(CTA_TUPLE_PROTO, (proto) =>
        proto
          .u8(CTA_PROTO_NUM, IPPROTOS[protocol])
          .u16be(CTA_PROTO_SRC_PORT, srcPort)
          .u16be(CTA_PROTO_DST_PORT, dstPort),
      ),
  );
  // A kernel built without zones refuses the attribute.
  if (zone !== 0) writer.u16be(CTA_ZONE, zone);
  return writer;
}

function beginFamily(nfproto: number): AttributeWriter {
  return new AttributeWriter(Uint8Array.of(nfproto, NFNETLINK_V0, 0, 0));
}

/** The kernel tells of a flow in the form in which it takes a new one. */
function read<T>(
  message: NetlinkMessage,
  decode: (family: Family, attributes: Attributes) => T | undefined,
): T | undefined {
  const family = FAMILIES[message.body[0] ?? NFPROTO_UNSPEC];
  if (message.type !== messageType(IPCTNL_MSG_CT_NEW) || family === undefined) return undefined;
  return guard(() => decode(family, readAttributes(message.body, HEADER)));
}

/** What cannot be read is left out: one malformed flow must not hide the others. */
function guard<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch {
    return undefined;
  }
}

function decodeTuple(family: Family, attributes: Attributes | undefined): Tuple | undefined {
  const ip = attributes?.nest(CTA_TUPLE_IP);
  const proto = attributes?.nest(CTA_TUPLE_PROTO);
  const [srcType, dstType] = IP_TYPES[family];
  const src = decodeIp(family, ip?.bytes(srcType));
  const dst = decodeIp(family, ip?.bytes(dstType));
  const srcPort = proto?.u16be(CTA_PROTO_SRC_PORT);
  const dstPort = proto?.u16be(CTA_PROTO_DST_PORT);
  if (src === undefined || dst === undefined || srcPort === undefined || dstPort === undefined)
    return undefined;
  return { src, dst, srcPort, dstPort };
}

function decodeIp(family: Family, bytes: Uint8Array | undefined): Ip | undefined {
  const ip = bytes && ipFromBytes(bytes);
  return ip?.family === family ? ip : undefined;
}

function endpoint(ip: Ip, port: number): string {
  return ip.family === 4 ? `${formatIp(ip)}:${port}` : `[${formatIp(ip)}]:${port}`;
}
