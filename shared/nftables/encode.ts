// Commands as nf_tables messages. batch.ts puts them between BEGIN and END; nothing here does I/O.
// Attribute order is nft's, so that captured bytes and ours can be compared as they are.
import { AttributeWriter } from '../netlink/attributes.ts';
import { type NetlinkRequest, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL } from '../netlink/message.ts';
import {
  NF_ACCEPT,
  NF_DROP,
  NF_INET_FORWARD,
  NF_INET_LOCAL_IN,
  NF_INET_LOCAL_OUT,
  NF_INET_POST_ROUTING,
  NF_INET_PRE_ROUTING,
  NFNETLINK_V0,
  NFNL_SUBSYS_NFTABLES,
  NFPROTO_ARP,
  NFPROTO_BRIDGE,
  NFPROTO_INET,
  NFPROTO_IPV4,
  NFPROTO_IPV6,
  NFPROTO_NETDEV,
  NFT_DATA_VERDICT,
  NFT_MSG_DELCHAIN,
  NFT_MSG_DELRULE,
  NFT_MSG_DELSET,
  NFT_MSG_DELSETELEM,
  NFT_MSG_DELTABLE,
  NFT_MSG_NEWCHAIN,
  NFT_MSG_NEWRULE,
  NFT_MSG_NEWSET,
  NFT_MSG_NEWSETELEM,
  NFT_MSG_NEWTABLE,
  NFT_SET_MAP,
  NFTA_CHAIN_HOOK,
  NFTA_CHAIN_NAME,
  NFTA_CHAIN_POLICY,
  NFTA_CHAIN_TABLE,
  NFTA_CHAIN_TYPE,
  NFTA_CHAIN_USERDATA,
  NFTA_DATA_VALUE,
  NFTA_HOOK_HOOKNUM,
  NFTA_HOOK_PRIORITY,
  NFTA_LIST_ELEM,
  NFTA_RULE_CHAIN,
  NFTA_RULE_EXPRESSIONS,
  NFTA_RULE_HANDLE,
  NFTA_RULE_TABLE,
  NFTA_RULE_USERDATA,
  NFTA_SET_DATA_LEN,
  NFTA_SET_DATA_TYPE,
  NFTA_SET_ELEM_DATA,
  NFTA_SET_ELEM_KEY,
  NFTA_SET_ELEM_LIST_ELEMENTS,
  NFTA_SET_ELEM_USERDATA,
  NFTA_SET_FLAGS,
  NFTA_SET_ID,
  NFTA_SET_KEY_LEN,
  NFTA_SET_KEY_TYPE,
  NFTA_SET_NAME,
  NFTA_SET_TABLE,
  NFTA_SET_USERDATA,
  NFTA_TABLE_FLAGS,
  NFTA_TABLE_NAME,
  NFTA_TABLE_USERDATA,
} from './constants.ts';
import {
  concatenatedLength,
  concatenatedType,
  type Datatype,
  datatypeFacts,
  isRawField,
  rawFieldParts,
} from './datatypes.ts';
import { writeData } from './exprs/data.ts';
import { writeExpr } from './exprs/expr.ts';
import { lowerStatements } from './lower.ts';
import type {
  Chain,
  ChainHook,
  ChainRef,
  Command,
  Deletable,
  Element,
  Flushable,
  NftMap,
  NftSet,
  Node,
  Rule,
  SetRef,
  Table,
  TableFamily,
} from './objects.ts';
import { type Byteorder, encodeComment, encodeSetUserdata, type TypeofField } from './userdata.ts';

/** A message, and which commands it carries out: one, or several that add or delete elements of one set. */
export interface EncodedMessage extends NetlinkRequest {
  readonly commands: readonly Command[];
  /** Where in `body` each part begins that the kernel may point at: the elements, or the expressions of a rule. */
  readonly offsets: readonly number[];
}

/** Elements of one set share a message until it is this long; a nest cannot be longer than 65,535 bytes. */
const ELEMENTS_BYTES = 32_768;

/**
 * The messages for a list of commands, in order. Neighbouring commands that do the same to elements of one set become
 * one message, which the kernel takes faster than one message each.
 * Throws when a statement, a name or a comment cannot be written.
 */
export function encodeCommands(commands: readonly Command[]): EncodedMessage[] {
  const messages: EncodedMessage[] = [];
  let index = 0;
  while (index < commands.length) {
    const command = commands[index] as Command; // in range: checked by the loop
    if (command.node.kind === 'element') {
      const message = encodeElements(commands, index);
      messages.push(message);
      index += message.commands.length;
      continue;
    }
    for (const request of encodeCommand(command, messages.length)) {
      messages.push({ offsets: [], ...request, commands: [command] });
    }
    index += 1;
  }
  return messages;
}

type EncodedPart = NetlinkRequest & { readonly offsets?: readonly number[] };

/** `id` is a number for a new set that no other of the batch has; the kernel wants one even though nothing uses it. */
function encodeCommand(command: Command, id: number): EncodedPart[] {
  switch (command.verb) {
    case 'add':
      return [encodeNew(command.node, NLM_F_CREATE, id)];
    case 'create':
      return [encodeNew(command.node, NLM_F_CREATE | NLM_F_EXCL, id)];
    case 'delete':
      return [encodeDelete(command.node)];
    case 'flush':
      return [encodeFlush(command.node)];
    case 'remove':
      return [encodeNew(command.node, NLM_F_CREATE, id), encodeDelete(command.node)];
  }
}

function encodeNew(node: Node, flags: number, id: number): EncodedPart {
  switch (node.kind) {
    case 'table':
      return encodeTable(node, flags & NLM_F_EXCL); // nft sets NLM_F_CREATE for all but tables
    case 'chain':
      return encodeChain(node, flags);
    case 'rule':
      return encodeRule(node, flags | NLM_F_APPEND);
    case 'map':
    case 'set':
      return encodeSet(node, flags, id);
    case 'element':
      throw new Error('Elements are encoded together'); // encodeCommands takes them out
  }
}

function encodeTable(table: Table, flags: number): NetlinkRequest {
  const w = begin(table).string(NFTA_TABLE_NAME, table.name).u32be(NFTA_TABLE_FLAGS, 0);
  if (table.comment !== undefined) w.bytes(NFTA_TABLE_USERDATA, encodeComment(table.comment));
  return request(NFT_MSG_NEWTABLE, flags, w);
}

function encodeChain(chain: Chain, flags: number): NetlinkRequest {
  const w = beginChain(chain);
  const { base } = chain;
  if (base !== undefined) {
    w.string(NFTA_CHAIN_TYPE, base.type);
    w.u32be(NFTA_CHAIN_POLICY, base.policy === 'accept' ? NF_ACCEPT : NF_DROP);
    w.nest(NFTA_CHAIN_HOOK, (hook) => {
      hook.u32be(NFTA_HOOK_HOOKNUM, HOOKS[base.hook]).u32be(NFTA_HOOK_PRIORITY, base.priority >>> 0);
    });
  }
  if (chain.comment !== undefined) w.bytes(NFTA_CHAIN_USERDATA, encodeComment(chain.comment));
  return request(NFT_MSG_NEWCHAIN, flags, w);
}

const HOOKS: Readonly<Record<ChainHook, number>> = {
  prerouting: NF_INET_PRE_ROUTING,
  input: NF_INET_LOCAL_IN,
  forward: NF_INET_FORWARD,
  output: NF_INET_LOCAL_OUT,
  postrouting: NF_INET_POST_ROUTING,
};

function encodeRule(rule: Rule, flags: number): EncodedPart {
  const exprs = lowerStatements(rule.statements, rule.chain.table.family);
  const offsets: number[] = [];
  const w = beginRule(rule.chain).nest(NFTA_RULE_EXPRESSIONS, (list) => {
    for (const expr of exprs) {
      offsets.push(list.done().length);
      writeExpr(list, expr);
    }
  });
  if (rule.comment !== undefined) w.bytes(NFTA_RULE_USERDATA, encodeComment(rule.comment));
  return { ...request(NFT_MSG_NEWRULE, flags, w), offsets };
}

function encodeSet(set: NftMap | NftSet, flags: number, id: number): NetlinkRequest {
  const w = beginSet(set)
    .u32be(NFTA_SET_FLAGS, set.kind === 'map' ? NFT_SET_MAP : 0)
    .u32be(NFTA_SET_KEY_TYPE, concatenatedType(set.key))
    .u32be(NFTA_SET_KEY_LEN, concatenatedLength(set.key));
  if (set.kind === 'map') {
    const isVerdict = set.data === 'verdict';
    w.u32be(NFTA_SET_DATA_TYPE, isVerdict ? NFT_DATA_VERDICT : concatenatedType(set.data));
    w.u32be(NFTA_SET_DATA_LEN, isVerdict ? 0 : concatenatedLength(set.data));
  }
  w.u32be(NFTA_SET_ID, id);
  const dataByteorder = set.kind === 'map' ? byteorder(set.data) : undefined;
  const keyByteorder = byteorder(set.key);
  const userdata = { keyByteorder, dataByteorder, key: typeofKey(set.key), comment: set.comment };
  return request(NFT_MSG_NEWSET, flags, w.bytes(NFTA_SET_USERDATA, encodeSetUserdata(userdata)));
}

/** The link name of such a key is that of the link a packet came in by. */
function typeofKey(fields: readonly Datatype[]): TypeofField[] | undefined {
  if (!fields.some(isRawField)) return undefined;
  return fields.map((field) => {
    if (isRawField(field)) return rawFieldParts(field);
    if (field === 'ifname') return 'iifname';
    throw new Error(`Cannot declare "${field}" in a key with bits of a packet`);
  });
}

function byteorder(fields: 'verdict' | readonly Datatype[]): Byteorder {
  const [first] = fields;
  if (fields === 'verdict' || fields.length !== 1 || first === undefined) return 'none';
  return datatypeFacts(first as Datatype).byteorder; // not 'verdict', so no letter of it
}

/** As many of the commands from `start` on as belong together and fit. */
function encodeElements(commands: readonly Command[], start: number): EncodedMessage {
  const first = commands[start] as ElementCommand; // encodeCommands looked
  const { set } = first.node;
  const taken: Command[] = [];
  const offsets: number[] = [];
  const w = beginSet(set).nest(NFTA_SET_ELEM_LIST_ELEMENTS, (list) => {
    for (let index = start; index < commands.length; index++) {
      const command = commands[index] as Command; // in range: checked by the loop
      if (!continues(command, first)) return;
      const offset = list.done().length;
      if (offset > ELEMENTS_BYTES) return;
      offsets.push(offset);
      taken.push(command);
      writeElement(list, command.node, command.verb === 'delete');
    }
  });
  const type = first.verb === 'delete' ? NFT_MSG_DELSETELEM : NFT_MSG_NEWSETELEM;
  const flags = { add: NLM_F_CREATE, create: NLM_F_CREATE | NLM_F_EXCL, delete: 0 }[first.verb];
  return { ...request(type, flags, w), commands: taken, offsets };
}

type ElementKey = Pick<Element, 'kind' | 'set' | 'key'> & Partial<Pick<Element, 'data' | 'comment'>>;
interface ElementCommand {
  readonly verb: 'add' | 'create' | 'delete';
  readonly node: ElementKey;
}

function continues(command: Command, first: ElementCommand): command is Command & ElementCommand {
  if (command.verb !== first.verb || command.node.kind !== 'element') return false;
  const [a, b] = [command.node.set, first.node.set];
  return a === b || (a.name === b.name && a.table.name === b.table.name && a.table.family === b.table.family);
}

function writeElement(list: AttributeWriter, element: ElementKey, keyOnly: boolean): void {
  list.nest(NFTA_LIST_ELEM, (w) => {
    w.nest(NFTA_SET_ELEM_KEY, (key) => key.bytes(NFTA_DATA_VALUE, element.key));
    if (keyOnly) return;
    if (element.data !== undefined) writeData(w, NFTA_SET_ELEM_DATA, element.data);
    if (element.comment !== undefined) w.bytes(NFTA_SET_ELEM_USERDATA, encodeComment(element.comment));
  });
}

function encodeDelete(node: Deletable): NetlinkRequest {
  switch (node.kind) {
    case 'table':
      return request(NFT_MSG_DELTABLE, 0, begin(node).string(NFTA_TABLE_NAME, node.name));
    case 'chain':
      return request(NFT_MSG_DELCHAIN, 0, beginChain(node));
    case 'rule':
      return request(NFT_MSG_DELRULE, 0, beginRule(node.chain).u64be(NFTA_RULE_HANDLE, node.handle));
    case 'map':
    case 'set':
      return request(NFT_MSG_DELSET, 0, beginSet(node));
    case 'element':
      throw new Error('Elements are encoded together'); // encodeCommands takes them out
  }
}

/** A delete without the last name: all rules of a chain or table, all elements of a set. */
function encodeFlush(node: Flushable): NetlinkRequest {
  switch (node.kind) {
    case 'table':
      return request(NFT_MSG_DELRULE, 0, begin(node).string(NFTA_RULE_TABLE, node.name));
    case 'chain':
      return request(NFT_MSG_DELRULE, 0, beginRule(node));
    case 'map':
    case 'set':
      return request(NFT_MSG_DELSETELEM, 0, beginSet(node));
  }
}

/** The question for one element, answered with NFT_MSG_NEWSETELEM. */
export function encodeElementQuery(set: SetRef, key: Uint8Array): Uint8Array {
  const w = beginSet(set).nest(NFTA_SET_ELEM_LIST_ELEMENTS, (list) => {
    writeElement(list, { kind: 'element', set, key }, true);
  });
  return w.done();
}

// Each object's message begins with its table and its name; rules and elements with those of their chain or set.

function beginChain(chain: ChainRef): AttributeWriter {
  return begin(chain.table).string(NFTA_CHAIN_TABLE, chain.table.name).string(NFTA_CHAIN_NAME, chain.name);
}

function beginRule(chain: ChainRef): AttributeWriter {
  return begin(chain.table).string(NFTA_RULE_TABLE, chain.table.name).string(NFTA_RULE_CHAIN, chain.name);
}

/** NFTA_SET_ELEM_LIST_TABLE and _SET have the numbers of NFTA_SET_TABLE and _NAME. */
export function beginSet(set: SetRef): AttributeWriter {
  return begin(set.table).string(NFTA_SET_TABLE, set.table.name).string(NFTA_SET_NAME, set.name);
}

/** A body that starts with `struct nfgenmsg { __u8 nfgen_family; __u8 version; __be16 res_id; };` */
export function begin(table: { readonly family: TableFamily }): AttributeWriter {
  return new AttributeWriter(Uint8Array.of(FAMILIES[table.family], NFNETLINK_V0, 0, 0));
}

/** The NFPROTO_* number of a family. */
const FAMILIES: Readonly<Record<TableFamily, number>> = {
  inet: NFPROTO_INET,
  ip: NFPROTO_IPV4,
  ip6: NFPROTO_IPV6,
  arp: NFPROTO_ARP,
  bridge: NFPROTO_BRIDGE,
  netdev: NFPROTO_NETDEV,
};

/** The family of an NFPROTO_* number, undefined for one nf_tables does not have. */
export function familyName(number: number | undefined): TableFamily | undefined {
  for (const name in FAMILIES) {
    if (FAMILIES[name as TableFamily] === number) return name as TableFamily; // the keys of FAMILIES
  }
  return undefined;
}

function request(type: number, flags: number, writer: AttributeWriter): NetlinkRequest {
  return { type: messageType(type), flags, body: writer.done() };
}

/** `nlmsg_type` of an nf_tables message: the subsystem in the upper byte. */
export function messageType(type: number): number {
  return (NFNL_SUBSYS_NFTABLES << 8) | type;
}
