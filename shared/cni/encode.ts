// JSON text as the reference prints it.
// Used for results and errors, which clients compare byte by byte.
import { toCniError } from './error.ts';
import type { CniVersion } from './versions.ts';

/** The value with four spaces a level and no newline at the end; `<`, `>`, `&`, U+2028 and U+2029 as escapes. */
export function encodeJson(value: object): string {
  // These five occur inside strings only, so the finished text can be searched for them.
  return JSON.stringify(value, null, 4).replace(/[<>&\u2028\u2029]/g, escapeChar);
}

/** What was thrown, as the error that the specification describes (CNI SPEC, section 5) in that version. */
export function encodeError(error: unknown, cniVersion: CniVersion): string {
  const { code, message, details } = toCniError(error);
  return encodeJson({
    cniVersion,
    code,
    msg: message,
    ...(details !== undefined && details !== '' && { details }),
  });
}

function escapeChar(char: string): string {
  return `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`;
}
