// Where the time of a verb goes, by what was being done. The layers mark their work with `inPhase`; the dispatcher
// measures when the call is logged, and otherwise the marks do nothing.

/** What a stretch of time is spent on. */
export type Phase =
  | 'start'
  | 'config'
  | 'ipam'
  | 'links'
  | 'sysctls'
  | 'rules'
  | 'flows'
  | 'locks'
  | 'programs'
  | 'rest';

/** Milliseconds by phase, in the order in which they came up first. */
export type PhaseTimes = { readonly [P in Phase]?: number };

/**
 * Measures from now on. `now` gives milliseconds since the process started, and all of them up to here are the phase
 * `start`.
 */
export function measurePhases(now: () => number): void {
  stopwatch = startStopwatch(now);
}

/** What was measured so far; undefined unless somebody measures. */
export function phaseTimes(): PhaseTimes | undefined {
  return stopwatch?.read();
}

/**
 * Runs the step, which is of that phase. A phase within another one counts for itself alone, so that all of them add up
 * to the whole.
 */
export function inPhase<T>(phase: Phase, step: () => T): T {
  return stopwatch === undefined ? step() : stopwatch.run(phase, step);
}

interface Stopwatch {
  run<T>(phase: Phase, step: () => T): T;
  read(): PhaseTimes;
}

let stopwatch: Stopwatch | undefined;

// No class: defining one takes its time at every start.
function startStopwatch(now: () => number): Stopwatch {
  const times = new Map<Phase, number>();
  let current: Phase = 'start';
  let since = 0;
  const enter = (phase: Phase): Phase => {
    const outer = current;
    const moment = now();
    times.set(outer, (times.get(outer) ?? 0) + moment - since);
    since = moment;
    current = phase;
    return outer;
  };
  enter('rest');
  return {
    run(phase, step) {
      const outer = enter(phase);
      try {
        return step();
      } finally {
        enter(outer);
      }
    },
    read() {
      enter(current);
      return Object.fromEntries(times);
    },
  };
}
