// Where the time of a verb goes, by what was being done. The layers mark their work with `inPhase`; the dispatcher
// measures when the call is logged, and otherwise the marks do nothing.

/** What a stretch of time is spent on, in the order of a log line. */
export const PHASES = [
  'start',
  'config',
  'ipam',
  'links',
  'sysctls',
  'rules',
  'flows',
  'locks',
  'programs',
  'rest',
] as const;
export type Phase = (typeof PHASES)[number];

/** Milliseconds by phase; what took no time is left out. */
export type PhaseTimes = { readonly [P in Phase]?: number };

/**
 * Measures from now on. `now` gives milliseconds since the process started, and all of them up to here are the phase
 * `start`.
 */
export function measurePhases(now: () => number): void {
  stopwatch = new Stopwatch(now);
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

let stopwatch: Stopwatch | undefined;

class Stopwatch {
  readonly #now: () => number;
  readonly #times = new Map<Phase, number>();
  #phase: Phase = 'start';
  #since = 0;

  constructor(now: () => number) {
    this.#now = now;
    this.#enter('rest');
  }

  run<T>(phase: Phase, step: () => T): T {
    const outer = this.#enter(phase);
    try {
      return step();
    } finally {
      this.#enter(outer);
    }
  }

  read(): PhaseTimes {
    this.#enter(this.#phase);
    const measured = PHASES.filter((phase) => this.#times.has(phase));
    return Object.fromEntries(measured.map((phase) => [phase, this.#times.get(phase)]));
  }

  #enter(phase: Phase): Phase {
    const outer = this.#phase;
    const now = this.#now();
    this.#times.set(outer, (this.#times.get(outer) ?? 0) + now - this.#since);
    this.#since = now;
    this.#phase = phase;
    return outer;
  }
}
