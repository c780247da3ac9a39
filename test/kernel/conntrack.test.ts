// Flows of the real kernel: made by packets and by `conntrack`, read by us and shown by `conntrack`, forgotten by us.
// A namespace tracks nothing until some rule looks at flows: here that which publishes a port does.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  type Conntrack,
  connectConntrack,
  type Flow,
  openConntrack,
} from '../../shared/conntrack/conntrack.ts';
import { encodeList, encodeListAll } from '../../shared/conntrack/flow.ts';
import { readFlowText } from '../../shared/conntrack/flow-text.ts';
import { filtersOf, flowsToForget, type PublishedPort } from '../../shared/conntrack/forget.ts';
import { formatIp, type Ip, parseIp } from '../../shared/ip/cidr.ts';
import { NETLINK_NETFILTER } from '../../shared/linux/netlink-socket.ts';
import { withNetns } from '../../shared/linux/netns.ts';
import { openNetlink } from '../../shared/netlink/connection.ts';
import { openRtnetlink, type Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { openTestNetns, type TestNetns } from '../support/sandbox.ts';

const HOST = '203.0.113.1';
const HOST6 = '2001:db8:113::1';
const CONTAINER = '10.22.0.2';
const CONTAINER6 = 'fd00:22::2';
const SUCCESSOR = '10.22.0.3';
const SUCCESSOR6 = 'fd00:22::3';
/** Neither the host nor a container of it: packets to it pass through. */
const ELSEWHERE = '198.51.100.2';
const RTN_LOCAL = 2; // include/uapi/linux/rtnetlink.h

/** A flow to the port from outside, for `conntrack -I`. */
const DNS_QUERY = `-p udp -s 203.0.113.2 -d ${HOST} --sport 4000 --dport 53 -t 60`.split(' ');

const DNS: PublishedPort = { protocol: 'udp', hostPort: 53, families: [4, 6] };

let host: TestNetns;
let outside: TestNetns;
/** Everybody the host forwards to. What arrives is counted by destination and dropped, so nothing ever answers. */
let inside: TestNetns;
let conntrack: Conntrack;
let rtnetlink: Rtnetlink;
let senders: ChildProcess[] = [];

beforeEach(() => {
  host = openTestNetns();
  outside = openTestNetns();
  inside = openTestNetns();
  // Link-local addresses are usable at once: the host asks for neighbours by them.
  for (const { run } of [host, outside, inside]) run('sysctl', '-qw', 'net.ipv6.conf.default.accept_dad=0');
  host.run('ip', 'link', 'set', 'lo', 'up');
  host.run('sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv6.conf.all.forwarding=1');
  connect('uplink', outside, [`${HOST}/24`, `${HOST6}/64`], ['203.0.113.2/24', '2001:db8:113::2/64']);
  connect(
    'cni0',
    inside,
    ['10.22.0.1/24', 'fd00:22::1/64', '198.51.100.1/24'],
    [`${CONTAINER}/24`, `${SUCCESSOR}/24`, `${CONTAINER6}/64`, `${SUCCESSOR6}/64`, `${ELSEWHERE}/24`],
  );
  outside.run('ip', 'route', 'add', 'default', 'via', HOST);
  countArrivals();
  conntrack = openConntrack({ netns: host.netns });
  rtnetlink = openRtnetlink({ netns: host.netns });
});
afterEach(() => {
  for (const sender of senders) sender.kill();
  senders = [];
  for (const opened of [conntrack, rtnetlink, inside, outside, host]) opened[Symbol.dispose]();
});

describe('reading', () => {
  beforeEach(() => publish(CONTAINER, CONTAINER6));

  test('flows are read as conntrack shows them', () => {
    for (const to of [HOST, HOST6, ELSEWHERE]) send(outside, to, 53);
    send(outside, HOST, 54);
    connectTcp(outside, HOST, 53);
    const shownDns = shown().filter(
      ({ protocol, original }) => protocol === 'udp' && original.dstPort === 53,
    );
    expect(shownDns).toHaveLength(3);
    expect(sorted(conntrack.list(filtersOf([DNS])))).toEqual(shownDns);
    expect(conntrack.list([{ family: 4, protocol: 'udp', dstPort: 53 }])).toHaveLength(2);
    expect(conntrack.list([{ family: 4, protocol: 'tcp', dstPort: 53 }])).toEqual(
      shown().filter(({ protocol }) => protocol === 'tcp'),
    );
    expect(conntrack.list([{ family: 6, protocol: 'udp', dstPort: 54 }])).toEqual([]);
    expect(conntrack.count()).toBe(5);
  });

  test('of a translated flow the reply tells who answers', () => {
    send(outside, HOST, 53);
    send(outside, ELSEWHERE, 53);
    const answeredBy = conntrack
      .list(filtersOf([DNS]))
      .map(({ original, reply }) => `${formatIp(original.dst)} is ${formatIp(reply.src)}`);
    expect(answeredBy.toSorted()).toEqual([`${ELSEWHERE} is ${ELSEWHERE}`, `${HOST} is ${CONTAINER}`]);
  });

  test('SCTP flows that conntrack made are read in both families', () => {
    const sctp = ['-p', 'sctp', '--sport', '4000', '--dport', '5060', '-t', '60', '--state', 'ESTABLISHED'];
    const tags = ['--orig-vtag', '1', '--reply-vtag', '2'];
    host.run('conntrack', '-I', ...sctp, ...tags, '-s', '203.0.113.2', '-d', HOST);
    host.run('conntrack', '-I', ...sctp, ...tags, '-s', '2001:db8:113::2', '-d', HOST6);
    const mapping: PublishedPort = { protocol: 'sctp', hostPort: 5060, families: [4, 6] };
    expect(sorted(conntrack.list(filtersOf([mapping])))).toEqual(shown());
    expect(forget([mapping])).toBe(2);
    expect(shown()).toEqual([]);
    expect(conntrack.list(filtersOf([{ ...mapping, hostPort: 5061 }]))).toEqual([]);
  });

  test('the text and a dump tell of the same flows', () => {
    for (const to of [HOST, HOST6, ELSEWHERE]) send(outside, to, 53);
    send(outside, HOST, 54);
    connectTcp(outside, HOST, 53);
    host.run('conntrack', '-I', ...DNS_QUERY, '--zone', '7');
    const connection = openNetlink(NETLINK_NETFILTER, { netns: host.netns, headerLength: () => 4 });
    using dumping = connectConntrack(connection, () => undefined);
    const dumped = sorted(dumping.list(filtersOf([DNS])));
    expect(dumped.map(({ zone }) => zone).toSorted()).toEqual([0, 0, 0, 7]);
    expect(sorted(conntrack.list(filtersOf([DNS])))).toEqual(dumped);
    expect(withNetns(host.netns, readFlowText)).toContain('zone=7');
  });

  test('among 100,000 flows of others the kernel tells of those to the port alone', () => {
    const others = Array.from({ length: 100_000 }, (_, index) => {
      const source = `10.${(index >> 16) & 255}.${(index >> 8) & 255}.${index & 255}`;
      return `-I -p udp -s ${source} -d ${ELSEWHERE} --sport 4000 --dport ${1024 + (index % 60_000)} -t 600`;
    });
    using file = writeTemporary(`${others.join('\n')}\n`);
    host.run('conntrack', '-R', file.path);
    send(outside, HOST, 53);
    send(outside, HOST6, 53);
    expect(conntrack.count()).toBe(100_002);
    const answeredBy = conntrack.list(filtersOf([DNS])).map(({ reply }) => formatIp(reply.src));
    expect(answeredBy.toSorted()).toEqual([CONTAINER, CONTAINER6]);

    using connection = openNetlink(NETLINK_NETFILTER, { netns: host.netns });
    const dns = encodeList({ family: 4, protocol: 'udp', dstPort: 53 });
    const [told, everything] = [dns, encodeListAll()].map((question) => connection.list('list', question));
    expect([told?.length, everything?.length]).toEqual([1, 100_002]);
    const filtered = fastest(() => connection.list('list', dns));
    const unfiltered = fastest(() => connection.list('list', encodeListAll()));
    expect(filtered).toBeLessThan(unfiltered / 2); // a tenth, on a quiet machine
  });

  test('without a rule that looks at flows there are none', () => {
    using untracked = openConntrack({ netns: outside.netns });
    send(outside, HOST, 53);
    expect(untracked.count()).toBe(0);
    expect(untracked.list(filtersOf([DNS]))).toEqual([]);
  });
});

describe('forgetting', () => {
  test('when a port is published takes the flows to the host, and leaves those that pass through', () => {
    publish(SUCCESSOR, SUCCESSOR6);
    for (const to of [HOST, HOST6]) send(outside, to, 53);
    send(host, '127.0.0.1', 53);
    for (const to of [ELSEWHERE, CONTAINER]) send(outside, to, 53);
    send(outside, HOST, 54);
    connectTcp(outside, HOST, 53);
    expect(shown()).toHaveLength(7);
    expect(forget([DNS, { ...DNS, protocol: 'tcp' }])).toBe(3);
    expect(
      shown()
        .map(({ protocol, original }) => `${protocol} ${formatIp(original.dst)}`)
        .toSorted(),
    ).toEqual([`tcp ${HOST}`, `udp ${CONTAINER}`, `udp ${ELSEWHERE}`, `udp ${HOST}`]);
  });

  test('when a port is published on one address takes the flows to that one', () => {
    publish(SUCCESSOR, SUCCESSOR6);
    for (const to of [HOST, '10.22.0.1', ELSEWHERE]) send(outside, to, 53);
    expect(forget([{ ...DNS, hostIp: parseIp('10.22.0.1') }])).toBe(1);
    expect(forget([{ ...DNS, hostIp: parseIp(ELSEWHERE) }])).toBe(0);
    expect(
      shown()
        .map(({ original }) => formatIp(original.dst))
        .toSorted(),
    ).toEqual([ELSEWHERE, HOST]);
  });

  test('when a port is withdrawn takes what the container answers, and nothing else', () => {
    publish(CONTAINER, CONTAINER6);
    for (const to of [HOST, HOST6]) send(outside, to, 53);
    send(host, '127.0.0.1', 53); // nothing translates it
    for (const to of [ELSEWHERE, CONTAINER]) send(outside, to, 53);
    expect(forget([DNS], [SUCCESSOR])).toBe(0);
    expect(forget([DNS], [CONTAINER, CONTAINER6])).toBe(2);
    expect(
      shown()
        .map(({ original }) => formatIp(original.dst))
        .toSorted(),
    ).toEqual([CONTAINER, '127.0.0.1', ELSEWHERE]);
  });

  test.each([
    ['IPv4', HOST, CONTAINER, SUCCESSOR],
    ['IPv6', HOST6, CONTAINER6, SUCCESSOR6],
  ])('brings a client that never pauses to the new container over %s', async (_, address, old, successor) => {
    publish(CONTAINER, CONTAINER6);
    const say = openSender(outside, address, 53);
    await say();
    await arrives(old, 1);

    publish(SUCCESSOR, SUCCESSOR6);
    await say();
    await arrives(old, 2); // the rules say otherwise, the flow remembers

    expect(forget([DNS])).toBe(1);
    await say();
    await arrives(successor, 1);
    expect(packetsTo(old)).toBe(2);
  });

  test.each([
    ['both directions', 'ct zone set 7', { zone: 7 }],
    ['the original direction', 'ct original zone set 8', { zone: 8 }],
    ['the reply direction', 'ct reply zone set 9', { zone: 0 }],
  ])('finds flows whose zone is that of %s', (_, statement, zone) => {
    publish(CONTAINER, CONTAINER6);
    host.feed(
      `table inet zones {
         chain prerouting {
           type filter hook prerouting priority raw
           iifname "uplink" ${statement}
         }
       }`,
      'nft',
      '-f',
      '-',
    );
    send(outside, HOST, 53);
    expect(conntrack.list(filtersOf([DNS]))).toMatchObject([zone]);
    expect(forget([DNS])).toBe(1);
    expect(shown()).toEqual([]);
  });

  test('a flow twice is done, and never takes one that was born since with the same tuples', () => {
    host.run('conntrack', '-I', ...DNS_QUERY);
    const [first] = conntrack.list(filtersOf([DNS]));
    if (first === undefined) throw new Error('No flow was listed');
    conntrack.delete(first);
    conntrack.delete(first);
    expect(shown()).toEqual([]);
    host.run('conntrack', '-I', ...DNS_QUERY);
    conntrack.delete({ ...first, id: first.id ^ 1 });
    expect(shown()).toHaveLength(1);
  });
});

/** As portmap does it; gives the number of flows. */
function forget(mappings: readonly PublishedPort[], replySource?: readonly string[]): number {
  const isLocal = (ip: Ip) => rtnetlink.route.lookup(ip)?.type === RTN_LOCAL;
  const flows = flowsToForget(conntrack.list(filtersOf(mappings)), {
    mappings,
    isLocal,
    replySource: replySource?.map(parseIp),
  });
  for (const flow of flows) conntrack.delete(flow);
  return flows.length;
}

/** Two ends of a wire, the host's and `eth0`, with their addresses. */
function connect(link: string, place: TestNetns, ours: readonly string[], theirs: readonly string[]): void {
  host.run('ip', 'link', 'add', link, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', place.path);
  const ends = [
    [host, link, ours],
    [place, 'eth0', theirs],
  ] as const;
  for (const [netns, name, addresses] of ends) {
    for (const address of addresses)
      netns.run('ip', 'addr', 'add', address, 'dev', name, ...(address.includes(':') ? ['nodad'] : []));
    netns.run('ip', 'link', 'set', name, 'up');
  }
}

/** Translates what comes for port 53 of the host, UDP and TCP. */
function publish(to: string, to6: string): void {
  host.feed(
    `table inet published
     delete table inet published
     table inet published {
       chain prerouting {
         type nat hook prerouting priority dstnat
         fib daddr type local meta nfproto ipv4 meta l4proto { tcp, udp } th dport 53 dnat ip to ${to}
         fib daddr type local meta nfproto ipv6 meta l4proto { tcp, udp } th dport 53 dnat ip6 to ${to6}
       }
     }`,
    'nft',
    '-f',
    '-',
  );
}

/** Counts what comes to port 53 of either container, and drops everything, lest refusals come back. */
function countArrivals(): void {
  const addresses = [CONTAINER, SUCCESSOR, CONTAINER6, SUCCESSOR6];
  const rules = addresses.map((ip) => {
    const daddr = ip.includes(':') ? 'ip6 daddr' : 'ip daddr';
    return `${daddr} ${ip} udp dport 53 counter name ${counterOf(ip)} drop`;
  });
  inside.feed(
    `table inet arrived {
       ${addresses.map((ip) => `counter ${counterOf(ip)} {}`).join('\n')}
       chain input {
         type filter hook input priority filter
         ${rules.join('\n')}
         meta l4proto { tcp, udp } drop
       }
     }`,
    'nft',
    '-f',
    '-',
  );
}

function counterOf(ip: string): string {
  return `to_${ip.replaceAll(/[.:]/g, '_')}`;
}

function packetsTo(ip: string): number {
  const listed = inside.json('nft', '-j', 'list', 'counters') as {
    nftables: { counter?: { name: string; packets: number } }[];
  };
  const found = listed.nftables.find(({ counter }) => counter?.name === counterOf(ip));
  return found?.counter?.packets ?? 0;
}

async function arrives(ip: string, packets: number): Promise<void> {
  for (const deadline = Date.now() + 5000; Date.now() < deadline; await delay(5))
    if (packetsTo(ip) >= packets) break;
  expect(packetsTo(ip)).toBe(packets);
}

/** One datagram from a socket of its own. */
function send(from: TestNetns, to: string, port: number): void {
  from.run('bash', '--norc', '-c', 'echo x > "/dev/udp/$0/$1"', to, String(port));
}

/** Datagrams from one socket, so that all are of one flow: each call sends one. */
function openSender(from: TestNetns, to: string, port: number): () => Promise<void> {
  const script = 'exec 3<> "/dev/udp/$0/$1"; while read -r line; do echo "$line" >&3; done';
  const enter = [`--net=${from.path}`, '--', 'bash', '--norc', '-c', script, to, String(port)];
  const sender = spawn('nsenter', enter, { stdio: ['pipe', 'ignore', 'inherit'] });
  senders.push(sender);
  return () => new Promise((done) => sender.stdin?.write('x\n', () => done()));
}

/** One SYN at least; nobody answers, so it is given up. */
function connectTcp(from: TestNetns, to: string, port: number): void {
  from.attempt('timeout', '0.2', 'bash', '--norc', '-c', 'echo x > "/dev/tcp/$0/$1"', to, String(port));
}

/** What `conntrack` shows, by id; ICMP and the like left out. */
function shown(): Flow[] {
  const lines = host.run('conntrack', '-L', '-o', 'id').split('\n');
  return sorted(lines.filter((line) => line.includes('dport=')).map(parseShown));
}

function parseShown(line: string): Flow {
  const fields = [...line.matchAll(/([a-z-]+)=(\S+)/g)].map(([, name = '', value = '']) => ({ name, value }));
  const text = (name: string, index = 0) =>
    fields.filter((field) => field.name === name)[index]?.value ?? `no ${name} in "${line}"`;
  const tuple = (index: 0 | 1) => ({
    src: parseIp(text('src', index)),
    dst: parseIp(text('dst', index)),
    srcPort: Number(text('sport', index)),
    dstPort: Number(text('dport', index)),
  });
  return {
    family: tuple(0).dst.family,
    protocol: line.split(' ')[0] as Flow['protocol'],
    original: tuple(0),
    reply: tuple(1),
    id: Number(text('id')),
    zone: line.includes('zone=') ? Number(text('zone')) : 0,
  };
}

function sorted(flows: readonly Flow[]): Flow[] {
  return flows.toSorted((a, b) => a.id - b.id);
}

function writeTemporary(text: string): Disposable & { readonly path: string } {
  const folder = mkdtempSync(join(tmpdir(), 'patchbay-conntrack-'));
  const path = join(folder, 'commands');
  writeFileSync(path, text);
  return { path, [Symbol.dispose]: () => rmSync(folder, { recursive: true }) };
}

/** Milliseconds of the fastest of three. */
function fastest(step: () => unknown): number {
  const times = [1, 2, 3].map(() => {
    const start = performance.now();
    step();
    return performance.now() - start;
  });
  return Math.min(...times);
}
