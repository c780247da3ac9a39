// Statements as programs: registers, protocol tests, prefixes, and what is refused.
// Run with the unit tests; golden.test.ts compares every statement with nft.
import { describe, expect, test } from 'vitest';
import { parseCidr, parseIp } from '../../../shared/ip/cidr.ts';
import { lowerStatements } from '../../../shared/nftables/lower.ts';
import { formatExprs } from '../../../shared/nftables/mnemonic.ts';
import type { TableFamily } from '../../../shared/nftables/objects.ts';
import { map, table } from '../../../shared/nftables/objects.ts';
import {
  concat,
  dnat,
  ip,
  ip6,
  mark,
  return_,
  type Statement,
  th,
} from '../../../shared/nftables/statements.ts';

const TABLE = table({ family: 'inet', name: 't' });
const lower = (statements: Statement[], family: TableFamily = 'inet') =>
  formatExprs(lowerStatements(statements, family));

describe('a match of an IP header', () => {
  const match = ip.saddr.is(parseIp('1.2.3.4'));
  const read = ['[ payload load 4b @ network header + 12 => reg 1 ]', '[ cmp eq reg 1 0x04030201 ]'];

  test('is preceded by a test of the protocol where the table sees several', () => {
    expect(lower([match])).toEqual([
      '[ meta load nfproto => reg 1 ]',
      '[ cmp eq reg 1 0x00000002 ]',
      ...read,
    ]);
    expect(lower([match], 'bridge')).toEqual([
      '[ meta load protocol => reg 1 ]',
      '[ cmp eq reg 1 0x00000008 ]',
      ...read,
    ]);
    expect(lower([match], 'ip')).toEqual(read);
  });

  test('asks for the protocol once a rule', () => {
    expect(lower([match, match])).toHaveLength(2 + 2 + 2);
  });

  test('cannot stand in a rule for the other protocol', () => {
    expect(() => lower([match], 'ip6')).toThrow('Cannot match ip in a rule for ip6');
    expect(() => lower([match, ip6.saddr.is(parseIp('::1'))])).toThrow('Cannot match ip6 in a rule for ip');
  });

  test('takes an address of its own protocol only', () => {
    expect(() => ip.saddr.is(parseIp('::1'))).toThrow('Cannot match an address of 16 bytes, not 4');
    expect(() => ip6.daddr.is(parseCidr('10.0.0.0/8'))).toThrow('Cannot match an address of 4 bytes, not 16');
  });

  test.each([
    ['10.22.3.4/32', 'payload load 4b', '[ cmp eq reg 1 0x0403160a ]'],
    ['10.22.3.4/24', 'payload load 3b', '[ cmp eq reg 1 0x0003160a ]'],
    ['10.22.3.4/16', 'payload load 2b', '[ cmp eq reg 1 0x0000160a ]'],
    ['10.22.3.4/8', 'payload load 1b', '[ cmp eq reg 1 0x0000000a ]'],
    ['10.22.3.4/23', 'payload load 4b', '[ cmp eq reg 1 0x0002160a ]'],
    ['10.22.3.4/1', 'payload load 4b', '[ cmp eq reg 1 0x00000000 ]'],
    ['10.22.3.4/0', 'payload load 4b', '[ cmp eq reg 1 0x00000000 ]'],
  ])('with the prefix %s ignores the host bits', (prefix, load, compare) => {
    const lines = lower([ip.daddr.is(parseCidr(prefix))], 'ip');
    expect(lines[0]).toContain(load);
    expect(lines.at(-1)).toBe(compare);
  });

  test('masks what is left of a prefix beyond whole bytes', () => {
    expect(lower([ip6.daddr.is(parseCidr('fe80::1/10'))], 'ip6')[1]).toBe(
      '[ bitwise reg 1 = ( reg 1 & 0x0000c0ff 0x00000000 0x00000000 0x00000000 ) ^ 0x00000000 0x00000000 0x00000000 0x00000000 ]',
    );
  });
});

describe('a key', () => {
  const HELD = map({
    table: TABLE,
    name: 'm',
    key: ['ipv6_addr', 'ipv6_addr', 'inet_service'],
    data: ['ipv6_addr', 'inet_service'],
  });

  test('is laid out from register 1 on, big registers where they begin', () => {
    expect(lower([dnat('ip6', concat(ip6.saddr, ip6.daddr, th.dport).map(HELD))], 'ip6')).toEqual([
      '[ payload load 16b @ network header + 8 => reg 1 ]',
      '[ payload load 16b @ network header + 24 => reg 2 ]',
      '[ payload load 2b @ transport header + 2 => reg 3 ]',
      '[ lookup reg 1 set m dreg 1 ]',
      '[ nat dnat ip6 addr_min reg 1 proto_min reg 2 ]',
    ]);
  });

  test('longer than all registers together is refused', () => {
    const key = concat(ip6.saddr, ip6.daddr, ip6.saddr, ip6.daddr, mark);
    expect(() => lower([dnat('ip6', key.map(HELD))])).toThrow('Cannot load a key of 68 bytes, 64 at most');
  });
});

describe('dnat', () => {
  test.each([
    ['ip', ['ipv6_addr']],
    ['ip6', ['ipv4_addr', 'inet_service']],
    ['ip', ['ipv4_addr', 'mark']],
    ['ip', ['inet_service']],
    ['ip', ['ipv4_addr', 'inet_service', 'mark']],
  ] as const)('%s refuses a map of %j', (protocol, data) => {
    const held = map({ table: TABLE, name: 'm', key: ['inet_service'], data });
    expect(() => lower([dnat(protocol, th.dport.map(held))])).toThrow(
      `Cannot dnat ${protocol} to what map "m" holds`,
    );
  });

  test('refuses a verdict map', () => {
    const held = map({ table: TABLE, name: 'm', key: ['inet_service'], data: 'verdict' });
    expect(() => lower([dnat('ip', th.dport.map(held))])).toThrow('Cannot dnat ip to what map "m" holds');
  });
});

test('no statement, no expression', () => {
  expect(lower([])).toEqual([]);
  expect(lower([return_()])).toEqual(['[ immediate reg 0 return ]']);
});
