// The lock of a store: BSD flock on the file `lock`, the one the reference plugins take too.
// Called by store.ts, which holds it for a whole verb.
import { readFileSync, statSync } from 'node:fs';
import { hasCode, quote, tryAgainLater } from '../../shared/cni/error.ts';
import { lockFile } from '../../shared/linux/file-lock.ts';

/** How long a verb waits for others: longer than any of them takes, shorter than a runtime's patience. */
export const LOCK_DEADLINE_MS = 30_000;

/**
 * Takes the lock, making the file when its directory exists. Throws tryAgainLater that names the file and who holds
 * it once `deadlineMs` have passed, and SystemError (ENOENT without the directory) when the file can't be opened.
 */
export function lockStore(path: string, deadlineMs: number): Disposable {
  try {
    return lockFile(path, { deadlineMs, mode: 0o750 });
  } catch (cause) {
    if (!hasCode(cause, 'ETIMEDOUT') && !hasCode(cause, 'EAGAIN')) throw cause;
    const message = `Cannot lock ${quote(path)} within ${deadlineMs / 1000} s: ${describeHolders(path)}`;
    throw tryAgainLater(message, { cause });
  }
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
  try {
    return `process ${pid} (${readFileSync(`/proc/${pid}/comm`, 'latin1').trim()})`;
  } catch {
    return `process ${pid}`;
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
