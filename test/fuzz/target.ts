// What is fuzzed: a target takes an input of its own making and says in a word what came of it.
// Implemented by each file of targets/; run by driver.ts, one case after another.
import type fc from 'fast-check';
import { toCniError } from '../../shared/cni/error.ts';

export interface Target {
  readonly name: string;
  /** How many of a hundred thousand cases in process are its own, about. */
  readonly weight: number;
  /** One case as a property of fast-check. */
  readonly property: (witness: Witness) => fc.IProperty<unknown>;
}

/** Who is told of each case. */
export interface Witness {
  readonly begins: () => void;
  readonly ends: (outcome: string) => void;
}

/** A case breaks a promise when it throws; what it returns is counted in the totals. */
export interface TargetSpec<T> {
  readonly name: string;
  readonly weight: number;
  readonly input: fc.Arbitrary<T>;
  readonly run: (input: T) => string;
}

/** How an error may end a case: as one of the documented codes, and never as a defect of ours. */
export function outcomeOf(error: unknown): string {
  const { code } = toCniError(error);
  if (code === 999) throw new Error('An error without a code of its own', { cause: error });
  return `error ${code}`;
}

/** What `step` returns, or how its error ends the case. Throws what is no typed error. */
export function attempt(step: () => string): string {
  try {
    return step();
  } catch (error) {
    if (error instanceof BrokenPromise) throw error;
    return outcomeOf(error);
  }
}

/** Found by a target itself, so that `attempt` does not take it for an error of the code under test. */
export class BrokenPromise extends Error {
  override readonly name = 'BrokenPromise';
}

/** Throws BrokenPromise unless what was promised holds. */
export function promise(holds: boolean, what: string): void {
  if (!holds) throw new BrokenPromise(what);
}

/** Whether a text has characters that no line for people may have: a terminal or a log takes them for orders. */
export function hasControls(text: string): boolean {
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code < 0x20 || code === 0x7f) return true;
  }
  return false;
}
