// The byte mutator: what happens to bytes on their way from somebody who means harm.
// Used by every target whose input is text or a message; a mutation is data, so that fast-check can make it smaller.
import fc from 'fast-check';

export interface Mutation {
  readonly kind: (typeof KINDS)[number];
  /** Where, in 65536ths of the length. */
  readonly at: number;
  readonly length: number;
  readonly value: number;
  readonly token: string;
}

const KINDS = ['flip', 'byte', 'u16', 'u32', 'cut', 'drop', 'repeat', 'insert', 'swap', 'token'] as const;

/** Lengths, counts and signs on whose edges code goes wrong. */
const EDGES = [
  0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xfffc, 0xffff, 0x7fffffff,
  0x80000000, 0xfffffffc, 0xffffffff,
];

export interface MutatorOptions {
  /** How many mutations at most. */
  readonly most?: number;
  /** Words of the text's own grammar. */
  readonly tokens?: readonly string[];
}

/** Bytes as they are or with mutations. */
export function mutated(
  bytes: fc.Arbitrary<Uint8Array>,
  options: MutatorOptions = {},
): fc.Arbitrary<Uint8Array> {
  return fc.tuple(bytes, mutations(options)).map(([given, all]) => all.reduce(mutate, given));
}

/** None, one or several mutations. */
export function mutations({ most = 3, tokens = ['\0'] }: MutatorOptions = {}): fc.Arbitrary<Mutation[]> {
  const mutation = fc.record({
    kind: fc.constantFrom(...KINDS),
    at: fc.nat(0xffff),
    length: fc.nat(40),
    value: fc.oneof(fc.constantFrom(...EDGES), fc.nat(0xffff)),
    token: fc.constantFrom(...tokens),
  });
  return fc.array(mutation, { maxLength: most });
}

/** The bytes after one mutation; the given ones stay as they are. */
export function mutate(bytes: Uint8Array, { kind, at, length, value, token }: Mutation): Uint8Array {
  const start = Math.floor((at * bytes.length) / 0x10000);
  const end = Math.min(bytes.length, start + length);
  const before = bytes.subarray(0, start);
  const piece = bytes.subarray(start, end);
  switch (kind) {
    case 'cut':
      return before;
    case 'drop':
      return join(before, bytes.subarray(end));
    case 'repeat':
      return join(before, piece, bytes.subarray(start));
    case 'insert':
      return join(before, new Uint8Array(length).fill(value), bytes.subarray(start));
    case 'token':
      return join(before, Buffer.from(token), bytes.subarray(start));
    case 'swap':
      return join(before, bytes.subarray(end), piece);
    default:
      return overwrite(bytes, kind, start, value);
  }
}

// Messages keep their numbers at multiples of four bytes, lengths in the first two.
function overwrite(
  bytes: Uint8Array,
  kind: 'flip' | 'byte' | 'u16' | 'u32',
  at: number,
  value: number,
): Uint8Array {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  const aligned = at & ~3;
  if (kind === 'flip' && at < copy.length) view.setUint8(at, view.getUint8(at) ^ (1 << (value & 7)));
  if (kind === 'byte' && at < copy.length) view.setUint8(at, value & 0xff);
  if (kind === 'u16' && aligned + 2 <= copy.length) view.setUint16(aligned, value & 0xffff, true);
  if (kind === 'u32' && aligned + 4 <= copy.length) view.setUint32(aligned, value >>> 0, true);
  return copy;
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}
