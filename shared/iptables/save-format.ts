// Reads the text of iptables-save, one table of one family, into rules. Called by masquerade.ts with what the program
// printed, and pure: a rule keeps its line, because iptables-restore deletes exactly what iptables-save printed.

/** One rule as listed. */
export interface SavedRule {
  readonly chain: string;
  /** The line without `-A <chain> `. */
  readonly spec: string;
  /** The value of `-s` with the prefix the program always prints, undefined when absent or negated. */
  readonly source: string | undefined;
  /** The value of `-d`, undefined when absent or negated. */
  readonly destination: string | undefined;
  readonly comment: string | undefined;
  /** The target of `-j` or `-g`. */
  readonly target: string | undefined;
}

export interface SavedTable {
  readonly chains: readonly string[];
  readonly rules: readonly SavedRule[];
}

/** The chains and rules of a listing. Lines that are neither are skipped: the programs comment freely. */
export function parseSave(text: string): SavedTable {
  const chains: string[] = [];
  const rules: SavedRule[] = [];
  for (const line of text.split('\n')) {
    const declared = /^:(\S+) /.exec(line)?.[1];
    if (declared !== undefined) chains.push(declared);
    const [, chain, spec] = /^-A (\S+) (.+)$/.exec(line) ?? [];
    if (chain !== undefined && spec !== undefined) rules.push(parseRule(chain, spec));
  }
  return { chains, rules };
}

function parseRule(chain: string, spec: string): SavedRule {
  const words = splitWords(spec);
  return {
    chain,
    spec,
    source: optionValue(words, '-s'),
    destination: optionValue(words, '-d'),
    comment: optionValue(words, '--comment'),
    target: optionValue(words, '-j') ?? optionValue(words, '-g'),
  };
}

interface Word {
  readonly text: string;
  readonly quoted: boolean;
}

// A comment may hold ` -j X`; it is quoted then, and a quoted word is never an option.
function optionValue(words: readonly Word[], option: string): string | undefined {
  const at = words.findIndex((word) => word.text === option && !word.quoted);
  if (at < 0 || words[at - 1]?.text === '!') return undefined;
  return words[at + 1]?.text;
}

// Words are apart by spaces; "…" holds any, with a backslash before a quote or a backslash.
function splitWords(spec: string): Word[] {
  return Array.from(spec.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g), ([, quoted, plain]) =>
    quoted === undefined
      ? { text: plain ?? '', quoted: false }
      : { text: quoted.replace(/\\(.)/g, '$1'), quoted: true },
  );
}
