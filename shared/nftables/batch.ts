// A transaction of nf_tables: BEGIN, the objects, END in one datagram; all of it happens or nothing does.
// nftables.ts commits with it; this file knows how the kernel answers, encode.ts what the objects look like.
import { AttributeWriter } from '../netlink/attributes.ts';
import type { BatchOutcome, NetlinkConnection } from '../netlink/connection.ts';
import { MESSAGE_HEADER, type NetlinkRequest, NLM_F_ACK } from '../netlink/message.ts';
import { NetlinkError, type Refusal } from '../netlink/netlink-error.ts';
import {
  NFNETLINK_V0,
  NFNL_BATCH_GENID,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFNL_SUBSYS_NFTABLES,
} from './constants.ts';
import { describeCommand, describeSet } from './describe.ts';
import { type EncodedMessage, encodeCommands } from './encode.ts';
import { lowerStatements } from './lower.ts';
import { NfTablesMissing } from './missing.ts';
import type { Command, TableRef } from './objects.ts';

export interface CommitOptions {
  readonly generation?: number | undefined;
  readonly dryRun?: boolean;
}

/**
 * Carries out all commands or none. With `generation`, only if nobody changed the ruleset since that number was read.
 *
 * Only the last object asks for an acknowledgement: on BEGIN and END kernels before 2024 never acknowledge, and later
 * ones did so wrongly for a while. When the send returns every answer is queued. A failing batch names every object it
 * stumbled over, the first being the cause; it may acknowledge the last object all the same, so any refusal counts
 * more than any acknowledgement.
 *
 * With `dryRun` END is left out: the kernel judges every object, then drops them all, as for `nft --check`.
 *
 * Throws NetlinkError naming the object, `code` ERESTART when the generation has changed; NfTablesMissing, with that
 * error as its cause, when it only says that the kernel was built without what the batch needs.
 */
export function commitBatch(
  connection: NetlinkConnection,
  commands: readonly Command[],
  { generation, dryRun = false }: CommitOptions,
): void {
  const messages = encodeCommands(commands);
  if (messages.length === 0) return;
  const objects: NetlinkRequest[] = messages.map(({ type, flags, body }, index) => ({
    type,
    flags: index === messages.length - 1 ? flags | NLM_F_ACK : flags,
    body,
  }));
  const requests = [encodeBegin(generation), ...objects, ...(dryRun ? [] : [encodeEnd()])];
  expectAccepted(connection.batch(describeBatch(commands), requests), messages, commands);
}

function expectAccepted(
  outcome: BatchOutcome,
  messages: readonly EncodedMessage[],
  commands: readonly Command[],
): void {
  const [refusal] = outcome.refusals;
  if (refusal !== undefined) {
    const message = messages[refusal.index - 1]; // the first of the datagram is BEGIN
    const refused = message && refusedPart(message, refusal);
    const cause = new NetlinkError(
      refused ? describeRefused(message, refused) : describeBatch(commands),
      refusal,
    );
    throw missingFeature(refused, commands, cause) ?? cause;
  }
  if (!outcome.acknowledged.includes(messages.length)) {
    const kernelMessage = 'no answer to the batch';
    throw new NetlinkError(describeBatch(commands), { errno: EIO, sequence: 0, kernelMessage });
  }
}

const EIO = 5;

/** What a message was refused for, as far as the kernel tells: `command` unless it is one of several elements. */
interface RefusedPart {
  readonly command: Command | undefined;
  /** The kind of the expression, in a rule. */
  readonly expr: string | undefined;
}

/**
 * Where several elements share the message, and for the expressions of a rule, the kernel's extended acknowledgement
 * tells the place of the bad one; older kernels tell none.
 */
function refusedPart({ commands, offsets }: EncodedMessage, refusal: Refusal): RefusedPart {
  const [first] = commands;
  const place = refusal.offset === undefined ? -1 : offsets.indexOf(refusal.offset - MESSAGE_HEADER);
  if (first?.node.kind === 'element') {
    return { command: commands.length === 1 ? first : commands[place], expr: undefined };
  }
  return { command: first, expr: first && exprAt(first, place) };
}

function exprAt({ node }: Command, place: number): string | undefined {
  if (node.kind !== 'rule' || !('statements' in node)) return undefined;
  return lowerStatements(node.statements, node.chain.table.family)[place]?.kind;
}

function describeRefused(message: EncodedMessage, { command }: RefusedPart): string {
  if (command !== undefined) return describeCommand(command);
  const [first] = message.commands;
  if (first?.node.kind !== 'element') return 'commit';
  return `${first.verb} one of ${message.commands.length} elements of ${describeSet(first.node.set)}`;
}

/**
 * A refusal that only says what this kernel was built without. ENOENT stands for a missing chain type or expression as
 * well as for a missing object, so the table must be made by the same batch, and the expression one that names nothing.
 */
function missingFeature(
  refused: RefusedPart | undefined,
  commands: readonly Command[],
  cause: NetlinkError,
): NfTablesMissing | undefined {
  const node = refused?.command?.node;
  if (node?.kind === 'table' && (cause.code === 'EOPNOTSUPP' || cause.code === 'EAFNOSUPPORT')) {
    return new NfTablesMissing(`the kernel has no tables of family "${node.family}"`, { cause });
  }
  if (cause.code !== 'ENOENT') return undefined;
  if (
    node?.kind === 'chain' &&
    'base' in node &&
    node.base !== undefined &&
    makesTable(commands, node.table)
  ) {
    const { type } = node.base;
    const since = type === 'nat' && node.table.family === 'inet' ? ', which Linux 5.2 brought' : '';
    const what = `the kernel has no ${type} chains in tables of family "${node.table.family}"${since}`;
    return new NfTablesMissing(what, { cause });
  }
  const { expr } = refused ?? {};
  if (expr === undefined || expr === 'lookup' || expr === 'immediate') return undefined;
  return new NfTablesMissing(`the kernel has no expression "${expr}"`, { cause });
}

function makesTable(commands: readonly Command[], table: TableRef): boolean {
  return commands.some(
    ({ verb, node }) =>
      (verb === 'add' || verb === 'create') &&
      node.kind === 'table' &&
      node.name === table.name &&
      node.family === table.family,
  );
}

function describeBatch(commands: readonly Command[]): string {
  const [first] = commands;
  if (commands.length === 1 && first !== undefined) return describeCommand(first);
  return `commit ${commands.length} changes to the nftables ruleset`;
}

/** `nfgen_family` is unset, `res_id` names the subsystem: the batch may touch tables of every family. */
const BATCH_HEADER = Uint8Array.of(0, NFNETLINK_V0, 0, NFNL_SUBSYS_NFTABLES);

function encodeBegin(generation: number | undefined): NetlinkRequest {
  const w = new AttributeWriter(BATCH_HEADER);
  if (generation !== undefined) w.u32be(NFNL_BATCH_GENID, generation);
  return { type: NFNL_MSG_BATCH_BEGIN, flags: 0, body: w.done() };
}

function encodeEnd(): NetlinkRequest {
  return { type: NFNL_MSG_BATCH_END, flags: 0, body: BATCH_HEADER };
}
