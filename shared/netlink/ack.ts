// The kernel's answer to a request: success, or an error number with an extended acknowledgement. Pure.
// connection.ts decodes NLMSG_ERROR and NLMSG_DONE with it.
import { readAttributes } from './attributes.ts';
import { align, HOST_LITTLE_ENDIAN, viewOf } from './bytes.ts';
import { MESSAGE_HEADER, type NetlinkMessage, NLM_F_ACK_TLVS, NLM_F_CAPPED } from './message.ts';
import type { Refusal } from './netlink-error.ts';

// enum nlmsgerr_attrs, include/uapi/linux/netlink.h
const NLMSGERR_ATTR_MSG = 1;
const NLMSGERR_ATTR_OFFS = 2;
const NLMSGERR_ATTR_MISS_TYPE = 5;

/**
 * The refusal carried by an NLMSG_ERROR, or `undefined` when its number is 0: an acknowledgement.
 *
 * `struct nlmsgerr { int error; struct nlmsghdr msg; };` then, unless NLM_F_CAPPED, the request's payload, then,
 * with NLM_F_ACK_TLVS, attributes.
 */
export function decodeAck(message: NetlinkMessage): Refusal | undefined {
  const { body, sequence } = message;
  if (body.length < 4 + MESSAGE_HEADER) {
    throw new Error(
      `Malformed netlink acknowledgement: ${body.length} bytes, ${4 + MESSAGE_HEADER} expected`,
    );
  }
  const view = viewOf(body);
  const error = view.getInt32(0, HOST_LITTLE_ENDIAN);
  if (error === 0) return undefined;
  const echoed =
    (message.flags & NLM_F_CAPPED) !== 0 ? MESSAGE_HEADER : view.getUint32(4, HOST_LITTLE_ENDIAN);
  return refusal(message, error, sequence, 4 + align(echoed));
}

/** The refusal that ends a dump early (`NLMSG_DONE` with a number below 0), or `undefined` for a good end. */
export function decodeDone(message: NetlinkMessage): Refusal | undefined {
  if (message.body.length < 4) return undefined; // old families end a dump with an empty message
  const error = viewOf(message.body).getInt32(0, HOST_LITTLE_ENDIAN);
  return error < 0 ? refusal(message, error, message.sequence, 4) : undefined;
}

function refusal(message: NetlinkMessage, error: number, sequence: number, explained: number): Refusal {
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return { errno: Math.abs(error), sequence };
  const attributes = readAttributes(message.body, explained);
  return {
    errno: Math.abs(error),
    sequence,
    kernelMessage: attributes.string(NLMSGERR_ATTR_MSG),
    offset: attributes.u32(NLMSGERR_ATTR_OFFS),
    missingType: attributes.u32(NLMSGERR_ATTR_MISS_TYPE),
  };
}
