// What host-local sees of an address in a real kernel: masquerade elements, neighbours behind bridge ports, host links.
// Run by vitest, project "kernel", as root.
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openKernelView, type User } from '../../plugins/host-local/kernel-view.ts';
import type { Holder } from '../../plugins/host-local/record.ts';
import { hostLinkName, ownerComment, ownerHash } from '../../shared/cni/attachment.ts';
import { parseIp } from '../../shared/ip/cidr.ts';
import { withNetns } from '../../shared/linux/netns.ts';
import { type Sandboxes, sandbox } from '../support/sandbox.ts';

const C1 = { network: 'n1', containerId: 'c1', ifname: 'eth0' };
const LINK = hostLinkName(C1);

let pair: Sandboxes;

beforeEach(() => {
  pair = sandbox();
});
afterEach(() => pair[Symbol.dispose]());

function users(ip: string): readonly User[] {
  return withNetns<readonly User[]>(pair.host.netns, () => {
    using kernel = openKernelView();
    return kernel.listUsers(parseIp(ip));
  });
}

function hasTrace(ip: string, holder: Holder = C1): boolean {
  return withNetns<boolean>(pair.host.netns, () => {
    using kernel = openKernelView();
    return kernel.hasTraceOf(parseIp(ip), holder, 'n1');
  });
}

function hasHostLink(holder: Holder, network: string): boolean {
  return withNetns<boolean>(pair.host.netns, () => {
    using kernel = openKernelView();
    return kernel.hasHostLink(holder, network);
  });
}

// A bridge with addresses of both families and the attachment c1 behind it.
function attach(): void {
  const { host, sandbox: inner } = pair;
  host.run('ip', 'link', 'add', 'br0', 'type', 'bridge');
  host.run('ip', 'addr', 'add', '10.1.0.1/24', 'dev', 'br0');
  host.run('ip', 'addr', 'add', 'fd00::1/64', 'dev', 'br0', 'nodad');
  host.run('ip', 'link', 'set', 'br0', 'up');
  host.run(
    'ip',
    'link',
    'add',
    LINK,
    'master',
    'br0',
    'type',
    'veth',
    'peer',
    'name',
    'eth0',
    'netns',
    inner.path,
  );
  host.run('ip', 'link', 'set', LINK, 'up', 'alias', ownerComment(C1));
  inner.run('ip', 'addr', 'add', '10.1.0.5/24', 'dev', 'eth0');
  inner.run('ip', 'addr', 'add', 'fd00::5/64', 'dev', 'eth0', 'nodad');
  inner.run('ip', 'link', 'set', 'eth0', 'up');
}

test('an empty host knows of nobody', () => {
  expect(users('10.1.0.5')).toEqual([]);
  expect(users('fd00::5')).toEqual([]);
  expect(hasTrace('10.1.0.5')).toBe(false);
  expect(hasHostLink(C1, 'n1')).toBe(false);
});

test('a container that has spoken to the host is seen behind its port, in both families', () => {
  attach();
  expect(users('10.1.0.5')).toEqual([]);
  pair.sandbox.run('ping', '-c1', '-w10', '10.1.0.1');
  pair.sandbox.run('ping', '-c1', '-w10', 'fd00::1');
  const user = { link: LINK, ownerHash: ownerHash(C1) };
  expect(users('10.1.0.5')).toEqual([user]);
  expect(users('fd00::5')).toEqual([user]);
  expect(users('10.1.0.6')).toEqual([]);
  expect(users('10.1.0.1')).toEqual([]);
});

test('a neighbour that no port leads to any more is a trace and no user', () => {
  attach();
  pair.host.run(
    'ip',
    'neigh',
    'add',
    '10.1.0.9',
    'lladdr',
    '02:00:00:00:00:09',
    'dev',
    'br0',
    'nud',
    'stale',
  );
  const stranger = { containerId: 'c9', ifname: 'eth0' };
  expect(users('10.1.0.9')).toEqual([]);
  expect(hasTrace('10.1.0.9', stranger)).toBe(true);
  expect(hasTrace('10.1.0.8', stranger)).toBe(false);
});

test('a port without an owner is a user without one', () => {
  attach();
  pair.host.run('ip', 'link', 'set', LINK, 'alias', 'something else');
  pair.sandbox.run('ping', '-c1', '-w10', '10.1.0.1');
  expect(users('10.1.0.5')).toEqual([{ link: LINK, ownerHash: undefined }]);
});

test('a masquerade element counts while the host link of its owner is there', () => {
  const comment = ownerComment(C1);
  pair.host.feed(
    `table inet patchbay {
      chain subnet { }
      map masquerade4 { type ipv4_addr : verdict; elements = { 10.1.0.7 comment "${comment}" : jump subnet } }
      map masquerade6 { type ipv6_addr : verdict; elements = { fd00::7 comment "${comment}" : jump subnet } }
    }`,
    'nft',
    '-f',
    '-',
  );
  expect(users('10.1.0.7')).toEqual([]);
  expect(hasTrace('10.1.0.7')).toBe(true);
  expect(hasTrace('fd00::7')).toBe(true);
  pair.host.run('ip', 'link', 'add', LINK, 'type', 'veth');
  expect(users('10.1.0.7')).toEqual([{ link: LINK, ownerHash: ownerHash(C1) }]);
  expect(users('fd00::7')).toEqual([{ link: LINK, ownerHash: ownerHash(C1) }]);
  expect(users('10.1.0.8')).toEqual([]);
});

test('a host link is a trace of its attachment and of no other', () => {
  pair.host.run('ip', 'link', 'add', LINK, 'type', 'veth');
  expect(hasTrace('10.1.0.5')).toBe(true);
  expect(hasHostLink(C1, 'n1')).toBe(true);
  expect(hasHostLink(C1, 'n2')).toBe(false);
  expect(hasHostLink({ ...C1, ifname: 'eth1' }, 'n1')).toBe(false);
});

test('an address behind a router is nobody’s', () => {
  attach();
  pair.sandbox.run('ping', '-c1', '-w10', '10.1.0.1');
  pair.host.run('ip', 'route', 'add', 'default', 'via', '10.1.0.5');
  expect(users('192.0.2.1')).toEqual([]);
  expect(hasTrace('192.0.2.1', { containerId: 'c9', ifname: 'eth0' })).toBe(false);
});

test('a neighbour on a link that is no bridge is a trace and no user', () => {
  const { host, sandbox: inner } = pair;
  host.run('ip', 'link', 'add', 'plain', 'up', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', inner.path);
  host.run('ip', 'addr', 'add', '10.1.0.1/24', 'dev', 'plain');
  inner.run('ip', 'addr', 'add', '10.1.0.5/24', 'dev', 'eth0');
  inner.run('ip', 'link', 'set', 'eth0', 'up');
  inner.run('ping', '-c1', '-w10', '10.1.0.1');
  expect(users('10.1.0.5')).toEqual([]);
  expect(hasTrace('10.1.0.5')).toBe(true);
});
