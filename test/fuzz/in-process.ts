// Cases in process, thousands a second, in a thread that is watched: a case that hangs or takes all memory is a finding.
// Called by fuzz.ts for the long run and by in-process.test.ts for the short one.
import { Worker } from 'node:worker_threads';
import { type ChunkRef, describeCase, type Finding } from './driver.ts';
import { targetNamed } from './targets.ts';
import type { WorkerData, WorkerReport } from './worker.ts';

export interface InProcessRun {
  readonly chunks: readonly ChunkRef[];
  /** Called after each chunk; false ends the run. */
  readonly onChunk: (chunk: ChunkRef, report: WorkerReport) => boolean;
}

/** Longer than a case may take by itself, on a machine that others use too. */
const HANG_MS = 30_000;
const LOOK_MS = 500;
const HEAP_MB = 512;
/** Of the whole process, for what is not on the heap. */
const MEMORY_LIMIT = 2 * 1024 ** 3;

/** Runs the chunks in order; gives what ended the thread before its time, if anything did. */
export async function runInProcess({ chunks, onChunk }: InProcessRun): Promise<Finding | undefined> {
  const progress = new SharedArrayBuffer(8);
  const counters = new Int32Array(progress);
  const worker = new Worker(new URL('./worker.ts', import.meta.url), {
    workerData: { chunks, progress } satisfies WorkerData,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
    execArgv: ['--disable-warning=ExperimentalWarning'],
  });
  const broken = (error: string): Finding => {
    const chunk = chunks[counters[0] ?? 0];
    const position = Math.max(0, (counters[1] ?? 1) - 1);
    if (chunk === undefined) return { target: 'none', replay: 'none', input: 'none', error };
    const target = targetNamed(chunk.target);
    // Some cases on, if several were begun and none was counted: the input is near.
    const input = `case ${position} of chunk ${chunk.chunk}: ${describeCase(target, chunk, position)}`;
    return { target: chunk.target, replay: 'none', input, error };
  };
  const ended = Promise.withResolvers<Finding | undefined>();
  worker.on('message', (report: WorkerReport) => {
    const chunk = chunks[report.position];
    if (chunk !== undefined && !onChunk(chunk, report)) ended.resolve(undefined);
  });
  worker.on('error', (error) => ended.resolve(broken(`The thread ended: ${error}`)));
  worker.on('exit', (code) =>
    ended.resolve(code === 0 ? undefined : broken(`The thread ended with ${code}`)),
  );

  let seen = '';
  let since = Date.now();
  const watch = setInterval(() => {
    const now = counters.join();
    if (now !== seen) since = Date.now();
    seen = now;
    if (Date.now() - since > HANG_MS) ended.resolve(broken(`It did not end within ${HANG_MS} ms`));
    if (process.memoryUsage.rss() > MEMORY_LIMIT) ended.resolve(broken('It took all memory'));
  }, LOOK_MS);
  try {
    return await ended.promise;
  } finally {
    clearInterval(watch);
    await worker.terminate();
  }
}
