// Flows made up for the unit tests, and the messages in which a kernel would tell of them.
import {
  CTA_ID,
  CTA_IP_V4_DST,
  CTA_IP_V4_SRC,
  CTA_IP_V6_DST,
  CTA_IP_V6_SRC,
  CTA_PROTO_DST_PORT,
  CTA_PROTO_NUM,
  CTA_PROTO_SRC_PORT,
  CTA_TUPLE_IP,
  CTA_TUPLE_ORIG,
  CTA_TUPLE_PROTO,
  CTA_TUPLE_REPLY,
  CTA_TUPLE_ZONE,
  CTA_ZONE,
  IPCTNL_MSG_CT_NEW,
} from '../../../shared/conntrack/constants.ts';
import { type Flow, type FlowProtocol, messageType, type Tuple } from '../../../shared/conntrack/flow.ts';
import { ipToBytes, parseIp } from '../../../shared/ip/cidr.ts';
import { AttributeWriter } from '../../../shared/netlink/attributes.ts';
import type { NetlinkMessage } from '../../../shared/netlink/message.ts';

export interface FlowTraits {
  readonly protocol?: FlowProtocol;
  readonly src?: string;
  readonly dst?: string;
  readonly dstPort?: number;
  /** Where it was translated to; where it went to, if absent. */
  readonly answeredBy?: string;
  readonly id?: number;
  readonly zone?: number;
}

/** A UDP flow from outside to port 53 of the host, but for what is said otherwise. */
export function flow(traits: FlowTraits = {}): Flow {
  const dst = parseIp(traits.dst ?? '203.0.113.1');
  const src = parseIp(traits.src ?? (dst.family === 4 ? '192.0.2.1' : '2001:db8:ff::1'));
  const dstPort = traits.dstPort ?? 53;
  const answeredBy = traits.answeredBy === undefined ? dst : parseIp(traits.answeredBy);
  return {
    family: dst.family,
    protocol: traits.protocol ?? 'udp',
    original: { src, dst, srcPort: 4000, dstPort },
    reply: { src: answeredBy, dst: src, srcPort: dstPort, dstPort: 4000 },
    id: traits.id ?? 1,
    zone: traits.zone ?? 0,
  };
}

export interface Oddities {
  /** The attribute that says the zone: that of the flow if absent, or of a tuple. */
  readonly zoneIn?: typeof CTA_TUPLE_ORIG | typeof CTA_TUPLE_REPLY;
  readonly protocolNumber?: number;
  readonly without?: number;
  /** Attributes after all others, of which the kernel's readers would believe the last. */
  readonly extra?: (writer: AttributeWriter) => unknown;
}

/** The message in which the kernel tells of a flow. */
export function told(of: Flow, oddities: Oddities = {}): NetlinkMessage {
  const { zoneIn, without } = oddities;
  const number = oddities.protocolNumber ?? { tcp: 6, udp: 17, sctp: 132 }[of.protocol];
  const writer = new AttributeWriter(Uint8Array.of(of.family === 4 ? 2 : 10, 0, 0, 0));
  const tuples = [
    [CTA_TUPLE_ORIG, of.original],
    [CTA_TUPLE_REPLY, of.reply],
  ] as const;
  for (const [type, tuple] of tuples) {
    if (type === without) continue;
    writer.nest(type, (w) => {
      writeTuple(w, tuple, number);
      if (type === zoneIn) w.u16be(CTA_TUPLE_ZONE, of.zone);
    });
  }
  if (without !== CTA_ID) writer.u32be(CTA_ID, of.id);
  if (of.zone !== 0 && zoneIn === undefined) writer.u16be(CTA_ZONE, of.zone);
  oddities.extra?.(writer);
  return {
    type: messageType(IPCTNL_MSG_CT_NEW),
    flags: 0,
    sequence: 1,
    portId: 0,
    body: writer.done().slice(),
  };
}

function writeTuple(writer: AttributeWriter, tuple: Tuple, protocolNumber: number): void {
  const isIpv4 = tuple.src.family === 4;
  writer
    .nest(CTA_TUPLE_IP, (ip) =>
      ip
        .bytes(isIpv4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, ipToBytes(tuple.src))
        .bytes(isIpv4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, ipToBytes(tuple.dst)),
    )
    .nest(CTA_TUPLE_PROTO, (proto) =>
      proto
        .u8(CTA_PROTO_NUM, protocolNumber)
        .u16be(CTA_PROTO_SRC_PORT, tuple.srcPort)
        .u16be(CTA_PROTO_DST_PORT, tuple.dstPort),
    );
}
