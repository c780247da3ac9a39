// Appending a line to a log file that others append to at the same time. Called by cni/call-log.ts.
import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs';
import { again } from './again.ts';

/**
 * Appends the line, and the newline behind it, by one write(2): the kernel keeps lines of several processes apart, since a
 * write to a file opened with O_APPEND holds the lock of its inode. The file is made when missing, 0600; its directory is
 * not.
 *
 * What stands there must be a regular file with no other name: a symlink, a FIFO, a device or a hard link is refused, for
 * it may have been put there to lead the line elsewhere. Throws Error with that reason, or with Node's error as its
 * cause. Source: open(2), "O_APPEND". Equivalent to: `echo line >> path`
 */
export function appendLine(path: string, line: string): void {
  try {
    append(path, Buffer.from(`${line}\n`));
  } catch (cause) {
    throw new Error(`Cannot write to log file "${path}"`, { cause });
  }
}

function append(path: string, bytes: Uint8Array): void {
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_NOCTTY } = constants;
  const flags = O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
  const fd = again(() => openSync(path, flags, 0o600));
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error('It is no regular file');
    if (stat.nlink !== 1)
      throw new Error(`The file has ${stat.nlink} names, and another may be what is meant`);
    const written = again(() => writeSync(fd, bytes));
    if (written < bytes.length) throw new Error(`Only ${written} of ${bytes.length} bytes found room`);
  } finally {
    closeSync(fd);
  }
}
