// Runs iptables-save and iptables-restore on the nat table of one family. Called by masquerade.ts and hostports.ts;
// which of the host's two iptables it talks to is a value here, because the chains of one are invisible to the other.

import { accessSync, constants } from 'node:fs';
import { notAvailable } from '../cni/error.ts';
import type { Family } from '../ip/cidr.ts';
import { type Finished, run } from '../linux/spawn.ts';
import { parseSave, type SavedTable } from './save-format.ts';

/** `default` is what the host calls plain "iptables"; the others ask for the nf_tables or the legacy kernel side. */
export type Flavour = 'default' | 'nft' | 'legacy';

/** A nat table: of which family, seen through which program. */
export interface NatTable {
  readonly family: Family;
  readonly flavour: Flavour;
}

/** What became of a text: applied as a whole, or not at all, with the program and its words. */
export type Restored = { readonly applied: true } | { readonly applied: false; readonly reason: string };

// Where distributions install iptables. Not PATH: what a root process runs is not for its environment to say.
const DIRECTORIES = [
  '/usr/sbin',
  '/sbin',
  '/usr/bin',
  '/bin',
  '/usr/local/sbin',
  '/usr/local/bin',
  '/run/current-system/sw/bin',
];

// To wait for the xtables lock, which the legacy programs share; the reference waits without end.
const LOCK_SECONDS = 60;

/**
 * The chains and rules of the table. Throws CniError `notAvailable` when the program is missing, Error when it fails.
 *
 * Equivalent to: `iptables-save -t nat`
 */
export function readTable(table: NatTable): SavedTable {
  const program = findProgram(table, 'save');
  const finished = run(program, { args: ['-t', 'nat'], timeoutMs: LOCK_SECONDS * 1000 });
  if (finished.exitCode !== 0) {
    throw new Error(`Cannot list table nat of IPv${table.family} with ${wordsOf(program, finished)}`);
  }
  return parseSave(finished.stdout.toString());
}

/**
 * Applies the text in one transaction. Throws CniError `notAvailable` when the program is missing.
 *
 * Equivalent to: `iptables-restore --noflush --wait=60 < text`
 */
export function restoreTable(table: NatTable, text: string): Restored {
  const program = findProgram(table, 'restore');
  const args = ['--noflush', `--wait=${LOCK_SECONDS}`];
  const finished = run(program, { args, input: text, timeoutMs: 2 * LOCK_SECONDS * 1000 });
  return finished.exitCode === 0 ? { applied: true } : { applied: false, reason: wordsOf(program, finished) };
}

/** Throws CniError `notAvailable` when the program that writes the table is missing. */
export function expectProgram(table: NatTable): void {
  findProgram(table, 'restore');
}

// Not every distribution installs the names with the flavour in them; where they are missing, the plain name is the
// only iptables there is.
function findProgram(table: NatTable, verb: 'save' | 'restore'): string {
  const prefix = table.family === 4 ? 'iptables' : 'ip6tables';
  const plain = `${prefix}-${verb}`;
  const names = table.flavour === 'default' ? [plain] : [`${prefix}-${table.flavour}-${verb}`, plain];
  const paths = names.flatMap((name) => DIRECTORIES.map((directory) => `${directory}/${name}`));
  const found = paths.find(isExecutable);
  if (found !== undefined) return found;
  throw notAvailable(`Cannot find program "${plain}": install package "iptables"`, {
    details: `Searched ${DIRECTORIES.join(', ')}; without "ipMasqBackend" or "backend" being "iptables" no such program is needed`,
  });
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function wordsOf(program: string, { stderr, exitCode, signal }: Finished): string {
  const said = stderr.toString().trim().split('\n')[0] ?? '';
  return `"${program}": ${said === '' ? `it ended with ${signal ?? `exit code ${exitCode}`}` : said}`;
}
