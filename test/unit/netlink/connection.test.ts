// The conversation with the kernel, against one that lies, loses, interrupts and is late.
import { expect, test } from 'vitest';
import { EBADMSG, ENOBUFS, SystemError } from '../../../shared/linux/system-error.ts';
import { connectNetlink, type NetlinkConnection } from '../../../shared/netlink/connection.ts';
import {
  type NetlinkMessage,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_REQUEST,
  NLMSG_ERROR,
  NLMSG_NOOP,
  NLMSG_OVERRUN,
} from '../../../shared/netlink/message.ts';
import { NetlinkError } from '../../../shared/netlink/netlink-error.ts';
import { type Answer, ack, datagram, done, fakeKernel, part, reply } from '../../support/fake-kernel.ts';

const NEW_THING = 16;
const BODY = Uint8Array.of(1, 2, 3, 4);
const REQUEST = { type: 18, flags: 0, body: BODY };

test('a request is acknowledged, and its flags ask for that', () => {
  const kernel = fakeKernel((request) => [ack(request)]);
  using connection = connectNetlink(kernel);
  expect(connection.request('add thing "x"', REQUEST)).toEqual([]);
  expect(kernel.received[0]).toMatchObject({
    type: 18,
    flags: NLM_F_REQUEST | NLM_F_ACK,
    sequence: 1,
    body: BODY,
  });
});

test('a request gives what the kernel echoed before the acknowledgement', () => {
  using connection = connectNetlink(fakeKernel((request) => [reply(request, NEW_THING, BODY), ack(request)]));
  expect(connection.request('add thing "x"', REQUEST)).toMatchObject([{ type: NEW_THING, body: BODY }]);
});

test("a refusal tells operation, code, sequence and the kernel's own sentence", () => {
  const explanation = { message: 'Thing is taken', offset: 36, missingType: 4 };
  using connection = connectNetlink(fakeKernel((request) => [ack(request, 17, explanation)]));
  const error = thrown(() => connection.request('add thing "x"', REQUEST));
  expect(error).toMatchObject({
    message:
      'Cannot add thing "x": already exists (EEXIST); the kernel says: Thing is taken; attribute 4 is missing',
    operation: 'add thing "x"',
    code: 'EEXIST',
    errno: 17,
    sequence: 1,
    kernelMessage: 'Thing is taken',
    offset: 36,
    missingType: 4,
  });
});

test('a refusal without words is told by its number alone', () => {
  using connection = connectNetlink(fakeKernel((request) => [ack(request, 85)]));
  const error = thrown(() => connection.request('commit', REQUEST));
  expect(error).toMatchObject({ code: 'ERESTART', kernelMessage: undefined });
});

test('a get gives its one answer and asks for no acknowledgement', () => {
  const kernel = fakeKernel((request) => [reply(request, NEW_THING, BODY)]);
  using connection = connectNetlink(kernel);
  expect(connection.get('get thing "x"', REQUEST)).toMatchObject({ type: NEW_THING, body: BODY });
  expect(kernel.received[0]?.flags).toBe(NLM_F_REQUEST);
});

test('a get that is acknowledged instead of answered is an error, no answer', () => {
  using connection = connectNetlink(fakeKernel((request) => [ack(request)]));
  expect(thrown(() => connection.get('get thing "x"', REQUEST))).toMatchObject({ code: 'EBADMSG' });
});

test('a list gathers the parts of all datagrams up to the end', () => {
  const kernel = fakeKernel((request) => [
    datagram(part(request, NEW_THING, BODY), part(request, NEW_THING, BODY)),
    datagram(part(request, NEW_THING, BODY), done(request)),
  ]);
  using connection = connectNetlink(kernel);
  expect(connection.list('list things', REQUEST)).toHaveLength(3);
  expect(kernel.received[0]?.flags).toBe(NLM_F_REQUEST | NLM_F_DUMP);
});

test('an interrupted list is asked for again and the first attempt is thrown away', () => {
  const attempts = (request: NetlinkMessage): Answer[] =>
    request.sequence === 1
      ? [part(request, NEW_THING, BODY), part(request, NEW_THING, BODY, NLM_F_DUMP_INTR), done(request)]
      : [part(request, NEW_THING, BODY), done(request)];
  using connection = connectNetlink(fakeKernel(attempts));
  expect(connection.list('list things', REQUEST)).toHaveLength(1);
});

test('an interruption that only the end of the list tells counts', () => {
  const kernel = fakeKernel((request) => [done(request, 0, request.sequence === 1 ? NLM_F_DUMP_INTR : 0)]);
  using connection = connectNetlink(kernel);
  expect(connection.list('list things', REQUEST)).toEqual([]);
  expect(kernel.received).toHaveLength(2);
});

test('a list that is interrupted for ever is given up', () => {
  const kernel = fakeKernel((request) => [part(request, NEW_THING, BODY, NLM_F_DUMP_INTR), done(request)]);
  using connection = connectNetlink(kernel);
  expect(thrown(() => connection.list('list things', REQUEST))).toMatchObject({ code: 'EAGAIN' });
  expect(kernel.received.length).toBeLessThan(100);
});

test('a list whose answers were dropped is asked for again, late ones of the first attempt ignored', () => {
  let late: Uint8Array | undefined;
  const kernel = fakeKernel((request) => {
    if (late === undefined) {
      late = datagram(part(request, NEW_THING, BODY), done(request));
      return [part(request, NEW_THING, BODY), new SystemError('receive', ENOBUFS)];
    }
    return [late, datagram(part(request, NEW_THING, BODY), done(request))];
  });
  using connection = connectNetlink(kernel);
  expect(connection.list('list things', REQUEST)).toHaveLength(1);
});

test('NLMSG_OVERRUN means lost data: a list starts again, a request fails', () => {
  const overrun = (request: NetlinkMessage) => reply(request, NLMSG_OVERRUN, new Uint8Array(0));
  const forgetful = fakeKernel((request) => (request.sequence === 1 ? [overrun(request)] : [done(request)]));
  expect(connectNetlink(forgetful).list('list things', REQUEST)).toEqual([]);
  const broken = connectNetlink(fakeKernel((request) => [overrun(request)]));
  expect(thrown(() => broken.request('add thing "x"', REQUEST))).toMatchObject({ code: 'ENOBUFS' });
});

test('a list that fails in the middle throws what its end says', () => {
  using connection = connectNetlink(
    fakeKernel((request) => [part(request, NEW_THING, BODY), done(request, 12)]),
  );
  expect(thrown(() => connection.list('list things', REQUEST))).toMatchObject({ code: 'ENOMEM' });
});

test('a list that the kernel refuses throws the refusal', () => {
  using connection = connectNetlink(fakeKernel((request) => [ack(request, 2, { message: 'No such table' })]));
  const error = thrown(() => connection.list('list things', REQUEST));
  expect(error).toMatchObject({ code: 'ENOENT', kernelMessage: 'No such table' });
});

test("late answers to a request that was given up are not taken for the next one's", () => {
  const kernel = fakeKernel((request) => {
    if (request.sequence === 1) return [];
    return [
      ack({ ...request, sequence: 1 }, 17),
      reply({ ...request, sequence: 1 }, NEW_THING, BODY),
      ack(request),
    ];
  });
  using connection = connectNetlink(kernel);
  expect(thrown(() => connection.request('add thing "x"', REQUEST))).toMatchObject({ code: 'ETIMEDOUT' });
  expect(connection.request('delete thing "x"', REQUEST)).toEqual([]);
});

test.each([
  ['EINTR', 4],
  ['EAGAIN', 11],
])('a request is made again when the answer is %s', (_, errno) => {
  const asked: number[] = [];
  const kernel = fakeKernel((request) => {
    asked.push(request.sequence);
    return [asked.length < 3 ? ack(request, errno) : ack(request)];
  });
  using connection = connectNetlink(kernel);
  expect(connection.request('add thing "x"', REQUEST)).toEqual([]);
  expect(asked).toEqual([1, 2, 3]);
});

test('a request that is never taken ends with the last answer', () => {
  using connection = connectNetlink(fakeKernel((request) => [ack(request, 11)]));
  expect(thrown(() => connection.request('add thing "x"', REQUEST))).toMatchObject({ code: 'EAGAIN' });
});

test('an answer to a request that was never asked is refused', () => {
  const ahead = (request: NetlinkMessage) => ({ ...request, sequence: request.sequence + 1 });
  using connection = connectNetlink(fakeKernel((request) => [ack(ahead(request))]));
  const error = thrown(() => connection.request('add thing "x"', REQUEST));
  expect(error).toMatchObject({ code: 'EBADMSG', kernelMessage: 'answer to request 2 instead of 1' });
});

test('a flood of late answers ends', () => {
  const stale = (request: NetlinkMessage) =>
    Array.from({ length: 5000 }, () => ack({ ...request, sequence: 0 }));
  using connection = connectNetlink(fakeKernel(stale));
  expect(thrown(() => connection.request('add thing "x"', REQUEST))).toMatchObject({ code: 'EBADMSG' });
});

test('NLMSG_NOOP says nothing', () => {
  const kernel = fakeKernel((request) => [reply(request, NLMSG_NOOP, BODY), ack(request)]);
  expect(connectNetlink(kernel).request('add thing "x"', REQUEST)).toEqual([]);
});

test.each([
  ['a length beyond the datagram', (bytes: Uint8Array) => bytes.fill(0xff, 0, 4)],
  ['a length below the header', (bytes: Uint8Array) => bytes.fill(0, 0, 4)],
  ['a torn end', (bytes: Uint8Array) => bytes.subarray(0, bytes.length - 4)],
  ['a rest that is no message', (bytes: Uint8Array) => datagram(bytes, Uint8Array.of(1, 2, 3, 4))],
])('%s is refused', (_what, spoil) => {
  using connection = connectNetlink(fakeKernel((request) => [spoil(ack(request))]));
  expect(thrown(() => connection.request('add thing "x"', REQUEST))).toMatchObject({ code: 'EBADMSG' });
});

test.each([
  ['a request', (connection: NetlinkConnection) => connection.request('add thing "x"', REQUEST)],
  ['a get', (connection: NetlinkConnection) => connection.get('add thing "x"', REQUEST)],
  ['a list', (connection: NetlinkConnection) => connection.list('add thing "x"', REQUEST)],
  ['a batch', (connection: NetlinkConnection) => connection.batch('add thing "x"', [REQUEST])],
])('%s whose acknowledgement is cut short fails as malformed', (_what, ask) => {
  using connection = connectNetlink(
    fakeKernel((request) => [reply(request, NLMSG_ERROR, new Uint8Array(12))]),
  );
  expect(thrown(() => ask(connection))).toMatchObject({ code: 'EBADMSG', operation: 'add thing "x"' });
});

test("a truncated datagram fails the request with the socket's reason", () => {
  using connection = connectNetlink(fakeKernel(() => [new SystemError('receive a datagram', EBADMSG)]));
  const error = thrown(() => connection.request('add thing "x"', REQUEST));
  expect(error).toMatchObject({
    code: 'EBADMSG',
    operation: 'add thing "x"',
    cause: expect.any(SystemError),
  });
});

test('a batch goes out as one datagram and comes back as refusals by index', () => {
  const kernel = fakeKernel((request) => {
    if (request.sequence === 2) return [ack(request, 17, { message: 'Taken' })];
    return request.sequence === 3 ? [ack(request)] : [];
  });
  using connection = connectNetlink(kernel);
  const outcome = connection.batch('commit', [REQUEST, REQUEST, { ...REQUEST, flags: NLM_F_ACK }]);
  expect(outcome.refusals).toMatchObject([{ index: 1, errno: 17, kernelMessage: 'Taken' }]);
  expect(outcome.acknowledged).toEqual([2]);
  expect(kernel.received.map(({ sequence, flags }) => [sequence, flags])).toEqual([
    [1, NLM_F_REQUEST],
    [2, NLM_F_REQUEST],
    [3, NLM_F_REQUEST | NLM_F_ACK],
  ]);
});

test('requests after a batch have sequences of their own', () => {
  const kernel = fakeKernel((request) => [ack(request)]);
  using connection = connectNetlink(kernel);
  connection.batch('commit', [REQUEST, REQUEST]);
  connection.request('add thing "x"', REQUEST);
  expect(kernel.received.map(({ sequence }) => sequence)).toEqual([1, 2, 3]);
});

test('a batch whose answers were dropped is an error: nobody knows what was refused', () => {
  using connection = connectNetlink(fakeKernel(() => [new SystemError('receive', ENOBUFS)]));
  expect(thrown(() => connection.batch('commit', [REQUEST]))).toMatchObject({ code: 'ENOBUFS' });
});

function thrown(step: () => unknown): unknown {
  try {
    step();
  } catch (error) {
    expect(error).toBeInstanceOf(NetlinkError);
    return error;
  }
  throw new Error('Nothing was thrown');
}
