// Runs the tests: `node build/test.ts [unit|kernel|binary|e2e …] [-- vitest options]`; without a name all of them, after
// formatting, lint and types. Called by the test scripts of package.json; ends with "N passed, N failed, N skipped".
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { packageEmpty, packagePatchbay } from './package.ts';

const ROOT = join(import.meta.dirname, '..');
const PROJECTS = ['unit', 'kernel', 'binary', 'e2e'] as const;
const PACKAGED = new Set(['binary', 'e2e']);

interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** The part of vitest's JSON report (reporter "json", as Jest's) that the counts come from. */
interface VitestReport {
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
  const { names, options } = parseArguments(process.argv.slice(2));
  const counts =
    names.length === 0
      ? [runStaticChecks(), await runTests(PROJECTS, options)]
      : [await runTests(names, options)];
  process.exitCode = report(counts);
}

function parseArguments(args: readonly string[]): { names: string[]; options: string[] } {
  const isName = (arg: string): boolean => (PROJECTS as readonly string[]).includes(arg);
  return { names: args.filter(isName), options: args.filter((arg) => !isName(arg) && arg !== '--') };
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
  const selected = projects.map((project) => `--project=${project}`);
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`];
  const [program = '', ...args] = [...ISOLATION, 'vitest', 'run', ...selected, ...reporters, ...options];
  const status = run(program, args);
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
