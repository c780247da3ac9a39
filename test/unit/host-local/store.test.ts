// The store on a real directory: file format, what counts as whose, what lies there and is no record, the index beside it.
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { addressNamed, findStore, openStore, type Store } from '../../../plugins/host-local/store.ts';
import { ownerHash } from '../../../shared/cni/attachment.ts';
import { CniError } from '../../../shared/cni/error.ts';
import { formatIp, parseIp } from '../../../shared/ip/cidr.ts';
import { getXattr } from '../../../shared/linux/xattr.ts';

const C1 = { containerId: 'c1', ifname: 'eth0' };
const C2 = { containerId: 'c2', ifname: 'eth0' };

const bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();

let dataDir: string;
let directory: string;
let side: string;

beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'patchbay-store-'));
  directory = join(dataDir, 'n1');
  side = join(dataDir, '.patchbay', 'n1');
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

function inStore<T>(use: (store: Store) => T): T {
  using store = openStore({ dataDir, network: 'n1' });
  return use(store);
}

function take(ip: string, holder: typeof C1): boolean {
  return inStore((store) => {
    // As every ADD does: it asks first what the holder has.
    store.findHeld(holder);
    return store.take(parseIp(ip), holder);
  });
}

function held(holder: typeof C1): string[] {
  return inStore((store) => store.findHeld(holder).own.map(({ ip }) => formatIp(ip)));
}

function legacy(holder: typeof C1): string[] {
  return inStore((store) => store.findHeld(holder).legacy.map(({ ip }) => formatIp(ip)));
}

function writeRecord(name: string, text: string): void {
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, name), text, { mode: 0o600 });
}

function stampOf(...numbers: readonly bigint[]): string {
  return ['v1', bootId.slice(-12), ...numbers.map((number) => number.toString(36))].join('-');
}

function isIndexTrue(): boolean {
  const { ino, mtimeNs, ctimeNs } = statSync(directory, { bigint: true });
  return existsSync(side) && readlinkSync(join(side, 'stamp')) === stampOf(ino, mtimeNs, ctimeNs);
}

describe('an address file', () => {
  it('has the name, bytes and permissions of the reference', () => {
    take('10.1.0.2', C1);
    take('fd00:22::2', C1);
    expect(readdirSync(directory).sort()).toEqual(['10.1.0.2', 'fd00:22::2', 'lock']);
    expect(readFileSync(join(directory, '10.1.0.2')).toString('hex')).toBe('63310d0a65746830');
    expect(statSync(directory).mode & 0o777).toBe(0o755);
    expect(statSync(join(directory, 'fd00:22::2')).mode & 0o777).toBe(0o600);
    // The reference makes it 0750; whoever locks it opens it as root, and scanners want no more than this.
    expect(statSync(join(directory, 'lock')).mode & 0o777).toBe(0o600);
  });

  it('has one name only, and nothing is left of the draft', () => {
    take('10.1.0.2', C1);
    expect(statSync(join(directory, '10.1.0.2')).nlink).toBe(1);
    expect(readdirSync(side).sort()).toEqual(['owners', 'stamp']);
    expect(statSync(join(dataDir, '.patchbay')).mode & 0o777).toBe(0o700);
  });

  it('tells the boot it was written in by an attribute', () => {
    take('10.1.0.2', C1);
    expect(getXattr(join(directory, '10.1.0.2'), 'user.patchbay.boot')).toBe(bootId);
  });

  it('is never taken twice', () => {
    expect(take('10.1.0.2', C1)).toBe(true);
    expect(take('10.1.0.2', C2)).toBe(false);
    expect(readFileSync(join(directory, '10.1.0.2'), 'latin1')).toBe('c1\r\neth0');
  });

  it('keeps its content when a killed verb left the draft linked to it', () => {
    take('10.1.0.2', C1);
    execFileSync('ln', [join(directory, '10.1.0.2'), join(side, 'draft')]);
    take('10.1.0.3', C2);
    expect(readFileSync(join(directory, '10.1.0.2'), 'latin1')).toBe('c1\r\neth0');
    expect(readFileSync(join(directory, '10.1.0.3'), 'latin1')).toBe('c2\r\neth0');
  });

  it('is written in place where nothing can be made beside the directory', () => {
    writeFileSync(join(dataDir, '.patchbay'), 'in the way');
    expect(take('10.1.0.2', C1)).toBe(true);
    expect(take('10.1.0.2', C2)).toBe(false);
    expect(readFileSync(join(directory, '10.1.0.2'), 'latin1')).toBe('c1\r\neth0');
    expect(held(C1)).toEqual(['10.1.0.2']);
    inStore((store) => store.setLastReserved(0, parseIp('10.1.0.2')));
    expect(readFileSync(join(directory, 'last_reserved_ip.0'), 'latin1')).toBe('10.1.0.2');
  });

  it('is released, and that twice is no error', () => {
    take('10.1.0.2', C1);
    inStore((store) => {
      const [address] = store.findHeld(C1).own;
      if (address === undefined) throw new Error('c1 holds nothing');
      store.release(address);
      store.release(address);
      expect(store.findHeld(C1).own).toEqual([]);
    });
    expect(existsSync(join(directory, '10.1.0.2'))).toBe(false);
  });
});

describe('a holder', () => {
  it('has all its addresses and nobody else’s', () => {
    take('10.1.0.2', C1);
    take('fd00::2', C1);
    take('10.1.0.3', C2);
    take('10.1.0.4', { containerId: 'c1', ifname: 'eth1' });
    expect(held(C1)).toEqual(['10.1.0.2', 'fd00::2']);
    expect(held(C2)).toEqual(['10.1.0.3']);
    expect(held({ containerId: 'c', ifname: '1eth0' })).toEqual([]);
  });

  it('of a very old release is found by its container id alone', () => {
    writeRecord('10.1.0.2', 'c1');
    writeRecord('10.1.0.3', 'c2\n');
    expect(legacy(C1)).toEqual(['10.1.0.2']);
    expect(legacy({ containerId: 'c2', ifname: 'any' })).toEqual(['10.1.0.3']);
    expect(held(C1)).toEqual([]);
  });

  it('is never found in the lock or a pointer file, whatever its id', () => {
    take('10.1.0.2', C1);
    inStore((store) => store.setLastReserved(0, parseIp('10.1.0.2')));
    writeFileSync(join(directory, 'lock'), '10.1.0.2');
    expect(legacy({ containerId: '10.1.0.2', ifname: 'eth0' })).toEqual([]);
  });

  it('with a container id as long as the environment allows is found again', () => {
    const long = { containerId: 'c'.repeat(131_000), ifname: 'eth0' };
    take('10.1.0.2', long);
    expect(held(long)).toEqual(['10.1.0.2']);
    writeRecord('last', 'a foreign write');
    expect(held(long)).toEqual(['10.1.0.2']);
  });
});

describe('what is no record', () => {
  it('names nobody when it is empty or torn, and is foreign when it is no file', () => {
    writeRecord('10.1.0.2', '');
    writeRecord('10.1.0.3', 'c1\r\n');
    mkdirSync(join(directory, '10.1.0.4'));
    symlinkSync('/etc/passwd', join(directory, '10.1.0.5'));
    execFileSync('mkfifo', [join(directory, '10.1.0.6')]);
    writeRecord('10.1.0.7', 'x'.repeat(200_000));
    writeRecord('not-an-address', 'c1\r\neth0');
    writeRecord('010.1.0.8', 'c1\r\neth0');
    const found = inStore((store) => store.list().map(({ ip, holder }) => [formatIp(ip), holder]));
    expect(Object.fromEntries(found)).toEqual({
      '10.1.0.2': 'nobody',
      '10.1.0.3': 'nobody',
      '10.1.0.4': 'foreign',
      '10.1.0.5': 'foreign',
      '10.1.0.6': 'foreign',
      '10.1.0.7': 'foreign',
    });
    expect(held(C1)).toEqual([]);
  });

  it('is told apart by one look when it is empty', () => {
    writeRecord('10.1.0.2', '');
    writeRecord('10.1.0.3', 'c1\r\neth0');
    mkdirSync(join(directory, '10.1.0.4'));
    symlinkSync('nowhere', join(directory, '10.1.0.5'));
    const looks = inStore((store) =>
      ['2', '3', '4', '5', '6'].map((end) => store.occupancyOf(parseIp(`10.1.0.${end}`))),
    );
    expect(looks).toEqual(['empty', 'taken', 'taken', 'taken', 'free']);
  });

  it('is not written through', () => {
    const victim = join(dataDir, 'victim');
    writeFileSync(victim, 'untouched');
    mkdirSync(directory);
    symlinkSync(victim, join(directory, '10.1.0.2'));
    symlinkSync(victim, join(directory, 'last_reserved_ip.0'));
    mkdirSync(side, { recursive: true });
    symlinkSync(victim, join(side, 'draft'));
    expect(take('10.1.0.2', C1)).toBe(false);
    expect(take('10.1.0.3', C1)).toBe(true);
    inStore((store) => store.setLastReserved(0, parseIp('10.1.0.3')));
    expect(readFileSync(victim, 'utf8')).toBe('untouched');
    expect(lstatSync(join(directory, 'last_reserved_ip.0')).isFile()).toBe(true);
  });

  it.each(['10.1.0.2', 'fd00:22::2', '::1'])('does not have the name %s', (name) => {
    expect(formatIp(addressNamed(name) ?? parseIp('0.0.0.0'))).toBe(name);
  });

  it.each([
    'lock',
    'last_reserved_ip.0',
    'fd00:22:0::2',
    '::ffff:10.1.0.2',
    'FD00::2',
    '10.1.0',
    '10.1.0.02',
    'beef',
  ])('may have the name %s', (name) => {
    expect(addressNamed(name)).toBeUndefined();
  });
});

describe('the pointer', () => {
  it('holds the address as text, without a line end, 0600', () => {
    inStore((store) => store.setLastReserved(3, parseIp('fd00::5')));
    expect(readFileSync(join(directory, 'last_reserved_ip.3'), 'latin1')).toBe('fd00::5');
    expect(statSync(join(directory, 'last_reserved_ip.3')).mode & 0o777).toBe(0o600);
    expect(inStore((store) => store.findLastReserved(3))).toEqual(parseIp('fd00::5'));
  });

  it.each([
    ['empty', ''],
    ['torn', '10.1.'],
    ['nonsense', 'x'.repeat(300_000)],
  ])('that is %s is none', (_what, text) => {
    writeRecord('last_reserved_ip.0', text);
    expect(inStore((store) => store.findLastReserved(0))).toBeUndefined();
  });

  it('that is a directory is none, and an error that names it when it is written', () => {
    mkdirSync(join(directory, 'last_reserved_ip.0'), { recursive: true });
    expect(inStore((store) => store.findLastReserved(0))).toBeUndefined();
    expect(() => inStore((store) => store.setLastReserved(0, parseIp('10.1.0.2')))).toThrow(
      `Cannot write "${directory}/last_reserved_ip.0"`,
    );
  });
});

describe('the index', () => {
  it('is true after every change of our own', () => {
    take('10.1.0.2', C1);
    expect(isIndexTrue()).toBe(true);
    take('10.1.0.3', C2);
    expect(isIndexTrue()).toBe(true);
    inStore((store) => store.setLastReserved(0, parseIp('10.1.0.3')));
    expect(isIndexTrue()).toBe(true);
    inStore((store) => store.findHeld(C1).own.map((address) => store.release(address)));
    expect(isIndexTrue()).toBe(true);
    expect(readdirSync(join(side, 'owners'))).toHaveLength(1);
  });

  it('answers without reading the directory', () => {
    take('10.1.0.2', C1);
    using store = openStore({ dataDir, network: 'n1' });
    store.list = () => {
      throw new Error('The directory was read');
    };
    expect(store.findHeld(C1).own).toHaveLength(1);
    expect(store.findHeld(C2)).toEqual({ own: [], legacy: [] });
  });

  it('is not believed after a foreign write, and is true again after the next verb', () => {
    take('10.1.0.2', C1);
    writeRecord('10.1.0.3', 'c2\r\neth0');
    unlinkSync(join(directory, '10.1.0.2'));
    expect(isIndexTrue()).toBe(false);
    expect(held(C1)).toEqual([]);
    expect(isIndexTrue()).toBe(true);
    expect(held(C2)).toEqual(['10.1.0.3']);
    expect(readdirSync(join(side, 'owners'))).toHaveLength(1);
  });

  it('is not believed after a foreign write in the same tick of the clock', () => {
    take('10.1.0.2', C1);
    for (let round = 0; round < 50; round++) {
      const name = `10.1.1.${round}`;
      inStore((store) => store.take(parseIp(`10.1.2.${round}`), C2));
      writeRecord(name, `c${round}x\r\neth0`);
      expect(held({ containerId: `c${round}x`, ifname: 'eth0' })).toEqual([name]);
    }
  });

  it('is not believed when the directory was put back with its old mtime', () => {
    take('10.1.0.2', C1);
    const { atime, mtime } = statSync(directory);
    writeRecord('10.1.0.3', 'c2\r\neth0');
    utimesSync(directory, atime, mtime);
    expect(held(C2)).toEqual(['10.1.0.3']);
    execFileSync('cp', ['-a', directory, `${directory}.copy`]);
    rmSync(directory, { recursive: true });
    execFileSync('mv', [`${directory}.copy`, directory]);
    expect(isIndexTrue()).toBe(false);
    expect(held(C2)).toEqual(['10.1.0.3']);
  });

  it('is not believed after a reboot', () => {
    take('10.1.0.2', C1);
    const stamp = readlinkSync(join(side, 'stamp'));
    unlinkSync(join(side, 'stamp'));
    symlinkSync(stamp.replace(bootId.slice(-12), '0123456789ab'), join(side, 'stamp'));
    rmSync(join(side, 'owners'), { recursive: true });
    expect(held(C1)).toEqual(['10.1.0.2']);
  });

  it('is not believed where a file does not confirm it', () => {
    take('10.1.0.2', C1);
    writeFileSync(join(directory, '10.1.0.2'), 'c2\r\neth0');
    expect(isIndexTrue()).toBe(true);
    expect(held(C1)).toEqual([]);
    expect(held(C2)).toEqual(['10.1.0.2']);
  });

  it('can be deleted at any time, and can be nonsense', () => {
    take('10.1.0.2', C1);
    rmSync(join(dataDir, '.patchbay'), { recursive: true });
    expect(held(C1)).toEqual(['10.1.0.2']);
    expect(isIndexTrue()).toBe(true);
    rmSync(join(side, 'owners'), { recursive: true });
    writeFileSync(join(side, 'owners'), '');
    expect(held(C1)).toEqual(['10.1.0.2']);
    expect(held(C2)).toEqual([]);
  });

  it('gives the addresses of an owner hash with and without itself', () => {
    take('10.1.0.2', C1);
    const hash = ownerHash({ network: 'n1', ...C1 });
    expect(inStore((store) => store.listOf(hash).map(formatIp))).toEqual(['10.1.0.2']);
    rmSync(join(dataDir, '.patchbay'), { recursive: true });
    writeFileSync(join(dataDir, '.patchbay'), '');
    expect(inStore((store) => store.listOf(hash).map(formatIp))).toEqual(['10.1.0.2']);
  });
});

describe('opening', () => {
  it('makes the directory with its parents, or leaves it alone', () => {
    const deep = { dataDir: join(dataDir, 'a', 'b'), network: 'n1' };
    expect(findStore(deep)).toBeUndefined();
    expect(existsSync(join(dataDir, 'a'))).toBe(false);
    openStore(deep)[Symbol.dispose]();
    expect(statSync(join(dataDir, 'a', 'b', 'n1')).isDirectory()).toBe(true);
  });

  it.each(['..', '.', '', 'a/b', '.patchbay', '-x'])('refuses the network name "%s"', (network) => {
    expect(() => openStore({ dataDir, network })).toThrow('cannot name a directory');
  });

  it('fails with code 110 naming the path when the directory is a file', () => {
    writeFileSync(directory, '');
    const error = catchError(() => openStore({ dataDir, network: 'n1' }));
    expect(error).toMatchObject({ code: 110, message: expect.stringContaining(`"${directory}"`) });
  });

  it('says what the file system said when the directory cannot be made', () => {
    const error = catchError(() => openStore({ dataDir: '/proc/nowhere/at/all', network: 'n1' }));
    expect(error).toMatchObject({
      code: 110,
      message: 'Cannot make the directory "/proc/nowhere/at/all/n1"',
    });
    expect(String(error.cause)).toContain("mkdir '/proc/nowhere'");
  });

  it('does not follow a lock that is a symbolic link', () => {
    mkdirSync(directory);
    symlinkSync(join(dataDir, 'elsewhere'), join(directory, 'lock'));
    expect(catchError(() => openStore({ dataDir, network: 'n1' }))).toMatchObject({ code: 110 });
    expect(existsSync(join(dataDir, 'elsewhere'))).toBe(false);
  });
});

function catchError(step: () => unknown): CniError {
  try {
    step();
  } catch (error) {
    if (error instanceof CniError) return error;
    throw error;
  }
  throw new Error('Nothing was thrown');
}
