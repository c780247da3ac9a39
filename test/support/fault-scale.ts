// How much the faults tests do: a part that a developer waits for, or everything, and what they did of it.
// Read by those tests alone; build/test.ts asks for everything (PATCHBAY_FAULTS=full), and sums up what is reported.
import { appendFileSync } from 'node:fs';

/** Whether every combination is tried, or a share in which each error, recovery and side has its turn. */
export const IS_FULL = process.env['PATCHBAY_FAULTS'] === 'full';

/** The seed of everything random, so that a failure can be seen again. */
export const SEED = Number(process.env['PATCHBAY_SEED'] ?? '20260101');

/** Long enough for everything on a busy machine. */
export const TIMEOUT = { timeout: 1_800_000 };

/** All of the alternatives in a full run, else one of them, another at each turn. */
export function pick<T>(alternatives: readonly T[], turn: number): readonly T[] {
  return IS_FULL ? alternatives : alternatives.slice(turn % alternatives.length).slice(0, 1);
}

/** All of the items in a full run, else every so many-th. */
export function thin<T>(items: readonly T[], step: number): readonly T[] {
  return IS_FULL ? items : items.filter((_, index) => index % step === 0);
}

/** Totals by what was counted, such as `points killed`. */
export type Figures = Readonly<Record<string, number>>;

/** Prints what a test did, and adds it to the totals that end the run (PATCHBAY_FIGURES names their file). */
export function report(title: string, figures: Figures): void {
  const text = Object.entries(figures).map(([what, count]) => `${count} ${what}`);
  console.log(`${title}: ${text.join(', ')}`);
  const file = process.env['PATCHBAY_FIGURES'];
  if (file !== undefined) appendFileSync(file, `${JSON.stringify(figures)}\n`);
}

/** A small generator of numbers below 1 (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Runs `step` for each item, by as many workers, and gives what they gave, in the order of the items. After a failure no
 * worker begins another step, and all have ended before it is thrown: what comes next has its host to itself.
 */
export async function inParallel<T, R>(
  items: readonly T[],
  workers: number,
  step: (item: T, worker: number) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  let next = 0;
  const work = async (worker: number) => {
    while (next < items.length) {
      const position = next++;
      results[position] = await step(items[position] as T, worker);
    }
  };
  const stop = (error: unknown) => {
    next = items.length;
    throw error;
  };
  const ends = await Promise.allSettled(
    Array.from({ length: workers }, (_, worker) => work(worker).catch(stop)),
  );
  const failed = ends.find((end) => end.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
  return results;
}
