// Runs the tests: `node build/test.ts [--full] [unit|kernel|binary|fuzz|e2e|runtimes|faults …] [-- vitest options]`; without a
// name all of them, after formatting, lint and types; with --full every fault at every point. Called by the test scripts
// of package.json; ends with the totals of the faults tests and "N passed, N failed, N skipped".
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { packageEmpty, packagePatchbay } from './package.ts';
import { hasReference, REFERENCE_DIRECTORY } from './tools.ts';

const ROOT = join(import.meta.dirname, '..');
const PROJECTS = ['unit', 'kernel', 'binary', 'fuzz', 'e2e', 'runtimes', 'faults'] as const;
const PACKAGED = new Set(['binary', 'fuzz', 'e2e', 'runtimes', 'faults']);

/** What the faults tests count, a JSON object a line (test/support/fault-scale.ts). */
const FIGURES = join(ROOT, 'node_modules/.cache/figures.jsonl');

interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** The part of vitest's JSON report (reporter "json", as Jest's) that the counts come from. */
export interface VitestReport {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly { readonly status: string; readonly assertionResults: readonly unknown[] }[];
}

// The plugins keep locks below /run: the tests have one of their own, so that the machine's stays as it is.
const ISOLATION =
  process.getuid?.() === 0
    ? [
        'unshare',
        '--mount',
        '--propagation',
        'private',
        'sh',
        '-ec',
        'mount -t tmpfs tmpfs /run; exec "$@"',
        'sh',
      ]
    : [];

if (import.meta.main) {
  const { names, options, isFull } = parseArguments(process.argv.slice(2));
  if (isFull) process.env['PATCHBAY_FAULTS'] = 'full';
  const counts =
    names.length === 0
      ? [runStaticChecks(), await runTests(PROJECTS, options)]
      : [await runTests(names, options)];
  process.exitCode = report(counts);
}

interface Arguments {
  readonly names: readonly string[];
  readonly options: readonly string[];
  readonly isFull: boolean;
}

function parseArguments(args: readonly string[]): Arguments {
  const isName = (arg: string): boolean => (PROJECTS as readonly string[]).includes(arg);
  const isOwn = (arg: string): boolean => isName(arg) || arg === '--full' || arg === '--';
  return {
    names: args.filter(isName),
    options: args.filter((arg) => !isOwn(arg)),
    isFull: args.includes('--full'),
  };
}

/** Formatting, lint and types; each counts as one test. */
export function runStaticChecks(): Counts {
  const checks = [
    ['biome', ['check', '--error-on-warnings', '.']],
    ['tsc', []],
  ] as const;
  const failed = checks.filter(([program, args]) => run(program, args) !== 0).length;
  return { passed: checks.length - failed, failed, skipped: 0 };
}

/** Runs vitest projects, on freshly packaged executables where they are needed, and counts what came of it. */
export async function runTests(projects: readonly string[], options: readonly string[]): Promise<Counts> {
  if (projects.some((project) => PACKAGED.has(project))) {
    await packagePatchbay();
    if (!existsSync(join(ROOT, 'dist/empty'))) await packageEmpty();
  }
  const file = join(ROOT, 'node_modules/.cache/vitest.json');
  mkdirSync(join(file, '..'), { recursive: true });
  rmSync(file, { force: true });
  rmSync(FIGURES, { force: true });
  process.env['PATCHBAY_FIGURES'] = FIGURES;
  if (hasReference()) process.env['PATCHBAY_REFERENCE_DIR'] ??= REFERENCE_DIRECTORY;
  const selected = projects.map((project) => `--project=${project}`);
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`];
  const [program = '', ...args] = [...ISOLATION, 'vitest', 'run', ...selected, ...reporters, ...options];
  const status = run(program, args);
  if (existsSync(FIGURES)) console.log(`\n${sumUp(readFileSync(FIGURES, 'utf8'))}`);
  if (!existsSync(file)) return { passed: 0, failed: 1, skipped: 0 };
  const counts = count(JSON.parse(readFileSync(file, 'utf8')) as VitestReport);
  // An error outside of every test makes vitest fail although no test did.
  return status !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts;
}

/** A file that did not even load has no tests to fail, and counts as one that did. */
export function count(report: VitestReport): Counts {
  const broken = report.testResults.filter(
    ({ status, assertionResults }) => status === 'failed' && assertionResults.length === 0,
  );
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + broken.length,
    skipped: report.numPendingTests + report.numTodoTests,
  };
}

/** One line of totals: the figures of the same name, added up. */
export function sumUp(lines: string): string {
  const totals = new Map<string, number>();
  for (const line of lines.split('\n').filter((text) => text !== '')) {
    for (const [what, count] of Object.entries(JSON.parse(line) as Record<string, number>)) {
      totals.set(what, (totals.get(what) ?? 0) + count);
    }
  }
  return [...totals].map(([what, count]) => `${count} ${what}`).join(', ');
}

/** Prints the sum as the last line and returns the exit code. */
export function report(all: readonly Counts[]): 0 | 1 {
  const sum = (key: keyof Counts): number => all.reduce((total, counts) => total + counts[key], 0);
  console.log(`${sum('passed')} passed, ${sum('failed')} failed, ${sum('skipped')} skipped`);
  return sum('failed') > 0 || sum('passed') === 0 ? 1 : 0;
}

function run(program: string, args: readonly string[]): number {
  const { status, error } = spawnSync(program, args, { cwd: ROOT, stdio: 'inherit' });
  if (error !== undefined) throw error;
  return status ?? 1;
}
