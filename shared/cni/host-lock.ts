// Locks that processes of ours take on this host, so as not to make each other start over.
// Used around changes to rulesets, where only the number of tries depends on them, and around what attachments share.
import { mkdirSync } from 'node:fs';
import { expectTrustedLink } from '../linux/files.ts';
import { CniError, hasCode } from './error.ts';
import { hasWaitedFor, LOCK_DEADLINE_MS, takeLock } from './lock.ts';

const DIRECTORY = '/run/patchbay';

/**
 * Takes the lock of that name, waiting for 30 s at most. Undefined where /run cannot be written. Throws tryAgainLater
 * (11) at the deadline, naming the holder; after that the undo of the same call gets on without it.
 */
export function lockHost(name: 'nftables' | 'iptables' | 'vlans'): Disposable | undefined {
  const path = `${DIRECTORY}/${name}.lock`;
  const isUndo = hasWaitedFor(path);
  try {
    return openLock(path);
  } catch (cause) {
    if (cause instanceof CniError && !isUndo) throw cause;
    return undefined;
  }
}

/** The directory is missing once after every boot. */
function openLock(path: string): Disposable {
  const wish = { deadlineMs: LOCK_DEADLINE_MS, mode: 0o600 };
  expectTrustedLink(DIRECTORY);
  try {
    return takeLock(path, wish);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) {
      throw error;
    }
  }
  mkdirSync(DIRECTORY, { mode: 0o700, recursive: true });
  return takeLock(path, wish);
}
