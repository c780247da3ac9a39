// Regular expressions in the syntax of Go's regexp package (RE2), as ours. Pure; called for each line of the allow-list.
// What means something else here or nothing at all is refused, so that no list allows more than it says.

/**
 * The same expression for JavaScript. Throws Error naming the part that has no equal: flags in the middle, `\Q…\E`,
 * character classes of Unicode, octal escapes; and what RE2 does not have itself, look-around and back references.
 * Source: https://github.com/google/re2/wiki/Syntax
 */
export function toRegExp(pattern: string): RegExp {
  const { flags, rest } = splitFlags(pattern);
  let text = '';
  for (let at = 0; at < rest.length; ) {
    const piece = rest[at] === '[' ? translateClass(rest, at) : translatePiece(rest, at);
    text += piece.text;
    at = piece.end;
  }
  return new RegExp(text, flags);
}

interface Piece {
  readonly text: string;
  /** Where the next piece begins. */
  readonly end: number;
}

function splitFlags(pattern: string): { readonly flags: string; readonly rest: string } {
  const [whole = '', flags = ''] = /^\(\?([ims]+)\)/.exec(pattern) ?? [];
  return { flags: [...new Set(flags)].join(''), rest: pattern.slice(whole.length) };
}

function translatePiece(pattern: string, at: number): Piece {
  if (pattern[at] === '\\') return translateEscape(pattern, at, OUTSIDE);
  if (pattern.startsWith('(?', at)) return translateGroup(pattern, at);
  return { text: pattern[at] ?? '', end: at + 1 };
}

function translateGroup(pattern: string, at: number): Piece {
  const [whole, name] = /^\(\?(?:P?<(\w+)>|:)/.exec(pattern.slice(at)) ?? [];
  if (whole === undefined) throw new Error(`Cannot use the group "${pattern.slice(at, at + 4)}…"`);
  return { text: name === undefined ? '(?:' : `(?<${name}>`, end: at + whole.length };
}

// Where they say the same in both. \A and \z are made of assertions, which the flag m leaves alone.
const OUTSIDE: Readonly<Record<string, string>> = {
  ...ownEscapes('dDwWbBnrtfv'),
  s: '[\\t\\n\\f\\r ]',
  S: '[^\\t\\n\\f\\r ]',
  a: '\\x07',
  A: '(?<![^])',
  z: '(?![^])',
};
const INSIDE: Readonly<Record<string, string>> = {
  ...ownEscapes('dDwWnrtfv'),
  s: '\\t\\n\\f\\r ',
  a: '\\x07',
};

function ownEscapes(letters: string): Record<string, string> {
  return Object.fromEntries([...letters].map((letter) => [letter, `\\${letter}`]));
}

function translateEscape(pattern: string, at: number, known: Readonly<Record<string, string>>): Piece {
  const [hex] = /^\\x[0-9A-Fa-f]{2}/.exec(pattern.slice(at)) ?? [];
  if (hex !== undefined) return { text: hex, end: at + hex.length };
  const letter = pattern[at + 1] ?? '';
  // A sign behind a backslash is that sign; letters and digits have meanings.
  const text = /^[!-/:-@[-`{-~]$/.test(letter) ? `\\${letter}` : known[letter];
  if (text === undefined) throw new Error(`Cannot use the escape "\\${letter}"`);
  return { text, end: at + 2 };
}

// A bracket behind the opening one is a member of the class, where JavaScript takes it for the end.
function translateClass(pattern: string, start: number): Piece {
  let at = start + 1;
  let text = '[';
  if (pattern[at] === '^') {
    text += '^';
    at += 1;
  }
  for (const first = at; at < pattern.length; ) {
    if (pattern[at] === ']' && at > first) return { text: `${text}]`, end: at + 1 };
    const piece = translateMember(pattern, at);
    text += piece.text;
    at = piece.end;
  }
  throw new Error('Cannot find the end of a character class');
}

function translateMember(pattern: string, at: number): Piece {
  if (pattern[at] === '\\') return translateEscape(pattern, at, INSIDE);
  const [posix, name = ''] = /^\[:(\^?\w+):\]/.exec(pattern.slice(at)) ?? [];
  if (posix !== undefined) {
    const members = POSIX[name];
    if (members === undefined) throw new Error(`Cannot use the character class "${posix}"`);
    return { text: members, end: at + posix.length };
  }
  const sign = pattern[at] ?? '';
  return { text: sign === '[' || sign === ']' ? `\\${sign}` : sign, end: at + 1 };
}

const POSIX: Readonly<Record<string, string>> = {
  alnum: '0-9A-Za-z',
  alpha: 'A-Za-z',
  digit: '0-9',
  lower: 'a-z',
  upper: 'A-Z',
  word: '0-9A-Za-z_',
  xdigit: '0-9A-Fa-f',
  punct: '!-\\/:-@[-`{-~',
};
