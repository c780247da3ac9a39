// The private notes nft keeps with each object: a list of (type, length, value), one byte each for type and length, as
// libnftnl's udata.h lays them out. encode.ts writes comments and byte orders with it, decode.ts reads comments.
import { decodeText, HOST_LITTLE_ENDIAN, viewOf } from '../netlink/bytes.ts';
import { NFT_META_IIFNAME } from './constants.ts';

/** NFTNL_UDATA_{TABLE,CHAIN,RULE,SET_ELEM}_COMMENT: number 0 in all four. */
export const UDATA_COMMENT = 0;
/** NFTNL_UDATA_SET_COMMENT */
export const UDATA_SET_COMMENT = 7;
const UDATA_SET_KEYBYTEORDER = 0;
const UDATA_SET_DATABYTEORDER = 1;
/** NFTNL_UDATA_SET_KEY_TYPEOF */
const UDATA_SET_KEY_TYPEOF = 3;

/** Libnftables' enum byteorder; a concatenation and a verdict have none. */
const BYTEORDER = { none: 0, host: 1, big: 2 } as const;
export type Byteorder = keyof typeof BYTEORDER;

/** NFTNL_UDATA_COMMENT_MAXLEN less the NUL: nft lists a longer comment but refuses to load what it listed. */
export const COMMENT_MAX_BYTES = 127;

/**
 * The userdata of a table, chain, rule or element that holds only a comment.
 * Throws when nft could not load the comment again: longer than 127 bytes, with a quote, or with control characters.
 */
export function encodeComment(comment: string): Uint8Array {
  const bytes = new Uint8Array(2 + COMMENT_MAX_BYTES + 1);
  return bytes.subarray(0, putComment(bytes, 0, UDATA_COMMENT, comment));
}

/**
 * The userdata of a set or map. nft reads the byte orders to print the elements; it derives those of concatenations
 * from the datatypes. Left out although nft writes them: an empty typeof for concatenations and the default of
 * NFTNL_UDATA_SET_DATA_INTERVAL, which change nothing in what nft prints. `key` is given for a key that nft can only
 * print by the expressions it is made of.
 */
export function encodeSetUserdata(set: {
  readonly keyByteorder: Byteorder;
  readonly dataByteorder: Byteorder | undefined;
  readonly key?: readonly TypeofField[] | undefined;
  readonly comment: string | undefined;
}): Uint8Array {
  const bytes = new Uint8Array(6 + 6 + 2 + 255 + 2 + COMMENT_MAX_BYTES + 1);
  let end = putByteorder(bytes, 0, UDATA_SET_KEYBYTEORDER, set.keyByteorder);
  if (set.dataByteorder !== undefined)
    end = putByteorder(bytes, end, UDATA_SET_DATABYTEORDER, set.dataByteorder);
  if (set.key !== undefined) end = putTypeof(bytes, end, set.key);
  if (set.comment !== undefined) end = putComment(bytes, end, UDATA_SET_COMMENT, set.comment);
  return bytes.subarray(0, end);
}

/** An expression of libnftables that a part of a key is the value of: `iifname`, or bits of a packet by their place. */
export type TypeofField =
  | 'iifname'
  | { readonly header: 'nh' | 'th'; readonly offset: number; readonly length: number };

/**
 * `typeof a . b` as libnftables keeps it (expression.c, expr_build_udata): the number of an expression's kind (EXPR_*),
 * and its own parts, in u32 of host order. A payload without protocol has base, offset and length in bits.
 *
 *     03 len | 00 04 CONCAT | 01 len { 00 len { 00 04 META, 01 len { 00 04 key } }, 01 len { 00 04 PAYLOAD, … } }
 */
function putTypeof(bytes: Uint8Array, offset: number, key: readonly TypeofField[]): number {
  return putNest(bytes, offset, UDATA_SET_KEY_TYPEOF, (concat) => {
    const fields = putU32(bytes, concat, 0, EXPR_CONCAT);
    return putNest(bytes, fields, 1, (start) => {
      let end = start;
      for (const [index, field] of key.entries()) {
        end = putNest(bytes, end, index, (at) => putTypeofField(bytes, at, field));
      }
      return end;
    });
  });
}

const EXPR_CONCAT = 13;
const EXPR_PAYLOAD = 7;
const EXPR_META = 9;
/** Libnftables' enum proto_bases. */
const PROTO_BASES = { nh: 2, th: 3 } as const;

function putTypeofField(bytes: Uint8Array, offset: number, field: TypeofField): number {
  if (field === 'iifname') {
    const parts = putU32(bytes, offset, 0, EXPR_META);
    return putNest(bytes, parts, 1, (at) => putU32(bytes, at, 0, NFT_META_IIFNAME));
  }
  const parts = putU32(bytes, offset, 0, EXPR_PAYLOAD);
  return putNest(bytes, parts, 1, (at) => {
    const values = [0, 0, PROTO_BASES[field.header], 8 * field.offset, 8 * field.length]; // no protocol, no template
    return values.reduce((end, value, type) => putU32(bytes, end, type, value), at);
  });
}

function putNest(bytes: Uint8Array, offset: number, type: number, put: (start: number) => number): number {
  const end = put(offset + 2);
  bytes[offset] = type;
  bytes[offset + 1] = end - offset - 2;
  return end;
}

function putByteorder(bytes: Uint8Array, offset: number, type: number, byteorder: Byteorder): number {
  return putU32(bytes, offset, type, BYTEORDER[byteorder]);
}

function putU32(bytes: Uint8Array, offset: number, type: number, value: number): number {
  bytes[offset] = type;
  bytes[offset + 1] = 4;
  viewOf(bytes).setUint32(offset + 2, value, HOST_LITTLE_ENDIAN);
  return offset + 6;
}

function putComment(bytes: Uint8Array, offset: number, type: number, comment: string): number {
  const text = Buffer.from(comment);
  if (text.length > COMMENT_MAX_BYTES || UNPRINTABLE.test(comment)) {
    throw new Error(`Cannot use ${JSON.stringify(comment)} as a comment: nft could not load it again`);
  }
  bytes[offset] = type;
  bytes[offset + 1] = text.length + 1; // the length counts the NUL
  bytes.set(text, offset + 2);
  return offset + 2 + text.length + 1;
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must be kept out
const UNPRINTABLE = /["\\\x00-\x1f\x7f]/;

/**
 * Where the text of a comment begins in the userdata that fills `bytes` from `start` to `end`, or -1.
 * Never throws: userdata is written by anybody, so a length beyond the end ends the search.
 */
export function findComment(bytes: Uint8Array, start: number, end: number, type: number): number {
  for (let at = start; end - at >= 2; ) {
    const length = bytes[at + 1] ?? 0; // in range: checked by the loop
    if (length > end - at - 2) return -1;
    if (bytes[at] === type) return at + 2;
    at += 2 + length;
  }
  return -1;
}

/** Where the text that `findComment` found ends: at its NUL, or where its length says. */
export function commentEnd(bytes: Uint8Array, text: number): number {
  const end = text + (bytes[text - 1] ?? 0);
  const nul = bytes.indexOf(0, text);
  return nul < 0 || nul > end ? end : nul;
}

/** The comment in userdata, undefined when there is none. Bytes that are no UTF-8 become U+FFFD. */
export function decodeComment(userdata: Uint8Array, type: number): string | undefined {
  const text = findComment(userdata, 0, userdata.length, type);
  return text < 0 ? undefined : decodeText(userdata.subarray(text, commentEnd(userdata, text)));
}
