// TRACEPARENT as the W3C's specification has it; what is malformed is ignored.
import { expect, test } from 'vitest';
import { parseTraceParent } from '../../../shared/cni/traceparent.ts';

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const SPAN = '00f067aa0ba902b7';

test('a valid one is taken apart', () => {
  expect(parseTraceParent(`00-${TRACE}-${SPAN}-01`)).toEqual({ traceId: TRACE, spanId: SPAN, flags: '01' });
});

test('one of a later version may say more at its end', () => {
  expect(parseTraceParent(`01-${TRACE}-${SPAN}-00-more`)?.spanId).toBe(SPAN);
  expect(parseTraceParent(`cc-${TRACE}-${SPAN}-00`)?.traceId).toBe(TRACE);
});

test.each([
  ['nothing', undefined],
  ['an empty text', ''],
  ['a version that is reserved', `ff-${TRACE}-${SPAN}-01`],
  ['upper case', `00-${TRACE.toUpperCase()}-${SPAN}-01`],
  ['a trace id of zeros', `00-${'0'.repeat(32)}-${SPAN}-01`],
  ['a parent id of zeros', `00-${TRACE}-${'0'.repeat(16)}-01`],
  ['a trace id that is too short', `00-${TRACE.slice(1)}-${SPAN}-01`],
  ['a parent id that is too long', `00-${TRACE}-${SPAN}0-01`],
  ['flags that are no number', `00-${TRACE}-${SPAN}-0g`],
  ['more at the end of this version', `00-${TRACE}-${SPAN}-01-more`],
  ['more at the end without a dash', `01-${TRACE}-${SPAN}-01more`],
  ['blanks around it', ` 00-${TRACE}-${SPAN}-01`],
  ['a newline behind it', `00-${TRACE}-${SPAN}-01\n`],
])('%s is ignored', (_, text) => {
  expect(parseTraceParent(text)).toBeUndefined();
});
