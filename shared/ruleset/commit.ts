// Look, decide, commit: a batch that is refused when the ruleset has changed since it was looked at.
// Used by every change to our tables; the lock keeps our own processes from making each other start over.
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
 * What to change, decided from the ruleset as it is now. It is asked again when that has changed, and perhaps later than
 * it was handed over: so it reads through the ruleset it is given, and through no socket of its maker's.
 */
export type Plan = (nft: Nftables) => readonly Command[];

/**
 * `together`: may wait for others, where changes are made together. `now`: at once, with all that wait. `alone`: at once,
 * and those that wait go on waiting. `undo`: at once, and those that wait are forgotten, for what failed is theirs too.
 */
export type When = 'together' | 'now' | 'alone' | 'undo';

export interface CommitOptions {
  readonly when?: When;
  /** What is to be done once the change is made. */
  readonly afterwards?: () => void;
}

interface Change {
  readonly plan: Plan;
  readonly afterwards: () => void;
}

/** Runs a step; what the step throws may be told in other words. */
export type Within = <T>(step: () => T) => T;

/** Several pieces of work whose changes are made in one batch. */
export interface Together {
  /**
   * Runs one of them `within`. What it wants changed is decided, and followed up, within the same, so that an error tells
   * the same whenever it comes.
   */
  readonly part: <T>(within: Within, work: () => T) => T;
  /** Whether a batch could not be made: then nothing of it is. */
  readonly isRefused: () => boolean;
}

interface Gathering {
  pending: Change[];
  within: Within;
  isRefused: boolean;
}

/** Undefined where nobody makes several changes together. */
let gathering: Gathering | undefined;

/**
 * Commits what `plan` decides as one batch that holds only if nothing changed since it looked; otherwise asks again, until
 * 30 s have passed. An empty plan commits nothing. Within `commitTogether` it may wait for others.
 * Throws tryAgainLater at the deadline, else what the kernel refused.
 */
export function commitGuarded(nft: Nftables, plan: Plan, options: CommitOptions = {}): void {
  const { when = 'together', afterwards = () => {} } = options;
  if (gathering === undefined) {
    commitAll(nft, [{ plan, afterwards }]);
    return;
  }
  const { within } = gathering;
  const change = { plan: (nft: Nftables) => within(() => plan(nft)), afterwards: () => within(afterwards) };
  if (when === 'together') {
    gathering.pending.push(change);
  } else if (when === 'alone') {
    commitAll(nft, [change]);
  } else {
    const waiting = gathering.pending.splice(0);
    commitAll(nft, when === 'undo' ? [change] : [...waiting, change]);
  }
}

/**
 * Runs `work`, and makes what it wants changed in one batch, at its end or when something comes that cannot wait. When
 * `work` throws, what is waiting is forgotten: it has not happened. Throws as commitGuarded does.
 */
export function commitTogether<T>(
  withRuleset: (use: (nft: Nftables) => void) => void,
  work: (together: Together) => T,
): T {
  const own: Gathering = { pending: [], within: (step) => step(), isRefused: false };
  gathering = own;
  try {
    const result = work({
      part: (within, step) => runPart(own, within, step),
      isRefused: () => own.isRefused,
    });
    if (own.pending.length > 0) {
      withRuleset((nft) => commitAll(nft, own.pending.splice(0)));
    }
    return result;
  } finally {
    gathering = undefined;
  }
}

function runPart<T>(own: Gathering, within: Within, work: () => T): T {
  const outer = own.within;
  own.within = within;
  try {
    return within(work);
  } finally {
    own.within = outer;
  }
}

function commitAll(nft: Nftables, changes: readonly Change[]): void {
  try {
    commitUnderLock(nft, () => changes.flatMap(({ plan }) => plan(nft)));
  } catch (error) {
    if (gathering !== undefined) {
      gathering.isRefused = true;
    }
    throw error;
  }
  for (const { afterwards } of changes) {
    afterwards();
  }
}

function commitUnderLock(nft: Nftables, plan: () => readonly Command[]): void {
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
