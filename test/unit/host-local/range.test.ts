// Ranges as values: what the config leaves open, the order of the round robin, overlaps and counts.
import { describe, expect, it } from 'vitest';
import {
  candidatesAfter,
  canonicalRange,
  countAddresses,
  findOverlap,
  findRange,
  formatCount,
  formatRangeSet,
  type Range,
  type RangeSet,
} from '../../../plugins/host-local/range.ts';
import { formatIp, parseCidr, parseIp } from '../../../shared/ip/cidr.ts';

function range(subnet: string, rangeStart?: string, rangeEnd?: string, gateway?: string): Range {
  const optional = (text: string | undefined) => (text === undefined ? undefined : parseIp(text));
  return canonicalRange(
    {
      subnet: parseCidr(subnet),
      rangeStart: optional(rangeStart),
      rangeEnd: optional(rangeEnd),
      gateway: optional(gateway),
    },
    'ipam',
  );
}

function order(set: RangeSet, last?: string): string[] {
  return [...candidatesAfter(set, last === undefined ? undefined : parseIp(last))].map(({ ip }) =>
    formatIp(ip),
  );
}

describe('a range', () => {
  it.each([
    ['10.1.0.0/29', '10.1.0.1-10.1.0.6'],
    ['10.1.0.0/30', '10.1.0.1-10.1.0.2'],
    ['fd00::/125', 'fd00::1-fd00::7'],
    ['fd00::/126', 'fd00::1-fd00::3'],
  ])('of %s without bounds goes from the first address to the last usable one', (subnet, text) => {
    expect(formatRangeSet([range(subnet)])).toBe(text);
  });

  it('has the first address of the network as its gateway', () => {
    expect(formatIp(range('10.1.0.0/24').gateway)).toBe('10.1.0.1');
    expect(formatIp(range('10.1.0.0/24', '10.1.0.50').gateway)).toBe('10.1.0.1');
  });

  it('may have a gateway outside its subnet', () => {
    expect(formatIp(range('10.1.0.0/24', undefined, undefined, '10.9.9.9').gateway)).toBe('10.9.9.9');
  });

  it('leaves out the network and the broadcast address of its subnet, even when they are its bounds', () => {
    expect(formatRangeSet([range('10.1.0.0/24', '10.1.0.0', '10.1.0.255')])).toBe('10.1.0.1-10.1.0.254');
  });

  it('keeps bounds that end in 0 or 255 inside a larger subnet', () => {
    expect(formatRangeSet([range('10.1.0.0/16', '10.1.1.0', '10.1.1.255')])).toBe('10.1.1.0-10.1.1.255');
  });

  it('keeps the first and the last address of an IPv6 subnet that are named', () => {
    expect(formatRangeSet([range('fd00::/64', 'fd00::', 'fd00::ffff:ffff:ffff:ffff')])).toBe(
      'fd00::-fd00::ffff:ffff:ffff:ffff',
    );
  });

  it.each([
    ['10.1.0.0/31', undefined, undefined, /too small/],
    ['10.1.0.0/32', undefined, undefined, /too small/],
    ['fd00::/127', undefined, undefined, /too small/],
    ['fd00::/128', undefined, undefined, /too small/],
    ['10.1.0.5/24', undefined, undefined, /host bits.*"10\.1\.0\.0\/24"/],
    ['10.1.0.0/24', '10.2.0.1', undefined, /rangeStart.*"10\.2\.0\.1".*not in network "10\.1\.0\.0\/24"/],
    ['10.1.0.0/24', undefined, '10.2.0.1', /rangeEnd.*"10\.2\.0\.1".*not in network/],
    ['10.1.0.0/24', 'fd00::1', undefined, /not in network/],
    ['10.1.0.0/24', '10.1.0.9', '10.1.0.8', /starts at "10\.1\.0\.9", after its end "10\.1\.0\.8"/],
    ['10.1.0.0/24', '10.1.0.255', '10.1.0.255', /nothing but the network or broadcast address/],
    ['10.1.0.0/24', '10.1.0.0', '10.1.0.0', /nothing but the network or broadcast address/],
  ])('of %s from %s to %s is refused', (subnet, start, end, message) => {
    expect(() => range(subnet, start, end)).toThrow(message);
  });

  it('is refused with a gateway of the other family', () => {
    expect(() => range('10.1.0.0/24', undefined, undefined, 'fd00::1')).toThrow(/gateway.*"fd00::1".*IPv4/);
  });
});

describe('the round robin', () => {
  const a = range('10.1.0.0/30');
  const b = range('10.1.0.8/29', '10.1.0.9', '10.1.0.12', '10.1.0.9');

  it('begins at the beginning, without gateways', () => {
    expect(order([a, b])).toEqual(['10.1.0.2', '10.1.0.10', '10.1.0.11', '10.1.0.12']);
  });

  it('goes on after the last address, through the other ranges, and comes to that address at the end', () => {
    expect(order([a, b], '10.1.0.10')).toEqual(['10.1.0.11', '10.1.0.12', '10.1.0.2', '10.1.0.10']);
  });

  it('wraps from the last address of the last range to the first range', () => {
    expect(order([a, b], '10.1.0.12')).toEqual(['10.1.0.2', '10.1.0.10', '10.1.0.11', '10.1.0.12']);
  });

  it('takes the ranges in a circle, not the first one again', () => {
    const c = range('10.3.0.0/30');
    expect(order([a, b, c], '10.1.0.12')).toEqual([
      '10.3.0.2',
      '10.1.0.2',
      '10.1.0.10',
      '10.1.0.11',
      '10.1.0.12',
    ]);
  });

  it('begins at the beginning after an address of no range', () => {
    expect(order([a], '10.9.0.1')).toEqual(['10.1.0.2']);
    expect(order([a], 'fd00::1')).toEqual(['10.1.0.2']);
  });

  it('goes on after a gateway', () => {
    expect(order([range('10.1.0.0/29')], '10.1.0.1')).toEqual([
      '10.1.0.2',
      '10.1.0.3',
      '10.1.0.4',
      '10.1.0.5',
      '10.1.0.6',
    ]);
  });

  it('ends at the last address there is', () => {
    const top = range('ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126');
    expect(order([top], 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff')).toEqual([
      'ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe',
      'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
    ]);
  });

  it('gives the first addresses of a huge range at once', () => {
    const first = candidatesAfter([range('fd00::/16')], undefined).next();
    expect(first.done === false && formatIp(first.value.ip)).toBe('fd00::2');
  });
});

describe('a range set', () => {
  it('counts what it can hand out', () => {
    expect(countAddresses([range('10.1.0.0/29')])).toBe(5n);
    expect(countAddresses([range('10.1.0.0/29', '10.1.0.3'), range('10.2.0.0/30')])).toBe(5n);
    expect(countAddresses([range('fd00::/64')])).toBe(2n ** 64n - 2n);
  });

  it('names counts nobody can read as powers of two', () => {
    expect(formatCount(65533n)).toBe('65533');
    expect(formatCount(2n ** 64n - 2n)).toBe('about 2^64');
  });

  it('finds the range that holds an address, by its bounds and not by its subnet', () => {
    const set: RangeSet = [range('10.1.0.0/24', '10.1.0.10', '10.1.0.20')];
    expect(findRange(set, parseIp('10.1.0.10'))).toBe(set[0]);
    expect(findRange(set, parseIp('10.1.0.20'))).toBe(set[0]);
    expect(findRange(set, parseIp('10.1.0.9'))).toBeUndefined();
    expect(findRange(set, parseIp('10.1.0.21'))).toBeUndefined();
    expect(findRange(set, parseIp('::a01:a'))).toBeUndefined();
  });
});

describe('overlap', () => {
  it('is none between ranges side by side in one subnet', () => {
    const sets: RangeSet[] = [
      [range('10.1.0.0/24', '10.1.0.10', '10.1.0.19')],
      [range('10.1.0.0/24', '10.1.0.20', '10.1.0.29')],
      [range('fd00::/64')],
    ];
    expect(findOverlap(sets)).toBeUndefined();
  });

  it.each([
    ['one address', '10.1.0.20', '10.1.0.30'],
    ['all of it', '10.1.0.1', '10.1.0.254'],
    ['its inside', '10.1.0.12', '10.1.0.13'],
  ])('is found where two ranges share %s', (_what, start, end) => {
    const first = range('10.1.0.0/24', '10.1.0.10', '10.1.0.20');
    const second = range('10.1.0.0/24', start, end);
    const overlap = findOverlap([[second], [range('10.9.0.0/24')], [first]]);
    expect(overlap?.map(({ set }) => set).sort()).toEqual([0, 2]);
  });

  it('is found among thousands of ranges without comparing each with each', () => {
    const sets = Array.from(
      { length: 20_000 },
      (_, index): RangeSet => [range(`10.${index >> 8}.${index & 255}.0/24`)],
    );
    const before = performance.now();
    expect(findOverlap(sets)).toBeUndefined();
    expect(findOverlap([...sets, [range('10.3.7.0/24', '10.3.7.9', '10.3.7.9')]])).toBeDefined();
    expect(performance.now() - before).toBeLessThan(2000);
  });
});
