// Links on the real kernel: written by us and read by `ip`, written by `ip` and read by us.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openRtnetlinkMonitor } from '../../shared/rtnetlink/monitor.ts';
import { openRtnetlink, type Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { type Sandboxes, sandbox, type TestNetns } from '../support/sandbox.ts';

const MAC = '02:00:00:00:00:01';
const PEER_MAC = '02:00:00:00:00:02';

let pair: Sandboxes;
let host: Rtnetlink;
let inside: Rtnetlink;
beforeEach(() => {
  pair = sandbox();
  host = openRtnetlink({ netns: pair.host.netns });
  inside = openRtnetlink({ netns: pair.sandbox.netns });
});
afterEach(() => {
  inside[Symbol.dispose]();
  host[Symbol.dispose]();
  pair[Symbol.dispose]();
});

test('a bridge is born with its MAC, its MTU and up', () => {
  host.link.add({ kind: 'bridge', name: 'cni0', mac: MAC, mtu: 1450, up: true, groupForwardMask: 8 });
  expect(shown(pair.host, 'cni0')).toMatchObject({
    address: MAC,
    mtu: 1450,
    flags: expect.arrayContaining(['UP']),
    linkinfo: { info_kind: 'bridge', info_data: { group_fwd_mask: '0x8' } },
  });
});

test("one message makes the veth, its peer in the sandbox, its master and both ends' MTU and MAC", () => {
  const bridge = addBridge();
  host.link.add({
    kind: 'veth',
    name: 'veth0',
    mac: MAC,
    mtu: 1400,
    master: bridge,
    up: true,
    peer: { name: 'eth0', mac: PEER_MAC, mtu: 1400, netns: pair.sandbox.netns },
  });
  expect(shown(pair.host, 'veth0')).toMatchObject({ address: MAC, mtu: 1400, master: 'cni0', link_index: 2 });
  expect(shown(pair.host, 'veth0')).toMatchObject({ flags: expect.arrayContaining(['UP']) });
  expect(shown(pair.sandbox, 'eth0')).toMatchObject({ address: PEER_MAC, mtu: 1400, ifindex: 2 });
  expect(shown(pair.sandbox, 'eth0')).toMatchObject({ flags: expect.not.arrayContaining(['UP']) });
});

test('what cannot be made entirely is not made at all', () => {
  inside.link.add({ kind: 'bridge', name: 'eth0' });
  const taken = () => addVeth({ master: addBridge() });
  expect(taken).toThrow(expect.objectContaining({ code: 'EEXIST' }));
  expect(host.link.find({ name: 'veth0' })).toBeUndefined();
});

test('a name that is taken is EEXIST, and the error names the link', () => {
  addBridge();
  expect(() => addBridge()).toThrow('Cannot add bridge "cni0": already exists (EEXIST)');
});

test("the kernel's own sentence is part of the error", () => {
  const bridge = addBridge();
  host.link.add({ kind: 'bridge', name: 'cni1' });
  const other = host.link.get({ name: 'cni1' }).index;
  expect(() => host.link.set(other, { master: bridge })).toThrow(
    expect.objectContaining({
      code: 'ELOOP',
      kernelMessage: 'Can not enslave a bridge to a bridge',
    }),
  );
});

test('what ip made is read back by name, by alternative name and by index', () => {
  pair.host.run('ip', 'link', 'add', 'cni0', 'type', 'bridge');
  pair.host.run(
    'ip',
    'link',
    'add',
    'veth0',
    'mtu',
    '1300',
    'address',
    MAC,
    'type',
    'veth',
    'peer',
    'name',
    'veth1',
  );
  pair.host.run('ip', 'link', 'set', 'veth0', 'master', 'cni0', 'alias', 'whose it is', 'promisc', 'on');
  pair.host.run('ip', 'link', 'property', 'add', 'dev', 'veth0', 'altname', 'a-name-longer-than-fifteen');
  const link = host.link.get({ name: 'veth0' });
  expect(link).toMatchObject({
    name: 'veth0',
    mac: MAC,
    mtu: 1300,
    kind: 'veth',
    alias: 'whose it is',
    isUp: false,
    isPromiscuous: true,
    isAllmulti: false,
    operstate: 'down',
    carrier: false,
    master: host.link.get({ name: 'cni0' }).index,
    peerIndex: host.link.get({ name: 'veth1' }).index,
    peerNetnsId: undefined,
    port: { state: 'disabled', hairpin: false, isolated: false },
  });
  expect(host.link.get({ index: link.index })).toEqual(link);
  expect(host.link.find({ name: 'a-name-longer-than-fifteen' })).toEqual(link);
});

test('the two ends of a pair name each other across namespaces', () => {
  addVeth({});
  const outer = host.link.get({ name: 'veth0' });
  const inner = inside.link.get({ name: 'eth0' });
  expect([outer.peerIndex, inner.peerIndex]).toEqual([inner.index, outer.index]);
  expect([outer.peerNetnsId, inner.peerNetnsId]).toEqual([0, 0]);
});

test('a link that does not exist is found as nothing, and asked for in error', () => {
  expect(host.link.find({ name: 'nothing' })).toBeUndefined();
  expect(host.link.find({ name: 'nothing-with-a-long-name' })).toBeUndefined();
  expect(host.link.find({ index: 4711 })).toBeUndefined();
  expect(() => host.link.get({ name: 'nothing' })).toThrow(
    'Cannot get link "nothing": no such device (ENODEV)',
  );
});

test('lists are filtered by kind and by master', () => {
  const bridge = addBridge();
  addVeth({ master: bridge });
  pair.host.run('ip', 'link', 'add', 'free0', 'type', 'veth', 'peer', 'name', 'free1');
  const names = (links: readonly { name: string }[]) => links.map(({ name }) => name).toSorted();
  expect(names(host.link.list())).toEqual(['cni0', 'free0', 'free1', 'lo', 'veth0']);
  expect(names(host.link.list({ kind: 'veth' }))).toEqual(['free0', 'free1', 'veth0']);
  expect(names(host.link.list({ kind: 'veth', master: bridge }))).toEqual(['veth0']);
  expect(host.link.list({ kind: 'no-such-kind' })).toEqual([]);
  expect(host.link.list({ master: 4711 })).toEqual([]);
});

test('a change is seen by ip, and what is not named stays', () => {
  addVeth({});
  const { index } = host.link.get({ name: 'veth0' });
  host.link.set(index, { alias: 'net: n1, if: eth0', promiscuous: true, mtu: 1280 });
  host.link.set(index, { up: true, mac: '02:00:00:00:00:77' });
  expect(shown(pair.host, 'veth0')).toMatchObject({
    ifalias: 'net: n1, if: eth0',
    mtu: 1280,
    address: '02:00:00:00:00:77',
    flags: expect.arrayContaining(['UP', 'PROMISC']),
  });
  host.link.set(index, { up: false, promiscuous: false });
  expect(shown(pair.host, 'veth0')).toMatchObject({ flags: expect.not.arrayContaining(['UP']) });
  expect(shown(pair.host, 'veth0')).toMatchObject({ flags: expect.not.arrayContaining(['PROMISC']) });
});

test('what tuning sets is seen by ip, and read back', () => {
  addVeth({});
  const { index } = host.link.get({ name: 'veth0' });
  host.link.set(index, { promiscuous: true, allmulti: true, txQueueLength: 77 });
  expect(shown(pair.host, 'veth0')).toMatchObject({
    flags: expect.arrayContaining(['PROMISC', 'ALLMULTI']),
    txqlen: 77,
  });
  const tuned = { isPromiscuous: true, isAllmulti: true, txQueueLength: 77 };
  expect(host.link.get({ index })).toMatchObject(tuned);
  pair.host.run('ip', 'link', 'set', 'veth0', 'promisc', 'off', 'allmulticast', 'off', 'txqueuelen', '0');
  expect(host.link.get({ index })).toMatchObject({
    isPromiscuous: false,
    isAllmulti: false,
    txQueueLength: 0,
  });
  host.link.set(index, { txQueueLength: 5 });
  host.link.set(index, { txQueueLength: 0 });
  expect(shown(pair.host, 'veth0')).not.toHaveProperty('txqlen'); // ip does not print a queue of none
});

test('an alias of 255 bytes is kept whole and a longer one is refused', () => {
  const bridge = addBridge();
  host.link.set(bridge, { alias: 'ü'.repeat(127) });
  expect(host.link.get({ index: bridge }).alias).toBe('ü'.repeat(127));
  expect(() => host.link.set(bridge, { alias: 'x'.repeat(256) })).toThrow(
    expect.objectContaining({ code: 'ERANGE' }),
  );
});

test('a link is moved and renamed by one message', () => {
  pair.host.run('ip', 'link', 'add', 'tmp0', 'type', 'veth', 'peer', 'name', 'tmp1');
  host.link.set(host.link.get({ name: 'tmp0' }).index, { netns: pair.sandbox.netns, name: 'eth7' });
  expect(shown(pair.sandbox, 'eth7')).toMatchObject({ ifname: 'eth7' });
  expect(host.link.find({ name: 'tmp0' })).toBeUndefined();
});

test("a port's flags are seen by bridge, and read back", () => {
  const bridge = addBridge();
  addVeth({ master: bridge });
  const { index } = host.link.get({ name: 'veth0' });
  host.link.setPort(index, { hairpin: true, isolated: true });
  expect(host.link.get({ index }).port).toMatchObject({ hairpin: true, isolated: true });
  const [port] = pair.host.json('bridge', '-d', '-j', 'link', 'show', 'dev', 'veth0') as object[];
  expect(port).toMatchObject({ hairpin: true, isolated: true });
  host.link.setPort(index, { hairpin: false });
  expect(host.link.get({ index }).port).toMatchObject({ hairpin: false, isolated: true });
});

test('a link without a master has no port, and setting one is an error', () => {
  const bridge = addBridge();
  expect(host.link.get({ index: bridge }).port).toBeUndefined();
  addVeth({});
  const { index } = host.link.get({ name: 'veth0' });
  expect(() => host.link.setPort(index, { hairpin: true })).toThrow(`Cannot set bridge port ${index}`);
});

test('deleting takes both ends; a second time only remove is content', () => {
  addVeth({});
  const { index } = host.link.get({ name: 'veth0' });
  host.link.delete({ name: 'veth0' });
  expect(inside.link.find({ name: 'eth0' })).toBeUndefined();
  host.link.remove({ index });
  host.link.remove({ name: 'veth0' });
  expect(() => host.link.delete({ index })).toThrow(expect.objectContaining({ code: 'ENODEV' }));
});

test('the host end carries traffic once both ends are up, told by an event', () => {
  const bridge = addBridge();
  host.link.set(bridge, { up: true });
  addVeth({ master: bridge });
  const { index } = host.link.get({ name: 'veth0' });
  host.link.set(index, { up: true });
  expect(host.link.get({ index })).toMatchObject({ isUp: true, carrier: false });
  expect(host.link.get({ index }).operstate).not.toBe('up');
  using monitor = openRtnetlinkMonitor({ netns: pair.host.netns, groups: ['link'] });
  inside.link.set(inside.link.get({ name: 'eth0' }).index, { up: true });
  const start = performance.now();
  while (host.link.get({ index }).operstate !== 'up') {
    expect(monitor.wait(2000)).toBe(true);
    expect(performance.now() - start).toBeLessThan(2000);
  }
  expect(host.link.get({ index })).toMatchObject({ carrier: true, port: { state: 'forwarding' } });
  expect(shown(pair.host, 'veth0')).toMatchObject({ operstate: 'UP' });
});

test('a monitor hears what happens in its own namespace, and nothing else', () => {
  using monitor = openRtnetlinkMonitor({ netns: pair.host.netns, groups: ['link'] });
  pair.sandbox.run('ip', 'link', 'add', 'other', 'type', 'bridge');
  expect(monitor.wait(50)).toBe(false);
  pair.host.run('ip', 'link', 'add', 'mine', 'type', 'bridge');
  expect(monitor.wait(1000)).toBe(true);
  expect(monitor.wait(50)).toBe(false);
});

test('a thousand links are listed whole while others come and go', () => {
  const lines = Array.from({ length: 500 }, (_, index) => `link add a${index} type veth peer name b${index}`);
  pair.host.feed(lines.join('\n'), 'ip', '-batch', '-');
  const churn = 'for i in $(seq 200); do ip link add churn$i type bridge; ip link delete churn$i; done';
  pair.host.feed(`(${churn}) >/dev/null 2>&1 &`, 'bash', '--norc');
  for (let round = 0; round < 20; round += 1) {
    const steady = host.link.list({ kind: 'veth' }).filter(({ name }) => /^[ab]\d+$/.test(name));
    expect(new Set(steady.map(({ name }) => name)).size).toBe(1000);
    expect(steady).toHaveLength(1000);
  }
});

function addBridge(): number {
  host.link.add({ kind: 'bridge', name: 'cni0' });
  return host.link.get({ name: 'cni0' }).index;
}

function addVeth(options: { readonly master?: number }): void {
  host.link.add({
    kind: 'veth',
    name: 'veth0',
    ...options,
    peer: { name: 'eth0', netns: pair.sandbox.netns },
  });
}

/** One link as `ip` shows it. */
function shown(place: TestNetns, name: string): object {
  const [link] = place.json('ip', '-d', '-j', 'link', 'show', 'dev', name) as object[];
  if (link === undefined) throw new Error(`ip does not show "${name}"`);
  return link;
}
