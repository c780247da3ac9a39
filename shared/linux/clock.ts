// Waiting without an event loop. Retries under contention use it: file-lock.ts and the plugins' bounded loops.

/** Blocks this thread for `milliseconds`; fractions count. */
export function pause(milliseconds: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Math.max(0, milliseconds));
}
