// Kernel settings below /proc/sys. They belong to the network namespace of the task that opens the file, so a
// sandbox's are written inside withNetns. The plugins read and write them.
import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs';
import { again } from './again.ts';
import { fileSystemOf, openBelow, RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV } from './libc.ts';
import { inPhase } from './phases.ts';
import { SystemError } from './system-error.ts';

/**
 * The setting's value without the newline; `undefined` when the kernel has no such setting (IPv6 switched off at
 * boot, a link that is gone). `name` has slashes, `net/ipv4/conf/eth0.5/forwarding`: link names may hold dots.
 *
 * Throws Error with Node's error as its cause. Equivalent to: `sysctl -n net.ipv4.ip_forward`
 */
export function readSysctl(name: string): string | undefined {
  const parts = partsOf(name);
  try {
    return inPhase('sysctls', () => readWhole(parts).trimEnd());
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return undefined;
    throw new Error(`Cannot read sysctl "${name}"`, { cause });
  }
}

/**
 * Throws Error with Node's error (`code` "ENOENT", "EROFS", "EINVAL" …) as its cause.
 * Equivalent to: `sysctl -w net.ipv4.ip_forward=1`
 */
export function writeSysctl(name: string, value: string): void {
  const parts = partsOf(name);
  try {
    const text = value === '' ? '\n' : value; // nothing is not written at all, a newline clears
    inPhase('sysctls', () => again(() => writeWhole(parts, text)));
  } catch (cause) {
    throw new Error(`Cannot set sysctl "${name}" to "${value}"`, { cause });
  }
}

function readWhole(parts: readonly string[]): string {
  const fd = openSetting(parts, constants.O_RDONLY);
  try {
    return readFileSync(fd, 'utf8');
  } finally {
    closeSync(fd);
  }
}

/** By one write, which the kernel takes for one value. Triggers such as route/flush cannot be opened for reading. */
function writeWhole(parts: readonly string[], text: string): void {
  const fd = openSetting(parts, constants.O_WRONLY);
  try {
    writeSync(fd, text);
  } finally {
    closeSync(fd);
  }
}

/** Writes only a value that differs: a read-only /proc/sys is no obstacle where nothing has to change. */
export function ensureSysctl(name: string, value: string): void {
  if (readSysctl(name) !== value) writeSysctl(name, value);
}

/** As ensureSysctl, for a setting that most likely differs: writes at once, and looks only when that is refused. */
export function setSysctl(name: string, value: string): void {
  try {
    writeSysctl(name, value);
  } catch (error) {
    if (readSysctl(name) !== value) throw error;
  }
}

/** A link may be called ".." by nobody (the kernel refuses), but a config may say so. */
function partsOf(name: string): readonly string[] {
  const parts = name.split('/');
  if (parts.length < 2 || parts.some((part) => part === '' || part === '.' || part === '..')) {
    throw new Error(`Cannot use "${name}" as the name of a sysctl`);
  }
  return parts;
}

const ROOT = '/proc/sys';
const NOT_PROC = `It does not lie on the kernel's own file system; look at what is mounted below "${ROOT}"`;

/** The open directory ROOT, once it is known to be the kernel's. */
let root: number | undefined;

/**
 * Opens a setting, and nothing that stands in its place: whoever can mount something there, or exchange a directory for a
 * link, must not have us write into another file (CVE-2025-52881) or believe what it says. From ROOT, which lies on procfs, the
 * path must lead through no link and no mount. Where a part of ROOT is mounted anew, as containers do to make it writable or
 * read-only, that part must lie on procfs, too; a setting that is a mount itself is refused.
 */
function openSetting(parts: readonly string[], flags: number): number {
  root ??= openRoot();
  const path = parts.join('/');
  try {
    return openBelow(root, path, flags, WITHIN | RESOLVE_NO_XDEV);
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    if (error.code === 'EXDEV') return openInMount(root, parts, flags);
    // Before Linux 5.6, or where a filter of system calls does not know it.
    if (error.code === 'ENOSYS' || error.code === 'EPERM') return openByPath(`${ROOT}/${path}`, flags);
    throw error;
  }
}

const WITHIN = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;

function openRoot(): number {
  return expectProc(openSync(ROOT, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW));
}

function openInMount(root: number, parts: readonly string[], flags: number): number {
  const [name = ''] = parts.slice(-1);
  const above = parts.slice(0, -1).join('/');
  const directory = expectProc(openBelow(root, above, O_PATH | constants.O_DIRECTORY, WITHIN));
  try {
    return openBelow(directory, name, flags, WITHIN | RESOLVE_NO_XDEV);
  } finally {
    closeSync(directory);
  }
}

function openByPath(path: string, flags: number): number {
  return expectProc(openSync(path, flags | constants.O_NOFOLLOW));
}

/** Gives the descriptor back, or closes it and throws. */
function expectProc(fd: number): number {
  try {
    if (fileSystemOf(fd) !== PROC_SUPER_MAGIC) throw new Error(NOT_PROC);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** linux/magic.h */
const PROC_SUPER_MAGIC = 0x9fa0;

/** asm-generic/fcntl.h; Node has no name for it. */
const O_PATH = 0o10000000;
