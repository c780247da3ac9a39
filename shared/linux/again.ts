// Steps that fail because of the moment: a signal came in between, or something was busy for an instant.
// Around system calls that change something, in this folder, in netlink and in host-local's store.
import { pause } from './clock.ts';

/** What is waited before each further attempt, in milliseconds; about a fifth of a second in all. */
const PAUSES_MS: readonly number[] = [0, 1, 2, 5, 10, 20, 50, 100];

/**
 * Runs the step, and again while it throws an error whose `code` is EINTR or EAGAIN, a bounded number of times. The step
 * must have changed nothing when it throws one of them, as is the way of system calls (signal(7), "Interruption of
 * system calls").
 */
export function again<T>(step: () => T): T {
  for (const wait of PAUSES_MS) {
    try {
      return step();
    } catch (error) {
      if (!isTransient(error)) throw error;
      pause(wait);
    }
  }
  return step();
}

function isTransient(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'EINTR' || error.code === 'EAGAIN');
}
