// Runs iptables-save and iptables-restore on one table of one family. Called by masquerade.ts, hostports.ts, forward.ts;
// which of the host's two iptables it talks to is a value here, because the chains of one are invisible to the other.

import { notAvailable } from '../cni/error.ts';
import { LOCK_DEADLINE_MS, lockTimeout } from '../cni/lock.ts';
import type { Family } from '../ip/cidr.ts';
import { inPhase } from '../linux/phases.ts';
import { findProgram as findInstalled, PROGRAM_DIRECTORIES } from '../linux/programs.ts';
import { type Finished, run } from '../linux/spawn.ts';
import { parseSave, type SavedTable } from './save-format.ts';

/** `default` is what the host calls plain "iptables"; the others ask for the nf_tables or the legacy kernel side. */
export type Flavour = 'default' | 'nft' | 'legacy';

/** A table: which, of which family, seen through which program. */
export interface IptablesTable {
  readonly name: 'nat' | 'filter';
  readonly family: Family;
  readonly flavour: Flavour;
}

/** What became of a text: applied as a whole, or not at all, with the program and its words. */
export type Restored = { readonly applied: true } | { readonly applied: false; readonly reason: string };

// To wait for the xtables lock, which the legacy programs share; the reference waits without end.
const LOCK_SECONDS = LOCK_DEADLINE_MS / 1000;

/** iptables/xshared.h, XT_LOCK_NAME; a variable of the environment can move it, and we pass none on. */
const XTABLES_LOCK = '/run/xtables.lock';

/** iptables/xtables.h, RESOURCE_PROBLEM: the lock, for one. */
const EXIT_RESOURCE_PROBLEM = 4;

/**
 * The chains and rules of the table. Throws CniError `notAvailable` when the program is missing, Error when it fails.
 *
 * Equivalent to: `iptables-save -t …`
 */
export function readTable(table: IptablesTable): SavedTable {
  const program = findProgram(table, 'save');
  const options = { args: ['-t', table.name], timeoutMs: LOCK_SECONDS * 1000 };
  const finished = inPhase('programs', () => run(program, options));
  if (finished.exitCode !== 0) {
    throw new Error(
      `Cannot list table ${table.name} of IPv${table.family} with ${wordsOf(program, finished)}`,
    );
  }
  return parseSave(finished.stdout.toString());
}

/**
 * Applies the text in one transaction. Throws CniError `notAvailable` when the program is missing, `tryAgainLater` when
 * another program keeps the xtables lock for 30 s.
 *
 * Equivalent to: `iptables-restore --noflush --wait=30 < text`
 */
export function restoreTable(table: IptablesTable, text: string): Restored {
  const program = findProgram(table, 'restore');
  const args = ['--noflush', `--wait=${LOCK_SECONDS}`];
  const options = { args, input: text, timeoutMs: 2 * LOCK_SECONDS * 1000 };
  const finished = inPhase('programs', () => run(program, options));
  if (finished.exitCode === EXIT_RESOURCE_PROBLEM && /xtables lock/.test(finished.stderr.toString())) {
    throw lockTimeout(XTABLES_LOCK, LOCK_DEADLINE_MS);
  }
  return finished.exitCode === 0 ? { applied: true } : { applied: false, reason: wordsOf(program, finished) };
}

/** Throws CniError `notAvailable` when the program that writes the table is missing. */
export function expectProgram(table: IptablesTable): void {
  findProgram(table, 'restore');
}

/** The path of the program, undefined when it is not installed. */
export function findProgramFor(table: IptablesTable, verb: 'save' | 'restore'): string | undefined {
  return findInstalled(...namesOf(table, verb));
}

function findProgram(table: IptablesTable, verb: 'save' | 'restore'): string {
  const found = findProgramFor(table, verb);
  if (found !== undefined) return found;
  throw notAvailable(`Cannot find program "${namesOf(table, verb).at(-1)}": install package "iptables"`, {
    details: `Searched ${PROGRAM_DIRECTORIES.join(', ')}; without "ipMasqBackend" or "backend" being "iptables" no such program is needed`,
  });
}

// Not every distribution installs the names with the flavour in them; where they are missing, the plain name is the
// only iptables there is.
function namesOf({ family, flavour }: IptablesTable, verb: 'save' | 'restore'): string[] {
  const prefix = family === 4 ? 'iptables' : 'ip6tables';
  const plain = `${prefix}-${verb}`;
  return flavour === 'default' ? [plain] : [`${prefix}-${flavour}-${verb}`, plain];
}

function wordsOf(program: string, { stderr, exitCode, signal }: Finished): string {
  const said = stderr.toString().trim().split('\n')[0] ?? '';
  return `"${program}": ${said === '' ? `it ended with ${signal ?? `exit code ${exitCode}`}` : said}`;
}

// Someone else may change the table between our look and our change; then the change fails and we look again.
const ATTEMPTS = 5;

/** What to make of a table. */
export interface Change {
  /** The text to apply to a table as listed, undefined when there is nothing to do. */
  encode(saved: SavedTable): string | undefined;
  /** Begins the error of a text that the program refuses. */
  readonly failure: string;
}

/**
 * Looks, decides, applies, and looks again where somebody came in between. Throws as `readTable` and `restoreTable` do,
 * and Error with the words of the program when it refuses a text for a reason of its own.
 */
export function changeTable(table: IptablesTable, change: Change): void {
  let refused: { text: string; reason: string } | undefined;
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const text = change.encode(readTable(table));
    if (text === undefined) return;
    if (text === refused?.text) break; // nobody interfered, so it will be refused again
    const outcome = restoreTable(table, text);
    if (outcome.applied) return;
    refused = { text, reason: outcome.reason };
  }
  throw new Error(`${change.failure} with ${refused?.reason}`);
}
