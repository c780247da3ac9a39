// Kernel settings below /proc/sys. They belong to the network namespace of the task that opens the file, so a
// sandbox's are written inside withNetns. The plugins read and write them.
import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs';
import { again } from './again.ts';
import { inPhase } from './phases.ts';

/**
 * The setting's value without the newline; `undefined` when the kernel has no such setting (IPv6 switched off at
 * boot, a link that is gone). `name` has slashes, `net/ipv4/conf/eth0.5/forwarding`: link names may hold dots.
 *
 * Throws Error with Node's error as its cause. Equivalent to: `sysctl -n net.ipv4.ip_forward`
 */
export function readSysctl(name: string): string | undefined {
  const path = pathOf(name);
  try {
    return inPhase('sysctls', () => readFileSync(path, 'utf8').trimEnd());
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
  const path = pathOf(name);
  try {
    const text = value === '' ? '\n' : value; // nothing is not written at all, a newline clears
    inPhase('sysctls', () => again(() => writeWhole(path, text)));
  } catch (cause) {
    throw new Error(`Cannot set sysctl "${name}" to "${value}"`, { cause });
  }
}

/** By one write, which the kernel takes for one value. Triggers such as route/flush cannot be opened for reading. */
function writeWhole(path: string, text: string): void {
  const fd = openSync(path, constants.O_WRONLY);
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
function pathOf(name: string): string {
  const parts = name.split('/');
  if (parts.length < 2 || parts.some((part) => part === '' || part === '.' || part === '..')) {
    throw new Error(`Cannot use "${name}" as the name of a sysctl`);
  }
  return `/proc/sys/${name}`;
}
