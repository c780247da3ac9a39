// CHECK for the constant part of the table: is the chain there, hooked, with the rules we would write?
// Used by the expectations of this folder; compares in nft's own words, so that a difference can be read.
import { checkFailed } from '../cni/error.ts';
import { decodeExprs } from '../nftables/decode.ts';
import type { Expr } from '../nftables/exprs/expr.ts';
import { lowerStatements } from '../nftables/lower.ts';
import { formatExprs } from '../nftables/mnemonic.ts';
import type { ChainFact, Nftables, RuleFact } from '../nftables/nftables.ts';
import type { Chain, Rule, TableRef } from '../nftables/objects.ts';

/** NF_INET_POST_ROUTING and its kin of linux/netfilter.h, by nft's names; the numbers of a bridge are the same. */
const HOOKS: Readonly<Record<string, number>> = {
  prerouting: 0,
  input: 1,
  forward: 2,
  output: 3,
  postrouting: 4,
};

/** A table as the kernel has it, without the elements of its maps: those are many, and asked for by key. */
export interface TableView {
  readonly chains: ReadonlyMap<string, ChainFact>;
  /** By the name of their chain, in order. */
  readonly rules: ReadonlyMap<string, readonly RuleFact[]>;
}

/** Two questions for all chains and rules of a table, where asking for each chain by name would take dozens. */
export function viewTable(nft: Nftables, table: TableRef): TableView {
  return {
    chains: new Map(nft.listChains(table).map((chain) => [chain.name, chain])),
    rules: Map.groupBy(nft.listRules({ table }), ({ chain }) => chain.name),
  };
}

/** Throws checkFailed unless the chain exists as declared: a base chain at the same hook, type and priority. */
export function expectChain(view: TableView, chain: Chain): ChainFact {
  const found = view.chains.get(chain.name);
  const name = `Chain ${describe(chain)}`;
  if (found === undefined) {
    throw checkFailed(`${name} does not exist`);
  }
  const { base } = chain;
  if (base !== undefined) {
    const wanted = `${base.type} at hook ${base.hook}, priority ${base.priority}`;
    const isSame =
      found.base?.type === base.type &&
      found.base.hook === HOOKS[base.hook] &&
      found.base.priority === base.priority;
    if (!isSame) {
      throw checkFailed(`${name} is not hooked as ${wanted}`);
    }
  }
  return found;
}

/** Throws checkFailed unless the chain holds exactly these rules, naming the first that is missing or different. */
export function expectRules(view: TableView, chain: Chain, rules: readonly Rule[]): void {
  const found = (view.rules.get(chain.name) ?? []).map(inWords);
  const wanted = rules.map(wordsOf);
  const where = describe(chain);
  for (const [index, words] of wanted.entries()) {
    if (found[index] !== words) {
      const instead =
        found[index] === undefined ? 'is missing' : `is "${found[index]}" instead of "${words}"`;
      throw checkFailed(`Rule ${index + 1} of chain ${where} ${instead}`);
    }
  }
  if (found.length > wanted.length) {
    const surplus = found.length - wanted.length;
    throw checkFailed(`Chain ${where} holds ${surplus} more than its ${wanted.length} rules`);
  }
}

function describe({ name, table }: Chain): string {
  return `"${name}" of table "${table.family} ${table.name}"`;
}

/** A rule of the kernel as `nft --debug=netlink` prints it. */
export function inWords({ program }: RuleFact): string {
  return spell(decodeExprs(program));
}

/** A rule of ours likewise. */
export function wordsOf({ statements, chain }: Rule): string {
  return spell(lowerStatements(statements, chain.table.family));
}

/** The kernel answers with flags of 0 where we sent none. */
function spell(exprs: readonly Expr[]): string {
  return formatExprs(exprs).join(' ').replaceAll(' 0x0 ]', ' ]');
}
