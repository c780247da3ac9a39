// The netlink message: a 16-byte header, then the family's own. Flags, encoding, splitting a datagram.
// connection.ts sends and receives with it; rtnetlink and nftables take flags and types from it. No I/O.
import { align, HOST_LITTLE_ENDIAN, viewOf } from './bytes.ts';

// include/uapi/linux/netlink.h
export const NLM_F_REQUEST = 0x1;
export const NLM_F_MULTI = 0x2;
export const NLM_F_ACK = 0x4;
export const NLM_F_ECHO = 0x8;
export const NLM_F_DUMP_INTR = 0x10;
export const NLM_F_DUMP_FILTERED = 0x20;
// for a get
export const NLM_F_ROOT = 0x100;
export const NLM_F_MATCH = 0x200;
export const NLM_F_DUMP = NLM_F_ROOT | NLM_F_MATCH;
// for a new
export const NLM_F_REPLACE = 0x100;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
export const NLM_F_APPEND = 0x800;
// for a delete
export const NLM_F_NONREC = 0x100;
export const NLM_F_BULK = 0x200;
// for an acknowledgement
export const NLM_F_CAPPED = 0x100;
export const NLM_F_ACK_TLVS = 0x200;

export const NLMSG_NOOP = 1;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;
export const NLMSG_OVERRUN = 4;

/** The header's size. `struct nlmsghdr { __u32 len; __u16 type; __u16 flags; __u32 seq; __u32 pid; };` */
export const MESSAGE_HEADER = 16;

/** What a caller wants said: `body` is the family's header with its attributes. */
export interface NetlinkRequest {
  readonly type: number;
  readonly flags: number;
  readonly body: Uint8Array;
}

/** What came back. `body` is a view of the datagram, after the 16 bytes of the header. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly portId: number;
  readonly body: Uint8Array;
}

/** One message, padded to four bytes, port 0 (the kernel fills it in). */
export function encodeMessage(request: NetlinkRequest & { readonly sequence: number }): Uint8Array {
  const bytes = new Uint8Array(align(MESSAGE_HEADER + request.body.length));
  writeMessage(bytes, 0, request, request.sequence);
  return bytes;
}

/** Several messages in one datagram, sequences counting up from `firstSequence`. */
export function encodeMessages(requests: readonly NetlinkRequest[], firstSequence: number): Uint8Array {
  let length = 0;
  for (const request of requests) length += align(MESSAGE_HEADER + request.body.length);
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const [index, request] of requests.entries()) {
    writeMessage(bytes, at, request, firstSequence + index);
    at += align(MESSAGE_HEADER + request.body.length);
  }
  return bytes;
}

/**
 * The messages in a datagram, in order.
 *
 * Throws when a length is shorter than the header or longer than what is left: such a datagram is refused whole.
 */
export function splitMessages(datagram: Uint8Array): NetlinkMessage[] {
  const view = viewOf(datagram);
  const messages: NetlinkMessage[] = [];
  let at = 0;
  while (datagram.length - at >= MESSAGE_HEADER) {
    const length = view.getUint32(at, HOST_LITTLE_ENDIAN);
    if (length < MESSAGE_HEADER || length > datagram.length - at) {
      throw new Error(`Malformed netlink message: length ${length} with ${datagram.length - at} bytes left`);
    }
    messages.push({
      type: view.getUint16(at + 4, HOST_LITTLE_ENDIAN),
      flags: view.getUint16(at + 6, HOST_LITTLE_ENDIAN),
      sequence: view.getUint32(at + 8, HOST_LITTLE_ENDIAN),
      portId: view.getUint32(at + 12, HOST_LITTLE_ENDIAN),
      body: datagram.subarray(at + MESSAGE_HEADER, at + length),
    });
    at += align(length);
  }
  if (at < datagram.length)
    throw new Error(`Malformed netlink message: ${datagram.length - at} bytes left over`);
  return messages;
}

function writeMessage(bytes: Uint8Array, at: number, request: NetlinkRequest, sequence: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset + at);
  view.setUint32(0, MESSAGE_HEADER + request.body.length, HOST_LITTLE_ENDIAN);
  view.setUint16(4, request.type, HOST_LITTLE_ENDIAN);
  view.setUint16(6, request.flags, HOST_LITTLE_ENDIAN);
  view.setUint32(8, sequence, HOST_LITTLE_ENDIAN);
  bytes.set(request.body, at + MESSAGE_HEADER);
}
