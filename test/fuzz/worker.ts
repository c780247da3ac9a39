// The thread that runs the cases in process: what hangs it, fills its memory or ends it is seen from outside.
// Started by in-process.ts, which says which chunks are due and watches how far it came.
import { parentPort, workerData } from 'node:worker_threads';
import { type ChunkRef, type ChunkReport, runChunk } from './driver.ts';
import { targetNamed } from './targets.ts';

/** What a worker is started with. */
export interface WorkerData {
  readonly chunks: readonly ChunkRef[];
  /** Position in `chunks`, cases begun in that chunk. */
  readonly progress: SharedArrayBuffer;
}

export interface WorkerReport extends ChunkReport {
  readonly position: number;
}

if (parentPort !== null) {
  const { chunks, progress } = workerData as WorkerData;
  const counters = new Int32Array(progress);
  for (const [position, chunk] of chunks.entries()) {
    counters[0] = position;
    counters[1] = 0;
    const tick = (): void => void Atomics.add(counters, 1, 1);
    const report: WorkerReport = { position, ...runChunk(targetNamed(chunk.target), chunk, tick) };
    parentPort.postMessage(report);
  }
}
