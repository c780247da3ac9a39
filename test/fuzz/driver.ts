// Runs a target chunk by chunk: the same seed gives the same cases, whatever was run before.
// Called by worker.ts; a finding names what `npm run fuzz -- --replay` needs to see it again.
import fc from 'fast-check';
import type { Target, TargetSpec } from './target.ts';

/** Cases in a chunk: the unit that is counted, seeded and resumed. */
export const CHUNK = 1000;

/** A case may wait for a busy machine, not for ever. */
const CASE_LIMIT_MS = 5000;

/** Which chunk of which target. */
export interface ChunkRef {
  readonly target: string;
  readonly seed: number;
  readonly chunk: number;
}

export interface Finding {
  readonly target: string;
  /** What the target takes to `--replay TARGET:SEED:PATH`. */
  readonly replay: string;
  /** The smallest input that does it. */
  readonly input: string;
  readonly error: string;
}

export interface ChunkReport {
  readonly cases: number;
  readonly outcomes: Readonly<Record<string, number>>;
  readonly finding?: Finding;
}

/** Makes a target of its parts; the input's type is nobody else's business. */
export function defineTarget<T>({ name, weight, input, run }: TargetSpec<T>): Target {
  return {
    name,
    weight,
    property: ({ begins, ends }) =>
      fc.property(input, (value) => {
        begins();
        const start = performance.now();
        const outcome = run(value);
        if (performance.now() - start > CASE_LIMIT_MS)
          throw new Error(`It took more than ${CASE_LIMIT_MS} ms`);
        ends(outcome);
      }),
  };
}

/** Runs one chunk; `tick` is called before each case. */
export function runChunk(target: Target, { seed, chunk }: ChunkRef, tick: () => void): ChunkReport {
  return runSeeded(target, { seed: chunkSeed(target.name, seed, chunk), numRuns: CHUNK }, tick);
}

/** Runs the one case that a finding names by `TARGET:SEED:PATH`, without looking for a smaller one. */
export function replay(target: Target, seed: number, path: string): ChunkReport {
  return runSeeded(target, { seed, path, endOnFailure: true, numRuns: CHUNK }, () => {});
}

/** The case at a position of a chunk as text, without running it: for one that never ended. */
export function describeCase(target: Target, { seed, chunk }: ChunkRef, position: number): string {
  const mrng = { seed: chunkSeed(target.name, seed, chunk), numRuns: position + 1 };
  const cases = fc.sample(target.property({ begins: () => {}, ends: () => {} }) as never, mrng);
  return fc.stringify(cases.at(-1));
}

type Parameters = Pick<fc.Parameters<unknown>, 'seed' | 'path' | 'numRuns' | 'endOnFailure'>;

function runSeeded(target: Target, parameters: Parameters, tick: () => void): ChunkReport {
  const outcomes: Record<string, number> = {};
  const property = target.property({
    begins: tick,
    ends: (outcome) => {
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    },
  });
  const details = fc.check(property, { ...parameters, verbose: 0 });
  const report = { cases: details.numRuns, outcomes };
  if (!details.failed) return report;
  return {
    ...report,
    finding: {
      target: target.name,
      replay: `${target.name}:${details.seed}:${details.counterexamplePath}`,
      input: fc.stringify(details.counterexample),
      error: explain(details.errorInstance),
    },
  };
}

// FNV-1a, as fast-check takes 32 bits.
function chunkSeed(target: string, seed: number, chunk: number): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(`${target}/${seed}/${chunk}`)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash | 0;
}

function explain(error: unknown): string {
  const lines: string[] = [];
  for (let cause = error; cause !== undefined; cause = cause instanceof Error ? cause.cause : undefined) {
    lines.push(cause instanceof Error ? (cause.stack ?? cause.message) : String(cause));
  }
  return lines.join('\ncaused by ');
}
