// A kernel that is a function: a request goes in, datagrams come out, or the socket's own failures.
// Unit tests connect to it with connectNetlink to serve what the real one does once in a thousand times.
import type { NetlinkSocket } from '../../shared/linux/netlink-socket.ts';
import { ETIMEDOUT, SystemError } from '../../shared/linux/system-error.ts';
import { AttributeWriter } from '../../shared/netlink/attributes.ts';
import { HOST_LITTLE_ENDIAN } from '../../shared/netlink/bytes.ts';
import {
  encodeMessage,
  type NetlinkMessage,
  NLM_F_ACK_TLVS,
  NLM_F_CAPPED,
  NLM_F_MULTI,
  NLMSG_DONE,
  NLMSG_ERROR,
  splitMessages,
} from '../../shared/netlink/message.ts';

/** A datagram, or what receiving throws in its place. */
export type Answer = Uint8Array | Error;

export interface FakeKernel extends NetlinkSocket {
  /** All that was sent, message by message. */
  readonly received: readonly NetlinkMessage[];
}

/** `answer` is called once for each message sent. Receiving when nothing is left fails as a time-out does. */
export function fakeKernel(answer: (request: NetlinkMessage) => readonly Answer[]): FakeKernel {
  const received: NetlinkMessage[] = [];
  const queue: Answer[] = [];
  const receiveIfReady = () => {
    const next = queue.shift();
    if (next instanceof Error) throw next;
    return next;
  };
  return {
    received,
    send(datagram) {
      for (const message of splitMessages(datagram.slice())) {
        received.push(message);
        queue.push(...answer(message));
      }
    },
    receive() {
      const datagram = receiveIfReady();
      if (datagram === undefined) throw new SystemError('receive', ETIMEDOUT);
      return datagram;
    },
    receiveIfReady,
    receiveWithin: receiveIfReady,
    [Symbol.dispose]() {},
  };
}

export interface Explanation {
  readonly message?: string;
  readonly offset?: number;
  readonly missingType?: number;
}

/** NLMSG_ERROR: an acknowledgement, or with a positive `errno` a refusal, in the kernel's own words if given. */
export function ack(request: NetlinkMessage, errno = 0, explanation: Explanation = {}): Uint8Array {
  const header = new DataView(new ArrayBuffer(20)); // struct nlmsgerr: the number, then the request's header
  header.setInt32(0, -errno, HOST_LITTLE_ENDIAN);
  header.setUint32(4, 16 + request.body.length, HOST_LITTLE_ENDIAN);
  header.setUint16(8, request.type, HOST_LITTLE_ENDIAN);
  header.setUint32(12, request.sequence, HOST_LITTLE_ENDIAN);
  const writer = new AttributeWriter(new Uint8Array(header.buffer));
  if (explanation.message !== undefined) writer.string(1, explanation.message);
  if (explanation.offset !== undefined) writer.u32(2, explanation.offset);
  if (explanation.missingType !== undefined) writer.u32(5, explanation.missingType);
  const body = writer.done();
  const flags = NLM_F_CAPPED | (body.length > 20 ? NLM_F_ACK_TLVS : 0);
  return encodeMessage({ type: NLMSG_ERROR, flags, sequence: request.sequence, body });
}

/** An object, as the answer to a get or as one of a dump (`flags` with NLM_F_MULTI). */
export function reply(request: NetlinkMessage, type: number, body: Uint8Array, flags = 0): Uint8Array {
  return encodeMessage({ type, flags, sequence: request.sequence, body });
}

/** A part of a dump. */
export function part(request: NetlinkMessage, type: number, body: Uint8Array, flags = 0): Uint8Array {
  return reply(request, type, body, flags | NLM_F_MULTI);
}

/** The end of a dump; a positive `errno` says that it failed. */
export function done(request: NetlinkMessage, errno = 0, flags = 0): Uint8Array {
  const body = new Uint8Array(Int32Array.of(-errno).buffer);
  return part(request, NLMSG_DONE, body, flags);
}

/** Several messages in one datagram. */
export function datagram(...messages: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(messages));
}
