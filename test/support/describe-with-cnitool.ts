// Says whether the tests of a file that need cnitool can run, and why not when they cannot.
// Used by the end-to-end tests in place of vitest's `describe`.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { findCnitool } from './cnitool.ts';

/**
 * A `describe` for tests that need cnitool. Without it they are skipped only where Go, which builds it, is
 * absent as well; there the reason is printed. With CI=true its absence is a failure anywhere.
 */
export function describeWithCnitool(title: string, tests: () => void): void {
  if (findCnitool() !== undefined) {
    describe(title, tests);
    return;
  }
  const reason = 'cnitool is missing, and without Go it cannot be built';
  if (process.env['CI'] === 'true' || hasGo()) {
    test(title, () => expect.fail('cnitool is missing: run the tests through "npm test", which installs it'));
    return;
  }
  console.log(`Skipped: ${title} (${reason})`);
  describe.skip(`${title} (${reason})`, tests);
}

function hasGo(): boolean {
  const directories = [...(process.env['PATH'] ?? '').split(':'), '/usr/local/go/bin'];
  return directories.some((directory) => existsSync(join(directory, 'go')));
}
