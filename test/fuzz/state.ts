// How far a long run came, in a file, so that it goes on where it was stopped; and its totals.
// Called by fuzz.ts.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Finding } from './driver.ts';

export interface Tally {
  /** Chunks or batches that are done; they are done in order. */
  done: number;
  cases: number;
  readonly outcomes: Record<string, number>;
}

export interface FuzzState {
  readonly seed: number;
  /** By the name of the target; the black box is one of them. */
  readonly tallies: Record<string, Tally>;
  readonly findings: Finding[];
  seconds: number;
}

export const BLACK_BOX = 'black box';

/** The state in the file, or a fresh one when there is none. Throws when the file holds another seed's run. */
export function loadState(path: string, seed: number | undefined): FuzzState {
  const state = readState(path);
  if (state === undefined) {
    return { seed: seed ?? Math.floor(Math.random() * 2 ** 31), tallies: {}, findings: [], seconds: 0 };
  }
  if (seed === undefined || seed === state.seed) return state;
  throw new Error(`"${path}" is about seed ${state.seed}: finish it, remove it, or name another by --state`);
}

/** Replaces the file in one step: a run may be killed at any time. */
export function saveState(path: string, state: FuzzState): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(`${path}.new`, JSON.stringify(state, null, 1));
  renameSync(`${path}.new`, path);
}

/** The tally of a target, made when there is none yet. */
export function tallyOf(state: FuzzState, name: string): Tally {
  state.tallies[name] ??= { done: 0, cases: 0, outcomes: {} };
  return state.tallies[name];
}

/** Counts what one more chunk or batch gave. */
export function count(tally: Tally, cases: number, outcomes: Readonly<Record<string, number>>): void {
  tally.done += 1;
  tally.cases += cases;
  for (const [outcome, times] of Object.entries(outcomes)) {
    tally.outcomes[outcome] = (tally.outcomes[outcome] ?? 0) + times;
  }
}

/** Cases in process, and of the black box. */
export function totalsOf({ tallies }: FuzzState): { readonly inProcess: number; readonly blackBox: number } {
  const blackBox = tallies[BLACK_BOX]?.cases ?? 0;
  const all = Object.values(tallies).reduce((sum, { cases }) => sum + cases, 0);
  return { inProcess: all - blackBox, blackBox };
}

/** A line for each target, for people. */
export function describeTotals(state: FuzzState): string {
  const lines = Object.entries(state.tallies).map(([name, { cases, outcomes }]) => {
    const parts = Object.entries(outcomes).sort(([, a], [, b]) => b - a);
    const told = parts.map(([outcome, times]) => `${outcome} ${times}`).join(', ');
    return `${name.padEnd(20)} ${String(cases).padStart(8)}  ${told}`;
  });
  const { inProcess, blackBox } = totalsOf(state);
  const sum = `seed ${state.seed}: ${inProcess} in process, ${blackBox} black box, ${state.findings.length} findings, ${Math.round(state.seconds)} s`;
  return [...lines, sum].join('\n');
}

function readState(path: string): FuzzState | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as FuzzState;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new Error(`Cannot read "${path}"`, { cause: error });
  }
}
