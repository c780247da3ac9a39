// Our messages against the bytes that `conntrack` sends, and our reading of a flow against those it makes one with:
// every golden of test/fixtures/conntrack, and no other.
import { readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { CTA_ID, CTA_TUPLE_ORIG, CTA_ZONE, IPCTNL_MSG_CT_NEW } from '../../../shared/conntrack/constants.ts';
import {
  decodeFlow,
  decodeKey,
  encodeCount,
  encodeDelete,
  encodeList,
  encodeListAll,
  type Flow,
  messageType,
} from '../../../shared/conntrack/flow.ts';
import { parseIp } from '../../../shared/ip/cidr.ts';
import { AttributeWriter, readAttributes } from '../../../shared/netlink/attributes.ts';
import {
  encodeMessage,
  MESSAGE_HEADER,
  type NetlinkRequest,
  NLM_F_DUMP,
  NLM_F_REQUEST,
} from '../../../shared/netlink/message.ts';
import { expectGolden, type Golden, goldenBytes, parseGolden, readGolden } from '../../support/hex.ts';

const FOLDER = new URL('../../fixtures/conntrack/', import.meta.url);
const NFGENMSG = 4;
const ID = 0xdeadbeef;

const UDP4: Flow = {
  family: 4,
  protocol: 'udp',
  original: { src: parseIp('192.0.2.1'), dst: parseIp('203.0.113.1'), srcPort: 4000, dstPort: 53 },
  reply: { src: parseIp('10.22.0.2'), dst: parseIp('192.0.2.1'), srcPort: 5353, dstPort: 4000 },
  id: ID,
  zone: 7,
};
const SCTP6: Flow = {
  family: 6,
  protocol: 'sctp',
  original: { src: parseIp('2001:db8::1'), dst: parseIp('2001:db8::2'), srcPort: 4000, dstPort: 5060 },
  reply: { src: parseIp('2001:db8::2'), dst: parseIp('2001:db8::1'), srcPort: 5060, dstPort: 4000 },
  id: ID,
  zone: 0,
};

const QUESTIONS: Readonly<Record<string, NetlinkRequest>> = {
  'list-all': { ...encodeListAll(), flags: NLM_F_DUMP },
  count: encodeCount(),
};
const DELETED: Readonly<Record<string, Flow>> = { 'delete-ipv4': UDP4, 'delete-ipv6': SCTP6 };
const NEW: Readonly<Record<string, Flow>> = { 'new-ipv4': UDP4, 'new-ipv6': SCTP6 };

test.each(Object.entries(QUESTIONS))('%s is what the tool sends', (name, question) => {
  expectGolden(message(question), golden(name));
});

test.each(Object.entries(DELETED))('%s names the flow as the tool does, and its id beside', (name, flow) => {
  const request = encodeDelete(flow);
  const theirs = attributesOf(golden(name));
  const ours = readAttributes(request.body, NFGENMSG);
  expect(request.type).toBe(typeOf(golden(name)));
  expect(ours.bytes(CTA_TUPLE_ORIG)).toEqual(theirs.bytes(CTA_TUPLE_ORIG));
  expect(ours.bytes(CTA_ZONE)).toEqual(theirs.bytes(CTA_ZONE));
  expect(ours.u32be(CTA_ID)).toBe(ID);
  const known = [CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE];
  expect(ours.entries().filter(({ type }) => !known.includes(type))).toEqual([]);
});

test.each(Object.entries(NEW))('%s is read as the flow it makes', (name, flow) => {
  const bytes = goldenBytes(golden(name)).subarray(MESSAGE_HEADER);
  const id = new AttributeWriter().u32be(CTA_ID, ID).done();
  const told = {
    type: messageType(IPCTNL_MSG_CT_NEW),
    flags: 0,
    sequence: 1,
    portId: 0,
    body: new Uint8Array(Buffer.concat([bytes, id])),
  };
  expect(decodeFlow(told)).toEqual(flow);
  const { family, protocol, original } = flow;
  expect(decodeKey(told)).toEqual({ family, protocol, dstPort: original.dstPort });
});

// conntrack 1.4.7, Debian 12's, has the kernel filter by nothing but family, mark and status. These bytes follow the
// headers; the kernel tests show that it takes them.
test('a filtered list names protocol and port in a tuple, and in the filter which of them count', () => {
  const wanted = parseGolden(`
    38 00 00 00        length
    01 01              IPCTNL_MSG_CT_GET
    01 03              flags
    -- -- -- --        sequence
    -- -- -- --        port
    0a                 nfgen_family
    00                 version
    00 00              res_id
    18 00 01 80        CTA_TUPLE_ORIG
      14 00 02 80      CTA_TUPLE_PROTO
        05 00 01 00    CTA_PROTO_NUM
          11
          00 00 00     (padding)
        06 00 03 00    CTA_PROTO_DST_PORT
          00 35
          00 00        (padding)
    0c 00 19 80        CTA_FILTER
      08 00 01 00      CTA_FILTER_ORIG_FLAGS
        28 00 00 00
  `);
  const question = encodeList({ family: 6, protocol: 'udp', dstPort: 53 });
  expectGolden(message({ ...question, flags: NLM_F_DUMP }), wanted);
});

test('every golden is compared', () => {
  const names = readdirSync(FOLDER).flatMap((file) => /^(.*)\.hex$/.exec(file)?.[1] ?? []);
  const compared = [QUESTIONS, DELETED, NEW].flatMap((list) => Object.keys(list));
  expect(names.toSorted()).toEqual(compared.toSorted());
});

function golden(name: string): Golden {
  return readGolden(new URL(`${name}.hex`, FOLDER));
}

function message(request: NetlinkRequest): Uint8Array {
  return encodeMessage({ ...request, flags: request.flags | NLM_F_REQUEST, sequence: 7 });
}

function typeOf(captured: Golden): number {
  return Buffer.from(goldenBytes(captured)).readUInt16LE(4);
}

function attributesOf(captured: Golden) {
  return readAttributes(goldenBytes(captured), MESSAGE_HEADER + NFGENMSG);
}
