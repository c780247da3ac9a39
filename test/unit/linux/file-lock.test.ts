// Locks between this process and others, held by the flock tool.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { lockFile } from '../../../shared/linux/file-lock.ts';

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'patchbay-lock-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

test('the file is made with the mode asked for, and disposing unlocks', () => {
  const path = join(folder, 'lock');
  {
    using _lock = lockFile(path, { deadlineMs: 0, mode: 0o600 });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(tryOutside(path)).toBe('taken');
  }
  expect(tryOutside(path)).toBe('free');
});

test('a lock that stays taken ends in ETIMEDOUT at the deadline, naming the file', () => {
  const path = join(folder, 'lock');
  using _lock = lockFile(path, { deadlineMs: 0, mode: 0o600 });
  const start = performance.now();
  expect(() => lockFile(path, { deadlineMs: 50, mode: 0o600 })).toThrow(
    expect.objectContaining({ code: 'ETIMEDOUT', message: expect.stringContaining(`"${path}"`) }),
  );
  expect(performance.now() - start).toBeGreaterThan(45);
});

test('a lock that is released while we wait is ours', () => {
  const path = join(folder, 'lock');
  writeFileSync(path, '');
  const holding = `exec 9<"${path}"; flock 9; echo locked; (sleep 0.2) >/dev/null 2>&1 &`;
  expect(String(spawnSync('bash', ['--norc', '-c', holding]).stdout)).toBe('locked\n');
  const start = performance.now();
  using _lock = lockFile(path, { deadlineMs: 5000, mode: 0o600 });
  expect(performance.now() - start).toBeGreaterThan(50);
});

test('a symlink in place of the lock is refused', () => {
  const path = join(folder, 'lock');
  symlinkSync('/etc/hostname', path);
  expect(() => lockFile(path, { deadlineMs: 0, mode: 0o600 })).toThrow(
    expect.objectContaining({ code: 'ELOOP' }),
  );
});

test('disposing twice closes nothing that is not ours', () => {
  const path = join(folder, 'lock');
  const first = lockFile(path, { deadlineMs: 0, mode: 0o600 });
  first[Symbol.dispose]();
  using _second = lockFile(path, { deadlineMs: 0, mode: 0o600 }); // likely the same descriptor number
  first[Symbol.dispose]();
  expect(tryOutside(path)).toBe('taken');
});

function tryOutside(path: string): 'free' | 'taken' {
  const { status, error } = spawnSync('flock', ['--nonblock', path, 'true']);
  if (error !== undefined) throw error;
  return status === 0 ? 'free' : 'taken';
}
