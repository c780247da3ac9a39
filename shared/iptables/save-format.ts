// The text of iptables-save read into rules, one table of one family, and the frame of what iptables-restore reads.
// Called by the plans and by programs.ts, and pure: a rule keeps its line, because iptables-restore deletes exactly what
// iptables-save printed.

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
  /** Of the built-in chains: `ACCEPT` or `DROP`. */
  readonly policies: ReadonlyMap<string, string>;
  readonly rules: readonly SavedRule[];
}

/** The chains and rules of a listing. Lines that are neither are skipped: the programs comment freely. */
export function parseSave(text: string): SavedTable {
  const chains: string[] = [];
  const policies = new Map<string, string>();
  const rules: SavedRule[] = [];
  for (const line of text.split('\n')) {
    const [, declared, policy] = /^:(\S+) (\S+)/.exec(line) ?? [];
    if (declared !== undefined) chains.push(declared);
    if (declared !== undefined && policy !== undefined && policy !== '-') policies.set(declared, policy);
    const [, chain, spec] = /^-A (\S+) (.+)$/.exec(line) ?? [];
    if (chain !== undefined && spec !== undefined) rules.push(parseRule(chain, spec));
  }
  return { chains, policies, rules };
}

/** Text for iptables-restore that carries out the commands on one table, as one transaction. */
export function encodeTable(commands: readonly string[], table: 'nat' | 'filter' = 'nat'): string {
  return [`*${table}`, ...commands, 'COMMIT', ''].join('\n');
}

/** A match that compares nothing and carries a comment, quoted as iptables-save does it. */
export function commentMatch(comment: string): string {
  return `-m comment --comment "${comment.replace(/["\\]/g, '\\$&')}"`;
}

/**
 * A spelling that two specs share when they mean the same: releases of the program print options in other orders, and
 * some number the protocols that others name.
 */
export function normalizeSpec(spec: string): string {
  return optionsOf(splitWords(spec))
    .map(([option = '', value = '', ...more]) => [option, normalizeValue(option, value), ...more].join(' '))
    .filter((option) => !/^-[sd] (0\.0\.0\.0|::)\/0$/.test(option)) // every address, which goes without saying
    .sort()
    .join('\n');
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

const PROTOCOL_NAMES: Readonly<Record<string, string>> = { '6': 'tcp', '17': 'udp', '132': 'sctp' };

function normalizeValue(option: string, value: string): string {
  if (/^(! )?-p$/.test(option)) return PROTOCOL_NAMES[value] ?? value;
  if (!/^(! )?-[sd]$/.test(option) || value.includes('/')) return value;
  return `${value}/${value.includes(':') ? 128 : 32}`;
}

// Each option with its values, a negated one as `! -s`.
function optionsOf(words: readonly Word[]): string[][] {
  const options: string[][] = [];
  let negated = false;
  for (const { text, quoted } of words) {
    if (text === '!' && !quoted) {
      negated = true;
    } else if (text.startsWith('-') && !quoted) {
      options.push([negated ? `! ${text}` : text]);
      negated = false;
    } else {
      options.at(-1)?.push(text);
    }
  }
  return options;
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
