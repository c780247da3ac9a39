// Look, decide, commit: a batch that is refused when the ruleset has changed since it was looked at.
// Used by every change to our table; the lock keeps our own processes from making each other start over.
import { hasCode, tryAgainLater } from '../cni/error.ts';
import { lockHost } from '../cni/host-lock.ts';
import { pause } from '../linux/clock.ts';
import type { Nftables } from '../nftables/nftables.ts';
import type { Command } from '../nftables/objects.ts';

const DEADLINE_MS = 30_000;
/** The generation is another one, or the kernel could not take the batch just now: nothing of it has happened. */
const CHANGED_MEANWHILE = ['ERESTART', 'EAGAIN', 'EINTR'];
/** Enough to let another program's batch pass, little enough not to be felt. */
const LONGEST_PAUSE_MS = 10;

/**
 * Commits what `plan` decides from the ruleset it reads, as one batch that holds only if nothing changed in between;
 * otherwise looks again, until 30 s have passed. An empty plan commits nothing.
 * Throws tryAgainLater at the deadline, else what the kernel refused.
 */
export function commitGuarded(nft: Nftables, plan: () => readonly Command[]): void {
  using _lock = lockHost('nftables'); // without it the generation alone keeps us right
  const deadline = Date.now() + DEADLINE_MS;
  for (;;) {
    const generation = nft.generation();
    const commands = plan();
    if (commands.length === 0) {
      return;
    }
    try {
      nft.commit(commands, { generation });
      return;
    } catch (error) {
      if (!CHANGED_MEANWHILE.some((code) => hasCode(error, code))) {
        throw error;
      }
      if (Date.now() >= deadline) {
        const who = 'another program keeps changing the nf_tables ruleset';
        throw tryAgainLater(`Cannot commit to table "inet patchbay" within ${DEADLINE_MS / 1000} s: ${who}`, {
          cause: error,
        });
      }
    }
    pause(1 + Math.random() * LONGEST_PAUSE_MS);
  }
}
