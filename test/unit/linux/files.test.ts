// Files of state where something else stands in their place.
import {
  chownSync,
  lchownSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { expectTrustedLink, isObstructed, overwriteFile } from '../../../shared/linux/files.ts';

const BYTES = Buffer.from('new');

let directory: string;
let path: string;
let victim: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'patchbay-files-'));
  path = join(directory, 'file');
  victim = join(directory, 'victim');
  writeFileSync(victim, 'precious');
});
afterEach(() => {
  rmSync(directory, { recursive: true });
});

describe('a file that is written in place', () => {
  test('loses what it held', () => {
    writeFileSync(path, 'old and longer');
    overwriteFile(path, BYTES);
    expect(readFileSync(path, 'utf8')).toBe('new');
  });

  test('is made when missing', () => {
    overwriteFile(path, BYTES);
    expect(readFileSync(path, 'utf8')).toBe('new');
  });

  test('is neither a symlink nor another name of a file', () => {
    symlinkSync(victim, path);
    expect(() => overwriteFile(path, BYTES)).toThrow(/ELOOP/);
    rmSync(path);
    linkSync(victim, path);
    expect(() => overwriteFile(path, BYTES)).toThrow(/has 2 names/);
    expect(readFileSync(victim, 'utf8')).toBe('precious');
  });

  test('is no directory', () => {
    mkdirSync(path);
    expect(() => overwriteFile(path, BYTES)).toThrow(/EISDIR/);
  });
});

test('a directory is obstructed by whatever stands in its place', () => {
  expect(isObstructed(path)).toBe(false);
  mkdirSync(path);
  expect(isObstructed(path)).toBe(false);
  symlinkSync(path, join(directory, 'link'));
  expect(isObstructed(join(directory, 'link'))).toBe(true);
  expect(isObstructed(victim)).toBe(true);
});

test('a link of our own is trusted, and what is no link', () => {
  symlinkSync(directory, path);
  for (const trusted of [path, directory, join(directory, 'missing')]) {
    expect(() => expectTrustedLink(trusted)).not.toThrow();
  }
});

test.skipIf(!canGiveAway())(
  'somebody else’s link is not, wherever it leads (skipped unless run as root)',
  () => {
    symlinkSync(directory, path);
    lchownSync(path, 1000, 1000);
    expect(() => expectTrustedLink(path)).toThrow(/is a symbolic link that user 1000 made; remove it/);
  },
);

function canGiveAway(): boolean {
  const probe = mkdtempSync(join(tmpdir(), 'patchbay-probe-'));
  try {
    chownSync(probe, 1000, 1000);
    return true;
  } catch {
    return false;
  } finally {
    rmSync(probe, { recursive: true });
  }
}
