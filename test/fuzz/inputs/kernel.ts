// A kernel that lies: real objects with mutated bytes, in answers that are cut, reordered, interrupted and late.
// Used by the targets of rtnetlink, nftables and conntrack; the code that converses with it is the product's own.
import fc from 'fast-check';
import type { NetlinkSocket } from '../../../shared/linux/netlink-socket.ts';
import { EAGAIN, EINTR, ENOBUFS, ETIMEDOUT, SystemError } from '../../../shared/linux/system-error.ts';
import { connectNetlink, type NetlinkConnection } from '../../../shared/netlink/connection.ts';
import {
  type NetlinkMessage,
  type NetlinkRequest,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_MULTI,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_NOOP,
  NLMSG_OVERRUN,
} from '../../../shared/netlink/message.ts';
import { type Answer, ack, datagram, done, fakeKernel, part, reply } from '../../support/fake-kernel.ts';
import { BrokenPromise } from '../target.ts';
import { mutate, mutations } from './bytes.ts';

/** What a kernel has to tell, and how it goes wrong. */
export interface KernelPlan {
  readonly objects: readonly NetlinkRequest[];
  readonly faults: readonly Fault[];
  /** The number of a refusal in place of every answer, 0 for none. */
  readonly errno: number;
}

interface Fault {
  readonly kind: (typeof FAULTS)[number];
  /** Which request it befalls; every one if it is `persistent`. */
  readonly request: number;
  readonly persistent: boolean;
  readonly at: number;
  readonly value: number;
}

const FAULTS = [
  'cut',
  'drop',
  'repeat',
  'reverse',
  'sequence',
  'length',
  'flags',
  'type',
  'byte',
  'socket',
  'apart',
] as const;

/** Plans with objects of these bodies, mutated or not. */
export function kernelPlan(objects: readonly NetlinkRequest[]): fc.Arbitrary<KernelPlan> {
  const object = fc
    .tuple(fc.constantFrom(...objects), mutations({ most: 2 }))
    .map(([given, all]) => ({ ...given, body: all.reduce(mutate, given.body) }));
  return fc.record({
    objects: fc.array(object, { maxLength: 6 }),
    faults: fc.array(FAULT, { maxLength: 2 }),
    errno: fc.oneof({ weight: 20, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: ERRNO }),
  });
}

/** Requests that one question of ours may need: dumps are asked for again, and lists are read twice. */
const REQUEST_LIMIT = 2000;

/** A connection to such a kernel; `kindOf` gives the type of the objects that a request asks for. */
export function connectTo(plan: KernelPlan, kindOf: (request: NetlinkMessage) => number): NetlinkConnection {
  let count = 0;
  const kernel = fakeKernel((request) => {
    if (++count > REQUEST_LIMIT) throw new BrokenPromise(`More than ${REQUEST_LIMIT} requests were sent`);
    const answers = answerTo(request, plan, kindOf(request));
    return plan.faults
      .filter((fault) => fault.request === count || (fault.persistent && !isTransient(fault)))
      .reduce((hurt, fault) => befall(hurt, fault), answers);
  });
  return connectNetlink(endless(kernel));
}

const ERRNO = fc.constantFrom(
  1,
  2,
  16,
  17,
  19,
  22,
  28,
  74,
  85,
  95,
  105,
  133,
  4095,
  2 ** 31 - 1,
  -1,
  -(2 ** 31),
);

const FAULT: fc.Arbitrary<Fault> = fc.record({
  kind: fc.constantFrom(...FAULTS),
  request: fc.integer({ min: 1, max: 4 }),
  persistent: fc.boolean(),
  at: fc.nat(40),
  value: fc.oneof(fc.nat(70_000), fc.constantFrom(0, 1, 3, 15, 16, 17, 0x7fffffff, 0x80000000, 0xffffffff)),
});

// As many as a socket may have queued; beyond it the kernel drops.
const RECEIVE_LIMIT = 10_000;

/** A receiver that goes on asking is one that would hang. */
function endless(kernel: NetlinkSocket): NetlinkSocket {
  let received = 0;
  const limited = <T>(receive: () => T): T => {
    if (++received > RECEIVE_LIMIT)
      throw new BrokenPromise(`More than ${RECEIVE_LIMIT} datagrams were asked for`);
    return receive();
  };
  return {
    ...kernel,
    receive: () => limited(kernel.receive),
    receiveIfReady: () => limited(kernel.receiveIfReady),
    receiveWithin: (milliseconds) => limited(() => kernel.receiveWithin(milliseconds)),
  };
}

function answerTo(request: NetlinkMessage, { objects, errno }: KernelPlan, kind: number): Answer[] {
  const isDump = (request.flags & NLM_F_DUMP) === NLM_F_DUMP && (request.flags & NLM_F_ACK) === 0;
  if (errno !== 0)
    return [isDump && errno % 2 === 0 ? done(request, errno) : ack(request, errno, { message: 'no\n' })];
  if ((request.flags & NLM_F_ACK) !== 0) return [ack(request)];
  const told = objects.filter(({ type }) => type === kind);
  if (isDump) return [datagram(...told.map(({ type, body }) => part(request, type, body)), done(request))];
  const [first] = told;
  return [first === undefined ? ack(request, 2) : reply(request, first.type, first.body)];
}

// What befalls the answers to one request.
function befall(answers: readonly Answer[], { kind, at, value }: Fault): Answer[] {
  const [first, ...more] = answers;
  if (!(first instanceof Uint8Array)) return [...answers];
  switch (kind) {
    case 'cut':
      return [first.slice(0, value % (first.length + 1)), ...more];
    case 'drop':
      return more;
    case 'repeat':
      return [first, ...answers];
    case 'reverse':
      return [...split(first), ...more].reverse();
    case 'apart':
      return [...split(first), ...more];
    case 'socket':
      return [new SystemError('receive', socketError(value)), ...answers];
    default:
      return [damage(first, kind, at, value), ...more];
  }
}

const SOCKET_ERRORS = [ENOBUFS, EAGAIN, EINTR, ETIMEDOUT, 111];

function socketError(value: number): number {
  return SOCKET_ERRORS[value % SOCKET_ERRORS.length] ?? 0;
}

/** What our code waits for, a fifth of a second; unit tests see it stay. */
function isTransient({ kind, value }: Fault): boolean {
  return kind === 'socket' && [EAGAIN, EINTR].includes(socketError(value));
}

/** Each message of a datagram in a datagram of its own. */
function split(bytes: Uint8Array): Uint8Array[] {
  const parts: Uint8Array[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  for (let at = 0; at + 16 <= bytes.length; ) {
    const length = Math.max(16, (view.getUint32(at, true) + 3) & ~3);
    parts.push(bytes.slice(at, at + length));
    at += length;
  }
  return parts;
}

const FLAGS = [NLM_F_DUMP_INTR, NLM_F_MULTI, NLM_F_DUMP_INTR | NLM_F_MULTI, 0, 0xffff];
const TYPES = [NLMSG_NOOP, NLMSG_ERROR, NLMSG_DONE, NLMSG_OVERRUN, 0, 16, 0xffff];

// Into the header of the first message, or a byte anywhere.
function damage(bytes: Uint8Array, kind: Fault['kind'], at: number, value: number): Uint8Array {
  const copy = bytes.slice();
  if (copy.length < 16) return copy;
  const view = new DataView(copy.buffer);
  if (kind === 'length') view.setUint32(0, value, true);
  if (kind === 'sequence') view.setUint32(8, view.getUint32(8, true) + (at % 2 === 0 ? value : -1), true);
  if (kind === 'flags') view.setUint16(6, FLAGS[value % FLAGS.length] ?? 0, true);
  if (kind === 'type') view.setUint16(4, TYPES[value % TYPES.length] ?? 0, true);
  if (kind === 'byte') copy[at % copy.length] = value;
  return copy;
}
