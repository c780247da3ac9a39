// From the tokens of either spelling to typed conditions; and the tokens that are refused by name.
import { describe, expect, test } from 'vitest';
import { findRepeatedKind, parseConditions } from '../../../plugins/portmap/conditions.ts';
import { CniError } from '../../../shared/cni/error.ts';
import { type Family, formatCidr } from '../../../shared/ip/cidr.ts';
import type { Condition } from '../../../shared/nftables/conditions.ts';

function parse(tokens: readonly string[], family: Family) {
  return parseConditions(tokens, { field: `conditionsV${family}`, family });
}

/** Each alternative as text: `!daddr=192.0.2.0/24 iifname=eth*`. */
function parsed(tokens: readonly string[], family: Family = 4): string[] {
  return parse(tokens, family).map((list) => list.map(spell).join(' '));
}

function spell(condition: Condition): string {
  const value =
    condition.kind === 'iifname'
      ? `${condition.name}${condition.isPrefix ? '*' : ''}`
      : formatCidr(condition.cidr);
  return `${condition.negated ? '!' : ''}${condition.kind}=${value}`;
}

function refusal(tokens: readonly string[], family: Family): CniError {
  try {
    parse(tokens, family);
  } catch (error) {
    if (error instanceof CniError) return error;
    throw error;
  }
  throw new Error('The tokens were accepted');
}

test('no tokens are no conditions', () => {
  expect(parse([], 4)).toEqual([]);
  expect(parse(['', ' '], 6)).toEqual([]);
});

test('a condition is typed, with the bits of the host cleared', () => {
  expect(parse(['!', '-d', '192.0.2.7/24'], 4)).toEqual([
    [{ kind: 'daddr', cidr: { ip: { family: 4, value: 0xc0000200n }, prefix: 24 }, negated: true }],
  ]);
  expect(parse(['-i', 'eth+'], 4)).toEqual([
    [{ kind: 'iifname', name: 'eth', isPrefix: true, negated: false }],
  ]);
});

describe('the spelling of iptables:', () => {
  test.each<[readonly string[], readonly string[]]>([
    [['!', '-d', '192.0.2.0/24'], ['!daddr=192.0.2.0/24']],
    [['! -d 192.0.2.0/24'], ['!daddr=192.0.2.0/24']],
    [['-d', '!', '192.0.2.0/24'], ['!daddr=192.0.2.0/24']],
    [['-d', '169.254.170.23'], ['daddr=169.254.170.23/32']],
    [['-s', '10.0.0.0/8'], ['saddr=10.0.0.0/8']],
    [['--source', '10.0.0.0/8'], ['saddr=10.0.0.0/8']],
    [['--src=10.0.0.0/8'], ['saddr=10.0.0.0/8']],
    [['!', '--destination', '10.0.0.0/8'], ['!daddr=10.0.0.0/8']],
    [['--dst', '10.0.0.0/255.255.0.0'], ['daddr=10.0.0.0/16']],
    [['-s', '10.1.2.3/255.255.255.255'], ['saddr=10.1.2.3/32']],
    [['-i', 'eth0'], ['iifname=eth0']],
    [['!', '-i', 'lo'], ['!iifname=lo']],
    [['--in-interface', 'bond0.7'], ['iifname=bond0.7']],
    [['-i', 'wg+'], ['iifname=wg*']],
    [
      ['-s', '10.0.0.0/8', '!', '-d', '192.0.2.1', '-i', 'eth0'],
      ['saddr=10.0.0.0/8 !daddr=192.0.2.1/32 iifname=eth0'],
    ],
    [
      ['-d', '10.10.10.10/32,127.0.0.1/32'],
      ['daddr=10.10.10.10/32', 'daddr=127.0.0.1/32'],
    ],
    [['!', '-d', '192.0.2.1,192.0.2.2'], ['!daddr=192.0.2.1/32 !daddr=192.0.2.2/32']],
    [['-d', '192.0.2.1,192.0.2.1/32'], ['daddr=192.0.2.1/32']],
    [['-d', '0.0.0.0/0'], []],
    [['-d', '192.0.2.1,0.0.0.0/0', '-i', 'lo'], ['iifname=lo']],
    [['-s', '0.0.0.0/0.0.0.0'], []],
    [['-d', '::ffff:192.0.2.0/120'], ['daddr=192.0.2.0/24']],
    [['-i', 'eth0', '!', '-i', 'eth0'], ['iifname=eth0 !iifname=eth0']],
  ])('%j', (tokens, alternatives) => {
    expect(parsed(tokens)).toEqual(alternatives);
  });

  test('several values of two options are all their combinations', () => {
    expect(parsed(['-s', '10.0.0.1,10.0.0.2', '-d', '192.0.2.1,192.0.2.2']).sort()).toEqual([
      'saddr=10.0.0.1/32 daddr=192.0.2.1/32',
      'saddr=10.0.0.1/32 daddr=192.0.2.2/32',
      'saddr=10.0.0.2/32 daddr=192.0.2.1/32',
      'saddr=10.0.0.2/32 daddr=192.0.2.2/32',
    ]);
  });

  test('IPv6 has the same options', () => {
    expect(parsed(['!', '-d', 'fc00::/7', '-s', '2001:DB8::1'], 6)).toEqual([
      '!daddr=fc00::/7 saddr=2001:db8::1/128',
    ]);
  });
});

describe('the spelling of nft:', () => {
  test.each<[readonly string[], readonly string[]]>([
    [['ip', 'daddr', '!=', '192.0.2.0/24'], ['!daddr=192.0.2.0/24']],
    [['ip daddr != 192.0.2.0/24'], ['!daddr=192.0.2.0/24']],
    [['ip daddr!=192.0.2.0/24'], ['!daddr=192.0.2.0/24']],
    [['ip', 'daddr', 'ne', '192.0.2.0/24'], ['!daddr=192.0.2.0/24']],
    [['ip', 'saddr', '10.0.0.1'], ['saddr=10.0.0.1/32']],
    [['ip', 'saddr', '==', '10.0.0.1'], ['saddr=10.0.0.1/32']],
    [['ip', 'saddr', 'eq', '10.0.0.1'], ['saddr=10.0.0.1/32']],
    [['iifname', '"eth0"'], ['iifname=eth0']],
    [['iifname', '!=', 'eth0'], ['!iifname=eth0']],
    [['meta iifname "eth*"'], ['iifname=eth*']],
    [
      ['ip', 'daddr', '{', '192.0.2.1,', '192.0.2.2', '}'],
      ['daddr=192.0.2.1/32', 'daddr=192.0.2.2/32'],
    ],
    [['ip daddr {192.0.2.1,192.0.2.2,}'], ['daddr=192.0.2.1/32', 'daddr=192.0.2.2/32']],
    [['ip daddr != { 192.0.2.1, 10.0.0.0/8 }'], ['!daddr=192.0.2.1/32 !daddr=10.0.0.0/8']],
    [['iifname { "eth0", "lo" }'], ['iifname=eth0', 'iifname=lo']],
    [
      ['ip saddr 10.0.0.0/8 ip daddr != 192.0.2.1 iifname eth0'],
      ['saddr=10.0.0.0/8 !daddr=192.0.2.1/32 iifname=eth0'],
    ],
    [['ip daddr 0.0.0.0/0'], []],
  ])('%j', (tokens, alternatives) => {
    expect(parsed(tokens)).toEqual(alternatives);
  });

  test('IPv6 has its own word', () => {
    expect(parsed(['ip6', 'daddr', '!=', 'fc00::/7'], 6)).toEqual(['!daddr=fc00::/7']);
  });
});

describe('these tokens are refused by name:', () => {
  test.each<[Family, readonly string[], string]>([
    [4, ['-m', 'set', '--match-set', 'whitelist', 'src'], '-m'],
    [4, ['-d', '192.0.2.1', '-j', 'ACCEPT'], '-j'],
    [4, ['-p', 'tcp'], '-p'],
    [4, ['-o', 'eth0'], '-o'],
    [4, ['!', '--out-interface', 'eth0'], '--out-interface'],
    [4, ['-a', 'b'], '-a'],
    [4, ['-d192.0.2.1'], '-d192.0.2.1'],
    [4, ['--source='], '--source='],
    [4, ['-D', '192.0.2.1'], '-D'],
    [4, ['!'], '!'],
    [4, ['!', '!', '-d', '192.0.2.1'], '!'],
    [4, ['!', '-d', '!', '192.0.2.1'], '-d'],
    [4, ['!-d', '192.0.2.1'], '!-d'],
    [4, ['-d'], '-d'],
    [4, ['-d', '!'], '-d'],
    [4, ['-s', '10.0.0.1', '192.0.2.1'], '192.0.2.1'],
    [4, ['-d', '-s'], '-s'],
    [4, ['-d', 'example.com'], 'example.com'],
    [4, ['-d', '192.0.2.0/33'], '192.0.2.0/33'],
    [4, ['-d', '192.0.2.0/-1'], '192.0.2.0/-1'],
    [4, ['-d', '192.0.2.0/'], '192.0.2.0/'],
    [4, ['-d', '192.0.2'], '192.0.2'],
    [4, ['-d', '10.0.0.0/255.0.255.0'], '10.0.0.0/255.0.255.0'],
    [4, ['-d', '10.0.0.0/255.0.0.0/8'], '10.0.0.0/255.0.0.0/8'],
    [4, ['-d', '192.0.2.1-192.0.2.9'], '192.0.2.1-192.0.2.9'],
    [4, ['-d', '192.0.2.1,'], ''],
    [4, ['-d', '!192.0.2.1'], '!192.0.2.1'],
    [4, ['!', '-d', '0.0.0.0/0'], '0.0.0.0/0'],
    [4, ['-d', 'fc00::/7'], 'fc00::/7'],
    [6, ['!', '-d', '192.0.2.0/24'], '192.0.2.0/24'],
    [6, ['-d', '::ffff:192.0.2.1'], '::ffff:192.0.2.1'],
    [6, ['-d', 'fe80::1%eth0'], 'fe80::1%eth0'],
    [6, ['-d', 'fd00::/255.0.0.0'], 'fd00::/255.0.0.0'],
    [6, ['-d', 'fd00::/129'], 'fd00::/129'],
    [4, ['-i', 'eth0/1'], 'eth0/1'],
    [4, ['-i', '+'], '+'],
    [4, ['-i', '..'], '..'],
    [4, ['-i', 'bridge0123456789'], 'bridge0123456789'],
    [4, ['-i', 'e"x'], 'e"x'],
    [4, ['-i', '-x'], '-x'],
    [4, ['-i', 'é'], 'é'],
    [4, ['a', 'b'], 'a'],
    [4, ['tcp', 'dport', '80'], 'tcp'],
    [4, ['ip', 'daddr', '192.0.2.1', 'drop'], 'drop'],
    [4, ['ip', 'daddr', '192.0.2.1;', 'drop'], '192.0.2.1;'],
    [4, ['ip', 'protocol', 'tcp'], 'ip protocol'],
    [4, ['ip'], 'ip'],
    [4, ['ip', 'daddr'], 'daddr'],
    [4, ['ip', 'daddr', '!='], '!='],
    [4, ['ip', 'daddr', '!=', '==', '192.0.2.1'], '=='],
    [4, ['ip', 'daddr', '<', '192.0.2.1'], '<'],
    [4, ['ip', 'daddr', '@allowed'], '@allowed'],
    [4, ['ip', 'daddr', '192.0.2.1-192.0.2.9'], '192.0.2.1-192.0.2.9'],
    [4, ['ip daddr { }'], '}'],
    [4, ['ip daddr {'], '{'],
    [4, ['ip daddr { 192.0.2.1'], '192.0.2.1'],
    [4, ['ip daddr { 192.0.2.1 192.0.2.2 }'], '192.0.2.2'],
    [4, ['ip daddr { 192.0.2.1,, 192.0.2.2 }'], ','],
    [4, ['ip daddr 192.0.2.1 }'], '}'],
    [4, ['ip daddr = 192.0.2.1'], '='],
    [4, ['ip6', 'daddr', 'fc00::/7'], 'ip6 daddr'],
    [6, ['ip', 'daddr', '192.0.2.1'], 'ip daddr'],
    [6, ['ip6', 'daddr', '192.0.2.1'], '192.0.2.1'],
    [4, ['ip daddr != 0.0.0.0/0'], '0.0.0.0/0'],
    [4, ['oifname', 'eth0'], 'oifname'],
    [4, ['iif', 'eth0'], 'iif'],
    [4, ['meta', 'mark', '1'], 'meta'],
    [4, ['meta'], 'meta'],
    [4, ['iifname'], 'iifname'],
    [4, ['iifname "*"'], '*'],
    [4, ['iifname "eth0'], '"'],
    [4, ['iifname "eth0 drop"'], 'eth0 drop'],
    [4, ['iifname eth\\*'], 'eth\\*'],
    [4, ['fib daddr type local'], 'fib'],
    [4, ['ip daddr 192.0.2.1 -i eth0'], '-i'],
    [4, ['-i eth0 ip daddr 192.0.2.1'], 'ip'],
    [4, ['constructor'], 'constructor'],
  ])('IPv%d %j', (family, tokens, named) => {
    const { code, message } = refusal(tokens, family);
    expect(code).toBe(7);
    expect(message).toContain(
      `Field "conditionsV${family}" of the network configuration holds ${JSON.stringify(named)}: `,
    );
  });

  test('with the ones that are known', () => {
    expect(refusal(['-m', 'set'], 4).message).toMatch(
      /known are -s, -d and -i .*ip saddr, ip daddr and iifname/,
    );
    expect(refusal(['-m', 'set'], 6).message).toMatch(/ip6 saddr, ip6 daddr and iifname/);
  });
});

describe('as many as a ruleset can hold are taken:', () => {
  const addresses = (count: number) =>
    Array.from({ length: count }, (_, index) => `10.0.${index >> 8}.${index & 255}`);

  test('1024 alternatives, and no more', () => {
    expect(parsed(['-s', addresses(1024).join(',')])).toHaveLength(1024);
    expect(refusal(['-s', addresses(1025).join(',')], 4).message).toMatch(/1025 combinations.*at most 1024/);
    const half = addresses(64).join(',');
    expect(refusal(['-s', half, '-d', half], 4).message).toMatch(/4096 combinations/);
  });

  test('32 conditions of one alternative, and no more', () => {
    expect(parse([`ip saddr != { ${addresses(32).join(', ')} }`], 4)[0]).toHaveLength(32);
    expect(refusal([`ip saddr != { ${addresses(33).join(', ')} }`], 4).message).toMatch(
      /33 conditions.*at most 32/,
    );
  });
});

test('a list that asks for one kind twice is found', () => {
  const kinds = (tokens: string) => parse([tokens], 4).map(findRepeatedKind);
  expect(kinds('-s 10.0.0.1 -d 10.0.0.2 -i lo')).toEqual([undefined]);
  expect(kinds('-d 10.0.0.1,10.0.0.2')).toEqual([undefined, undefined]);
  expect(kinds('-s 10.0.0.1 -i lo ! -i eth0')).toEqual(['iifname']);
});
