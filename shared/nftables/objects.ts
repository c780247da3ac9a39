// The nodes of a ruleset as frozen data, and the verbs that make commands of them, named as nft names them.
// Callers build an array of commands and hand it to `commit` of nftables.ts; encode.ts turns each into messages.
import { concatenate, type Datatype } from './datatypes.ts';
import type { Statement } from './statements.ts';

export type TableFamily = 'inet' | 'ip' | 'ip6' | 'arp' | 'bridge' | 'netdev';

/** Enough to name a table, chain, set or map: a node or what the kernel listed. */
export interface TableRef {
  readonly family: TableFamily;
  readonly name: string;
}
export interface ChainRef {
  readonly table: TableRef;
  readonly name: string;
}
export interface SetRef {
  readonly kind?: 'map' | 'set';
  readonly table: TableRef;
  readonly name: string;
  /** Known for a node; lets messages print keys as nft does. */
  readonly key?: readonly Datatype[] | undefined;
}

export interface Table extends TableRef {
  readonly kind: 'table';
  readonly comment: string | undefined;
}
export interface Chain extends ChainRef {
  readonly kind: 'chain';
  /** Undefined for a chain that only jumps reach. */
  readonly base: ChainBase | undefined;
  readonly comment: string | undefined;
}
export interface ChainBase {
  readonly type: 'filter' | 'nat' | 'route';
  readonly hook: ChainHook;
  readonly priority: number;
  readonly policy: 'accept' | 'drop';
}
export type ChainHook = 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting';

export interface Rule {
  readonly kind: 'rule';
  readonly chain: ChainRef;
  readonly statements: readonly Statement[];
  readonly comment: string | undefined;
}
export interface NftMap {
  readonly kind: 'map';
  readonly table: TableRef;
  readonly name: string;
  readonly key: readonly Datatype[];
  readonly data: 'verdict' | readonly Datatype[];
  readonly comment: string | undefined;
}
export interface NftSet {
  readonly kind: 'set';
  readonly table: TableRef;
  readonly name: string;
  readonly key: readonly Datatype[];
  readonly comment: string | undefined;
}
export interface Element {
  readonly kind: 'element';
  readonly set: SetRef;
  /** The fields side by side, each padded to 32 bits where there are several. */
  readonly key: Uint8Array;
  /** Undefined in a set. */
  readonly data: Verdict | Uint8Array | undefined;
  readonly comment: string | undefined;
}

/** Where a packet goes next: the last statement of a rule, or the data of a verdict map. */
export interface Verdict {
  readonly kind: 'verdict';
  readonly code: 'accept' | 'drop' | 'return' | 'continue' | 'break' | 'jump' | 'goto';
  /** The target of jump and goto. */
  readonly chain: string | undefined;
}

/**
 * A table. The kernel ignores the comment of `add` when the table exists already (so it does for chains, sets and
 * maps): to change one, the object must be deleted and made anew.
 */
export function table(spec: { family: TableFamily; name: string; comment?: string | undefined }): Table {
  return Object.freeze({
    kind: 'table',
    family: spec.family,
    name: identifier(spec.name),
    comment: spec.comment,
  });
}

/** A chain: with `type`, `hook` and `priority` one the kernel calls for every packet, without them one to jump to. */
export function chain(spec: ChainSpec): Chain {
  const base =
    spec.hook === undefined
      ? undefined
      : Object.freeze({
          type: spec.type,
          hook: spec.hook,
          priority: spec.priority,
          policy: spec.policy ?? 'accept',
        });
  return Object.freeze({
    kind: 'chain',
    table: spec.table,
    name: identifier(spec.name),
    base,
    comment: spec.comment,
  });
}

export type ChainSpec = { table: TableRef; name: string; comment?: string | undefined } & (
  | { type: ChainBase['type']; hook: ChainHook; priority: number; policy?: ChainBase['policy'] }
  | { hook?: undefined }
);

/** A rule, appended to its chain. The kernel numbers it; delete what `listRules` gave. */
export function rule(spec: {
  chain: ChainRef;
  statements: readonly Statement[];
  comment?: string | undefined;
}): Rule {
  const statements = Object.freeze([...spec.statements]);
  return Object.freeze({ kind: 'rule', chain: spec.chain, statements, comment: spec.comment });
}

/** A map: `data: 'verdict'` for `vmap`, else the datatypes of what a key stands for. */
export function map(spec: {
  table: TableRef;
  name: string;
  key: readonly Datatype[];
  data: 'verdict' | readonly Datatype[];
  comment?: string | undefined;
}): NftMap {
  const { table, key, data, comment } = spec;
  return Object.freeze({ kind: 'map', table, name: identifier(spec.name), key, data, comment });
}

/** A set. */
export function set(spec: {
  table: TableRef;
  name: string;
  key: readonly Datatype[];
  comment?: string | undefined;
}): NftSet {
  const { table, key, comment } = spec;
  return Object.freeze({ kind: 'set', table, name: identifier(spec.name), key, comment });
}

/**
 * An element of a map or set. `key` and `data` give one value for each field of the declaration, in packet byte order.
 * Throws when number or lengths do not fit the declaration.
 */
export function element(
  spec:
    | {
        map: NftMap;
        key: readonly Uint8Array[];
        data: Verdict | readonly Uint8Array[];
        comment?: string | undefined;
      }
    | { set: NftSet; key: readonly Uint8Array[]; comment?: string | undefined },
): Element {
  if ('set' in spec) {
    const key = concatenate(spec.set.key, spec.key);
    return Object.freeze({ kind: 'element', set: spec.set, key, data: undefined, comment: spec.comment });
  }
  const key = concatenate(spec.map.key, spec.key);
  const data = elementData(spec.map, spec.data);
  return Object.freeze({ kind: 'element', set: spec.map, key, data, comment: spec.comment });
}

function elementData(map: NftMap, data: Verdict | readonly Uint8Array[]): Verdict | Uint8Array {
  const isVerdict = 'kind' in data;
  if (map.data === 'verdict' && isVerdict) return data;
  if (map.data !== 'verdict' && !isVerdict) return concatenate(map.data, data);
  throw new Error(`Cannot use ${isVerdict ? 'a verdict' : 'a value'} as data of map "${map.name}"`);
}

/** What nft's scanner takes for a name; the kernel would take more, but `nft list ruleset` could not be loaded again. */
function identifier(name: string): string {
  if (/^[A-Za-z_.][A-Za-z0-9_./-]*$/.test(name) && name.length <= NAME_MAX) return name;
  throw new Error(`Cannot use "${name}" as a name in nftables`);
}

/** NFT_NAME_MAXLEN less the NUL. */
const NAME_MAX = 255;

// ---- verbs -----------------------------------------------------------------------------------------------------

export type Node = Table | Chain | Rule | NftMap | NftSet | Element;

/** What `delete_` takes: nodes, and what the kernel listed. */
export type Deletable =
  | (TableRef & { readonly kind: 'table' })
  | (ChainRef & { readonly kind: 'chain' })
  | (SetRef & { readonly kind: 'map' | 'set' })
  | { readonly kind: 'rule'; readonly chain: ChainRef; readonly handle: bigint }
  | { readonly kind: 'element'; readonly set: SetRef; readonly key: Uint8Array };

export type Flushable =
  | (TableRef & { readonly kind: 'table' })
  | (ChainRef & { readonly kind: 'chain' })
  | (SetRef & { readonly kind: 'map' | 'set' });

export type Command =
  | { readonly verb: 'add' | 'create'; readonly node: Node }
  | { readonly verb: 'delete'; readonly node: Deletable }
  | { readonly verb: 'flush'; readonly node: Flushable }
  | { readonly verb: 'remove'; readonly node: Table | Chain | NftMap | NftSet };

/**
 * Makes the object unless it exists. A rule is always appended. An element that exists must have the same data, or
 * the commit fails with EEXIST.
 * Equivalent to: `nft add table|chain|rule|map|set|element …`
 */
export function add(node: Node): Command {
  return { verb: 'add', node };
}

/**
 * Makes the object; the commit fails with EEXIST when there is one.
 * Equivalent to: `nft create table|chain|map|set|element …`
 */
export function create(node: Exclude<Node, Rule>): Command {
  return { verb: 'create', node };
}

/**
 * Deletes what must exist (ENOENT otherwise): a node, a rule or element the kernel listed.
 * Equivalent to: `nft delete table|chain|rule|map|set|element …`
 */
export function delete_(node: Deletable): Command {
  return { verb: 'delete', node };
}

/**
 * Makes sure that there is no such object, whether there was one or not: two messages, add then delete, because
 * NFT_MSG_DESTROY* came only with kernel 6.3. For elements find first, then delete under the generation id.
 * Equivalent to: `nft destroy table|chain|map|set …`
 */
export function remove(node: Table | Chain | NftMap | NftSet): Command {
  return { verb: 'remove', node };
}

/**
 * Empties a chain of its rules, a table of all rules, a map or set of its elements.
 * Equivalent to: `nft flush table|chain|map|set …`
 */
export function flush(node: Flushable): Command {
  return { verb: 'flush', node };
}
