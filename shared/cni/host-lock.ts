// Locks that processes of ours take on this host, so as not to make each other start over.
// Used around changes to rulesets, where only the number of tries depends on them, and around what attachments share.
import { mkdirSync } from 'node:fs';
import { lockFile } from '../linux/file-lock.ts';
import { hasCode, tryAgainLater } from './error.ts';

const DIRECTORY = '/run/patchbay';
const DEADLINE_MS = 30_000;

/**
 * Takes the lock of that name, waiting for 30 s at most. Undefined where /run cannot be written. Throws tryAgainLater
 * (11) at the deadline.
 */
export function lockHost(name: 'nftables' | 'iptables' | 'vlans'): Disposable | undefined {
  const path = `${DIRECTORY}/${name}.lock`;
  try {
    return openLock(path);
  } catch (cause) {
    if (hasCode(cause, 'ETIMEDOUT')) {
      throw tryAgainLater(`Cannot get the lock "${path}" within ${DEADLINE_MS / 1000} s`, { cause });
    }
    return undefined;
  }
}

/** The directory is missing once after every boot. */
function openLock(path: string): Disposable {
  const options = { deadlineMs: DEADLINE_MS, mode: 0o600 };
  try {
    return lockFile(path, options);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) {
      throw error;
    }
  }
  mkdirSync(DIRECTORY, { mode: 0o700, recursive: true });
  return lockFile(path, options);
}
