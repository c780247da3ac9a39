// The version of Patchbay and the git revision it is built from. Called by bundle.ts, which stamps both in.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Stamp {
  /** Semantic version from package.json, such as `2.0.0`. */
  readonly version: string;
  /** Twelve digits of the commit, `-modified` when the tree differs from it; `unknown` outside of git. */
  readonly revision: string;
}

/** Reads what the executables say about themselves. Throws Error when package.json has no semantic version. */
export function readStamp(root: string): Stamp {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version?: unknown };
  if (typeof version !== 'string' || !/^\d+\.\d+\.\d+$/.test(version)) {
    throw new Error(`The version in package.json is no semantic version: ${JSON.stringify(version)}`);
  }
  return { version, revision: readRevision(root) };
}

// Only what ends up in the executables counts as a modification: an edited test does not change them.
function readRevision(root: string): string {
  const commit = git(root, ['rev-parse', '--short=12', 'HEAD']);
  if (commit === undefined) return 'unknown';
  const sources = ['plugins', 'shared', 'build', 'package.json', 'package-lock.json'];
  const changes = git(root, ['status', '--porcelain', '--', ...sources]);
  return changes === '' ? commit : `${commit}-modified`;
}

function git(root: string, args: readonly string[]): string | undefined {
  // A checkout may belong to somebody else than root, who builds it; git refuses to read that unless told so.
  const { status, stdout } = spawnSync('git', ['-c', `safe.directory=${root}`, ...args], {
    cwd: root,
    encoding: 'utf8',
  });
  return status === 0 ? stdout.trim() : undefined;
}
