// An exclusive lock on a file, held by an open descriptor and so released by the kernel if we die.
// host-local locks its store with it, bridge its teardown; other programs on the host use the same flock(2).
import { closeSync, constants, openSync } from 'node:fs';
import { again } from './again.ts';
import { pause } from './clock.ts';
import { tryFlock } from './libc.ts';
import { ETIMEDOUT, SystemError } from './system-error.ts';

export interface LockOptions {
  /** How long to wait for another holder, in milliseconds. */
  readonly deadlineMs: number;
  /** Permissions if the file has to be made. */
  readonly mode: number;
}

/**
 * Locks the file at `path`, which is made when missing; a symlink there is refused. Disposing unlocks.
 *
 * The first try is immediate. Then it asks again every 1 to 5 ms, jittered so that many waiters spread: a blocking
 * flock could not be given up at the deadline, since nothing may interrupt it in a program without signal handlers.
 *
 * Throws SystemError ETIMEDOUT at the deadline, Node's error when the file cannot be opened. Source: flock(2).
 * Equivalent to: `flock --exclusive --timeout 5 path`
 */
export function lockFile(path: string, options: LockOptions): Disposable {
  const flags = constants.O_RDONLY | constants.O_CREAT | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const fd = again(() => openSync(path, flags, options.mode)); // close-on-exec, as all that Node opens
  try {
    waitForLock(fd, path, options.deadlineMs);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return new FileLock(fd);
}

function waitForLock(fd: number, path: string, deadlineMs: number): void {
  // Not by `performance`: its first use makes Node load a module of 3 ms, more than the whole wait most of the time.
  const deadline = Date.now() + deadlineMs;
  while (!tryFlock(fd)) {
    const left = deadline - Date.now();
    if (left <= 0) throw new SystemError('lock', ETIMEDOUT, path);
    pause(Math.min(left, 1 + Math.random() * 4));
  }
}

class FileLock implements Disposable {
  #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Closing is unlocking: the descriptor is close-on-exec, so no other process shares it. */
  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    closeSync(this.#fd);
    this.#fd = -1;
  }
}
