// A log file takes lines, and nothing else is taken for one.
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { appendLine } from '../../../shared/linux/log-file.ts';

let directory: string;
let path: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'patchbay-log-'));
  path = join(directory, 'log');
});
afterEach(() => {
  rmSync(directory, { recursive: true });
});

test('lines are appended to a file that only its owner reads', () => {
  appendLine(path, 'one');
  appendLine(path, 'two');
  expect(readFileSync(path, 'utf8')).toBe('one\ntwo\n');
  expect(lstatSync(path).mode & 0o777).toBe(0o600);
});

test('a file that is there keeps its permissions', () => {
  writeFileSync(path, '', { mode: 0o640 });
  appendLine(path, 'one');
  expect(lstatSync(path).mode & 0o777).toBe(0o640);
});

test('a symlink is refused, whether it leads to a file or to none', () => {
  const victim = join(directory, 'victim');
  symlinkSync(victim, path);
  expect(() => appendLine(path, 'one')).toThrow(/Cannot write to log file/);
  expect(existsSync(victim)).toBe(false);
  writeFileSync(victim, 'precious');
  expect(() => appendLine(path, 'one')).toThrow(/Cannot write to log file/);
  expect(readFileSync(victim, 'utf8')).toBe('precious');
});

test('a file with another name is refused', () => {
  const victim = join(directory, 'victim');
  writeFileSync(victim, 'precious');
  linkSync(victim, path);
  expect(() => appendLine(path, 'one')).toThrow(/Cannot write to log file/);
  expect(readFileSync(victim, 'utf8')).toBe('precious');
});

test('a FIFO holds nobody, with a reader and without', () => {
  execFileSync('mkfifo', [path]);
  expect(() => appendLine(path, 'one')).toThrow(/Cannot write to log file/);
  // A reader of its own, which sees the end at once when nothing was written.
  const script = `timeout 5 cat < "$0" & exec 9<>"$0"; "$1" --input-type=module -e "$2" "$0"; exec 9>&-; wait`;
  const module = join(import.meta.dirname, '../../../shared/linux/log-file.ts');
  const program = `import { appendLine } from '${module}';
    try { appendLine(process.argv[1], 'one') } catch (error) { console.error(error.cause.message) }`;
  const said = execFileSync('bash', [
    '-c',
    `{ ${script}; } 2>&1`,
    path,
    process.execPath,
    program,
  ]).toString();
  expect(said).toMatch(/It is no regular file/);
  expect(said).not.toMatch(/^one$/m);
});

test('a directory that is missing is not made', () => {
  expect(() => appendLine(join(directory, 'missing/log'), 'one')).toThrow(/Cannot write to log file/);
  mkdirSync(path);
  expect(() => appendLine(path, 'one')).toThrow(/Cannot write to log file/);
});
