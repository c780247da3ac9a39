// Namespaces opened, told apart, entered; sockets born inside; settings and attributes written, on the real kernel.
import { spawnSync } from 'node:child_process';
import {
  closeSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { hasCode } from '../../shared/cni/error.ts';
import { NETLINK_ROUTE, openNetlinkSocket } from '../../shared/linux/netlink-socket.ts';
import {
  findNetns,
  holdNetns,
  identityOf,
  isOwnNetns,
  openNetns,
  withNetns,
} from '../../shared/linux/netns.ts';
import { ensureSysctl, readSysctl, writeSysctl } from '../../shared/linux/sysctl.ts';
import { getXattr, setXattr } from '../../shared/linux/xattr.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { openTestNetns, type Sandboxes, sandbox } from '../support/sandbox.ts';

const OWN = '/proc/thread-self/ns/net';

let pair: Sandboxes;
let folder = '';
beforeAll(() => {
  pair = sandbox();
  folder = mkdtempSync(join(tmpdir(), 'patchbay-netns-'));
});
afterAll(() => {
  pair[Symbol.dispose]();
  rmSync(folder, { recursive: true });
});

test('a namespace is known by device and inode, whatever path leads to it', () => {
  const link = join(folder, 'link');
  symlinkSync(pair.sandbox.path, link);
  using direct = openNetns(pair.sandbox.path);
  using linked = openNetns(link);
  expect([linked.device, linked.inode]).toEqual([direct.device, direct.inode]);
  expect(readlinkSync(pair.sandbox.path)).toBe(`net:[${direct.inode}]`);
});

test('our own namespace is recognised', () => {
  using own = openNetns('/proc/self/ns/net');
  using other = openNetns(pair.sandbox.path);
  expect([isOwnNetns(own), isOwnNetns(other)]).toEqual([true, false]);
});

test('a path that is held means one namespace, or one error, whatever becomes of the path', () => {
  const path = join(folder, 'held');
  symlinkSync(pair.sandbox.path, path);
  using direct = openNetns(pair.sandbox.path);
  {
    using held = holdNetns(path);
    rmSync(path);
    symlinkSync(OWN, path);
    using first = openNetns(path);
    first[Symbol.dispose](); // whoever borrows it cannot close it for others
    using second = findNetns(path);
    expect([held.netns?.inode, first.inode, second?.inode]).toEqual(Array(3).fill(direct.inode));
    expect(withNetns(first, () => readlinkSync(OWN))).toBe(`net:[${direct.inode}]`);
  }
  using after = openNetns(path);
  expect(isOwnNetns(after)).toBe(true);
  rmSync(path);
  {
    using held = holdNetns(path);
    symlinkSync(OWN, path);
    expect(held.netns).toBeUndefined();
    expect(() => openNetns(path)).toThrow(
      expect.objectContaining({ cause: expect.objectContaining({ code: 'ENOENT' }) }),
    );
    expect(findNetns(path)).toBeUndefined();
  }
});

test('what is no network namespace is refused at once, and for teardown it is gone', () => {
  const fifo = join(folder, 'fifo');
  expect(spawnSync('mkfifo', [fifo]).status).toBe(0);
  const file = join(folder, 'file');
  writeFileSync(file, '');
  const paths = [
    fifo,
    file,
    folder,
    '/dev/zero',
    '/dev/tty',
    '/proc/version',
    '/proc/self/ns/mnt',
    '/proc/self/ns/pid',
  ];
  for (const path of paths) {
    const cause = expect.objectContaining({ code: 'EINVAL' });
    const refusal = expect.objectContaining({ message: `Cannot open network namespace "${path}"`, cause });
    expect(() => openNetns(path)).toThrow(refusal);
    expect(findNetns(path)).toBeUndefined();
  }
});

test('a missing path is an error with its reason to open, and gone to find', () => {
  const loop = join(folder, 'loop');
  symlinkSync(loop, loop);
  const missing = [
    join(folder, 'nothing'),
    join(folder, 'file', 'below'),
    loop,
    '/proc/4194305/ns/net',
    'a\0b',
  ];
  for (const path of missing) {
    expect(() => openNetns(path)).toThrow(`Cannot open network namespace "${path}"`);
    expect(findNetns(path)).toBeUndefined();
  }
  expect(findNetns('')).toBeUndefined();
  expect(findNetns(undefined)).toBeUndefined();
});

test('no descriptor is left behind, refused or opened', () => {
  const before = descriptors();
  for (let round = 0; round < 20; round += 1) {
    findNetns('/proc/self/ns/mnt');
    findNetns(pair.sandbox.path)?.[Symbol.dispose]();
    withNetns(pair.sandbox.netns, () => undefined);
    openRtnetlink({ netns: pair.sandbox.netns })[Symbol.dispose]();
    expect(() => openNetlinkSocket(99)).toThrow('EPROTONOSUPPORT');
  }
  expect(descriptors()).toBe(before);
});

test('a function runs inside and we are back afterwards, also when it throws', () => {
  const before = readlinkSync(OWN);
  const inside = withNetns(pair.sandbox.netns, () => readlinkSync(OWN));
  expect(inside).toBe(`net:[${pair.sandbox.netns.inode}]`);
  const boom = () => {
    throw new Error('boom');
  };
  expect(() => withNetns(pair.sandbox.netns, boom)).toThrow('boom');
  expect(readlinkSync(OWN)).toBe(before);
});

test('when the way back is lost that is the error, and only where we are anything is done any more', () => {
  const file = (path: string) => JSON.stringify(new URL(`../../${path}`, import.meta.url).href);
  // The descriptor that leads home is the last one opened; something else takes its number.
  const script = `
    import { closeSync, openSync, readlinkSync } from 'node:fs';
    import { openNetns, withNetns } from ${file('shared/linux/netns.ts')};
    import { openRtnetlink } from ${file('shared/rtnetlink/rtnetlink.ts')};
    const netns = openNetns(${JSON.stringify(pair.sandbox.path)});
    const other = openNetns(${JSON.stringify(pair.host.path)});
    const lose = () => { const next = openSync('/dev/null'); closeSync(next - 1); openSync('/dev/null'); throw new Error('mine'); };
    const steps = [
      () => withNetns(netns, lose),
      () => withNetns(netns, () => readlinkSync('/proc/thread-self/ns/net')),
      () => withNetns(other, () => 'went on'),
      () => openRtnetlink(),
    ];
    for (const step of steps) {
      try { console.log(step()); } catch (error) { console.log(error.message); }
    }`;
  const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '--eval', script];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  const message = 'Cannot return to the network namespace of the host';
  expect(stdout.trim().split('\n'), stderr).toEqual([
    message,
    `net:[${pair.sandbox.netns.inode}]`,
    message,
    message,
  ]);
});

test('a socket stays in the namespace it was born in', () => {
  pair.sandbox.run('ip', 'link', 'add', 'only-inside', 'type', 'bridge');
  using inside = openRtnetlink({ netns: pair.sandbox.netns });
  using host = openRtnetlink({ netns: pair.host.netns });
  expect(inside.link.find({ name: 'only-inside' })?.kind).toBe('bridge');
  expect(host.link.find({ name: 'only-inside' })).toBeUndefined();
  pair.sandbox.run('ip', 'link', 'delete', 'only-inside');
});

test('an open namespace lives on when nobody else holds it', () => {
  using orphans = sandbox();
  using kept = openNetns(orphans.sandbox.path);
  orphans.sandbox[Symbol.dispose]();
  using inside = openRtnetlink({ netns: kept });
  expect(inside.link.list().map(({ name }) => name)).toEqual(['lo']);
});

test('a socket waits no longer than it is told', () => {
  using socket = openNetlinkSocket(NETLINK_ROUTE, { netns: pair.sandbox.netns, groups: [1] });
  const start = performance.now();
  expect(socket.receiveIfReady()).toBeUndefined();
  expect(performance.now() - start).toBeLessThan(20);
  expect(socket.receiveWithin(50)).toBeUndefined();
  expect(performance.now() - start).toBeGreaterThan(40);
});

test('settings belong to the namespace they are written in', () => {
  const name = 'net/ipv4/conf/all/arp_notify';
  withNetns(pair.sandbox.netns, () => ensureSysctl(name, '1'));
  expect(withNetns(pair.sandbox.netns, () => readSysctl(name))).toBe('1');
  expect(withNetns(pair.host.netns, () => readSysctl(name))).toBe('0');
});

test('a setting the kernel lacks reads as nothing, and writing it is an error with the reason', () => {
  expect(readSysctl('net/ipv6/conf/nolink/accept_ra')).toBeUndefined();
  expect(() => writeSysctl('net/ipv6/conf/nolink/accept_ra', '0')).toThrow(
    expect.objectContaining({
      message: 'Cannot set sysctl "net/ipv6/conf/nolink/accept_ra" to "0"',
      cause: expect.objectContaining({ code: 'ENOENT' }),
    }),
  );
  expect(() => readSysctl('net/../../etc/passwd')).toThrow('name of a sysctl');
});

test('extended attributes are set by descriptor and by path, and absent ones read as nothing', ({ skip }) => {
  const file = join(folder, 'marked');
  writeFileSync(file, '');
  skip(
    !keepsAttributes(file),
    'the file system of temporary files keeps no user attributes (tmpfs before Linux 6.6)',
  );
  expect(getXattr(file, 'user.patchbay.boot')).toBeUndefined();
  const fd = openSync(file, 'r+');
  setXattr(fd, 'user.patchbay.boot', 'boot-1');
  expect(getXattr(fd, 'user.patchbay.boot')).toBe('boot-1');
  closeSync(fd);
  setXattr(file, 'user.patchbay.boot', 'boot-2');
  expect(getXattr(file, 'user.patchbay.boot')).toBe('boot-2');
  expect(() => getXattr(join(folder, 'nothing'), 'user.x')).toThrow(
    expect.objectContaining({ code: 'ENOENT' }),
  );
  expect(getXattr('/proc/version', 'user.x')).toBeUndefined();
});

function keepsAttributes(file: string): boolean {
  try {
    setXattr(file, 'user.patchbay.probe', '1');
    return true;
  } catch (error) {
    if (hasCode(error, 'EOPNOTSUPP')) return false;
    throw error;
  }
}

/** Sockets and namespaces; what the test runner opens and closes beside us are files and pipes. */
function descriptors(): number {
  const links = readdirSync('/proc/self/fd').flatMap((fd) => findLink(`/proc/self/fd/${fd}`) ?? []);
  return links.filter((link) => /^(socket|net|mnt):/.test(link) || link.includes('/ns/')).length;
}

function findLink(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined; // the descriptor of the listing itself
  }
}

test('a namespace keeps its identity by whatever path, and no later one has it', () => {
  const link = join(folder, 'identity');
  symlinkSync(pair.sandbox.path, link);
  using linked = openNetns(link);
  const identity = identityOf(pair.sandbox.netns);
  expect(identityOf(linked)).toBe(identity);
  expect(identity).toMatch(/^[0-9a-f-]{36} cookie [1-9]\d*$/);
  // Inode numbers are given again at once; with some luck they are here.
  const identities = Array.from({ length: 5 }, () => {
    using fleeting = openTestNetns();
    return identityOf(fleeting.netns);
  });
  expect(new Set([identity, identityOf(pair.host.netns), ...identities]).size).toBe(7);
  expect(readlinkSync(OWN)).toBe(readlinkSync('/proc/self/ns/net'));
});

test('a setting can be emptied, and one that only triggers something can be written', () => {
  const ports = 'net/ipv4/ip_local_reserved_ports';
  withNetns(pair.sandbox.netns, () => {
    writeSysctl(ports, '8080');
    expect(readSysctl(ports)).toBe('8080');
    writeSysctl(ports, '');
    expect(readSysctl(ports)).toBe('');
    writeSysctl('net/ipv4/route/flush', '1');
    expect(() => readSysctl('net/ipv4/route/flush')).toThrow(
      expect.objectContaining({ cause: expect.objectContaining({ code: 'EACCES' }) }),
    );
  });
});
