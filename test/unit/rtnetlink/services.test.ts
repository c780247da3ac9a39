// The services against a kernel that is a function: answers that the real one gives rarely, or only elsewhere.
import { expect, test } from 'vitest';
import { toCniError } from '../../../shared/cni/error.ts';
import { formatIp, ipToBytes, parseCidr, parseIp } from '../../../shared/ip/cidr.ts';
import { AttributeWriter } from '../../../shared/netlink/attributes.ts';
import { connectNetlink } from '../../../shared/netlink/connection.ts';
import type { NetlinkMessage } from '../../../shared/netlink/message.ts';
import {
  AF_BRIDGE,
  BRIDGE_VLANDB_ENTRY,
  BRIDGE_VLANDB_ENTRY_INFO,
  BRIDGE_VLANDB_ENTRY_RANGE,
  IFLA_IFNAME,
  NDA_LLADDR,
  RTA_DST,
  RTA_GATEWAY,
  RTA_MULTIPATH,
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWNEIGH,
  RTM_NEWROUTE,
  RTM_NEWVLAN,
} from '../../../shared/rtnetlink/constants.ts';
import { encodeNewLink } from '../../../shared/rtnetlink/link.ts';
import { type Rtnetlink, rtnetlinkOver } from '../../../shared/rtnetlink/rtnetlink.ts';
import { caught } from '../../support/caught.ts';
import { type Answer, ack, done, fakeKernel, part, reply } from '../../support/fake-kernel.ts';

const ENOENT = 2;
const EINVAL = 22;
const ENODEV = 19;
const ENETUNREACH = 101;

test('a link that vanishes between question and answer is found as nothing', () => {
  const { link } = open((request) => [ack(request, ENODEV)]);
  expect(link.find({ index: 7 })).toBeUndefined();
  expect(() => link.get({ index: 7 })).toThrow('Cannot get link 7: no such device (ENODEV)');
});

test('another refusal than ENODEV is not taken for a missing link', () => {
  const { link } = open((request) => [ack(request, 1)]);
  expect(() => link.find({ name: 'cni0' })).toThrow(expect.objectContaining({ code: 'EPERM' }));
  expect(() => link.remove({ name: 'cni0' })).toThrow(expect.objectContaining({ code: 'EPERM' }));
});

test('a link of which the kernel tells next to nothing is still one', () => {
  const { link } = open((request) => [
    reply(request, RTM_NEWLINK, new AttributeWriter(new Uint8Array(16)).done()),
  ]);
  expect(link.get({ index: 1 })).toMatchObject({
    name: '',
    mac: '',
    kind: undefined,
    operstate: 'unknown',
    carrier: false,
    port: undefined,
  });
});

test('VLANs are told a port a message, some as ranges', () => {
  const body = (index: number) => {
    const header = new Uint8Array(8);
    new DataView(header.buffer).setUint32(4, index, true);
    const info = (flags: number, vid: number) => new Uint8Array(Uint16Array.of(flags, vid).buffer);
    return new AttributeWriter(header)
      .nest(BRIDGE_VLANDB_ENTRY, (entry) => entry.bytes(BRIDGE_VLANDB_ENTRY_INFO, info(6, 100)))
      .nest(BRIDGE_VLANDB_ENTRY, (entry) =>
        entry.bytes(BRIDGE_VLANDB_ENTRY_INFO, info(0, 200)).u16(BRIDGE_VLANDB_ENTRY_RANGE, 210),
      )
      .done();
  };
  const { vlan } = open((request) => [
    part(request, RTM_NEWVLAN, body(7)),
    part(request, RTM_NEWVLAN, body(8)),
    done(request),
  ]);
  expect(vlan.list({ index: 7 })).toEqual([
    { index: 7, first: 100, last: 100, pvid: true, untagged: true },
    { index: 7, first: 200, last: 210, pvid: false, untagged: false },
  ]);
  expect(vlan.list()).toHaveLength(4);
});

test('a name that is no UTF-8 does not break the list it is in', () => {
  const name = Uint8Array.of(0xff, 0x41, 0);
  const body = new AttributeWriter(new Uint8Array(16)).bytes(IFLA_IFNAME, name).done();
  const { link } = open((request) => [part(request, RTM_NEWLINK, body), done(request)]);
  expect(link.list().map((found) => found.name)).toEqual(['\ufffdA']);
});

test('an answer shorter than its fixed header is refused', () => {
  const { link } = open((request) => [reply(request, RTM_NEWLINK, new Uint8Array(8))]);
  expect(refusalOf(() => link.get({ index: 1 }))).toEqual(
    'Cannot get link 1: malformed message (EBADMSG): Malformed netlink message: 8 bytes, 16 expected',
  );
});

test('a link name with a NUL never reaches the kernel', () => {
  expect(() => encodeNewLink({ kind: 'bridge', name: 'cni0\0x' })).toThrow('holds a NUL');
});

test('a MAC that is none never reaches the kernel', () => {
  expect(() => encodeNewLink({ kind: 'bridge', name: 'cni0', mac: 'none' })).toThrow(
    'Cannot parse MAC address "none"',
  );
});

test('addresses of another family than asked for are left out', () => {
  const body = new AttributeWriter(Uint8Array.of(2, 24, 0, 0, 3, 0, 0, 0))
    .bytes(1, ipToBytes(parseIp('10.0.0.1')))
    .done();
  const { addr } = open((request) => [part(request, RTM_NEWADDR, body), done(request)]);
  expect(addr.list({ family: 6 })).toEqual([]);
  expect(addr.list({ family: 4 })).toHaveLength(1);
});

test('an address without an address is refused', () => {
  const body = new AttributeWriter(Uint8Array.of(2, 24, 0, 0, 3, 0, 0, 0)).done();
  const { addr } = open((request) => [part(request, RTM_NEWADDR, body), done(request)]);
  expect(refusalOf(() => addr.list())).toMatch(/^Cannot list addresses: .* without IFA_ADDRESS$/);
});

test('routes of another family than asked for are left out', () => {
  const { route } = open((request) => [part(request, RTM_NEWROUTE, routeBody(2)), done(request)]);
  expect(route.list({ family: 6, table: 'all' })).toEqual([]);
  expect(route.list({ family: 4, table: 'all' })).toHaveLength(1);
});

test('a table that was never written to has no routes', () => {
  const { route } = open((request) => [ack(request, ENOENT, { message: 'FIB table does not exist' })]);
  expect(route.list({ family: 4, table: 4711 })).toEqual([]);
});

test('a route with several next hops appears once for each', () => {
  const hops = Buffer.concat([hop('10.0.0.1', 3), hop('10.0.0.2', 4)]);
  const body = routeBody(2, (writer) => writer.bytes(RTA_MULTIPATH, hops));
  const { route } = open((request) => [part(request, RTM_NEWROUTE, body), done(request)]);
  const found = route.list({ family: 4, table: 'all' });
  expect(found.map(({ gw, oif }) => [gw && formatIp(gw), oif])).toEqual([
    ['10.0.0.1', 3],
    ['10.0.0.2', 4],
  ]);
});

test('a next hop whose length lies is refused', () => {
  const spoiled = hop('10.0.0.1', 3);
  spoiled.writeUInt16LE(0, 0);
  const body = routeBody(2, (writer) => writer.bytes(RTA_MULTIPATH, spoiled));
  const { route } = open((request) => [part(request, RTM_NEWROUTE, body), done(request)]);
  expect(refusalOf(() => route.list({ family: 4, table: 'all' }))).toMatch(
    /^Cannot list routes: .* next hop of 0 bytes/,
  );
});

test('a look-up that leads nowhere is no route, one that the kernel finds invalid is an error', () => {
  const answers = (errno: number, message?: string) =>
    open((request) => [ack(request, errno, message === undefined ? {} : { message })]).route;
  expect(answers(ENETUNREACH).lookup(parseIp('10.0.0.1'))).toBeUndefined();
  expect(answers(EINVAL).lookup(parseIp('10.0.0.1'))).toBeUndefined();
  expect(() => answers(EINVAL, 'Invalid flags').lookup(parseIp('10.0.0.1'))).toThrow('Invalid flags');
});

test('an error of a route names it', () => {
  const { route } = open((request) => [
    ack(request, ENETUNREACH, { message: 'Nexthop has invalid gateway' }),
  ]);
  expect(() => route.add({ dst: parseCidr('10.1.0.0/16'), gw: parseIp('10.0.0.1'), oif: 2 })).toThrow(
    'Cannot add route to "10.1.0.0/16" via "10.0.0.1" on link 2: network is unreachable (ENETUNREACH); ' +
      'the kernel says: Nexthop has invalid gateway',
  );
});

test("a bridge's entries in a list of neighbours are left out", () => {
  const header = Uint8Array.of(AF_BRIDGE, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0);
  const body = new AttributeWriter(header).bytes(NDA_LLADDR, new Uint8Array(6)).done();
  const { neigh } = open((request) => [part(request, RTM_NEWNEIGH, body), done(request)]);
  expect(neigh.list()).toEqual([]);
});

test.each([
  ['link', (rt: Rtnetlink) => rt.link.find({ name: 'eth0' }), 'get link "eth0"'],
  ['list of links', (rt: Rtnetlink) => rt.link.list(), 'list links'],
  ['list of addresses', (rt: Rtnetlink) => rt.addr.list(), 'list addresses'],
  ['list of routes', (rt: Rtnetlink) => rt.route.list({ family: 4 }), 'list routes'],
  ['look-up', (rt: Rtnetlink) => rt.route.lookup(parseIp('10.0.0.1')), 'look up route to "10.0.0.1"'],
  ['list of neighbours', (rt: Rtnetlink) => rt.neigh.list(), 'list neighbours'],
  ['list of VLANs', (rt: Rtnetlink) => rt.vlan.list(), 'list the VLANs of bridge ports'],
])(
  'a %s that is cut short is a malformed message of its operation, and no defect',
  (_what, ask, operation) => {
    const rt = open((request) => [part(request, request.type - 2, new Uint8Array(2)), done(request)]);
    const error = toCniError(caught(() => ask(rt)));
    expect(error).toMatchObject({ code: 105, message: `Cannot ${operation}: malformed message (EBADMSG)` });
    expect(error.details).toContain('Malformed netlink message: 2 bytes');
  },
);

/** The error with its causes in a line. */
function refusalOf(step: () => unknown): string {
  const { message, details } = toCniError(caught(step));
  return `${message}: ${details}`;
}

function open(answer: (request: NetlinkMessage) => readonly Answer[]): Rtnetlink {
  return rtnetlinkOver(connectNetlink(fakeKernel(answer)));
}

/** A default route of the main table. */
function routeBody(family: number, write: (writer: AttributeWriter) => void = () => {}): Uint8Array {
  const writer = new AttributeWriter(Uint8Array.of(family, 8, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0));
  writer.bytes(RTA_DST, ipToBytes(parseIp('10.0.0.0')));
  write(writer);
  return writer.done();
}

/** `struct rtnexthop` with its gateway. */
function hop(gw: string, oif: number): Buffer {
  const gateway = new AttributeWriter().bytes(RTA_GATEWAY, ipToBytes(parseIp(gw))).done();
  const header = Buffer.alloc(8);
  header.writeUInt16LE(8 + gateway.length, 0);
  header.writeInt32LE(oif, 4);
  return Buffer.concat([header, gateway]);
}
