// A conversation with the kernel over one netlink socket: requests answered, dumps gathered, batches drained.
// rtnetlink/rtnetlink.ts and nftables/nftables.ts speak through it; it knows no kernel object.
import { again } from '../linux/again.ts';
import { type NetlinkSocket, type NetlinkSocketOptions, openNetlinkSocket } from '../linux/netlink-socket.ts';
import { inPhase, type Phase } from '../linux/phases.ts';
import { EAGAIN, EBADMSG, ENOBUFS, SystemError } from '../linux/system-error.ts';
import { decodeAck, decodeDone } from './ack.ts';
import {
  encodeMessage,
  encodeMessages,
  type NetlinkMessage,
  type NetlinkRequest,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_MULTI,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_NOOP,
  NLMSG_OVERRUN,
  splitMessages,
} from './message.ts';
import { decodeReply, NetlinkError, type Refusal } from './netlink-error.ts';
import { traceMessages } from './trace.ts';

/** `operation` names verb and object for errors and traces: 'add veth "veth1a2b"'. */
export interface NetlinkConnection extends Disposable {
  /**
   * One intent, one datagram, its acknowledgement. Gives what the kernel said before it (NLM_F_ECHO), mostly nothing.
   * NLM_F_REQUEST and NLM_F_ACK are added. Asked again where the answer is EINTR or EAGAIN. Throws NetlinkError.
   */
  request(operation: string, request: NetlinkRequest): NetlinkMessage[];
  /** One question, its one answer; no acknowledgement is asked for. Throws NetlinkError. */
  get(operation: string, request: NetlinkRequest): NetlinkMessage;
  /** The same for what need not be there: `undefined` when the kernel answers one of the numbers in `absent`. */
  find(operation: string, request: NetlinkRequest, absent: readonly number[]): NetlinkMessage | undefined;
  /**
   * A dump: every object the kernel lists. NLM_F_REQUEST and NLM_F_DUMP are added. A dump that was interrupted by a
   * change (NLM_F_DUMP_INTR) or overran the socket is asked for again, a bounded number of times, then NetlinkError
   * EAGAIN.
   */
  list(operation: string, request: NetlinkRequest): NetlinkMessage[];
  /**
   * Several messages in one datagram, which is no transaction by itself (nf_tables makes it one). Flags are sent as
   * given, plus NLM_F_REQUEST. Waits for no answer unless some message asks for an acknowledgement; by the time
   * nf_tables has taken a datagram all its answers are queued, so they are drained. Gives every refusal, in order,
   * with the index of its message in `requests` (-1 when it names none of them), and the replies in between.
   */
  batch(operation: string, requests: readonly NetlinkRequest[]): BatchOutcome;
}

export interface BatchOutcome {
  readonly refusals: readonly (Refusal & { readonly index: number })[];
  /** Indices of the messages that were acknowledged. */
  readonly acknowledged: readonly number[];
  readonly replies: readonly NetlinkMessage[];
}

export interface NetlinkOptions extends NetlinkSocketOptions {
  /** The size of the family's fixed header, by message type: for the trace alone. */
  readonly headerLength?: ((type: number) => number) | undefined;
  /** What the time of its requests is counted as, `rest` unless said otherwise. */
  readonly phase?: Phase | undefined;
}

/** Opens a connection: `protocol` is NETLINK_ROUTE or NETLINK_NETFILTER. Throws SystemError. */
export function openNetlink(protocol: number, options: NetlinkOptions = {}): NetlinkConnection {
  const { phase = 'rest', headerLength = noHeader } = options;
  return new Connection(openNetlinkSocket(protocol, options), headerLength, phase);
}

/** The same over any transport: tests serve a fake kernel here. */
export function connectNetlink(socket: NetlinkSocket): NetlinkConnection {
  return new Connection(socket, noHeader, 'rest');
}

// A dump of a busy node is rarely interrupted twice; each attempt costs milliseconds.
const DUMP_ATTEMPTS = 20;
// Answers to requests that were given up, still queued when the next one is asked. More than this is no kernel.
const STALE_LIMIT = 4096;

function noHeader(): number {
  return 0;
}

/** An acknowledgement is no answer to a question. */
function refusalIn(operation: string, answer: NetlinkMessage): Refusal {
  return decodeReply(operation, answer, decodeAck) ?? { errno: EBADMSG, sequence: answer.sequence };
}

class Connection implements NetlinkConnection {
  readonly #socket: NetlinkSocket;
  readonly #headerLength: (type: number) => number;
  readonly #phase: Phase;
  #sequence = 0;

  constructor(socket: NetlinkSocket, headerLength: (type: number) => number, phase: Phase) {
    this.#socket = socket;
    this.#headerLength = headerLength;
    this.#phase = phase;
  }

  request(operation: string, request: NetlinkRequest): NetlinkMessage[] {
    return inPhase(this.#phase, () => again(() => this.#request(operation, request)));
  }

  get(operation: string, request: NetlinkRequest): NetlinkMessage {
    return inPhase(this.#phase, () => again(() => this.#get(operation, request)));
  }

  find(operation: string, request: NetlinkRequest, absent: readonly number[]): NetlinkMessage | undefined {
    return inPhase(this.#phase, () => again(() => this.#find(operation, request, absent)));
  }

  list(operation: string, request: NetlinkRequest): NetlinkMessage[] {
    return inPhase(this.#phase, () => this.#list(operation, request));
  }

  batch(operation: string, requests: readonly NetlinkRequest[]): BatchOutcome {
    return inPhase(this.#phase, () => this.#batch(operation, requests));
  }

  #request(operation: string, request: NetlinkRequest): NetlinkMessage[] {
    const sequence = this.#send(operation, request, NLM_F_REQUEST | NLM_F_ACK);
    const replies: NetlinkMessage[] = [];
    for (;;) {
      for (const message of this.#receive(operation, sequence)) {
        if (message.type === NLMSG_ERROR) {
          const refusal = decodeReply(operation, message, decodeAck);
          if (refusal !== undefined) throw new NetlinkError(operation, refusal);
          return replies;
        }
        if (message.type !== NLMSG_DONE) replies.push(message);
      }
    }
  }

  #get(operation: string, request: NetlinkRequest): NetlinkMessage {
    const answer = this.#ask(operation, request);
    if (answer.type === NLMSG_ERROR) throw new NetlinkError(operation, refusalIn(operation, answer));
    return answer;
  }

  // Much is looked for that is mostly not there, and an error with its stack takes longer to make than the question.
  #find(operation: string, request: NetlinkRequest, absent: readonly number[]): NetlinkMessage | undefined {
    const answer = this.#ask(operation, request);
    if (answer.type !== NLMSG_ERROR) return answer;
    const refusal = refusalIn(operation, answer);
    if (absent.includes(refusal.errno)) return undefined;
    throw new NetlinkError(operation, refusal);
  }

  /** The first message of the answer: what was asked for, or an error. */
  #ask(operation: string, request: NetlinkRequest): NetlinkMessage {
    const sequence = this.#send(operation, request, NLM_F_REQUEST);
    for (;;) {
      const [answer] = this.#receive(operation, sequence);
      if (answer !== undefined) return answer;
    }
  }

  #list(operation: string, request: NetlinkRequest): NetlinkMessage[] {
    for (let attempt = 0; attempt < DUMP_ATTEMPTS; attempt += 1) {
      const found = again(() => this.#dump(operation, request));
      if (found !== undefined) return found;
    }
    const kernelMessage = `interrupted by changes ${DUMP_ATTEMPTS} times`;
    throw new NetlinkError(operation, { errno: EAGAIN, sequence: this.#sequence, kernelMessage });
  }

  #batch(operation: string, requests: readonly NetlinkRequest[]): BatchOutcome {
    const first = this.#sequence + 1;
    this.#sequence += requests.length;
    const flagged = requests.map((request) => ({ ...request, flags: request.flags | NLM_F_REQUEST }));
    const datagram = encodeMessages(flagged, first);
    traceMessages('send', operation, datagram, this.#headerLength);
    this.#transport(operation, () => this.#socket.send(datagram));
    return this.#drain(operation, first, requests.length);
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  #drain(operation: string, first: number, count: number): BatchOutcome {
    const refusals: (Refusal & { index: number })[] = [];
    const acknowledged: number[] = [];
    const replies: NetlinkMessage[] = [];
    let overrun: NetlinkError | undefined;
    for (;;) {
      let datagram: Uint8Array | undefined;
      try {
        datagram = this.#transport(operation, () => this.#socket.receiveIfReady());
      } catch (error) {
        if (!(error instanceof NetlinkError) || error.errno !== ENOBUFS || overrun !== undefined) throw error;
        overrun = error;
        continue;
      }
      if (datagram === undefined) break;
      for (const message of this.#accept(operation, datagram)) {
        if (message.sequence < first) continue;
        const index = message.sequence < first + count ? message.sequence - first : -1;
        if (message.type !== NLMSG_ERROR) {
          replies.push(message);
          continue;
        }
        const refusal = decodeReply(operation, message, decodeAck);
        if (refusal === undefined) acknowledged.push(index);
        else refusals.push({ ...refusal, index });
      }
    }
    // Only thousands of refusals fill the buffer; the kernel drops the last ones, so the first is still told.
    if (overrun !== undefined && refusals.length === 0) throw overrun;
    return { refusals, acknowledged, replies };
  }

  /** One attempt at a dump; `undefined` when it must be asked for again. */
  #dump(operation: string, request: NetlinkRequest): NetlinkMessage[] | undefined {
    const sequence = this.#send(operation, request, NLM_F_REQUEST | NLM_F_DUMP);
    const found: NetlinkMessage[] = [];
    let interrupted = false;
    for (;;) {
      let messages: NetlinkMessage[];
      try {
        messages = this.#receive(operation, sequence);
      } catch (error) {
        if (error instanceof NetlinkError && error.errno === ENOBUFS) return undefined;
        throw error;
      }
      for (const message of messages) {
        interrupted ||= (message.flags & NLM_F_DUMP_INTR) !== 0;
        if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) {
          const decode = message.type === NLMSG_DONE ? decodeDone : decodeAck;
          const refusal = decodeReply(operation, message, decode);
          if (refusal !== undefined) throw new NetlinkError(operation, refusal);
          return interrupted ? undefined : found;
        }
        found.push(message);
        // The kernel answers some dumps it finds trivial with a single message and no NLMSG_DONE.
        if ((message.flags & NLM_F_MULTI) === 0) return interrupted ? undefined : found;
      }
    }
  }

  #send(operation: string, request: NetlinkRequest, flags: number): number {
    this.#sequence += 1;
    const sequence = this.#sequence;
    const datagram = encodeMessage({ ...request, flags: request.flags | flags, sequence });
    traceMessages('send', operation, datagram, this.#headerLength);
    this.#transport(operation, () => this.#socket.send(datagram));
    return sequence;
  }

  /** The next datagram's messages that answer `sequence`. Late answers to earlier requests are dropped. */
  #receive(operation: string, sequence: number): NetlinkMessage[] {
    for (let stale = 0; stale < STALE_LIMIT; stale += 1) {
      const datagram = this.#transport(operation, () => this.#socket.receive());
      const messages = this.#accept(operation, datagram).filter((message) => message.sequence >= sequence);
      const foreign = messages.find((message) => message.sequence !== sequence);
      if (foreign !== undefined) {
        const kernelMessage = `answer to request ${foreign.sequence} instead of ${sequence}`;
        throw new NetlinkError(operation, { errno: EBADMSG, sequence, kernelMessage });
      }
      if (messages.length > 0) return messages;
    }
    throw new NetlinkError(operation, {
      errno: EBADMSG,
      sequence,
      kernelMessage: 'only answers to earlier requests',
    });
  }

  #accept(operation: string, datagram: Uint8Array): NetlinkMessage[] {
    traceMessages('receive', operation, datagram, this.#headerLength);
    const messages = this.#split(operation, datagram);
    if (messages.some((message) => message.type === NLMSG_OVERRUN)) {
      throw new NetlinkError(operation, {
        errno: ENOBUFS,
        sequence: this.#sequence,
        kernelMessage: 'data was lost',
      });
    }
    return messages.filter((message) => message.type !== NLMSG_NOOP);
  }

  #split(operation: string, datagram: Uint8Array): NetlinkMessage[] {
    try {
      return splitMessages(datagram);
    } catch (cause) {
      throw new NetlinkError(operation, { errno: EBADMSG, sequence: this.#sequence }, { cause });
    }
  }

  /** The socket's own failures, told with what was being tried. */
  #transport<T>(operation: string, step: () => T): T {
    try {
      return step();
    } catch (cause) {
      if (!(cause instanceof SystemError)) throw cause;
      throw new NetlinkError(operation, { errno: cause.errno, sequence: this.#sequence }, { cause });
    }
  }
}
