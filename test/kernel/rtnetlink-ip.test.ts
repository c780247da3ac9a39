// Addresses, routes and neighbours on the real kernel: written by us and read by `ip`, and the other way round.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { broadcastOf, formatCidr, formatIp, parseCidr, parseIp } from '../../shared/ip/cidr.ts';
import { withNetns } from '../../shared/linux/netns.ts';
import { writeSysctl } from '../../shared/linux/sysctl.ts';
import { openRtnetlinkMonitor } from '../../shared/rtnetlink/monitor.ts';
import type { Route } from '../../shared/rtnetlink/route.ts';
import { openRtnetlink, type Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { type Sandboxes, sandbox } from '../support/sandbox.ts';

const MAC = '02:00:00:00:00:01';
// Detection takes up to 2 s, and waits for the kernel's lock while somebody else's namespaces are taken apart.
const DAD_DEADLINE_MS = 30_000;

let pair: Sandboxes;
let inside: Rtnetlink;
let index = 0;

/**
 * eth0 in the sandbox, up, its other end up on the host; IPv6 addresses of its own switched off. That is a request of its
 * own, since the kernel carries out "up" before "addrgenmode" when both stand in one.
 */
beforeEach(() => {
  pair = sandbox();
  pair.host.run(
    'ip',
    'link',
    'add',
    'veth0',
    'type',
    'veth',
    'peer',
    'name',
    'eth0',
    'netns',
    pair.sandbox.path,
  );
  pair.host.run('ip', 'link', 'set', 'veth0', 'up');
  pair.sandbox.run('ip', 'link', 'set', 'eth0', 'addrgenmode', 'none');
  pair.sandbox.run('ip', 'link', 'set', 'eth0', 'up');
  inside = openRtnetlink({ netns: pair.sandbox.netns });
  index = inside.link.get({ name: 'eth0' }).index;
});
afterEach(() => {
  inside[Symbol.dispose]();
  pair[Symbol.dispose]();
});

test('an IPv4 address with its broadcast address is seen by ip', () => {
  const address = parseCidr('10.22.0.2/24');
  inside.addr.add({ index, address, broadcast: broadcastOf(address) });
  expect(shownAddresses()).toEqual([
    expect.objectContaining({
      family: 'inet',
      local: '10.22.0.2',
      prefixlen: 24,
      broadcast: '10.22.0.255',
      scope: 'global',
    }),
  ]);
});

test('an IPv6 address without duplicate detection is usable at once', () => {
  inside.addr.add({ index, address: parseCidr('fd00::2/64'), noDad: true });
  const [addr] = inside.addr.list({ index, family: 6 });
  expect(addr).toMatchObject({ isTentative: false, isDadFailed: false });
  expect(shownAddresses()).toEqual([
    expect.objectContaining({ family: 'inet6', local: 'fd00::2', prefixlen: 64, nodad: true }),
  ]);
});

test('duplicate detection is waited for by events', () => {
  inside.addr.add({ index, address: parseCidr('fd00::2/64') });
  using monitor = openRtnetlinkMonitor({ netns: pair.sandbox.netns, groups: ['ipv6-ifaddr'] });
  expect(inside.addr.list({ index, family: 6 })).toMatchObject([{ isTentative: true }]);
  while (inside.addr.list({ index, family: 6 })[0]?.isTentative)
    expect(monitor.wait(DAD_DEADLINE_MS)).toBe(true);
  expect(inside.addr.list({ index, family: 6 })).toMatchObject([{ isDadFailed: false }]);
});

test('an address that somebody else has is told as a duplicate', () => {
  pair.host.run('ip', 'addr', 'add', 'fd00::2/64', 'dev', 'veth0', 'nodad');
  inside.addr.add({ index, address: parseCidr('fd00::2/64') });
  using monitor = openRtnetlinkMonitor({ netns: pair.sandbox.netns, groups: ['ipv6-ifaddr'] });
  while (!inside.addr.list({ index, family: 6 })[0]?.isDadFailed)
    expect(monitor.wait(DAD_DEADLINE_MS)).toBe(true);
});

test('addresses that ip made are read back, filtered by link and family', () => {
  pair.sandbox.run('ip', 'addr', 'add', '10.22.0.2/24', 'brd', '+', 'dev', 'eth0', 'label', 'eth0:1');
  pair.sandbox.run('ip', 'addr', 'add', '169.254.1.1/32', 'dev', 'eth0', 'scope', 'link');
  pair.sandbox.run('ip', 'addr', 'add', 'fd00::2/64', 'dev', 'eth0', 'nodad');
  pair.sandbox.run('ip', 'link', 'set', 'lo', 'up');
  const texts = (filter: Parameters<Rtnetlink['addr']['list']>[0]) =>
    inside.addr.list(filter).map(({ address }) => formatCidr(address));
  expect(texts({ index, family: 4 })).toEqual(['169.254.1.1/32', '10.22.0.2/24']);
  expect(texts({ index, family: 6 })).toEqual(['fd00::2/64']);
  expect(texts({ index })).toEqual(['169.254.1.1/32', '10.22.0.2/24', 'fd00::2/64']);
  expect(texts({ family: 4 })).toEqual(['127.0.0.1/8', '169.254.1.1/32', '10.22.0.2/24']);
  expect(texts({ index: 4711 })).toEqual([]);
  expect(inside.addr.list({ index, family: 4 })).toMatchObject([
    { scope: 253, broadcast: undefined },
    { label: 'eth0:1', scope: 0, broadcast: parseIp('10.22.0.255') },
  ]);
});

test('an address of a point-to-point link is our side of it', () => {
  pair.sandbox.run('ip', 'addr', 'add', '10.9.0.1', 'peer', '10.9.0.2', 'dev', 'eth0');
  expect(inside.addr.list({ index }).map(({ address }) => formatCidr(address))).toEqual(['10.9.0.1/32']);
});

test('an address twice is EEXIST, and one that is gone only remove forgives', () => {
  const key = { index, address: parseCidr('10.22.0.2/24') };
  inside.addr.add(key);
  expect(() => inside.addr.add(key)).toThrow(expect.objectContaining({ code: 'EEXIST' }));
  inside.addr.delete(key);
  expect(shownAddresses()).toEqual([]);
  inside.addr.remove(key);
  inside.addr.remove({ ...key, index: 4711 });
  expect(() => inside.addr.delete(key)).toThrow(
    `Cannot delete address "10.22.0.2/24" from link ${index}: address not available (EADDRNOTAVAIL)`,
  );
});

test('an IPv6 address where IPv6 is switched off is refused with a code', () => {
  withNetns(pair.sandbox.netns, () => writeSysctl('net/ipv6/conf/eth0/disable_ipv6', '1'));
  expect(() => inside.addr.add({ index, address: parseCidr('fd00::2/64') })).toThrow(
    expect.objectContaining({ code: 'EACCES' }),
  );
});

test('routes with everything that may be wished for are seen by ip', () => {
  pair.sandbox.run('ip', 'addr', 'add', '10.22.0.2/24', 'dev', 'eth0');
  const dst = parseCidr('10.1.0.0/16');
  const gw = parseIp('10.22.0.1');
  const src = parseIp('10.22.0.2');
  inside.route.add({ dst, gw, src, oif: index, priority: 5, table: 1000, mtu: 1400, advmss: 1360 });
  inside.route.add({ dst: parseCidr('0.0.0.0/0'), gw, oif: index });
  inside.route.add({ dst: parseCidr('10.2.0.1/32'), oif: index, scope: 253 });
  inside.route.add({ dst: parseCidr('10.3.0.0/16'), gw: parseIp('192.0.2.1'), oif: index, onlink: true });
  expect(shownRoutes('-4', 'table', '1000')).toMatchObject([
    {
      dst: '10.1.0.0/16',
      gateway: '10.22.0.1',
      prefsrc: '10.22.0.2',
      metric: 5,
      metrics: [{ mtu: 1400, advmss: 1360 }],
    },
  ]);
  expect(shownRoutes('-4')).toMatchObject([
    { dst: 'default', gateway: '10.22.0.1', dev: 'eth0' },
    { dst: '10.2.0.1', scope: 'link' },
    { dst: '10.3.0.0/16', gateway: '192.0.2.1', flags: ['onlink'] },
    { dst: '10.22.0.0/24', protocol: 'kernel' },
  ]);
});

test('the routes we write are of protocol boot and of global scope', () => {
  pair.sandbox.run('ip', 'addr', 'add', '10.22.0.2/24', 'dev', 'eth0');
  inside.route.add({ dst: parseCidr('10.1.0.0/16'), gw: parseIp('10.22.0.1'), oif: index });
  expect(inside.route.list({ family: 4 })[0]).toMatchObject({ protocol: 3, scope: 0, table: 254, type: 1 });
});

test('an identical IPv4 route is EEXIST, and another gateway stands beside, the later one first', () => {
  pair.sandbox.run('ip', 'addr', 'add', '10.22.0.2/24', 'dev', 'eth0');
  const dst = parseCidr('0.0.0.0/0');
  inside.route.add({ dst, gw: parseIp('10.22.0.1'), oif: index });
  expect(() => inside.route.add({ dst, gw: parseIp('10.22.0.1'), oif: index })).toThrow(
    expect.objectContaining({ code: 'EEXIST' }),
  );
  inside.route.add({ dst, gw: parseIp('10.22.0.9'), oif: index });
  expect(gateways(inside.route.list({ family: 4 }))).toEqual(['10.22.0.9', '10.22.0.1', undefined]);
});

test('a second IPv6 route becomes a next hop, and is listed as a route of its own', () => {
  pair.sandbox.run('ip', 'addr', 'add', 'fd00::2/64', 'dev', 'eth0', 'nodad');
  const dst = parseCidr('::/0');
  inside.route.add({ dst, gw: parseIp('fd00::1'), oif: index });
  inside.route.add({ dst, gw: parseIp('fd00::9'), oif: index });
  const defaults = inside.route.list({ family: 6, oif: index }).filter((route) => route.dst.prefix === 0);
  expect(gateways(defaults).toSorted()).toEqual(['fd00::1', 'fd00::9']);
});

test('routes that ip made are read back, by table and by link', () => {
  pair.sandbox.run('ip', 'addr', 'add', '10.22.0.2/24', 'dev', 'eth0');
  pair.sandbox.run('ip', 'addr', 'add', 'fd00::2/64', 'dev', 'eth0', 'nodad');
  pair.sandbox.run(
    'ip',
    'route',
    'add',
    '10.1.0.0/16',
    'via',
    '10.22.0.1',
    'table',
    '100',
    'metric',
    '7',
    'mtu',
    '1300',
  );
  pair.sandbox.run(
    'ip',
    'route',
    'add',
    '10.2.0.0/16',
    'via',
    'inet6',
    'fd00::1',
    'dev',
    'eth0',
    'table',
    '5000',
  );
  pair.sandbox.run('ip', 'route', 'add', 'unreachable', '10.3.0.0/16');
  expect(inside.route.list({ family: 4, table: 100 })).toMatchObject([
    {
      dst: parseCidr('10.1.0.0/16'),
      gw: parseIp('10.22.0.1'),
      oif: index,
      priority: 7,
      mtu: 1300,
      advmss: undefined,
    },
  ]);
  expect(gateways(inside.route.list({ family: 4, table: 5000 }))).toEqual(['fd00::1']);
  expect(inside.route.list({ family: 4, table: 4711 })).toEqual([]);
  expect(inside.route.list({ family: 6, table: 4711 })).toEqual([]);
  const main = inside.route.list({ family: 4 });
  expect(main.map(({ dst }) => formatCidr(dst))).toEqual(['10.3.0.0/16', '10.22.0.0/24']);
  expect(main[0]?.type).toBe(7);
  expect(inside.route.list({ family: 4, oif: index }).map(({ dst }) => formatCidr(dst))).toEqual([
    '10.22.0.0/24',
  ]);
  expect(inside.route.list({ family: 4, oif: 4711 })).toEqual([]);
  expect(inside.route.list({ family: 4, table: 'all' }).length).toBeGreaterThan(4);
});

test("an unreachable gateway is told in the kernel's words", () => {
  const add = () => inside.route.add({ dst: parseCidr('0.0.0.0/0'), gw: parseIp('10.99.0.1'), oif: index });
  expect(add).toThrow(
    expect.objectContaining({ code: 'ENETUNREACH', kernelMessage: 'Nexthop has invalid gateway' }),
  );
});

test('a route is deleted, and then must have existed', () => {
  pair.sandbox.run('ip', 'addr', 'add', '10.22.0.2/24', 'dev', 'eth0');
  const route = { dst: parseCidr('10.1.0.0/16'), gw: parseIp('10.22.0.1'), oif: index };
  inside.route.add(route);
  inside.route.delete(route);
  expect(shownRoutes('-4')).toMatchObject([{ dst: '10.22.0.0/24' }]);
  expect(() => inside.route.delete(route)).toThrow(expect.objectContaining({ code: 'ESRCH' }));
});

test('a look-up says where a packet goes, or that it goes nowhere', () => {
  pair.sandbox.run('ip', 'addr', 'add', '10.22.0.2/24', 'dev', 'eth0');
  expect(inside.route.lookup(parseIp('10.22.0.7'))).toMatchObject({
    oif: index,
    gw: undefined,
    src: parseIp('10.22.0.2'),
  });
  expect(inside.route.lookup(parseIp('192.0.2.1'))).toBeUndefined();
  expect(inside.route.lookup(parseIp('2001:db8::1'))).toBeUndefined();
  pair.sandbox.run('ip', 'route', 'add', 'default', 'via', '10.22.0.1');
  expect(inside.route.lookup(parseIp('192.0.2.1'))).toMatchObject({ gw: parseIp('10.22.0.1'), oif: index });
  pair.sandbox.run('ip', 'route', 'add', 'blackhole', '192.0.2.0/24');
  expect(inside.route.lookup(parseIp('192.0.2.1'))).toBeUndefined();
});

test('neighbours are found one by one and listed by link', () => {
  const ip = parseIp('10.22.0.3');
  expect(inside.neigh.find({ index, ip })).toBeUndefined();
  pair.sandbox.run('ip', 'neigh', 'add', '10.22.0.3', 'lladdr', MAC, 'dev', 'eth0', 'nud', 'permanent');
  expect(inside.neigh.find({ index, ip })).toEqual({ index, ip, lladdr: MAC, state: 'permanent' });
  pair.sandbox.run('ip', 'neigh', 'add', 'fd00::3', 'lladdr', MAC, 'dev', 'eth0', 'nud', 'stale');
  expect(inside.neigh.list({ index, family: 6 })).toContainEqual(
    expect.objectContaining({ ip: parseIp('fd00::3'), state: 'stale' }),
  );
  expect(inside.neigh.list({ index: 4711 })).toEqual([]);
});

test('a neighbour that did not answer is known without address', () => {
  pair.sandbox.run('ip', 'addr', 'add', '10.22.0.2/24', 'dev', 'eth0');
  pair.sandbox.attempt('ping', '-c', '1', '-W', '1', '10.22.0.99');
  expect(inside.neigh.find({ index, ip: parseIp('10.22.0.99') })).toMatchObject({ lladdr: undefined });
});

test('a bridge tells behind which port an address is', () => {
  using host = openRtnetlink({ netns: pair.host.netns });
  pair.host.run('ip', 'link', 'add', 'cni0', 'type', 'bridge');
  pair.host.run('ip', 'link', 'set', 'cni0', 'up');
  pair.host.run('ip', 'link', 'set', 'veth0', 'master', 'cni0');
  const master = host.link.get({ name: 'cni0' }).index;
  const port = host.link.get({ name: 'veth0' });
  expect(host.neigh.findFdb({ master, lladdr: port.mac })).toEqual({
    index: port.index,
    lladdr: port.mac,
    state: 'permanent',
  });
  expect(host.neigh.findFdb({ master, lladdr: '02:00:00:00:00:99' })).toBeUndefined();
  pair.host.run('bridge', 'fdb', 'add', '02:00:00:00:00:99', 'dev', 'veth0', 'master', 'dynamic');
  expect(host.neigh.findFdb({ master, lladdr: '02:00:00:00:00:99' })).toMatchObject({ index: port.index });
});

function shownAddresses(): object[] {
  const links = pair.sandbox.json('ip', '-j', 'addr', 'show', 'dev', 'eth0') as { addr_info: object[] }[];
  return links.flatMap(({ addr_info }) => addr_info);
}

function shownRoutes(family: '-4' | '-6', ...filter: string[]): object[] {
  return pair.sandbox.json('ip', family, '-d', '-j', 'route', 'show', ...filter) as object[];
}

function gateways(routes: readonly Route[]): (string | undefined)[] {
  return routes.map(({ gw }) => (gw === undefined ? undefined : formatIp(gw)));
}
