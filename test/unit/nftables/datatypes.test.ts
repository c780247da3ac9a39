// Datatypes of keys and data: the numbers nft declares, padding, and values in words.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import {
  concatenate,
  concatenatedLength,
  concatenatedType,
  type Datatype,
  formatConcatenation,
  ifnameBytes,
  markBytes,
  portBytes,
  protocolBytes,
  splitConcatenation,
} from '../../../shared/nftables/datatypes.ts';

const bytes = (...values: number[]) => Uint8Array.from(values);

describe('a datatype', () => {
  test.each<[Datatype[], number, number]>([
    [['ipv4_addr'], 7, 4],
    [['ipv6_addr'], 8, 16],
    [['mark'], 19, 4],
    [['ifname'], 41, 16],
    [['inet_service'], 13, 2],
    [['inet_proto', 'inet_service'], 0x30d, 8],
    [['ipv4_addr', 'inet_proto', 'inet_service'], 0x730d, 12],
    [['ipv6_addr', 'inet_service'], 0x20d, 20],
  ])('%j has the number and length that nft declares', (fields, type, length) => {
    expect(concatenatedType(fields)).toBe(type);
    expect(concatenatedLength(fields)).toBe(length);
  });

  test('alone is not padded, in a concatenation each field fills 32 bits', () => {
    expect(concatenate(['inet_service'], [portBytes(80)])).toEqual(bytes(0, 80));
    expect(concatenate(['inet_proto', 'inet_service'], [protocolBytes('tcp'), portBytes(8080)])).toEqual(
      bytes(6, 0, 0, 0, 0x1f, 0x90, 0, 0),
    );
  });

  test('refuses a value of another length, and another number of values', () => {
    expect(() => concatenate(['ipv4_addr'], [bytes(1, 2)])).toThrow(
      'Cannot use 2 bytes as a value of type "ipv4_addr"',
    );
    expect(() => concatenate(['ipv4_addr', 'inet_service'], [bytes(1, 2, 3, 4)])).toThrow(
      'Cannot use 1 values for type "ipv4_addr . inet_service"',
    );
  });

  test('gives the fields of a key back', () => {
    const fields: Datatype[] = ['ipv6_addr', 'inet_proto', 'inet_service'];
    const values = [new Uint8Array(16).fill(7), protocolBytes('udp'), portBytes(53)];
    expect(splitConcatenation(fields, concatenate(fields, values))).toEqual(values);
    expect(splitConcatenation(fields, bytes(1, 2, 3))).toBeUndefined();
  });

  test.each<[Datatype[], Uint8Array, string]>([
    [['ipv4_addr'], bytes(10, 22, 0, 2), '10.22.0.2'],
    [['ipv6_addr'], bytes(0xfd, 0, 0, 0x22, ...new Array(11).fill(0), 2), 'fd00:22::2'],
    [['inet_proto', 'inet_service'], bytes(132, 0, 0, 0, 0, 9, 0, 0), 'sctp . 9'],
    [['inet_proto', 'inet_service'], bytes(47, 0, 0, 0, 0, 9, 0, 0), '47 . 9'],
    [['mark'], markBytes(0x2000), '0x00002000'],
    [['ifname'], ifnameBytes('cni0'), '"cni0"'],
    [['ipv4_addr'], bytes(1, 2, 3), '0x010203'],
    [[], bytes(0xab), '0xab'],
  ])('%j is told as nft writes it, or in hex', (fields, value, text) => {
    expect(formatConcatenation(fields, value)).toBe(text);
  });

  test.each([-1, 65536, 1.5, Number.NaN])('port %d is refused', (port) => {
    expect(() => portBytes(port)).toThrow(`Cannot use "${port}" as a port`);
  });

  test.each([-1, 2 ** 32, 0.5])('mark %d is refused', (mark) => {
    expect(() => markBytes(mark)).toThrow(`Cannot use "${mark}" as a mark`);
  });

  test.each(['', 'sixteen-letters-', 'a\0b'])('link name %j is refused', (name) => {
    expect(() => ifnameBytes(name)).toThrow('as a link name');
  });
});
