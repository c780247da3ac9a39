// What a refused netlink request looks like: what was tried, the kernel's number and, often, its own sentence.
// connection.ts throws it; plugins look at `code` through cni/error.ts's hasCode.
import { describeErrno, EBADMSG, errnoName } from '../linux/system-error.ts';
import type { NetlinkMessage } from './message.ts';

/** The parts of a refusal that `ack.ts` finds in the kernel's answer. */
export interface Refusal {
  /** Positive. */
  readonly errno: number;
  readonly sequence: number;
  /** The kernel's own sentence, from its extended acknowledgement. */
  readonly kernelMessage?: string | undefined;
  /** Where in the request the offending attribute lies, in bytes from the message's header. */
  readonly offset?: number | undefined;
  /** The type of an attribute the kernel misses in the request. */
  readonly missingType?: number | undefined;
}

/**
 * The kernel's refusal of `operation`, which names verb and object ('add veth "veth1a2b"').
 *
 * The message reads: Cannot add veth "veth1a2b": file already exists (EEXIST).
 */
export class NetlinkError extends Error {
  override readonly name = 'NetlinkError';
  readonly operation: string;
  readonly code: string;
  readonly errno: number;
  readonly sequence: number;
  readonly kernelMessage: string | undefined;
  readonly offset: number | undefined;
  readonly missingType: number | undefined;

  constructor(operation: string, refusal: Refusal, options?: ErrorOptions) {
    super(sentence(operation, refusal), options);
    this.operation = operation;
    this.code = errnoName(refusal.errno);
    this.errno = refusal.errno;
    this.sequence = refusal.sequence;
    this.kernelMessage = refusal.kernelMessage;
    this.offset = refusal.offset;
    this.missingType = refusal.missingType;
  }
}

/** What `decode` makes of an answer. Throws NetlinkError EBADMSG naming the operation for one that it cannot read. */
export function decodeReply<T>(
  operation: string,
  message: NetlinkMessage,
  decode: (message: NetlinkMessage) => T,
): T {
  try {
    return decode(message);
  } catch (cause) {
    throw new NetlinkError(operation, { errno: EBADMSG, sequence: message.sequence }, { cause });
  }
}

function sentence(operation: string, refusal: Refusal): string {
  const reason = describeErrno(refusal.errno);
  const missing = refusal.missingType === undefined ? '' : `; attribute ${refusal.missingType} is missing`;
  const own = refusal.kernelMessage === undefined ? '' : `; the kernel says: ${refusal.kernelMessage}`;
  return `Cannot ${operation}: ${reason}${own}${missing}`;
}
