// The flow table of a kernel that is a function: missing modules, kernels without filters, flows that end meanwhile.
import { describe, expect, test } from 'vitest';
import {
  type Conntrack,
  connectConntrack,
  type Flow,
  type FlowFilter,
  isConntrackMissing,
  planDumps,
} from '../../../shared/conntrack/conntrack.ts';
import {
  CTA_FILTER,
  CTA_STATS_GLOBAL_ENTRIES,
  IPCTNL_MSG_CT_DELETE,
  IPCTNL_MSG_CT_GET,
  IPCTNL_MSG_CT_GET_STATS,
} from '../../../shared/conntrack/constants.ts';
import { messageType } from '../../../shared/conntrack/flow.ts';
import { SystemError } from '../../../shared/linux/system-error.ts';
import { AttributeWriter, readAttributes } from '../../../shared/netlink/attributes.ts';
import { connectNetlink } from '../../../shared/netlink/connection.ts';
import type { NetlinkMessage } from '../../../shared/netlink/message.ts';
import { caught } from '../../support/caught.ts';
import {
  type Answer,
  ack,
  datagram,
  done,
  type FakeKernel,
  fakeKernel,
  part,
  reply,
} from '../../support/fake-kernel.ts';
import { flow, told } from './flows.ts';

const EPERM = 1;
const ENOENT = 2;
const EINVAL = 22;
const EOPNOTSUPP = 95;
/** More than a dump of everything is worth, whatever the number of filters here. */
const MANY = 1_000_000;

/** As on a kernel built without /proc/net/nf_conntrack. */
const noText = () => undefined;

const DNS: FlowFilter = { family: 4, protocol: 'udp', dstPort: 53 };
const DNS6: FlowFilter = { family: 6, protocol: 'udp', dstPort: 53 };

const FLOWS: readonly Flow[] = [
  flow({ dst: '203.0.113.1', dstPort: 53, id: 1 }),
  flow({ dst: '203.0.113.1', dstPort: 54, id: 2 }),
  flow({ dst: '203.0.113.1', dstPort: 53, protocol: 'tcp', id: 3 }),
  flow({ dst: '2001:db8::1', dstPort: 53, id: 4 }),
  flow({ dst: '2001:db8::1', dstPort: 5060, protocol: 'sctp', id: 5 }),
  flow({ dst: '2001:db8::1', dstPort: 5061, protocol: 'sctp', id: 6 }),
];

describe('a kernel without ctnetlink', () => {
  test('but with nfnetlink is known by its answer to the first question', () => {
    const failure = caught(() => connect(fakeKernel((request) => [ack(request, EINVAL)])));
    expect(isConntrackMissing(failure)).toBe(true);
    expect(isConntrackMissing(new Error('Cannot forget flows', { cause: failure }))).toBe(true);
    expect(String(failure)).toContain('the kernel has no nf_conntrack_netlink');
  });

  test('is not what other failures say', () => {
    let isClosed = false;
    const kernel = fakeKernel((request) => [ack(request, EPERM)]);
    const forbidding = {
      ...kernel,
      [Symbol.dispose]() {
        isClosed = true;
      },
    };
    const failure = caught(() => connectConntrack(connectNetlink(forbidding), noText));
    expect(failure).toMatchObject({ code: 'EPERM', operation: 'count the flows' });
    expect(isConntrackMissing(failure)).toBe(false);
    expect(isConntrackMissing(new SystemError('socket', EINVAL))).toBe(false);
    expect(isConntrackMissing('nf_conntrack_netlink')).toBe(false);
    expect(isClosed).toBe(true);
  });
});

test('the count is the number the kernel tells, or an error', () => {
  expect(connect(tableOf({ count: 4711 })).count()).toBe(4711);
  const silent = fakeKernel((request) => [reply(request, request.type, new Uint8Array(4))]);
  expect(() => connect(silent)).toThrow('Cannot count the flows: malformed message (EBADMSG)');
});

describe('a list', () => {
  test('of one filter is asked of the kernel as that filter', () => {
    const kernel = tableOf({ count: MANY });
    expect(idsOf(connect(kernel).list([DNS]))).toEqual([1]);
    expect(dumps(kernel)).toEqual(['filtered']);
  });

  test('of two filters is two dumps where flows are many, one where they are few', () => {
    for (const [count, asked] of [
      [MANY, ['filtered', 'filtered']],
      [FLOWS.length, ['everything']],
    ] as const) {
      const kernel = tableOf({ count });
      expect(idsOf(connect(kernel).list([DNS, DNS6]))).toEqual([1, 4]);
      expect(dumps(kernel)).toEqual(asked);
    }
  });

  test('of no filter, or of no flows, asks for none', () => {
    const kernel = tableOf({ count: 0 });
    expect(connect(kernel).list([DNS])).toEqual([]);
    const full = tableOf({ count: MANY });
    expect(connect(full).list([])).toEqual([]);
    expect([...dumps(kernel), ...dumps(full)]).toEqual([]);
  });

  test('leaves out here the SCTP ports that the kernel does not compare', () => {
    const kernel = tableOf({ count: MANY });
    const filters = [5060, 5062].map((dstPort) => ({ family: 6, protocol: 'sctp', dstPort }) as const);
    expect(idsOf(connect(kernel).list(filters))).toEqual([5]);
    expect(dumps(kernel)).toEqual(['filtered']);
  });

  test('is complete and without doubles on a kernel that skips the filter', () => {
    const kernel = tableOf({ count: MANY, filters: 'skipped' });
    expect(idsOf(connect(kernel).list([DNS, DNS6]))).toEqual([1, 4]);
    expect(dumps(kernel)).toEqual(['filtered', 'everything']);
  });

  test.each([EINVAL, EOPNOTSUPP])('is complete on a kernel that refuses the filter with %i', (errno) => {
    const kernel = tableOf({ count: MANY, filters: errno });
    expect(idsOf(connect(kernel).list([DNS, DNS6]))).toEqual([1, 4]);
    expect(dumps(kernel)).toEqual(['filtered', 'everything']);
  });

  test('names in its error what was asked for when the kernel refuses for another reason', () => {
    const conntrack = connect(tableOf({ count: MANY, filters: EPERM }));
    expect(() => conntrack.list([DNS])).toThrow(/^Cannot list the IPv4 udp flows to port 53: .*EPERM/);
  });

  test('leaves out what it cannot read', () => {
    const spoiled = told(flow({ id: 7 }));
    spoiled.body[4] = 0xff;
    const kernel = fakeKernel((request) =>
      request.type === messageType(IPCTNL_MSG_CT_GET)
        ? [part(request, spoiled.type, spoiled.body), ...tell(request, FLOWS), done(request)]
        : [countReply(request, FLOWS.length)],
    );
    expect(idsOf(connect(kernel).list([DNS, DNS6]))).toEqual([1, 4]);
  });
});

describe('a short list that the kernel has as text', () => {
  const line = 'ipv4     2 udp      17 29 src=192.0.2.1 dst=203.0.113.1 sport=4000 dport=53 [UNREPLIED] ';
  const text = () => `${line}src=203.0.113.1 dst=192.0.2.1 sport=53 dport=4000 mark=0 zone=0 use=2\n`;

  test('is not dumped: what the text shows is asked for one by one', () => {
    const kernel = tableOf({ count: 2, found: flow({ id: 9 }) });
    const conntrack = connectConntrack(connectNetlink(kernel), text);
    expect(conntrack.list([DNS, DNS6])).toEqual([flow({ id: 9 })]);
    expect(kernel.received.map(({ type }) => type)).toEqual(
      [IPCTNL_MSG_CT_GET_STATS, IPCTNL_MSG_CT_GET_STATS, IPCTNL_MSG_CT_GET].map(messageType),
    );
  });

  test('lacks what has ended since', () => {
    const conntrack = connectConntrack(connectNetlink(tableOf({ count: 2, found: ENOENT })), text);
    expect(conntrack.list([DNS])).toEqual([]);
  });

  test('that became long is dumped', () => {
    const kernel = tableOf({ count: 301 });
    expect(idsOf(connectConntrack(connectNetlink(kernel), text).list([DNS]))).toEqual([1]);
  });

  test('names the flow that the kernel refuses to tell of', () => {
    const conntrack = connectConntrack(connectNetlink(tableOf({ count: 2, found: EPERM })), text);
    expect(() => conntrack.list([DNS])).toThrow(
      /^Cannot get flow udp 192\.0\.2\.1:4000 to 203\.0\.113\.1:53: .*EPERM/,
    );
  });
});

describe('a delete', () => {
  const WANTED = flow({ dst: '203.0.113.1', dstPort: 53 });

  test('of a flow that ended meanwhile is done', () => {
    const kernel = tableOf({ count: 1, deletes: ENOENT });
    connect(kernel).delete(WANTED);
    expect(kernel.received.at(-1)?.type).toBe(messageType(IPCTNL_MSG_CT_DELETE));
  });

  test('that is refused names the flow', () => {
    const conntrack = connect(tableOf({ count: 1, deletes: EPERM }));
    expect(() => conntrack.delete(WANTED)).toThrow(
      /^Cannot delete flow udp 192\.0\.2\.1:4000 to 203\.0\.113\.1:53: .*EPERM/,
    );
  });
});

describe('the plan of dumps', () => {
  const ports = (length: number) =>
    Array.from({ length }, (_, index): FlowFilter => ({ ...DNS, dstPort: 1000 + index }));

  test('has one dump for each filter while those are cheaper than telling of all flows', () => {
    expect(planDumps([DNS], 0)).toEqual([DNS]);
    expect(planDumps([DNS, DNS6], 100_000)).toEqual([DNS, DNS6]);
    expect(planDumps(ports(10), 100_000)).toHaveLength(10);
  });

  test('has one dump of everything otherwise', () => {
    expect(planDumps([DNS, DNS6], 1000)).toBeUndefined();
    expect(planDumps(ports(500), 100_000)).toBeUndefined();
  });

  test('asks the same question once', () => {
    const sctp = [5060, 5061, 5062].map((dstPort) => ({ family: 4, protocol: 'sctp', dstPort }) as const);
    expect(planDumps([DNS, DNS, ...sctp], MANY)).toEqual([DNS, { family: 4, protocol: 'sctp' }]);
  });
});

interface Table {
  readonly count: number;
  /** Kernels before 5.8 skip them; a number is the errno of one that refuses them. Honoured if absent. */
  readonly filters?: 'skipped' | number;
  /** The errno of every delete. */
  readonly deletes?: number;
  /** The answer to a question for one flow, or its errno. */
  readonly found?: Flow | number;
}

/** A kernel that knows FLOWS and tells of them as one of its age does. */
function tableOf({ count, filters, deletes, found }: Table): FakeKernel {
  return fakeKernel((request) => {
    if (request.type === messageType(IPCTNL_MSG_CT_GET_STATS)) return [countReply(request, count)];
    if (request.type === messageType(IPCTNL_MSG_CT_DELETE)) return [ack(request, deletes)];
    if (typeof found === 'number') return [ack(request, found)];
    if (found !== undefined) return [reply(request, told(found).type, told(found).body)];
    const asked = readAttributes(request.body, 4);
    const isFiltered = asked.has(CTA_FILTER);
    if (isFiltered && typeof filters === 'number') return [ack(request, filters)];
    const family = { 2: 4, 10: 6 }[request.body[0] ?? 0];
    const proto = asked.nest(1)?.nest(2);
    const matching = FLOWS.filter((known) => {
      if (family !== undefined && known.family !== family) return false;
      if (!isFiltered || filters === 'skipped') return true;
      const { protocol, original } = known;
      if ({ tcp: 6, udp: 17, sctp: 132 }[protocol] !== proto?.u8(1)) return false;
      return proto.u16be(3) === undefined || protocol === 'sctp' || proto.u16be(3) === original.dstPort;
    });
    return [...tell(request, matching), done(request)];
  });
}

function tell(request: NetlinkMessage, flows: readonly Flow[]): Answer[] {
  if (flows.length === 0) return [];
  return [datagram(...flows.map((known) => part(request, told(known).type, told(known).body)))];
}

function countReply(request: NetlinkMessage, count: number): Uint8Array {
  const body = new AttributeWriter(new Uint8Array(4)).u32be(CTA_STATS_GLOBAL_ENTRIES, count).done();
  return reply(request, messageType(IPCTNL_MSG_CT_GET_STATS), body);
}

function connect(kernel: FakeKernel): Conntrack {
  return connectConntrack(connectNetlink(kernel), noText);
}

function dumps(kernel: FakeKernel): ('filtered' | 'everything')[] {
  return kernel.received
    .filter(({ type }) => type === messageType(IPCTNL_MSG_CT_GET))
    .map(({ body }) => (readAttributes(body, 4).has(CTA_FILTER) ? 'filtered' : 'everything'));
}

function idsOf(flows: readonly Flow[]): number[] {
  return flows.map(({ id }) => id);
}
