// How the bridge plugin reads its config: defaults, precedence, and what it refuses by name.
import { describe, expect, test } from 'vitest';
import { parseConfig, parseTeardown } from '../../../plugins/bridge/config.ts';
import type { ConfigSource } from '../../../shared/cni/plugin.ts';

function source(fields: Record<string, unknown>, args = ''): ConfigSource {
  const raw = { cniVersion: '1.1.0', name: 'n1', type: 'bridge', ...fields };
  return {
    network: {
      cniVersion: '1.1.0',
      name: 'n1',
      type: 'bridge',
      raw,
      prevResult: undefined,
      validAttachments: undefined,
    },
    args,
    command: 'ADD',
  };
}

test('an empty config is a layer-2 network on cni0', () => {
  expect(parseConfig(source({}))).toEqual({
    bridge: 'cni0',
    isGateway: false,
    isDefaultGateway: false,
    forceAddress: false,
    ipMasq: false,
    ipMasqBackend: 'nftables',
    mtu: undefined,
    hairpinMode: false,
    promiscMode: false,
    portIsolation: false,
    vlans: undefined,
    macSpoofCheck: false,
    ipSpoofCheck: false,
    enableDad: false,
    disableContainerInterface: false,
    ipamType: undefined,
    ownSubnets: [],
    dns: undefined,
    mac: undefined,
  });
});

test('keys match regardless of case, as existing configs rely on', () => {
  expect(parseConfig(source({ BRIDGE: 'br0', IPMASQ: true, Ipam: { Type: 'static' } }))).toMatchObject({
    bridge: 'br0',
    ipMasq: true,
    ipamType: 'static',
  });
});

test('a default gateway is a gateway', () => {
  expect(parseConfig(source({ isDefaultGateway: true })).isGateway).toBe(true);
});

test('an empty masquerade backend means the default', () => {
  expect(parseConfig(source({ ipMasqBackend: '' })).ipMasqBackend).toBe('nftables');
});

test('the subnets of all ranges belong to the network', () => {
  const ipam = {
    type: 'host-local',
    subnet: '10.0.0.0/24',
    ranges: [[{ subnet: '10.1.0.0/24' }], [{ subnet: 'fd00::/64' }]],
  };
  const runtimeConfig = { ipRanges: [[{ subnet: '10.2.0.0/24' }]] };
  expect(parseConfig(source({ ipam, runtimeConfig })).ownSubnets).toEqual([
    '10.0.0.0/24',
    '10.1.0.0/24',
    'fd00::/64',
    '10.2.0.0/24',
  ]);
});

describe('the requested MAC', () => {
  const all = { runtimeConfig: { mac: '02:00:00:00:00:01' }, args: { cni: { mac: '02:00:00:00:00:02' } } };

  test.each([
    ['the runtime', all, 'MAC=02:00:00:00:00:03', '02:00:00:00:00:01'],
    ['the config', { args: all.args }, 'MAC=02:00:00:00:00:03', '02:00:00:00:00:02'],
    ['CNI_ARGS', {}, 'MAC=02:00:00:00:00:03', '02:00:00:00:00:03'],
    ['nobody', {}, '', undefined],
  ])('is that of %s', (_who, fields, args, mac) => {
    expect(parseConfig(source(fields, args)).mac).toBe(mac);
  });

  test('is reported in lower case with colons', () => {
    expect(parseConfig(source({ runtimeConfig: { mac: '02-AA-BB-CC-DD-EE' } })).mac).toBe(
      '02:aa:bb:cc:dd:ee',
    );
  });
});

describe('a config is refused with the field and the value', () => {
  test.each([
    ['a bridge name of 16 bytes', { bridge: 'a234567890123456' }, 7, '"a234567890123456"'],
    ['a bridge name that is a path', { bridge: '../eth0' }, 7, '"../eth0"'],
    ['a bridge name with white space', { bridge: 'br 0' }, 7, '"br 0"'],
    ['a bridge name that is a pattern', { bridge: 'br%d' }, 7, '"br%d"'],
    ['a bridge name that is a number', { bridge: 7 }, 7, 'bridge'],
    ['a flag that is a string', { ipMasq: 'true' }, 7, 'ipMasq'],
    ['an unknown backend', { ipMasqBackend: 'ebtables' }, 7, '"ebtables"'],
    ['an MTU below the minimum', { mtu: 67 }, 7, '67'],
    ['an MTU above the maximum', { mtu: 65536 }, 7, '65536'],
    ['a fraction of an MTU', { mtu: 1500.5 }, 7, 'mtu'],
    ['hairpin together with promiscuous mode', { hairpinMode: true, promiscMode: true }, 7, 'promiscMode'],
    [
      'IPAM for a link that stays down',
      { disableContainerInterface: true, ipam: { type: 'x' } },
      7,
      'disableContainer',
    ],
    [
      'a bridge whose VLAN gateway has too long a name',
      { bridge: 'bridge-12345', vlan: 100, isGateway: true },
      7,
      'bridge-12345.100',
    ],
    ['a VLAN out of range', { vlan: 4095 }, 7, '4095'],
    ['a VLAN trunk without an end', { vlanTrunk: [{ minID: 5 }] }, 7, 'vlanTrunk'],
    ['a VLAN trunk of VLAN 0', { vlanTrunk: [{ id: 0 }] }, 7, 'vlanTrunk'],
    ['address checking without addresses', { ipspoofchk: true, ipam: {} }, 7, 'ipspoofchk'],
    ['a MAC of five bytes', { runtimeConfig: { mac: '02:00:00:00:01' } }, 7, '"02:00:00:00:01"'],
  ])('%s', (_title, fields, code, named) => {
    expect(() => parseConfig(source(fields))).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(named) }),
    );
  });

  test.each([{ vlan: 0 }, { vlanTrunk: [] }, { macspoofchk: false }, { preserveDefaultVlan: true }])(
    'but %j does nothing and is accepted',
    (fields) => {
      expect(() => parseConfig(source(fields))).not.toThrow();
    },
  );

  test('an unknown key of CNI_ARGS', () => {
    expect(() => parseConfig(source({}, 'FOO=1'))).toThrow(expect.objectContaining({ code: 4 }));
  });
});

describe('DEL understands what it can', () => {
  test.each([
    [
      'a config that ADD refuses',
      { bridge: 'br0', ipam: { type: 'host-local' }, vlan: 'x', mtu: -1 },
      'br0',
      'host-local',
    ],
    ['a bridge name that is none', { bridge: '../x', ipam: { type: 'host-local' } }, 'cni0', 'host-local'],
    ['a bridge of the wrong type', { bridge: 5, ipam: { type: 'host-local' } }, 'cni0', 'host-local'],
    ['an IPAM section of the wrong type', { bridge: 'br0', ipam: [] }, 'br0', undefined],
  ])('in %s', (_title, fields, bridge, ipamType) => {
    expect(parseTeardown(source(fields))).toEqual({ bridge, ipamType });
  });
});
