// What a run of the scale benchmark has measured so far, a line a round in a file, so that it can be interrupted.
// Called by scale.ts; parsing and counting are pure.
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import type { LaneName } from './plan.ts';

/** One call: verb, wall time and processor time in milliseconds. */
export type Sample = readonly [verb: string, wallMs: number, cpuMs: number];

/** What one lane did in one round of a group. */
export interface Round {
  readonly group: string;
  readonly lane: LaneName;
  readonly round: number;
  readonly samples: readonly Sample[];
  /** Calls that failed, and what the first of them said. */
  readonly failed: number;
  readonly said?: string;
  /** Of rounds with clients at once: from the first start to the last end, and the daemon's processor time. */
  readonly wallMs?: number;
  readonly daemonCpuMs?: number;
  /** Largest sums over processes that were there at once, and how many there were; see measure of memory. */
  readonly memory?: Memory;
}

/** MB (10⁶ bytes). */
export interface Memory {
  /** Of all processes of the contestant that were there at the moment when they had most. */
  readonly pssMb: number;
  readonly rssMb: number;
  readonly processes: number;
  /** The largest mean at a moment when at least three of four clients had one. */
  readonly pssEachMb?: number;
  readonly rssEachMb?: number;
}

/** What must be the same for rounds to go together: machine, kernel, versions. */
export type Circumstances = Readonly<Record<string, string>>;

export interface State {
  readonly rounds: readonly Round[];
  /** Names of groups that are complete. */
  readonly done: ReadonlySet<string>;
}

type Line = { readonly circumstances: Circumstances } | { readonly done: string } | Round;

/**
 * Reads what there is, or begins. Throws Error when the file was written under other circumstances: figures of two
 * machines or builds are not one run.
 */
export function openState(file: string, circumstances: Circumstances): State {
  const text = existsSync(file) ? readFileSync(file, 'utf8') : '';
  if (!text.includes('\n')) {
    writeFileSync(file, encodeLine({ circumstances }));
    return { rounds: [], done: new Set() };
  }
  const { circumstances: earlier, ...state } = parseState(text);
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  if (whole !== text) writeFileSync(file, whole);
  const other = Object.keys(circumstances).find((key) => circumstances[key] !== earlier[key]);
  if (other !== undefined) {
    throw new Error(
      `Cannot go on with "${file}": its ${other} is "${earlier[other]}", now it is "${circumstances[other]}"; ` +
        'remove the file, or give another with --state',
    );
  }
  return state;
}

/** Of the text of the file. A last line that was cut off, when the run was killed while writing, is no line. Pure. */
export function parseState(text: string): State & { readonly circumstances: Circumstances } {
  const lines = text
    .slice(0, text.lastIndexOf('\n') + 1)
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line); // our own, by appendRound
  const [first] = lines;
  if (first === undefined || !('circumstances' in first)) {
    throw new Error('Cannot read the state of a run: it does not begin with its circumstances');
  }
  return {
    circumstances: first.circumstances,
    rounds: lines.filter((line): line is Round => 'lane' in line),
    done: new Set(lines.flatMap((line) => ('done' in line ? [line.done] : []))),
  };
}

export function appendRound(file: string, round: Round): void {
  appendFileSync(file, encodeLine(round));
}

export function appendDone(file: string, group: string): void {
  appendFileSync(file, encodeLine({ done: group }));
}

function encodeLine(line: Line): string {
  return `${JSON.stringify(line)}\n`;
}
