// The tokens of `conditionsV4` and `conditionsV6`, in the spelling of iptables or of nft, as typed conditions.
// Called by config.ts; what comes out is all that ever reaches a rule, the text itself never does.
import { type CniError, invalidConfig, quote } from '../../shared/cni/error.ts';
import { type Cidr, type Family, formatCidr, networkOf, parseCidr, parseIp } from '../../shared/ip/cidr.ts';
import { isLinkName } from '../../shared/linux/link-name.ts';
import type { Condition, ConditionList } from '../../shared/nftables/conditions.ts';

/** Whose tokens they are: the field for messages, the family that its addresses must have. */
export interface TokenSource {
  readonly field: 'conditionsV4' | 'conditionsV6';
  readonly family: Family;
}

/**
 * The alternatives that the tokens describe: a packet must fulfil one of them, with all its conditions. None at all
 * means that every packet will do. Several values of one option are alternatives, as in iptables; when negated, all of
 * them are excluded.
 *
 * Throws invalidConfig naming the first token that is not understood. Source: iptables(8), PARAMETERS; nft(8), PAYLOAD
 * EXPRESSIONS and META EXPRESSIONS.
 */
export function parseConditions(tokens: readonly string[], source: TokenSource): readonly ConditionList[] {
  const text = tokens.join(' ').trim();
  return expand(/^[-!]/.test(text) ? readIptables(text, source) : readNft(text, source), source);
}

/** The first kind that a list asks for twice; a rule of iptables takes each once. */
export function findRepeatedKind(list: ConditionList): Condition['kind'] | undefined {
  return list.find(({ kind }, position) => list.findIndex((other) => other.kind === kind) < position)?.kind;
}

/** One option with its values. */
interface Clause {
  readonly negated: boolean;
  /** One for each value. */
  readonly conditions: readonly Condition[];
}

const IPTABLES_OPTIONS = new Map<string, Condition['kind']>([
  ['-s', 'saddr'],
  ['--src', 'saddr'],
  ['--source', 'saddr'],
  ['-d', 'daddr'],
  ['--dst', 'daddr'],
  ['--destination', 'daddr'],
  ['-i', 'iifname'],
  ['--in-interface', 'iifname'],
]);

// "!" stands before the option. Once it stood behind it, and configs are copied from old pages.
function readIptables(text: string, source: TokenSource): Clause[] {
  const words = new Words(text.split(/\s+/).flatMap(splitLongOption));
  const clauses: Clause[] = [];
  while (!words.isAtEnd()) {
    const isNegatedBefore = words.takeIf('!');
    const option = words.take();
    if (option === undefined) throw refusal(source, '!', 'nothing stands behind it');
    const kind = IPTABLES_OPTIONS.get(option);
    if (kind === undefined) throw unknownToken(source, option);
    const isNegatedBehind = words.takeIf('!');
    if (isNegatedBefore && isNegatedBehind) throw refusal(source, option, 'it is negated twice');
    const value = words.take();
    if (value === undefined) throw refusal(source, option, 'a value is missing behind it');
    const form = { kind, negated: isNegatedBefore || isNegatedBehind, wildcard: '+' } as const;
    const conditions = value.split(',').map((word) => readCondition(word, form, source));
    clauses.push({ negated: form.negated, conditions });
  }
  return clauses;
}

// `--source=192.0.2.1`, as getopt_long(3) has it.
function splitLongOption(word: string): string[] {
  const [, option, value] = /^(--[a-z-]+)=(.+)$/.exec(word) ?? [];
  return option === undefined || value === undefined ? [word] : [option, value];
}

// Text in quotes, an operator, a word; any other sign by itself, so that a message can name it.
const NFT_TOKEN = /"[^"]*"|[=!]=|[^\s{},"=!]+|\S/g;

function readNft(text: string, source: TokenSource): Clause[] {
  const words = new Words(text.match(NFT_TOKEN) ?? []);
  const clauses: Clause[] = [];
  while (!words.isAtEnd()) {
    const kind = readSelector(words, source);
    const negated = words.takeIf('!=', 'ne');
    if (!negated) words.takeIf('==', 'eq');
    clauses.push({ negated, conditions: readValues(words, { kind, negated, wildcard: '*' }, source) });
  }
  return clauses;
}

function readSelector(words: Words, source: TokenSource): Condition['kind'] {
  if (words.takeIf('iifname')) return 'iifname';
  const protocol = words.take() ?? '';
  if (protocol === 'meta' && words.takeIf('iifname')) return 'iifname';
  if (protocol !== 'ip' && protocol !== 'ip6') throw unknownToken(source, protocol);
  const side = words.take();
  if (side === undefined) throw refusal(source, protocol, 'nothing stands behind it');
  if (side !== 'saddr' && side !== 'daddr') throw unknownToken(source, `${protocol} ${side}`);
  if (protocol !== NFT_PROTOCOLS[source.family]) throw wrongFamily(source, `${protocol} ${side}`);
  return side;
}

const NFT_PROTOCOLS = { 4: 'ip', 6: 'ip6' } as const;

// One value, or several in braces with commas between; nft allows a comma behind the last as well.
function readValues(words: Words, form: Form, source: TokenSource): Condition[] {
  if (!words.takeIf('{')) return [readValue(words, form, source)];
  const conditions: Condition[] = [];
  do conditions.push(readValue(words, form, source));
  while (words.takeIf(',') && words.peek() !== '}');
  const end = words.take();
  if (end === undefined) throw refusal(source, words.last(), '"," or "}" is missing behind it');
  if (end !== '}') throw refusal(source, end, '"," or "}" is missing before it');
  return conditions;
}

function readValue(words: Words, form: Form, source: TokenSource): Condition {
  const word = words.take();
  if (word === undefined) throw refusal(source, words.last(), 'a value is missing behind it');
  return readCondition(/^".*"$/.test(word) ? word.slice(1, -1) : word, form, source);
}

/** The tokens of a field, taken one after the other. */
class Words {
  readonly #words: readonly string[];
  #at = 0;

  constructor(words: readonly string[]) {
    this.#words = words.filter((word) => word !== '');
  }

  isAtEnd(): boolean {
    return this.#at >= this.#words.length;
  }

  peek(): string | undefined {
    return this.#words[this.#at];
  }

  /** The word taken last, also when there was no further one to take. */
  last(): string {
    return this.#words[this.#at - 1] ?? '';
  }

  take(): string | undefined {
    const word = this.#words[this.#at];
    if (word !== undefined) this.#at++;
    return word;
  }

  takeIf(...wanted: readonly string[]): boolean {
    const isWanted = wanted.some((word) => word === this.peek());
    if (isWanted) this.#at++;
    return isWanted;
  }
}

// Far more than anybody writes by hand: an alternative becomes a rule.
const MAX_ALTERNATIVES = 1024;

// include/net/netfilter/nf_tables.h: NFT_RULE_MAXEXPRS is 128, and a network takes three expressions.
const MAX_CONDITIONS = 32;

// What several values mean: any of them, so each makes an alternative; or none of them, so all conditions must hold.
function expand(clauses: readonly Clause[], source: TokenSource): readonly ConditionList[] {
  let lists: ConditionList[] = [[]];
  for (const clause of clauses) {
    if (clause.conditions.some(isAlwaysTrue)) continue;
    // A value given twice is one condition.
    const conditions = [
      ...new Map(clause.conditions.map((condition) => [describeValue(condition), condition])).values(),
    ];
    const added = clause.negated ? [conditions] : conditions.map((condition) => [condition]);
    expectFew(lists.length * added.length, MAX_ALTERNATIVES, 'combinations of values', source);
    lists = added.flatMap((tail) => lists.map((list) => [...list, ...tail]));
    expectFew(lists[0]?.length ?? 0, MAX_CONDITIONS, 'conditions that must all hold', source);
  }
  return lists.filter((list) => list.length > 0);
}

function expectFew(count: number, limit: number, what: string, source: TokenSource): void {
  if (count <= limit) return;
  throw invalidConfig(`${subject(source)} describes ${count} ${what}, at most ${limit} are possible`);
}

function describeValue(condition: Condition): string {
  if (condition.kind !== 'iifname') return formatCidr(condition.cidr);
  return condition.isPrefix ? `${condition.name}*` : condition.name;
}

function isAlwaysTrue(condition: Condition): boolean {
  return condition.kind !== 'iifname' && condition.cidr.prefix === 0;
}

/** How a value is to be read. */
interface Form {
  readonly kind: Condition['kind'];
  readonly negated: boolean;
  /** What stands for any further letters at the end of a link's name. */
  readonly wildcard: '+' | '*';
}

function readCondition(word: string, { kind, negated, wildcard }: Form, source: TokenSource): Condition {
  if (kind === 'iifname') {
    const isPrefix = word.endsWith(wildcard);
    const name = isPrefix ? word.slice(0, -1) : word;
    if (!isLinkName(name, { plain: true }))
      throw refusal(source, word, 'the name of a link is expected here');
    return { kind, name, isPrefix, negated };
  }
  const condition = { kind, cidr: readNetwork(word, source), negated };
  if (negated && isAlwaysTrue(condition)) throw refusal(source, word, 'no packet fulfils its negation');
  return condition;
}

function readNetwork(word: string, source: TokenSource): Cidr {
  const network = findNetwork(word);
  if (network === undefined) throw refusal(source, word, 'an IP address or network is expected here');
  if (network.ip.family !== source.family) throw wrongFamily(source, word);
  return networkOf(network);
}

function findNetwork(word: string): Cidr | undefined {
  const [, address, mask] = /^([0-9.]+)\/([0-9.]+\.[0-9.]+)$/.exec(word) ?? [];
  try {
    if (mask !== undefined) return parseCidr(`${address}/${prefixOf(mask)}`);
    return word.includes('/') ? parseCidr(word) : hostOf(word);
  } catch {
    return undefined;
  }
}

function hostOf(address: string): Cidr {
  const ip = parseIp(address);
  return { ip, prefix: ip.family === 4 ? 32 : 128 };
}

// `255.255.255.0`, which iptables takes in place of a prefix length. Throws for one with a hole.
function prefixOf(mask: string): number {
  const bits = parseIp(mask).value.toString(2).padStart(32, '0');
  if (!/^1*0*$/.test(bits)) throw new Error(`Cannot parse netmask "${mask}"`);
  return bits.lastIndexOf('1') + 1;
}

const KNOWN_TOKENS = {
  4: '-s, -d and -i with "!" before them, or ip saddr, ip daddr and iifname with "!=" behind them',
  6: '-s, -d and -i with "!" before them, or ip6 saddr, ip6 daddr and iifname with "!=" behind them',
} as const;

function unknownToken(source: TokenSource, token: string): CniError {
  const why = OUTGOING.has(token)
    ? 'a published port is looked up before the outgoing link is known'
    : 'it is no condition known here';
  return refusal(source, token, `${why}; known are ${KNOWN_TOKENS[source.family]}`);
}

// A packet for a local address has no outgoing link: these match nothing, or negated everything.
const OUTGOING: ReadonlySet<string> = new Set(['-o', '--out-interface', 'oifname', 'oif']);

function wrongFamily(source: TokenSource, token: string): CniError {
  return refusal(source, token, `it is not IPv${source.family}`);
}

function refusal(source: TokenSource, token: string, what: string): CniError {
  return invalidConfig(`${subject(source)} holds ${quote(token)}: ${what}`);
}

function subject({ field }: TokenSource): string {
  return `Field ${quote(field)} of the network configuration`;
}
