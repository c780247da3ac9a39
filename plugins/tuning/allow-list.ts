// The operator's list of sysctls that configs may set: a regular expression a line, in the syntax of Go's regexp.
// Called by ADD and STATUS; DEL restores whatever was set.
import { closeSync, constants, fstatSync, lstatSync, openSync, readFileSync } from 'node:fs';
import { hasCode, invalidConfig, ioFailure, quote } from '../../shared/cni/error.ts';
import { toRegExp } from './go-regexp.ts';

/** The path of the reference plugin; there is no field for it, or a config could choose its own. */
export const ALLOW_LIST = '/etc/cni/tuning/allowlist.conf';

/** Lists have some ten lines; what is longer is something else. */
const LONGEST_LIST = 1024 * 1024;

/**
 * Returns when there is no list or each key matches one of its lines. Throws invalidConfig (7) naming the key that does
 * not, and ioFailure (5) when there is a list that cannot be read or understood: a rule that is not understood forbids.
 */
export function expectAllowed(keys: readonly string[]): void {
  const patterns = keys.length === 0 ? undefined : readPatterns();
  if (patterns === undefined) return;
  const forbidden = keys.find((key) => !patterns.some((pattern) => compile(pattern).test(key)));
  if (forbidden === undefined) return;
  throw invalidConfig(
    `Sysctl ${quote(forbidden)} is not allowed on this host; add it to "${ALLOW_LIST}" or remove it from the config`,
    { details: `The list has ${patterns.length} patterns: ${quote(patterns.join(', '))}` },
  );
}

/** The patterns of the list; undefined when there is none. Blank lines are no patterns, and an empty list allows nothing. */
function readPatterns(): readonly string[] | undefined {
  const text = readList();
  return text
    ?.split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
}

// A link is followed: a list that came as a Kubernetes ConfigMap is one. One that leads nowhere is no missing list.
function readList(): string | undefined {
  try {
    if (lstatSync(ALLOW_LIST, { throwIfNoEntry: false }) === undefined) return undefined;
    const fd = openSync(ALLOW_LIST, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile() || stat.size > LONGEST_LIST) throw new Error('It is no file of a list’s size');
      return readFileSync(fd, 'utf8');
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    // A directory on the way there that is none.
    if (hasCode(cause, 'ENOTDIR')) return undefined;
    throw ioFailure(
      `Cannot read "${ALLOW_LIST}", so no sysctl is allowed; make it readable, or remove it to allow all`,
      { cause },
    );
  }
}

function compile(pattern: string): RegExp {
  try {
    return toRegExp(pattern);
  } catch (cause) {
    throw ioFailure(
      `Cannot understand ${quote(pattern)} in "${ALLOW_LIST}", so no sysctl behind it is allowed; write a plainer pattern`,
      { cause },
    );
  }
}
