// What the kernel says of flows, well formed and not: nothing it says may make the decoder throw.
import { describe, expect, test } from 'vitest';
import {
  CTA_ID,
  CTA_IP_V4_DST,
  CTA_IP_V4_SRC,
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
  IPCTNL_MSG_CT_GET_STATS,
} from '../../../shared/conntrack/constants.ts';
import {
  decodeCount,
  decodeFlow,
  decodeKey,
  describeFlow,
  encodeDelete,
  messageType,
} from '../../../shared/conntrack/flow.ts';
import { ipToBytes, parseIp } from '../../../shared/ip/cidr.ts';
import { AttributeWriter, readAttributes } from '../../../shared/netlink/attributes.ts';
import type { NetlinkMessage } from '../../../shared/netlink/message.ts';
import { flow, told } from './flows.ts';

const NFGENMSG = 4;
const ICMP = 1;

describe('a flow', () => {
  const FLOWS = [
    flow({ dst: '203.0.113.1', dstPort: 53, answeredBy: '10.22.0.2', id: 0xfffffffe }),
    flow({ protocol: 'sctp', dst: '2001:db8::1', dstPort: 5060, zone: 7 }),
    flow({ protocol: 'tcp', dst: '127.0.0.1', dstPort: 65535 }),
  ];

  test.each(FLOWS)('is told with both directions, id and zone', (wanted) => {
    expect(decodeFlow(told(wanted))).toEqual(wanted);
  });

  test('whose zone holds for its original direction alone is in that zone', () => {
    const wanted = flow({ zone: 8 });
    expect(decodeFlow(told(wanted, { zoneIn: CTA_TUPLE_ORIG }))).toEqual(wanted);
  });

  test('whose zone holds for its replies alone is found in none', () => {
    expect(decodeFlow(told(flow({ zone: 9 }), { zoneIn: CTA_TUPLE_REPLY }))?.zone).toBe(0);
  });

  test.each([
    ['IPv4', flow({ dst: '203.0.113.1' }), 'udp 192.0.2.1:4000 to 203.0.113.1:53'],
    ['IPv6', flow({ dst: '2001:db8::1' }), 'udp [2001:db8:ff::1]:4000 to [2001:db8::1]:53'],
  ])('of %s is described for errors', (_, described, text) => {
    expect(describeFlow(described)).toBe(text);
  });
});

describe('a delete', () => {
  test('always holds the tuple and the id, and no zone where there is none', () => {
    const attributes = readAttributes(encodeDelete(flow({ zone: 0 })).body, NFGENMSG);
    expect(attributes.entries().map(({ type }) => type)).toEqual([CTA_TUPLE_ORIG, CTA_ID]);
    const inZone = readAttributes(encodeDelete(flow({ zone: 7 })).body, NFGENMSG);
    expect(inZone.u16be(CTA_ZONE)).toBe(7);
  });
});

describe('what is no flow of ours', () => {
  test('is left out when it has no ports', () => {
    const ping = told(flow(), { protocolNumber: ICMP });
    expect(decodeFlow(ping)).toBeUndefined();
    expect(decodeKey(ping)).toBeUndefined();
  });

  test('is left out when it is another message, or of another family', () => {
    const message = told(flow());
    const gone = { ...message, type: messageType(IPCTNL_MSG_CT_DELETE) };
    const bridged = { ...message, body: Uint8Array.from(message.body) };
    bridged.body[0] = 7;
    for (const other of [gone, bridged, { ...message, body: new Uint8Array() }]) {
      expect(decodeFlow(other)).toBeUndefined();
      expect(decodeKey(other)).toBeUndefined();
    }
  });

  test.each([CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_ID])('is left out when attribute %i is missing', (type) => {
    expect(decodeFlow(told(flow(), { without: type }))).toBeUndefined();
  });

  test('is left out when its addresses are of another size than its family has', () => {
    const long = told(flow({ dst: '203.0.113.1' }), {
      extra: (w) => w.nest(CTA_TUPLE_REPLY, (tuple) => writeTuple(tuple, ipToBytes(parseIp('2001:db8::1')))),
    });
    expect(decodeFlow(long)).toBeUndefined();
    const short = told(flow({ dst: '203.0.113.1' }), {
      extra: (w) => w.nest(CTA_TUPLE_REPLY, (tuple) => writeTuple(tuple, Uint8Array.of(1, 2, 3))),
    });
    expect(decodeFlow(short)).toBeUndefined();
  });

  test('never makes the decoder throw, whatever byte is spoiled', () => {
    const message = told(flow({ zone: 8 }), { zoneIn: CTA_TUPLE_ORIG });
    const outcomes = { read: 0, refused: 0 };
    for (let at = 0; at < message.body.length; at += 1) {
      for (const value of [0, 1, 3, 5, 0x7f, 0x80, 0xff]) {
        const body = message.body.slice();
        body[at] = value;
        outcomes[survives({ ...message, body })] += 1;
      }
      outcomes[survives({ ...message, body: message.body.subarray(0, at) })] += 1;
    }
    expect(outcomes.read).toBeGreaterThan(100);
    expect(outcomes.refused).toBeGreaterThan(100);
  });

  /** Decodes it, holds what was read against the promises of a flow, and tells which it was. */
  function survives(message: NetlinkMessage): 'read' | 'refused' {
    decodeKey(message);
    const read = decodeFlow(message);
    if (read === undefined) return 'refused';
    for (const { src, dst, srcPort, dstPort } of [read.original, read.reply]) {
      expect([src.family, dst.family]).toEqual([read.family, read.family]);
      expect(Math.max(srcPort, dstPort)).toBeLessThan(65_536);
    }
    expect(['tcp', 'udp', 'sctp']).toContain(read.protocol);
    encodeDelete(read);
    return 'read';
  }
});

describe('the count', () => {
  const count = (write: (w: AttributeWriter) => AttributeWriter, type = IPCTNL_MSG_CT_GET_STATS) =>
    decodeCount({
      type: messageType(type),
      flags: 0,
      sequence: 1,
      portId: 0,
      body: write(new AttributeWriter(new Uint8Array(NFGENMSG))).done(),
    });

  test('is the number of entries', () => {
    expect(count((w) => w.u32be(CTA_STATS_GLOBAL_ENTRIES, 262_144))).toBe(262_144);
  });

  test('is nothing when it is missing, malformed, or of another message', () => {
    expect(count((w) => w)).toBeUndefined();
    expect(count((w) => w.u16be(CTA_STATS_GLOBAL_ENTRIES, 1))).toBeUndefined();
    expect(count((w) => w.u32be(CTA_STATS_GLOBAL_ENTRIES, 1), IPCTNL_MSG_CT_DELETE)).toBeUndefined();
  });
});

function writeTuple(tuple: AttributeWriter, address: Uint8Array): void {
  tuple
    .nest(CTA_TUPLE_IP, (ip) => ip.bytes(CTA_IP_V4_SRC, address).bytes(CTA_IP_V4_DST, address))
    .nest(CTA_TUPLE_PROTO, (proto) =>
      proto.u8(CTA_PROTO_NUM, 17).u16be(CTA_PROTO_SRC_PORT, 1).u16be(CTA_PROTO_DST_PORT, 2),
    )
    .u16be(CTA_TUPLE_ZONE, 0);
}
