// The parts of a patchbay config as the plugins get them, and what is refused before one is asked.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import { parseConfig, parseTeardown } from '../../../plugins/patchbay/config.ts';
import { listOf, refusal, source } from './source.ts';

const BRIDGE = { bridge: 'br0', ipMasq: true };

describe('a config', () => {
  test('is one for each plugin it names, in the order of a list, with what belongs to the network', () => {
    const common = {
      args: { cni: { mac: '02:00:00:00:00:01' } },
      runtimeConfig: { portMappings: [] },
    };
    const addressing = { ipam: { type: 'host-local' }, dns: { domain: 'example.org' } };
    const { stages } = parseConfig(
      source({ tuning: { mtu: 1400 }, portmap: {}, bridge: BRIDGE, ...common, ...addressing, other: 1 }),
    );
    const network = { cniVersion: '1.1.0', name: 'n1', ...common };
    expect(stages.map(({ source }) => source.network.raw)).toEqual([
      { ...network, ...addressing, ...BRIDGE, type: 'bridge' },
      { ...network, type: 'portmap' },
      { ...network, mtu: 1400, type: 'tuning' },
    ]);
    expect(stages.map(({ source: { network } }) => [network.type, network.textPath])).toEqual([
      ['bridge', ['bridge']],
      ['portmap', ['portmap']],
      ['tuning', ['tuning']],
    ]);
  });

  test('may spell its keys in any case, as all configs, and null is as good as nothing', () => {
    expect(listOf(parseConfig(source({ Bridge: BRIDGE, PORTMAP: {}, tuning: null })))).toEqual([
      'bridge',
      'portmap',
    ]);
  });

  test('cannot say in a part what belongs to the network', () => {
    const { stages } = parseConfig(source({ bridge: { ...BRIDGE, type: 'macvlan' } }));
    expect(stages[0]?.source.network).toMatchObject({ type: 'bridge', raw: { type: 'bridge' } });
  });

  test.each<[string, object, string]>([
    ['without bridge', { portmap: {} }, 'Field "bridge" of the network configuration is missing'],
    [
      'with the name of a bridge',
      { bridge: 'br0' },
      'Field "bridge" of the network configuration must be an object',
    ],
    ['with a part that is a switch', { bridge: {}, portmap: true }, 'Field "portmap" of the network'],
    ['with a part that is a list', { bridge: {}, firewall: [] }, 'Field "firewall" of the network'],
    ...[
      'ipam',
      'dns',
      'args',
      'runtimeConfig',
      'prevResult',
      'name',
      'cniVersion',
      'capabilities',
      'IPAM',
    ].map((key): [string, object, string] => [
      `with "${key}" inside of a part`,
      { bridge: { [key]: {} } },
      `of "bridge" stands in the wrong place; move it out, beside "bridge"`,
    ]),
    [
      'with "ipam" inside of portmap',
      { bridge: {}, portmap: { ipam: {} } },
      'Field "ipam" of "portmap" stands',
    ],
  ])('%s is refused', (_, fields, message) => {
    expect(refusal(fields)).toMatchObject({ code: 7, msg: expect.stringContaining(message) });
  });
});

describe('for DEL and GC', () => {
  test.each<[string, object]>([
    ['an empty config', {}],
    ['a config of bridge alone', { bridge: BRIDGE }],
    ['parts of the wrong kind', { bridge: 'br0', portmap: 1, firewall: [], tuning: null }],
    ['misplaced fields', { bridge: { ipam: {} }, portmap: { capabilities: 1 } }],
  ])('%s stands for all plugins', (_, fields) => {
    expect(listOf(parseTeardown(source(fields, 'DEL')))).toEqual(['bridge', 'portmap', 'firewall', 'tuning']);
  });

  test('each plugin gets what the config says of it, and the addresses are those outside', () => {
    const { stages } = parseTeardown(source({ bridge: { ...BRIDGE, ipam: 1 }, ipam: { type: 'x' } }, 'DEL'));
    expect(stages[0]?.source.network.raw).toMatchObject({ ...BRIDGE, ipam: { type: 'x' } });
  });
});
