// The bytes of a journal entry.
import { expect, test } from 'vitest';
import { encodeEntry } from '../../../shared/linux/journal.ts';

test('a value of one line stands behind its name', () => {
  expect(Buffer.from(encodeEntry({ MESSAGE: 'a=b', PRIORITY: '6' })).toString()).toBe(
    'MESSAGE=a=b\nPRIORITY=6\n',
  );
});

test('a value of several lines stands behind its length', () => {
  const length = Buffer.from([3, 0, 0, 0, 0, 0, 0, 0]).toString();
  expect(Buffer.from(encodeEntry({ MESSAGE: 'a\nb' })).toString()).toBe(`MESSAGE\n${length}a\nb\n`);
});
