// nf_tables on one socket: reads that ask for what they need, and commits. What other code opens to reach the ruleset.
// Callers take nodes and verbs from objects.ts, statements from statements.ts; facts are those of decode.ts.
import type { Netns } from '../linux/netns.ts';
import { EAGAIN, EBADMSG, ENOENT, SystemError } from '../linux/system-error.ts';
import { type NetlinkConnection, openNetlink } from '../netlink/connection.ts';
import type { NetlinkMessage, NetlinkRequest } from '../netlink/message.ts';
import { NetlinkError } from '../netlink/netlink-error.ts';
import { type CommitOptions, commitBatch } from './batch.ts';
import {
  NETLINK_NETFILTER,
  NFNETLINK_V0,
  NFT_MSG_GETCHAIN,
  NFT_MSG_GETGEN,
  NFT_MSG_GETRULE,
  NFT_MSG_GETSETELEM,
  NFT_MSG_GETTABLE,
  NFTA_CHAIN_NAME,
  NFTA_CHAIN_TABLE,
  NFTA_RULE_CHAIN,
  NFTA_RULE_TABLE,
  NFTA_TABLE_NAME,
} from './constants.ts';
import {
  type ChainFact,
  decodeChain,
  decodeElements,
  decodeGeneration,
  decodeRule,
  decodeTable,
  type ElementFact,
  hasElements,
  type RuleFact,
  type TableFact,
} from './decode.ts';
import { describeChain, describeKey, describeSet, describeTable } from './describe.ts';
import { begin, beginSet, encodeElementQuery, messageType } from './encode.ts';
import { NfTablesMissing } from './missing.ts';
import type { ChainRef, Command, SetRef, TableRef } from './objects.ts';

export type { ChainFact, ElementFact, RuleFact, TableFact } from './decode.ts';
export { isNfTablesMissing } from './missing.ts';

/** Which elements are decoded; thousands of others in the same map cost next to nothing. */
export interface ElementFilter {
  readonly commentPrefix?: string | undefined;
  /** Key, data or comment hold one of these runs of bytes. A hint: others may be told as well. */
  readonly containing?: readonly Uint8Array[] | undefined;
  /** How many are enough. */
  readonly limit?: number | undefined;
}

/** Which rules are told. */
export interface RuleFilter {
  readonly table: TableRef;
  /** All of the table's without. */
  readonly chain?: string | undefined;
  readonly isWanted?: ((message: Buffer) => boolean) | undefined;
}

export interface Nftables extends Disposable {
  /** The same for one more holder; it is closed when the last one disposes of it. */
  retain(): Nftables;
  /**
   * The number of the ruleset's present state, for `commit`. Read it first, then what the commit is decided from.
   */
  generation(): number;
  /** The tables of every family; a host has a handful. Equivalent to: `nft list tables` */
  listTables(): TableFact[];
  /** Equivalent to: `nft list table …`, the table alone. */
  findTable(table: TableRef): TableFact | undefined;
  /** Equivalent to: `nft list chain …`, the chain alone. */
  findChain(chain: ChainRef): ChainFact | undefined;
  /** The chains of a table, none when there is no such table. Equivalent to: `nft list chains …` */
  listChains(table: TableRef): ChainFact[];
  /**
   * The rules of a chain, or of a whole table, in order; none when there is no such chain.
   * `isWanted` sees each rule as it came and leaves out what need not be decoded: some chains have thousands.
   * Equivalent to: `nft -a list chain …`
   */
  listRules(where: RuleFilter): RuleFact[];
  /**
   * The elements of a set or map, in no order; none when there is no such set. `commentPrefix` leaves out those whose
   * comment begins otherwise, or which have none, before they are decoded. Where the keys are known, `findElement` is
   * the cheaper way: a list of thousands is read at least twice, since the kernel tells of a set that just grew or
   * shrank with omissions.
   * Equivalent to: `nft list map …`
   */
  listElements(set: SetRef, options?: ElementFilter): ElementFact[];
  /**
   * The element with a key as `Element` and `ElementFact` have it, asked for by that key.
   * Equivalent to: `nft get element …`
   */
  findElement(set: SetRef, key: Uint8Array): ElementFact | undefined;
  /**
   * Carries out all commands or none; no command, no datagram. With `generation`, only if the ruleset is still the one
   * that number was read from. With `dryRun` the kernel judges the commands and keeps nothing.
   * Throws NetlinkError naming the object at fault; its `code` is ERESTART when the generation changed. An error that
   * `isNfTablesMissing` knows when the kernel was built without what is needed (NAT in family inet, an expression).
   * Equivalent to: `nft -f`
   */
  commit(commands: readonly Command[], options?: CommitOptions): void;
}

/**
 * Opens the ruleset of this namespace, or of another.
 * Throws an error `isNfTablesMissing` knows when the kernel has no nf_tables, else SystemError or NetlinkError.
 */
export function openNftables(options: { readonly netns?: Netns | undefined } = {}): Nftables {
  let connection: NetlinkConnection;
  try {
    connection = openNetlink(NETLINK_NETFILTER, {
      netns: options.netns,
      headerLength: () => 4,
      phase: 'rules',
    });
  } catch (cause) {
    if (cause instanceof SystemError && cause.code === 'EPROTONOSUPPORT')
      throw new NfTablesMissing(NO_NF_TABLES, { cause });
    throw cause;
  }
  return connectNftables(connection);
}

/**
 * The same over a connection of the caller's making, which is disposed with it. Asks for the generation once: a kernel
 * with nfnetlink but without nf_tables is told apart here, where its EINVAL can mean nothing else.
 */
export function connectNftables(connection: NetlinkConnection): Nftables {
  const nft = new Ruleset(connection);
  try {
    nft.generation();
  } catch (error) {
    nft[Symbol.dispose]();
    throw error;
  }
  return nft;
}

const NO_NF_TABLES = 'the kernel has no nf_tables';

class Ruleset implements Nftables {
  readonly #connection: NetlinkConnection;
  /** Large lists by what was asked for, and the generation they belong to. */
  readonly #agreed = new Map<string, { generation: number; replies: NetlinkMessage[] }>();
  #holders = 1;

  constructor(connection: NetlinkConnection) {
    this.#connection = connection;
  }

  retain(): Nftables {
    this.#holders += 1;
    return this;
  }

  generation(): number {
    const operation = 'get the generation of the nftables ruleset';
    const body = Uint8Array.of(0, NFNETLINK_V0, 0, 0);
    let reply: NetlinkMessage;
    try {
      reply = this.#connection.get(operation, request(NFT_MSG_GETGEN, body));
    } catch (cause) {
      // nfnetlink answers EINVAL for a subsystem nobody registered and no module offers
      if (cause instanceof NetlinkError && cause.code === 'EINVAL')
        throw new NfTablesMissing(NO_NF_TABLES, { cause });
      throw cause;
    }
    const generation = decodeGeneration(reply);
    if (generation === undefined)
      throw new NetlinkError(operation, { errno: EBADMSG, sequence: reply.sequence });
    return generation;
  }

  listTables(): TableFact[] {
    const everyFamily = Uint8Array.of(0, NFNETLINK_V0, 0, 0);
    const replies = this.#list('list the tables', request(NFT_MSG_GETTABLE, everyFamily));
    return replies.flatMap((reply) => decodeTable(reply) ?? []);
  }

  findTable(table: TableRef): TableFact | undefined {
    const body = begin(table).string(NFTA_TABLE_NAME, table.name).done();
    const reply = this.#find(`find ${describeTable(table)}`, request(NFT_MSG_GETTABLE, body));
    return reply && decodeTable(reply);
  }

  findChain(chain: ChainRef): ChainFact | undefined {
    const { table, name } = chain;
    const body = begin(table).string(NFTA_CHAIN_TABLE, table.name).string(NFTA_CHAIN_NAME, name).done();
    const reply = this.#find(`find ${describeChain(chain)}`, request(NFT_MSG_GETCHAIN, body));
    return reply && decodeChain(reply);
  }

  listChains(table: TableRef): ChainFact[] {
    const body = begin(table).string(NFTA_CHAIN_TABLE, table.name).done();
    const replies = this.#list(`list the chains of ${describeTable(table)}`, request(NFT_MSG_GETCHAIN, body));
    const chains = replies.flatMap((reply) => decodeChain(reply) ?? []);
    // older kernels take no table here and list the whole family
    return chains.filter((chain) => chain.table.name === table.name);
  }

  listRules({ table, chain, isWanted = () => true }: RuleFilter): RuleFact[] {
    const w = begin(table).string(NFTA_RULE_TABLE, table.name);
    if (chain !== undefined) w.string(NFTA_RULE_CHAIN, chain);
    const replies = this.#list(
      `list the rules of ${describeTable(table)}`,
      request(NFT_MSG_GETRULE, w.done()),
    );
    const rules = replies.flatMap((reply) => {
      const { buffer, byteOffset, length } = reply.body;
      return isWanted(Buffer.from(buffer, byteOffset, length)) ? (decodeRule(reply) ?? []) : [];
    });
    return rules.filter(
      (rule) => rule.chain.table.name === table.name && (chain === undefined || rule.chain.name === chain),
    );
  }

  listElements(set: SetRef, { commentPrefix, containing, limit }: ElementFilter = {}): ElementFact[] {
    const bytes = {
      commentPrefix: commentPrefix === undefined ? undefined : Buffer.from(commentPrefix),
      containing,
      limit,
    };
    const body = beginSet(set).done();
    const operation = `list the elements of ${describeSet(set)}`;
    const replies = this.#listStable(operation, request(NFT_MSG_GETSETELEM, body));
    const found: ElementFact[] = [];
    for (const reply of replies) decodeElements(reply, set, found, bytes);
    return distinct(found);
  }

  findElement(set: SetRef, key: Uint8Array): ElementFact | undefined {
    const body = encodeElementQuery(set, key);
    const operation = `find element ${describeKey(set, key)} of ${describeSet(set)}`;
    const reply = this.#find(operation, request(NFT_MSG_GETSETELEM, body));
    const found: ElementFact[] = [];
    if (reply !== undefined) decodeElements(reply, set, found);
    return found[0];
  }

  commit(commands: readonly Command[], options: CommitOptions = {}): void {
    commitBatch(this.#connection, commands, options);
  }

  [Symbol.dispose](): void {
    this.#holders -= 1;
    if (this.#holders > 0) return;
    this.#connection[Symbol.dispose]();
  }

  #find(operation: string, message: NetlinkRequest): NetlinkMessage | undefined {
    return this.#connection.find(operation, message, [ENOENT]);
  }

  /**
   * A dump that two readings agree on. While the kernel resizes a hash table (in the background, after a commit that
   * made a set grow or shrink past a power of two) a dump in several datagrams repeats some elements and leaves out as
   * many others, and nothing in it says so: 6 in 100 dumps right after 5,000 elements were added, on 6.18. Each
   * datagram goes on after the number of elements already told, and the resizing changes their order. A dump with room
   * left in its first datagram (some 80 elements) has no such seam, so it is read once; the kernel then looks for more
   * and answers with a second message that is empty. What was agreed on is kept for those who ask again before the ruleset
   * changes: a DEL looks for its own elements, and then whether others are left.
   */
  #listStable(operation: string, message: NetlinkRequest): NetlinkMessage[] {
    const known = this.#agreed.get(operation);
    if (known !== undefined && known.generation === this.generation()) return known.replies;
    let replies = this.#list(operation, message);
    for (let reading = 1; reading < STABLE_READINGS; reading++) {
      if (isSeamless(replies)) return replies;
      const generation = this.generation();
      const again = this.#list(operation, message);
      if (isSame(replies, again)) {
        if (this.generation() === generation) this.#agreed.set(operation, { generation, replies: again });
        return again;
      }
      replies = again;
    }
    const kernelMessage = `no two of ${STABLE_READINGS} readings agree`;
    throw new NetlinkError(operation, { errno: EAGAIN, sequence: 0, kernelMessage });
  }

  #list(operation: string, message: NetlinkRequest): NetlinkMessage[] {
    try {
      return this.#connection.list(operation, message);
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ENOENT') return [];
      throw error;
    }
  }
}

// A resizing takes a few milliseconds, as a reading does; each commit of others can begin a new one.
const STABLE_READINGS = 20;

/** The kernel fills datagrams of 32 KiB at most (net/netlink/af_netlink.c, netlink_dump). */
const HALF_A_DATAGRAM = 16_384;

function isSeamless([first, ...more]: readonly NetlinkMessage[]): boolean {
  return (first?.body.length ?? 0) < HALF_A_DATAGRAM && !more.some(hasElements);
}

/** While a hash table is being resized, what moves may be told from its old place and from its new one. */
function distinct(elements: readonly ElementFact[]): ElementFact[] {
  const byKey = new Map(elements.map((element) => [Buffer.from(element.key).toString('latin1'), element]));
  return [...byKey.values()];
}

function isSame(a: readonly NetlinkMessage[], b: readonly NetlinkMessage[]): boolean {
  return (
    a.length === b.length && a.every(({ body }, index) => Buffer.compare(body, b[index]?.body ?? NONE) === 0)
  );
}

const NONE = new Uint8Array(0);

function request(type: number, body: Uint8Array): NetlinkRequest {
  return { type: messageType(type), flags: 0, body };
}
