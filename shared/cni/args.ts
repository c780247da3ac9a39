// CNI_ARGS: `KEY=value` pairs between semicolons, with IgnoreUnknown as the one key all plugins share.
// Called by the config parsers of the plugins that take such keys.
import { invalidEnvironment, quote } from './error.ts';

/**
 * The pairs whose key is in `known`, the last of a key winning; keys are case-sensitive. Throws
 * `invalidEnvironment` for a piece without exactly one `=` (so for a trailing `;` too), for unknown keys
 * unless IgnoreUnknown is `1` or `true`, and for an IgnoreUnknown that is no boolean (CNI conventions,
 * "CNI_ARGS").
 */
export function parseCniArgs(text: string, known: readonly string[]): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  const unknown: string[] = [];
  let ignoreUnknown = false;
  for (const piece of text === '' ? [] : text.split(';')) {
    const [key, value, ...rest] = piece.split('=');
    if (key === undefined || value === undefined || rest.length > 0) {
      throw invalidEnvironment(
        `Cannot read ${quote(piece)} in CNI_ARGS: write KEY=value pairs with ";" between them`,
        {
          details: `CNI_ARGS is ${quote(text)}`,
        },
      );
    }
    if (key === IGNORE_UNKNOWN) ignoreUnknown = parseIgnoreUnknown(value);
    else if (known.includes(key)) values.set(key, value);
    else unknown.push(key);
  }
  if (unknown.length > 0 && !ignoreUnknown) throw unknownKeys(unknown, known);
  return values;
}

/** As `parseCniArgs` for DEL and GC: what is malformed or unknown is left out, nothing is thrown. */
export function parseCniArgsLeniently(text: string, known: readonly string[]): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const piece of text.split(';')) {
    const [key, value, ...rest] = piece.split('=');
    if (key !== undefined && value !== undefined && rest.length === 0 && known.includes(key))
      values.set(key, value);
  }
  return values;
}

const IGNORE_UNKNOWN = 'IgnoreUnknown';

function parseIgnoreUnknown(value: string): boolean {
  const text = value.toLowerCase();
  if (text === '1' || text === 'true') return true;
  if (text === '0' || text === 'false') return false;
  throw invalidEnvironment(`Cannot read IgnoreUnknown=${quote(value)} in CNI_ARGS: write "true" or "false"`);
}

function unknownKeys(unknown: readonly string[], known: readonly string[]): Error {
  const keys = quote(unknown.join(', '));
  const accepted = known.length === 0 ? 'none is known here' : `known here: ${known.join(', ')}`;
  return invalidEnvironment(
    `CNI_ARGS holds unknown keys ${keys}; add IgnoreUnknown=1 to have them ignored (${accepted})`,
  );
}
