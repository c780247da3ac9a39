// Which chunks of which targets a number of cases in process is made of, in the order in which they are run.
// Called by fuzz.ts and by the short run of `npm test`; the same seed gives the same cases.
import { CHUNK, type ChunkRef } from './driver.ts';
import type { Target } from './target.ts';

/** At least `cases` cases, shared among the targets by weight; every target has its turn early. */
export function planChunks(targets: readonly Target[], seed: number, cases: number): ChunkRef[] {
  const sum = targets.reduce((total, { weight }) => total + weight, 0);
  const shares = targets.map((target) => ({
    target: target.name,
    count: Math.ceil((cases * target.weight) / sum / CHUNK),
  }));
  const longest = Math.max(...shares.map(({ count }) => count));
  return Array.from({ length: longest }, (_, chunk) =>
    shares.filter(({ count }) => chunk < count).map(({ target }) => ({ target, seed, chunk })),
  ).flat();
}
