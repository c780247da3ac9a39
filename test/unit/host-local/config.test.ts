// From the network configuration to range sets, requested addresses and a place for the store; and what is refused.
import { describe, expect, it } from 'vitest';
import { type HostLocalConfig, parseConfig, parseTeardown } from '../../../plugins/host-local/config.ts';
import { formatRangeSet } from '../../../plugins/host-local/range.ts';
import { CniError } from '../../../shared/cni/error.ts';
import type { ConfigSource } from '../../../shared/cni/plugin.ts';
import type { CniVersion } from '../../../shared/cni/versions.ts';
import { formatIp } from '../../../shared/ip/cidr.ts';

interface Given {
  readonly ipam?: unknown;
  readonly rest?: Record<string, unknown>;
  readonly args?: string;
  readonly cniVersion?: CniVersion;
}

function source({
  ipam = { subnet: '10.1.0.0/24' },
  rest = {},
  args = '',
  cniVersion = '1.1.0',
}: Given): ConfigSource {
  return {
    network: {
      cniVersion,
      name: 'n1',
      type: 'bridge',
      raw: { cniVersion, name: 'n1', type: 'bridge', ipam, ...rest },
      prevResult: undefined,
      validAttachments: undefined,
    },
    args,
    command: 'ADD',
  };
}

function parse(given: Given): HostLocalConfig {
  return parseConfig(source(given));
}

function refusal(given: Given): { code: number; msg: string } {
  try {
    parse(given);
  } catch (error) {
    if (error instanceof CniError) return { code: error.code, msg: error.message };
    throw error;
  }
  throw new Error('The config was accepted');
}

describe('range sets', () => {
  it('come from runtimeConfig, then from the one range of old configs, then from ranges', () => {
    const config = parse({
      ipam: {
        subnet: '10.1.0.0/24',
        rangeStart: '10.1.0.9',
        ranges: [[{ subnet: '10.2.0.0/24' }], [{ subnet: 'fd00::/64' }]],
      },
      rest: { runtimeConfig: { ipRanges: [[{ subnet: '10.3.0.0/24' }, { subnet: '10.4.0.0/24' }]] } },
    });
    expect(config.sets.map(formatRangeSet)).toEqual([
      '10.3.0.1-10.3.0.254,10.4.0.1-10.4.0.254',
      '10.1.0.9-10.1.0.254',
      '10.2.0.1-10.2.0.254',
      'fd00::1-fd00::ffff:ffff:ffff:ffff',
    ]);
  });

  it('are read whatever the case of their keys', () => {
    expect(
      parse({ ipam: { RANGES: [[{ Subnet: '10.2.0.0/24', RANGESTART: '10.2.0.7' }]] } }).sets.map(
        formatRangeSet,
      ),
    ).toEqual(['10.2.0.7-10.2.0.254']);
  });

  it('ignore bounds without a subnet, as the reference does', () => {
    const ipam = { rangeStart: '10.1.0.9', ranges: [[{ subnet: '10.2.0.0/24' }]] };
    expect(parse({ ipam }).sets.map(formatRangeSet)).toEqual(['10.2.0.1-10.2.0.254']);
  });

  it('take an empty string or null as a bound that is not set', () => {
    const ipam = { subnet: '10.1.0.0/24', rangeStart: '', rangeEnd: null, gateway: '' };
    expect(parse({ ipam }).sets.map(formatRangeSet)).toEqual(['10.1.0.1-10.1.0.254']);
  });

  it('may be IPv4-mapped, which is IPv4', () => {
    expect(parse({ ipam: { subnet: '::ffff:10.1.0.0/120' } }).sets.map(formatRangeSet)).toEqual([
      '10.1.0.1-10.1.0.254',
    ]);
  });

  it('of one family may be several from protocol version 0.3.0 on', () => {
    const ipam = { ranges: [[{ subnet: '10.1.0.0/24' }], [{ subnet: '10.2.0.0/24' }]] };
    expect(parse({ ipam, cniVersion: '0.3.0' }).sets).toHaveLength(2);
    expect(refusal({ ipam, cniVersion: '0.2.0' })).toEqual({
      code: 7,
      msg: expect.stringMatching(/"0\.2\.0".*2 IPv4 range sets/),
    });
  });
});

describe('requested addresses', () => {
  it('are merged from runtimeConfig, args and CNI_ARGS, without their prefix length, each once', () => {
    const config = parse({
      rest: {
        runtimeConfig: { ips: ['10.1.0.5/16', '10.1.0.6'] },
        args: { cni: { ips: ['10.1.0.7', '10.1.0.5'] } },
      },
      args: 'IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.1.0.8/32',
    });
    expect(config.requested.map(formatIp)).toEqual(['10.1.0.5', '10.1.0.6', '10.1.0.7', '10.1.0.8']);
  });

  it('that are no addresses are refused, naming where they come from', () => {
    expect(refusal({ args: 'IP=10.1.0' })).toEqual({
      code: 4,
      msg: expect.stringMatching(/"10\.1\.0".*CNI_ARGS/),
    });
    expect(refusal({ args: 'IP=10.1.0.1;' }).code).toBe(4);
    expect(refusal({ args: 'FOO=1' }).code).toBe(4);
    expect(refusal({ rest: { runtimeConfig: { ips: ['x'] } } })).toEqual({
      code: 7,
      msg: expect.stringMatching(/"runtimeConfig\.ips\[0\]".*not "x"/),
    });
    expect(refusal({ rest: { args: { cni: { ips: [7] } } } }).msg).toMatch(/"args\.cni\.ips\[0\]".*not 7/);
  });
});

describe('a config', () => {
  it('has the usual place for the store unless it names one', () => {
    expect(parse({}).dataDir).toBe('/var/lib/cni/networks');
    expect(parse({ ipam: { subnet: '10.1.0.0/24', dataDir: '' } }).dataDir).toBe('/var/lib/cni/networks');
    expect(parse({ ipam: { subnet: '10.1.0.0/24', dataDir: '/run//x/./y' } }).dataDir).toBe('/run/x/y');
  });

  it('passes routes on, in their usual spelling', () => {
    const routes = [
      { dst: '0.0.0.0/0' },
      { dst: 'FD00:0::/16', gw: 'fd00::01', mtu: 1400, advmss: 1300, priority: 0, table: 0, scope: 253 },
    ];
    expect(parse({ ipam: { subnet: '10.1.0.0/24', routes } }).routes).toEqual([
      { dst: '0.0.0.0/0' },
      { dst: 'fd00::/16', gw: 'fd00::1', mtu: 1400, advmss: 1300, priority: 0, table: 0, scope: 253 },
    ]);
  });

  it('may ask for a strict STATUS in either place', () => {
    expect(parse({}).strictStatus).toBe(false);
    expect(parse({ ipam: { subnet: '10.1.0.0/24', strictStatus: true } }).strictStatus).toBe(true);
    expect(parse({ rest: { strictStatus: true } }).strictStatus).toBe(true);
  });

  it.each<[string, Given, RegExp]>([
    ['no ipam', { rest: { ipam: undefined } }, /"ipam".*missing/],
    ['ipam that is a list', { ipam: [] }, /"ipam" of the network configuration must be an object, not \[\]/],
    ['no ranges', { ipam: {} }, /"ipam\.ranges".*there are no ranges/],
    ['an empty list of ranges', { ipam: { ranges: [] } }, /there are no ranges/],
    ['an empty range set', { ipam: { ranges: [[]] } }, /"ipam\.ranges\[0\]".*empty range set/],
    [
      'ranges that are objects',
      { ipam: { ranges: [{ subnet: '10.1.0.0/24' }] } },
      /"ipam\.ranges\[0\]".*must be a list/,
    ],
    [
      'a range without subnet',
      { ipam: { ranges: [[{ rangeStart: '10.1.0.5' }]] } },
      /"ipam\.ranges\[0\]\[0\]\.subnet".*missing/,
    ],
    ['a subnet without prefix', { ipam: { subnet: '10.1.0.0' } }, /"ipam\.subnet".*CIDR.*not "10\.1\.0\.0"/],
    [
      'an octet with a leading zero',
      { ipam: { subnet: '10.01.0.0/24' } },
      /"ipam\.subnet".*not "10\.01\.0\.0\/24"/,
    ],
    ['a subnet with a zone', { ipam: { subnet: 'fe80::%eth0/64' } }, /"ipam\.subnet"/],
    ['a subnet that is a number', { ipam: { subnet: 10 } }, /"ipam\.subnet".*a string, not 10/],
    [
      'a bad rangeStart',
      { ipam: { subnet: '10.1.0.0/24', rangeStart: 'x' } },
      /"ipam\.rangeStart".*an IP address, not "x"/,
    ],
    [
      'a bad gateway',
      { ipam: { subnet: '10.1.0.0/24', gateway: '10.1.0.1/24' } },
      /"ipam\.gateway".*not "10\.1\.0\.1\/24"/,
    ],
    ['host bits', { ipam: { subnet: '10.1.0.1/24' } }, /"ipam\.subnet" "10\.1\.0\.1\/24".*host bits/],
    [
      'two families in a set',
      { ipam: { ranges: [[{ subnet: '10.1.0.0/24' }, { subnet: 'fd00::/64' }]] } },
      /mixes address families/,
    ],
    [
      'overlap inside a set',
      { ipam: { ranges: [[{ subnet: '10.1.0.0/24' }, { subnet: '10.1.0.0/25' }]] } },
      /"10\.1\.0\.1-10\.1\.0\.254" and "10\.1\.0\.1-10\.1\.0\.126".*overlap \(both in range set 0\)/,
    ],
    [
      'overlap between sets',
      { ipam: { subnet: '10.1.0.0/24', ranges: [[{ subnet: '10.1.0.0/16' }]] } },
      /overlap \(in range sets [01] and [01]\)/,
    ],
    [
      'a relative dataDir',
      { ipam: { subnet: '10.1.0.0/24', dataDir: 'networks' } },
      /"ipam\.dataDir".*absolute path.*not "networks"/,
    ],
    ['a dataDir that climbs', { ipam: { subnet: '10.1.0.0/24', dataDir: '/var/../etc' } }, /"ipam\.dataDir"/],
    ['a dataDir with NUL', { ipam: { subnet: '10.1.0.0/24', dataDir: '/var/\0' } }, /"ipam\.dataDir"/],
    [
      'an endless dataDir',
      { ipam: { subnet: '10.1.0.0/24', dataDir: `/${'a/'.repeat(3000)}` } },
      /"ipam\.dataDir".*cut, 6001/,
    ],
    [
      'a route without dst',
      { ipam: { subnet: '10.1.0.0/24', routes: [{ gw: '10.1.0.1' }] } },
      /"ipam\.routes\[0\]\.dst".*missing/,
    ],
    [
      'a route with a bad gw',
      { ipam: { subnet: '10.1.0.0/24', routes: [{ dst: '0.0.0.0/0', gw: 'x' }] } },
      /"ipam\.routes\[0\]\.gw"/,
    ],
    [
      'a negative MTU',
      { ipam: { subnet: '10.1.0.0/24', routes: [{ dst: '0.0.0.0/0', mtu: -1 }] } },
      /"ipam\.routes\[0\]\.mtu".*not -1/,
    ],
    [
      'strictStatus that is text',
      { rest: { strictStatus: 'true' } },
      /"strictStatus".*true or false, not "true"/,
    ],
    ['runtimeConfig that is text', { rest: { runtimeConfig: 'x' } }, /"runtimeConfig".*an object/],
  ])('with %s is refused', (_what, given, message) => {
    expect(refusal(given)).toEqual({ code: 7, msg: expect.stringMatching(message) });
  });

  it('of a megabyte is refused in reasonable time', () => {
    const ranges = Array.from({ length: 25_000 }, (_, index) => [
      { subnet: `10.${index >> 8}.${index & 255}.0/24` },
    ]);
    const before = performance.now();
    expect(refusal({ ipam: { ranges: [...ranges, [{ subnet: '10.0.0.0/8' }]] } }).msg).toMatch(/overlap/);
    expect(performance.now() - before).toBeLessThan(5000);
  });
});

describe('what DEL and GC need', () => {
  it.each<[string, Given, string]>([
    ['a good config', { ipam: { subnet: '10.1.0.0/24', dataDir: '/run/x' } }, '/run/x'],
    ['no ranges', { ipam: { dataDir: '/run/x' } }, '/run/x'],
    ['ranges that are nonsense', { ipam: { ranges: 'x', subnet: 7, dataDir: '/run/x' } }, '/run/x'],
    ['a dataDir that no ADD accepts', { ipam: { dataDir: '../x' } }, '/var/lib/cni/networks'],
    ['a dataDir that is a number', { ipam: { dataDir: 7 } }, '/var/lib/cni/networks'],
    ['ipam that is text', { ipam: 'x' }, '/var/lib/cni/networks'],
    ['malformed CNI_ARGS', { args: ';;', ipam: { dataDir: '/run/x' } }, '/run/x'],
  ])('is found in %s', (_what, given, dataDir) => {
    expect(parseTeardown(source(given))).toEqual({ dataDir });
  });
});
