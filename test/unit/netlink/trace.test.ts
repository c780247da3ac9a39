// The trace in libmnl's layout.
import { afterEach, expect, test } from 'vitest';
import { AttributeWriter } from '../../../shared/netlink/attributes.ts';
import { connectNetlink } from '../../../shared/netlink/connection.ts';
import { encodeMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST } from '../../../shared/netlink/message.ts';
import { enableTrace, formatMessages } from '../../../shared/netlink/trace.ts';
import { ack, fakeKernel } from '../../support/fake-kernel.ts';

afterEach(() => enableTrace());

test('a message is shown as libmnl shows it, nests opened', () => {
  const writer = new AttributeWriter(Uint8Array.of(7, 0, 0, 0))
    .string(3, 'lo')
    .nest(18, (w) => w.text(1, 'veth'));
  const bytes = encodeMessage({
    type: 16,
    flags: NLM_F_REQUEST | NLM_F_ACK,
    sequence: 5,
    body: writer.done(),
  });
  expect(
    formatMessages(bytes, () => 4)
      .trimEnd()
      .split('\n'),
  ).toEqual([
    '----------------\t------------------',
    '|  0000000040  |\t| message length |',
    '| 00016 | R-A- |\t|  type | flags  |',
    '|  0000000005  |\t| sequence number|',
    '|  0000000000  |\t|     port ID    |',
    '----------------\t------------------',
    '| 07 00 00 00  |\t|  extra header  |',
    '|00007|--|00003|\t|len |flags| type|',
    '| 6c 6f 00 00  |\t|      data      |\t l o  ',
    '|00012|N-|00018|\t|len |flags| type|',
    '|00008|--|00001|\t|len |flags| type|',
    '| 76 65 74 68  |\t|      data      |\t v e t h',
    '----------------\t------------------',
  ]);
});

test('what does not parse is told, never thrown', () => {
  const bytes = encodeMessage({ type: 16, flags: NLM_F_DUMP, sequence: 1, body: Uint8Array.of(3, 0, 0, 0) });
  expect(formatMessages(bytes, () => 0)).toContain('| 03 00 00 00  |\t|      data      |');
  expect(formatMessages(bytes, () => 99)).toContain('| 03 00 00 00  |\t|  extra header  |');
  expect(formatMessages(bytes.subarray(0, 18), () => 0)).toContain('18 bytes that are no message');
});

test('a connection traces what it sends and receives, with what for, until switched off', () => {
  const shown: string[] = [];
  enableTrace((text) => shown.push(text));
  using connection = connectNetlink(fakeKernel((request) => [ack(request)]));
  connection.request('add thing "x"', { type: 16, flags: 0, body: new Uint8Array(0) });
  enableTrace();
  connection.request('add thing "y"', { type: 16, flags: 0, body: new Uint8Array(0) });
  expect(shown.map((text) => text.split('\n')[0])).toEqual(['> add thing "x"', '< add thing "x"']);
});
