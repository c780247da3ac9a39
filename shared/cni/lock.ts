// Waiting for a lock that others may hold: for so long, and then with a word about who holds it.
// Used by host-lock.ts for what our processes share, by host-local for its store, and by iptables for the xtables lock.
import { readFileSync, readlinkSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { lockFile } from '../linux/file-lock.ts';
import { inPhase } from '../linux/phases.ts';
import { hasCode, quote, tryAgainLater } from './error.ts';

/** How long a verb waits for others: longer than any of them takes, shorter than a runtime's patience. */
export const LOCK_DEADLINE_MS = 30_000;

export interface LockWish {
  readonly deadlineMs: number;
  /** Permissions if the file has to be made. */
  readonly mode: number;
}

/**
 * Takes the lock, making the file when its directory exists. Having waited in vain for it once, this process tries only
 * once more: what wants it then is the undoing of what had to be given up. Throws tryAgainLater that names the file and who holds
 * it once the deadline has passed, and SystemError or Node's error (ENOENT without the directory) when the file can't be
 * opened.
 */
export function takeLock(path: string, wish: LockWish): Disposable {
  try {
    const options = hasWaitedFor(path) ? { ...wish, deadlineMs: 0 } : wish;
    return inPhase('locks', () => lockFile(path, options));
  } catch (cause) {
    if (!hasCode(cause, 'ETIMEDOUT') && !hasCode(cause, 'EAGAIN')) throw cause;
    waitedFor.add(path);
    throw lockTimeout(path, wish.deadlineMs, { cause });
  }
}

/** Whether this process has waited for the lock in vain. */
export function hasWaitedFor(path: string): boolean {
  return waitedFor.has(path);
}

const waitedFor = new Set<string>();

/** The error of a lock that somebody else keeps: names the file, and the process where it can be seen. */
export function lockTimeout(
  path: string,
  deadlineMs: number,
  options: { readonly cause?: unknown } = {},
): Error {
  return tryAgainLater(
    `Cannot lock ${quote(path)} within ${deadlineMs / 1000} s: ${describeHolders(path)}`,
    options,
  );
}

/**
 * Process ids that hold a flock on the file with this device and inode, from the text of /proc/locks. A waiting
 * process has "->" before its kind; a process of another pid namespace is shown as 0 or not at all.
 */
export function findHolders(locks: string, device: bigint, inode: bigint): number[] {
  const file = `${hex(major(device))}:${hex(minor(device))}:${inode}`;
  return locks
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, kind, , , , place]) => kind === 'FLOCK' && place === file)
    .map(([, , , , pid]) => Number(pid))
    .filter((pid) => pid > 0);
}

/**
 * What a CNI plugin is doing, from the text of its /proc/<pid>/environ: `, ADD of "c1" "eth0"`; empty for any other program.
 */
export function describeCall(environ: string): string {
  const variables = new Map(environ.split('\0').map((line) => splitOnce(line)));
  const [command, containerId, ifname] = ['CNI_COMMAND', 'CNI_CONTAINERID', 'CNI_IFNAME'].map((name) =>
    variables.get(name),
  );
  if (command === undefined || !/^[A-Z]{1,16}$/.test(command)) return '';
  return `, ${command}${containerId ? ` of ${quote(containerId)} ${quote(ifname ?? '')}` : ''}`;
}

function splitOnce(line: string): [string, string] {
  const end = line.indexOf('=');
  return [line.slice(0, end), line.slice(end + 1)];
}

function describeHolders(path: string): string {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    const pids = findHolders(readFileSync('/proc/locks', 'latin1'), dev, ino);
    if (pids.length > 0) return `it is held by ${pids.map(describeProcess).join(', ')}`;
  } catch {
    // What is not visible can't be told; the lock is what failed.
  }
  return 'it is held by a process that cannot be seen from here';
}

function describeProcess(pid: number): string {
  const name = nameOf(pid);
  return name === '' ? `process ${pid}` : `process ${pid} (${name}${describeCall(readProc(pid, 'environ'))})`;
}

/** By its file: the name that a process has of itself is, for Node, that of its thread. */
function nameOf(pid: number): string {
  try {
    return basename(readlinkSync(`/proc/${pid}/exe`));
  } catch {
    return readProc(pid, 'comm').trim();
  }
}

/** A process may be gone by now, or not be ours to look at. */
function readProc(pid: number, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, 'utf8');
  } catch {
    return '';
  }
}

// makedev(3): glibc keeps the old 8 and 8 bits in place and puts the others around them.
function major(device: bigint): bigint {
  return ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n);
}

function minor(device: bigint): bigint {
  return (device & 0xffn) | ((device >> 12n) & 0xffffff00n);
}

// As fs/locks.c prints them: "%02x:%02x:%lu".
function hex(number: bigint): string {
  return number.toString(16).padStart(2, '0');
}
