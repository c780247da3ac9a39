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
import type { Command } from './objects.ts';

/**
 * Carries out all commands or none. With `generation`, only if nobody changed the ruleset since that number was read.
 *
 * Only the last object asks for an acknowledgement: on BEGIN and END kernels before 2024 never acknowledge, and later
 * ones did so wrongly for a while. When the send returns every answer is queued. A failing batch names every object it
 * stumbled over, the first being the cause; it may acknowledge the last object all the same, so any refusal counts
 * more than any acknowledgement.
 *
 * Throws NetlinkError naming the object, `code` ERESTART when the generation has changed.
 */
export function commitBatch(
  connection: NetlinkConnection,
  commands: readonly Command[],
  generation: number | undefined,
): void {
  const messages = encodeCommands(commands);
  if (messages.length === 0) return;
  const objects: NetlinkRequest[] = messages.map(({ type, flags, body }, index) => ({
    type,
    flags: index === messages.length - 1 ? flags | NLM_F_ACK : flags,
    body,
  }));
  const requests = [encodeBegin(generation), ...objects, encodeEnd()];
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
    throw new NetlinkError(message ? describeRefused(message, refusal) : describeBatch(commands), refusal);
  }
  if (!outcome.acknowledged.includes(messages.length)) {
    const kernelMessage = 'no answer to the batch';
    throw new NetlinkError(describeBatch(commands), { errno: EIO, sequence: 0, kernelMessage });
  }
}

const EIO = 5;

/**
 * The object a message was refused for. Where several elements share the message, the kernel's extended
 * acknowledgement tells the place of the bad one; kernels before 5.13 don't.
 */
function describeRefused(message: EncodedMessage, refusal: Refusal): string {
  const { commands, elementOffsets } = message;
  const [first] = commands;
  if (first === undefined) return 'commit';
  if (commands.length === 1 || first.node.kind !== 'element') return describeCommand(first);
  const place = refusal.offset === undefined ? -1 : elementOffsets.indexOf(refusal.offset - MESSAGE_HEADER);
  const refused = commands[place];
  if (refused !== undefined) return describeCommand(refused);
  return `${first.verb} one of ${commands.length} elements of ${describeSet(first.node.set)}`;
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
