// Conditions read back from the expressions they were made into, and which of them a packet can fulfil together: held
// against packets that are tried one by one.
import { describe, expect, test } from 'vitest';
import { contains, type Family, type Ip, parseCidr, parseIp } from '../../../shared/ip/cidr.ts';
import {
  areExclusive,
  type Condition,
  type ConditionList,
  conditionStatement,
  readConditions,
  readPort,
} from '../../../shared/nftables/conditions.ts';
import type { Expr } from '../../../shared/nftables/exprs/expr.ts';
import { lowerStatements } from '../../../shared/nftables/lower.ts';
import { dnatTo, l4proto, th } from '../../../shared/nftables/statements.ts';

function network(kind: 'saddr' | 'daddr', cidr: string, negated = false): Condition {
  return { kind, cidr: parseCidr(cidr), negated };
}

function link(name: string, negated = false): Condition {
  const isPrefix = name.endsWith('*');
  return { kind: 'iifname', name: isPrefix ? name.slice(0, -1) : name, isPrefix, negated };
}

describe('a rule of ours', () => {
  const lists: readonly (readonly [Family, ConditionList])[] = [
    [4, [network('saddr', '192.0.2.0/24'), network('daddr', '198.51.100.7/32', true)]],
    [4, [network('saddr', '10.0.0.0/7', true), network('daddr', '10.64.0.0/10')]],
    [6, [network('saddr', '2001:db8::/32', true), network('daddr', '2001:db8::8000/113')]],
    [6, [network('saddr', '2001:db8::1/128'), link('eth0')]],
    [4, [link('eth*'), link('eth0', true), link('fifteen-letters')]],
    [4, []],
  ];

  test.each(lists)('for IPv%i tells its conditions, its protocol and its port: %#', (family, list) => {
    const target = parseIp(family === 4 ? '10.22.0.2' : 'fd00:22::2');
    const statements = [
      ...list.map((condition) => conditionStatement(condition, family)),
      l4proto.is('sctp'),
      th.dport.is(8080),
      dnatTo(target, 80),
    ];
    for (const table of ['inet', family === 4 ? 'ip' : 'ip6'] as const) {
      const exprs = lowerStatements(statements, table);
      expect(readConditions(exprs, family)).toEqual(list);
      expect(readPort(exprs)).toEqual({ protocol: 'sctp', port: 8080 });
    }
  });
});

describe('a rule of somebody else', () => {
  const load: Expr = { kind: 'payload', dreg: 1, base: 1, offset: 12, length: 4 };
  const compare: Expr = { kind: 'cmp', sreg: 1, op: 0, data: Uint8Array.of(192, 0, 2, 0) };

  test('tells nothing of a mask with a hole, of arithmetic, or of a comparison by size', () => {
    const mask = (mask: number[], xor: number[]): Expr => ({
      kind: 'bitwise',
      sreg: 1,
      dreg: 1,
      mask: Uint8Array.from(mask),
      xor: Uint8Array.from(xor),
    });
    expect(readConditions([load, mask([255, 0, 255, 0], [0, 0, 0, 0]), compare], 4)).toEqual([]);
    expect(readConditions([load, mask([255, 255, 255, 0], [0, 0, 0, 1]), compare], 4)).toEqual([]);
    expect(readConditions([load, { ...compare, op: 2 } as Expr], 4)).toEqual([]);
    expect(readConditions([load, mask([255, 255, 255, 0], [0, 0, 0, 0]), compare], 4)).toEqual([
      network('saddr', '192.0.2.0/24'),
    ]);
  });

  test('tells nothing of the other family, whose addresses stand elsewhere', () => {
    expect(readConditions([load, compare], 6)).toEqual([]);
  });

  test('tells nothing of what an unknown expression put into the register', () => {
    const unknown: Expr = { kind: 'unknown', name: 'byteorder', data: undefined };
    expect(readConditions([load, unknown, compare], 4)).toEqual([]);
  });
});

describe('two lists', () => {
  interface Packet {
    readonly saddr: Ip;
    readonly daddr: Ip;
    readonly iifname: string;
  }

  const ips = ['192.0.2.1', '192.0.2.2', '192.0.2.200', '198.51.100.1'].map(parseIp);
  const packets: Packet[] = ips.flatMap((saddr) =>
    ips.flatMap((daddr) => ['eth0', 'eth1', 'wlan0'].map((iifname) => ({ saddr, daddr, iifname }))),
  );
  const conditions: readonly Condition[] = [
    network('saddr', '192.0.2.0/24'),
    network('saddr', '192.0.2.0/25'),
    network('saddr', '192.0.2.1/32'),
    network('saddr', '192.0.2.2/32'),
    network('saddr', '192.0.2.0/25', true),
    network('saddr', '192.0.2.1/32', true),
    network('daddr', '192.0.2.1/32'),
    network('daddr', '192.0.2.0/24', true),
    link('eth0'),
    link('eth1'),
    link('eth*'),
    link('eth0', true),
    link('eth*', true),
  ];

  function fulfils(packet: Packet, condition: Condition): boolean {
    const holds =
      condition.kind !== 'iifname'
        ? contains(condition.cidr, packet[condition.kind])
        : condition.isPrefix
          ? packet.iifname.startsWith(condition.name)
          : packet.iifname === condition.name;
    return holds !== condition.negated;
  }

  function canMeet(...lists: readonly ConditionList[]): boolean {
    return packets.some((packet) => lists.flat().every((condition) => fulfils(packet, condition)));
  }

  test('of one condition each are exclusive exactly when no packet fulfils both', () => {
    for (const a of conditions) {
      for (const b of conditions) {
        expect(
          areExclusive([a], [b]),
          JSON.stringify([a, b], (_, value) => String(value)),
        ).toBe(!canMeet([a], [b]));
      }
    }
  });

  test('of several are exclusive only when no packet fulfils both', () => {
    for (const a of conditions) {
      for (const b of conditions) {
        for (const c of conditions) {
          if (areExclusive([a, b], [c])) expect(canMeet([a, b], [c])).toBe(false);
        }
      }
    }
  });

  test('of which one is empty are not', () => {
    expect(areExclusive([], [])).toBe(false);
    expect(areExclusive([link('eth0')], [])).toBe(false);
  });
});
