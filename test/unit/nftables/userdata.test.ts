// Comments and byte orders as nft keeps them, and what is no comment.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import {
  decodeComment,
  encodeComment,
  encodeSetUserdata,
  UDATA_COMMENT,
  UDATA_SET_COMMENT,
} from '../../../shared/nftables/userdata.ts';

const bytes = (...values: number[]) => Uint8Array.from(values);

describe('a comment', () => {
  test('is one record: type, length with the NUL, text, NUL', () => {
    expect(encodeComment('lo')).toEqual(bytes(0, 3, 0x6c, 0x6f, 0));
  });

  test('takes at most 128 bytes with its NUL', () => {
    expect(encodeComment('x'.repeat(127))).toHaveLength(2 + 128);
    expect(() => encodeComment('x'.repeat(128))).toThrow('as a comment: nft could not load it again');
    expect(() => encodeComment('ü'.repeat(64))).toThrow('as a comment');
  });

  test.each(['say "hi"', 'back\\slash', 'two\nlines', 'nul\0', '\x7f'])('%j is refused', (text) => {
    expect(() => encodeComment(text)).toThrow('as a comment');
  });

  test('is read back, whatever records stand before it', () => {
    expect(decodeComment(encodeComment('owner é 1'), UDATA_COMMENT)).toBe('owner é 1');
    const set = encodeSetUserdata({ keyByteorder: 'big', dataByteorder: 'none', comment: 'a map' });
    expect(decodeComment(set, UDATA_SET_COMMENT)).toBe('a map');
    expect(decodeComment(set.subarray(0, 12), UDATA_SET_COMMENT)).toBeUndefined();
  });

  test('without a NUL ends where its length says', () => {
    expect(decodeComment(bytes(0, 2, 0x61, 0x62, 7, 1, 0), UDATA_COMMENT)).toBe('ab');
  });

  test('that claims to be longer than the userdata is none', () => {
    expect(decodeComment(bytes(0, 9, 0x61), UDATA_COMMENT)).toBeUndefined();
    expect(decodeComment(bytes(3, 200, 0, 1, 0x61), UDATA_COMMENT)).toBeUndefined();
    expect(decodeComment(bytes(0), UDATA_COMMENT)).toBeUndefined();
    expect(decodeComment(bytes(), UDATA_COMMENT)).toBeUndefined();
  });
});

test('the userdata of a map tells both byte orders in the order of this machine, then the comment', () => {
  const number = (value: number) => [...new Uint8Array(Uint32Array.of(value).buffer)];
  expect(encodeSetUserdata({ keyByteorder: 'big', dataByteorder: 'none', comment: 'm' })).toEqual(
    bytes(0, 4, ...number(2), 1, 4, ...number(0), 7, 2, 0x6d, 0),
  );
  expect(encodeSetUserdata({ keyByteorder: 'host', dataByteorder: undefined, comment: undefined })).toEqual(
    bytes(0, 4, ...number(1)),
  );
});
