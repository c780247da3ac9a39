// A directory for the files of a target, in memory where it can be, and gone with the process.
// Used by the targets whose input is a file.
import { accessSync, constants, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A new one. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(isWritable('/dev/shm') ? '/dev/shm' : tmpdir(), 'patchbay-fuzz-'));
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}
