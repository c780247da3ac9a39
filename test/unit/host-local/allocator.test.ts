// Which address comes next, on a real directory and against a kernel that the test plays.
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { planRequests, takeAddresses } from '../../../plugins/host-local/allocator.ts';
import type { KernelView, User } from '../../../plugins/host-local/kernel-view.ts';
import { canonicalRange, type Range, type RangeSet } from '../../../plugins/host-local/range.ts';
import { openStore } from '../../../plugins/host-local/store.ts';
import { ownerHash } from '../../../shared/cni/attachment.ts';
import { CniError } from '../../../shared/cni/error.ts';
import { Rollback } from '../../../shared/cni/rollback.ts';
import { formatCidr, formatIp, parseCidr, parseIp } from '../../../shared/ip/cidr.ts';
import { setXattr } from '../../../shared/linux/xattr.ts';

let dataDir: string;
let directory: string;
let log: string[];
let users: Map<string, User>;
let traces: Set<string>;

const kernel: KernelView = {
  listUsers: (ip) => [users.get(formatIp(ip))].filter((user) => user !== undefined),
  hasHostLink: () => false,
  hasTraceOf: (ip) => traces.has(formatIp(ip)),
};

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'patchbay-allocator-'));
  directory = join(dataDir, 'n1');
  mkdirSync(directory);
  log = [];
  users = new Map();
  traces = new Set();
});
afterEach(() => rmSync(dataDir, { recursive: true }));

function range(subnet: string, start?: string, end?: string): Range {
  const spec = {
    subnet: parseCidr(subnet),
    rangeStart: start === undefined ? undefined : parseIp(start),
    rangeEnd: end === undefined ? undefined : parseIp(end),
    gateway: undefined,
  };
  return canonicalRange(spec, 'ipam');
}

const SMALL: RangeSet = [range('10.1.0.0/29')];
const IPV6: RangeSet = [range('fd00::/64')];

function add(
  containerId: string,
  sets: readonly RangeSet[] = [SMALL],
  requested: readonly string[] = [],
): string[] {
  const requests = planRequests(sets, requested.map(parseIp));
  using store = openStore({ dataDir, network: 'n1' });
  using rollback = new Rollback((line) => log.push(line));
  const attachment = { network: 'n1', containerId, ifname: 'eth0' };
  const pool = { store, kernel, attachment, log: (line: string) => log.push(line) };
  const taken = takeAddresses(pool, sets, requests, rollback);
  rollback.commit();
  return taken.map(({ ip, range: { subnet } }) => formatCidr({ ip, prefix: subnet.prefix }));
}

function refusal(step: () => unknown): { code: number; message: string } {
  try {
    step();
  } catch (error) {
    if (error instanceof CniError) return { code: error.code, message: error.message };
    throw error;
  }
  throw new Error('Nothing was thrown');
}

function free(containerId: string): void {
  using store = openStore({ dataDir, network: 'n1' });
  for (const address of store.findHeld({ containerId, ifname: 'eth0' }).own) store.release(address);
}

function files(): string[] {
  return readdirSync(directory)
    .filter((name) => /^[0-9a-f]+[.:]/.test(name))
    .sort();
}

function write(name: string, text: string): void {
  writeFileSync(join(directory, name), text, { mode: 0o600 });
}

// As if the record had been written in another boot, so many seconds after the epoch.
function age(name: string, seconds: number): void {
  setXattr(join(directory, name), 'user.patchbay.boot', '11111111-2222-3333-4444-555555555555');
  utimesSync(join(directory, name), seconds, seconds);
}

describe('the next address', () => {
  it('follows the last one round and round, as with the reference', () => {
    const given = ['a', 'b', 'c', 'd', 'e'].flatMap((id) => add(id));
    expect(given).toEqual(['10.1.0.2/29', '10.1.0.3/29', '10.1.0.4/29', '10.1.0.5/29', '10.1.0.6/29']);
    free('b');
    free('d');
    expect(add('f')).toEqual(['10.1.0.3/29']);
    expect(add('g')).toEqual(['10.1.0.5/29']);
    expect(refusal(() => add('h'))).toEqual({
      code: 100,
      message: 'There are no IP addresses available in range set "10.1.0.1-10.1.0.6": all 5 are taken',
    });
  });

  it('goes through several ranges of a set, as with the reference', () => {
    const set: RangeSet = [range('10.1.0.0/30'), range('10.1.0.8/29', '10.1.0.10', '10.1.0.12')];
    expect(['a', 'b', 'c', 'd'].flatMap((id) => add(id, [set]))).toEqual([
      '10.1.0.2/30',
      '10.1.0.10/29',
      '10.1.0.11/29',
      '10.1.0.12/29',
    ]);
    expect(refusal(() => add('e', [set])).message).toMatch(
      /"10\.1\.0\.1-10\.1\.0\.2,10\.1\.0\.10-10\.1\.0\.12": all 4/,
    );
    free('a');
    free('c');
    expect(add('f', [set])).toEqual(['10.1.0.2/30']);
    expect(add('g', [set])).toEqual(['10.1.0.11/29']);
  });

  it('begins at the beginning when the pointer is empty', () => {
    add('a');
    write('last_reserved_ip.0', '');
    free('a');
    expect(add('b')).toEqual(['10.1.0.2/29']);
  });

  it('is found behind thousands of others', () => {
    const set: RangeSet = [range('10.1.0.0/16')];
    for (let number = 2; number < 3000; number++) write(`10.1.${number >> 8}.${number & 255}`, 'x\r\neth0');
    write('10.1.4.7', '');
    rmSync(join(directory, '10.1.9.9'));
    expect(add('a', [set])).toEqual(['10.1.9.9/16']);
    expect(readFileSync(join(directory, 'last_reserved_ip.0'), 'latin1')).toBe('10.1.9.9');
    expect(add('b', [set])).toEqual(['10.1.11.184/16']);
  });

  it('is not the gateway of its own range, but may be one of another', () => {
    const low: RangeSet = [range('10.1.0.0/24', '10.1.0.1', '10.1.0.2')];
    const high: RangeSet = [
      { ...range('10.1.0.0/24', '10.1.0.5', '10.1.0.6'), gateway: parseIp('10.1.0.2') },
    ];
    expect(add('a', [low, high])).toEqual(['10.1.0.2/24', '10.1.0.5/24']);
  });
});

describe('an attachment', () => {
  it('gets one address of each set and a pointer for each', () => {
    expect(add('a', [SMALL, IPV6])).toEqual(['10.1.0.2/29', 'fd00::2/64']);
    expect(readFileSync(join(directory, 'last_reserved_ip.0'), 'latin1')).toBe('10.1.0.2');
    expect(readFileSync(join(directory, 'last_reserved_ip.1'), 'latin1')).toBe('fd00::2');
  });

  it('keeps what it has when a second ADD is refused', () => {
    add('a', [IPV6]);
    expect(refusal(() => add('a', [SMALL, IPV6]))).toEqual({
      code: 102,
      message: '"a" "eth0" holds the address "fd00::2" on network "n1" already; send DEL first',
    });
    expect(files()).toEqual(['fd00::2']);
  });

  it('does not get a second address of a set by asking for it', () => {
    add('a');
    expect(refusal(() => add('a', [SMALL], ['10.1.0.5'])).code).toBe(102);
    expect(files()).toEqual(['10.1.0.2']);
  });

  it('does not get a second address beside one of a very old release', () => {
    write('10.1.0.4', 'a');
    expect(refusal(() => add('a'))).toMatchObject({
      code: 102,
      message: expect.stringMatching(/^"a" holds the address "10\.1\.0\.4"/),
    });
  });

  it('may hold an address that is in no range any more', () => {
    write('10.77.0.4', 'a\r\neth0');
    expect(add('a')).toEqual(['10.1.0.2/29']);
  });

  it('loses nothing and gains nothing when a later set is exhausted', () => {
    const tiny: RangeSet = [range('10.2.0.0/30')];
    add('other', [tiny]);
    expect(refusal(() => add('a', [SMALL, IPV6, tiny])).code).toBe(100);
    expect(files()).toEqual(['10.2.0.2']);
    expect(log).toEqual([]);
  });
});

describe('a requested address', () => {
  it('is given, and moves the pointer', () => {
    expect(add('a', [SMALL, IPV6], ['fd00::77', '10.1.0.4'])).toEqual(['10.1.0.4/29', 'fd00::77/64']);
    expect(readFileSync(join(directory, 'last_reserved_ip.0'), 'latin1')).toBe('10.1.0.4');
  });

  it('may be asked of one set, any other gives the next', () => {
    expect(add('a', [SMALL, IPV6], ['fd00::77'])).toEqual(['10.1.0.2/29', 'fd00::77/64']);
  });

  it.each([
    [['10.1.0.1'], 'Cannot give the requested address "10.1.0.1": it is the gateway of its range'],
    [
      ['10.1.0.7'],
      'Cannot give the requested address "10.1.0.7": it is the broadcast address of subnet "10.1.0.0/29"',
    ],
    [
      ['10.1.0.0'],
      'Cannot give the requested address "10.1.0.0": it is the network address of subnet "10.1.0.0/29"',
    ],
    [['10.9.0.1'], 'Cannot give the requested address "10.9.0.1": it is in no range ("10.1.0.1-10.1.0.6")'],
    [['fd00::1'], 'Cannot give the requested address "fd00::1": it is in no range ("10.1.0.1-10.1.0.6")'],
    [
      ['10.1.0.2', '10.1.0.3'],
      'Cannot give both requested addresses "10.1.0.2" and "10.1.0.3": range set "10.1.0.1-10.1.0.6" gives one address',
    ],
  ])('%s is refused in words of its own', (requested, message) => {
    expect(refusal(() => add('a', [SMALL], requested))).toEqual({ code: 101, message });
    expect(files()).toEqual([]);
  });

  it('outside the bounds of its range is refused', () => {
    const set: RangeSet = [range('10.1.0.0/24', '10.1.0.10', '10.1.0.20')];
    expect(refusal(() => add('a', [set], ['10.1.0.21'])).message).toMatch(
      /it is outside every range of subnet "10\.1\.0\.0\/24"/,
    );
  });

  it('that somebody holds is refused, naming who', () => {
    add('a', [SMALL], ['10.1.0.4']);
    expect(refusal(() => add('b', [SMALL], ['10.1.0.4']))).toEqual({
      code: 101,
      message: 'Cannot give the requested address "10.1.0.4": held by "a" "eth0"',
    });
    mkdirSync(join(directory, '10.1.0.5'));
    expect(refusal(() => add('b', [SMALL], ['10.1.0.5'])).message).toMatch(
      /taken by something that is no address file/,
    );
  });

  it('is not taken back from an earlier boot, for there are others', () => {
    add('a', [SMALL], ['10.1.0.4']);
    age('10.1.0.4', 1000);
    expect(refusal(() => add('b', [SMALL], ['10.1.0.4'])).code).toBe(101);
  });

  it('releases the others of its call when it is taken', () => {
    add('a', [IPV6], ['fd00::5']);
    expect(refusal(() => add('b', [SMALL, IPV6], ['fd00::5'])).code).toBe(101);
    expect(files()).toEqual(['fd00::5']);
  });
});

describe('a file that names nobody', () => {
  it('counts as free when it is empty, with a line on stderr', () => {
    write('10.1.0.2', '');
    expect(add('a')).toEqual(['10.1.0.2/29']);
    expect(readFileSync(join(directory, '10.1.0.2'), 'latin1')).toBe('a\r\neth0');
    expect(log).toEqual([`The file of "10.1.0.2" in "${directory}" names no holder, it counts as free`]);
  });

  it('counts as free when it is torn and everything else is taken', () => {
    write('10.1.0.3', 'x\r\n');
    expect(['a', 'b', 'c', 'd', 'e'].flatMap((id) => add(id))).toEqual([
      '10.1.0.2/29',
      '10.1.0.4/29',
      '10.1.0.5/29',
      '10.1.0.6/29',
      '10.1.0.3/29',
    ]);
    expect(refusal(() => add('f')).code).toBe(100);
  });

  it('counts as free when it is asked for', () => {
    write('10.1.0.3', '\0\0\0');
    expect(add('a', [SMALL], ['10.1.0.3'])).toEqual(['10.1.0.3/29']);
  });
});

describe('an address of an earlier boot', () => {
  function fill(): void {
    for (const id of ['a', 'b', 'c', 'd', 'e']) add(id);
  }

  it('is taken back when nothing is free, the oldest first, with a line on stderr', () => {
    fill();
    age('10.1.0.3', 2000);
    age('10.1.0.5', 1000);
    expect(add('f')).toEqual(['10.1.0.5/29']);
    expect(log).toEqual([
      'Range set "10.1.0.1-10.1.0.6" is exhausted: reclaiming "10.1.0.5", held by "d" "eth0" since an earlier boot',
    ]);
    expect(readFileSync(join(directory, '10.1.0.5'), 'latin1')).toBe('f\r\neth0');
    expect(add('g')).toEqual(['10.1.0.3/29']);
    expect(refusal(() => add('h')).code).toBe(100);
  });

  it('is left alone while another is free', () => {
    add('a');
    age('10.1.0.2', 1000);
    expect(['b', 'c', 'd', 'e'].flatMap((id) => add(id))).not.toContain('10.1.0.2/29');
    expect(files()).toContain('10.1.0.2');
  });

  it('is left alone while the kernel has a trace of it', () => {
    fill();
    age('10.1.0.3', 2000);
    age('10.1.0.5', 1000);
    traces.add('10.1.0.5');
    expect(add('f')).toEqual(['10.1.0.3/29']);
    expect(refusal(() => add('g')).code).toBe(100);
  });

  it('is left alone when its record does not tell the boot', () => {
    for (let end = 2; end < 7; end++) write(`10.1.0.${end}`, `r${end}\r\neth0`);
    expect(refusal(() => add('a')).code).toBe(100);
  });

  it('of another set is left alone', () => {
    fill();
    add('z', [[range('10.2.0.0/30')]]);
    age('10.2.0.2', 1000);
    expect(refusal(() => add('f')).code).toBe(100);
  });
});

describe('an address in use that the store does not have', () => {
  const stranger: User = { link: 'veth9', ownerHash: '0123456789abcdef0123456789abcdef' };

  it('is passed over with a line on stderr', () => {
    users.set('10.1.0.2', stranger);
    users.set('10.1.0.3', { link: 'veth8', ownerHash: undefined });
    expect(add('a')).toEqual(['10.1.0.4/29']);
    expect(log).toEqual([
      `The address "10.1.0.2" is in use behind link "veth9", though the store "${directory}" does not have it; trying the next one`,
      `The address "10.1.0.3" is in use behind link "veth8", though the store "${directory}" does not have it; trying the next one`,
    ]);
  });

  it('is refused when it is asked for', () => {
    users.set('10.1.0.4', stranger);
    expect(refusal(() => add('a', [SMALL], ['10.1.0.4']))).toMatchObject({
      code: 101,
      message: expect.stringMatching(/behind link "veth9"/),
    });
  });

  it('is counted when nothing else is left', () => {
    for (let end = 2; end < 7; end++) users.set(`10.1.0.${end}`, stranger);
    expect(refusal(() => add('a')).message).toMatch(
      /all 5 are taken, 5 of them by containers that the store does not know/,
    );
    expect(files()).toEqual([]);
  });

  it('is free when the store says that its last user has another one', () => {
    add('x', [SMALL], ['10.1.0.6']);
    const hash = ownerHash({ network: 'n1', containerId: 'x', ifname: 'eth0' });
    users.set('10.1.0.2', { link: 'veth7', ownerHash: hash });
    expect(add('a', [SMALL], ['10.1.0.2'])).toEqual(['10.1.0.2/29']);
    // An address of another set says nothing.
    users.set('fd00::9', { link: 'veth7', ownerHash: hash });
    expect(refusal(() => add('b', [IPV6], ['fd00::9'])).code).toBe(101);
  });

  it('does not fill stderr', () => {
    const set: RangeSet = [range('10.1.0.0/24')];
    for (let end = 2; end < 255; end++) users.set(`10.1.0.${end}`, stranger);
    expect(refusal(() => add('a', [set])).code).toBe(100);
    expect(log).toHaveLength(8);
  });
});
