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

export interface CommitOptions {
  /** What is to be done once the change is made. */
  readonly afterwards?: () => void;
  /** Nothing may come before it: where changes are made together, this one makes all that are pending. */
  readonly urgency?: 'now' | 'with others';
}

interface Change {
  readonly plan: Plan;
  readonly afterwards: () => void;
}

/** Changes that wait for others; undefined where nobody makes several together. */
let pending: Change[] | undefined;

/**
 * Commits what `plan` decides as one batch that holds only if nothing changed since it looked; otherwise asks again, until
 * 30 s have passed. An empty plan commits nothing. Within `commitTogether` it may wait for others.
 * Throws tryAgainLater at the deadline, else what the kernel refused.
 */
export function commitGuarded(nft: Nftables, plan: Plan, options: CommitOptions = {}): void {
  const change = { plan, afterwards: options.afterwards ?? (() => {}) };
  if (pending !== undefined && options.urgency !== 'now') {
    pending.push(change);
    return;
  }
  commitAll(nft, [...(pending?.splice(0) ?? []), change]);
}

/**
 * Runs `work`, and makes what it changes in one batch, at its end or when something is urgent. When `work` throws,
 * what is pending is forgotten: it has not happened. Throws as commitGuarded does.
 */
export function commitTogether<T>(withRuleset: (use: (nft: Nftables) => void) => void, work: () => T): T {
  pending = [];
  try {
    const result = work();
    const changes = pending.splice(0);
    pending = undefined;
    if (changes.length > 0) {
      withRuleset((nft) => commitAll(nft, changes));
    }
    return result;
  } finally {
    pending = undefined;
  }
}

function commitAll(nft: Nftables, changes: readonly Change[]): void {
  commitUnderLock(nft, () => changes.flatMap(({ plan }) => plan(nft)));
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
