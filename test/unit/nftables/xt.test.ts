// The structures of iptables' matches and targets, in every form that a release of it wrote: bytes told by the headers of
// the kernel. What today's program writes is read in the kernel test of the ports of others.
import { describe, expect, test } from 'vitest';
import { HOST_LITTLE_ENDIAN } from '../../../shared/netlink/bytes.ts';
import type { XtExpr } from '../../../shared/nftables/exprs/xt.ts';
import { readXtComment, readXtDnat, readXtMultiport, readXtPort } from '../../../shared/nftables/xt.ts';

function xt(role: XtExpr['role'], name: string, info: Uint8Array, revision = 0): XtExpr {
  return { kind: 'xt', role, name, revision, info };
}

function u16(...values: readonly number[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(2 * values.length));
  for (const [index, value] of values.entries()) view.setUint16(2 * index, value, HOST_LITTLE_ENDIAN);
  return new Uint8Array(view.buffer);
}

function join(...parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

const ADDRESS = Uint8Array.of(10, 22, 0, 2);

describe('a destination port', () => {
  test.each([
    ['tcp', u16(0, 0xffff, 8080, 8080)],
    ['udp', u16(0, 0xffff, 8080, 8080)],
    ['sctp', u16(8080, 8080, 0, 0xffff)],
  ])('of %s is read where its structure has it', (name, info) => {
    expect(readXtPort([xt('match', name, info)])).toBe(8080);
  });

  test.each([
    ['a range', [xt('match', 'tcp', u16(0, 0xffff, 80, 90))]],
    ['a structure that is too short', [xt('match', 'udp', u16(0, 0xffff))]],
    ['another match', [xt('match', 'mac', u16(0, 0xffff, 80, 80))]],
    ['a target of that name', [xt('target', 'tcp', u16(0, 0xffff, 80, 80))]],
    ['nothing', []],
  ])('is not read from %s', (_, exprs) => {
    expect(readXtPort(exprs)).toBeUndefined();
  });
});

describe('several ports', () => {
  const ports = u16(80, 443, ...Array.from({ length: 13 }, () => 0));

  test.each([0, 1])('of revision %i are as many as it counts', (revision) => {
    expect(readXtMultiport([xt('match', 'multiport', join(Uint8Array.of(1, 2), ports), revision)])).toEqual([
      80, 443,
    ]);
  });

  test('are none where it asks for sources, or counts more than it holds', () => {
    expect(readXtMultiport([xt('match', 'multiport', join(Uint8Array.of(0, 2), ports))])).toEqual([]);
    expect(readXtMultiport([xt('match', 'multiport', join(Uint8Array.of(1, 9), u16(80)))])).toEqual([80]);
    expect(readXtMultiport([])).toEqual([]);
  });
});

describe('where DNAT leads', () => {
  const flags = new Uint8Array(4);
  const rest = new Uint8Array(12);

  test('is read from revision 0, behind the number of ranges', () => {
    const info = join(u16(1, 0), flags, ADDRESS, ADDRESS, new Uint8Array(4));
    expect(readXtDnat([xt('target', 'DNAT', info)], 4)).toEqual(ADDRESS);
  });

  test.each([1, 2])('is read from revision %i', (revision) => {
    const info = join(flags, ADDRESS, rest, ADDRESS, rest, new Uint8Array(8));
    expect(readXtDnat([xt('target', 'DNAT', info, revision)], 4)).toEqual(ADDRESS);
    expect(readXtDnat([xt('target', 'DNAT', info, revision)], 6)).toEqual(join(ADDRESS, rest));
  });

  test('is unknown for another target, and for a structure that is too short', () => {
    expect(readXtDnat([xt('target', 'SNAT', join(flags, ADDRESS, rest), 1)], 4)).toBeUndefined();
    expect(readXtDnat([xt('target', 'DNAT', flags, 1)], 4)).toBeUndefined();
  });
});

test('a comment ends with its NUL, or with its structure', () => {
  const text = Buffer.from('dnat name: "n1" id: "c1"');
  expect(readXtComment([xt('match', 'comment', join(text, new Uint8Array(8)))])).toBe(text.toString());
  expect(readXtComment([xt('match', 'comment', join(text))])).toBe(text.toString());
  expect(readXtComment([])).toBeUndefined();
});
