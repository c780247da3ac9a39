// Lists of plugins turned into one patchbay plugin: every example of conf/, the lists that nerdctl and podman write, and
// what cannot be taken over. Run with the unit tests.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../../plugins/patchbay/config.ts';
import { convert } from '../../../plugins/patchbay/convert.ts';
import { findPlugin } from '../../../plugins/registry.ts';
import { toCniError } from '../../../shared/cni/error.ts';
import { source } from './source.ts';

type Entry = { readonly type: string; readonly [field: string]: unknown };
interface List {
  readonly cniVersion?: string;
  readonly name?: string;
  readonly plugins: readonly Entry[];
  readonly [key: string]: unknown;
}

const CONF = join(import.meta.dirname, '../../../conf');
const EXAMPLES = readdirSync(CONF)
  .map((file): [string, List] => [file, JSON.parse(readFileSync(join(CONF, file), 'utf8')) as List])
  .filter(([, { plugins }]) => plugins[0]?.type === 'bridge');

/** As `nerdctl network create` writes it (pkg/netutil). */
const NERDCTL: List = {
  cniVersion: '1.0.0',
  name: 'bridge',
  nerdctlID: '17f29b073143d8cd97b5bbe492bdeffec1c5fee55cc1fe2112c8b9335f8b6121',
  nerdctlLabels: { 'nerdctl/default-network': 'true' },
  plugins: [
    {
      type: 'bridge',
      bridge: 'nerdctl0',
      isGateway: true,
      ipMasq: true,
      hairpinMode: true,
      ipam: {
        ranges: [[{ gateway: '10.4.0.1', subnet: '10.4.0.0/24' }]],
        routes: [{ dst: '0.0.0.0/0' }],
        type: 'host-local',
      },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
    { type: 'firewall', ingressPolicy: 'same-bridge' },
    { type: 'tuning' },
  ],
};

/** The default network of podman 4 with CNI (87-podman-bridge.conflist). */
const PODMAN: List = {
  cniVersion: '0.4.0',
  name: 'podman',
  plugins: [
    {
      type: 'bridge',
      bridge: 'cni-podman0',
      isGateway: true,
      ipMasq: true,
      hairpinMode: true,
      ipam: {
        type: 'host-local',
        routes: [{ dst: '0.0.0.0/0' }],
        ranges: [[{ subnet: '10.88.0.0/16', gateway: '10.88.0.1' }]],
      },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
    { type: 'firewall' },
    { type: 'tuning' },
  ],
};

function converted(list: unknown): { readonly list: List; readonly remarks: readonly string[] } {
  const { stdout, remarks } = convert(Buffer.from(JSON.stringify(list)), findPlugin);
  return { list: JSON.parse(stdout) as List, remarks };
}

function refusal(list: unknown): { readonly code: number; readonly message: string } {
  try {
    convert(typeof list === 'string' ? Buffer.from(list) : Buffer.from(JSON.stringify(list)), findPlugin);
  } catch (error) {
    const { code, message } = toCniError(error);
    return { code, message };
  }
  throw new Error('It was converted');
}

/** What the plugins of a list are told by a runtime, as far as they read it. */
function toldByList({ cniVersion, name, plugins }: List): unknown[] {
  return plugins.map(({ capabilities: _, ...fields }) => ({ ...fields, cniVersion, name }));
}

function toldByPatchbay({ cniVersion, name, plugins: [patchbay] }: List): unknown[] {
  const { stages } = parseConfig(source({ ...patchbay, cniVersion, name }));
  return stages.map(({ source }) => source.network.raw);
}

describe('a converted list', () => {
  test.each([...EXAMPLES, ['of nerdctl', NERDCTL] as const, ['of podman', PODMAN] as const])(
    '%s tells every plugin what the list told it, and keeps everything else',
    (_, list) => {
      const { list: after, remarks } = converted(list);
      expect(remarks).toEqual([]);
      expect(after.plugins.map(({ type }) => type)).toEqual(['patchbay']);
      expect(toldByPatchbay(after)).toEqual(toldByList(list));
      expect({ ...after, plugins: [] }).toEqual({ ...list, plugins: [] });
      expect(Object.keys(after)).toEqual(Object.keys(list));
      expect(after.plugins[0]?.['capabilities']).toEqual(capabilitiesOf(list));
    },
  );

  test('has the parts in a fixed order, addresses behind bridge', () => {
    const { list } = converted(NERDCTL);
    expect(Object.keys(list.plugins[0] ?? {})).toEqual([
      'type',
      'bridge',
      'ipam',
      'portmap',
      'firewall',
      'tuning',
      'capabilities',
    ]);
  });

  test('has the capabilities of all plugins, on where one of them wants it', () => {
    const [bridge, portmap, ...others] = NERDCTL.plugins;
    const plugins = [
      { ...bridge, capabilities: { ips: true, mac: false } },
      { ...portmap },
      ...others,
      { type: 'bandwidth', capabilities: { bandwidth: true } },
    ];
    const { list } = converted({
      ...NERDCTL,
      plugins: [...plugins.slice(0, -2), { type: 'tuning', capabilities: { mac: true } }, plugins.at(-1)],
    });
    expect(list.plugins[0]?.['capabilities']).toEqual({ ips: true, mac: true, portMappings: true });
    expect(list.plugins[1]).toEqual({ type: 'bandwidth', capabilities: { bandwidth: true } });
  });

  test('keeps numbers as they were written', () => {
    const text = JSON.stringify(PODMAN).replace('"name"', '"odd":12345678901234567890,"real":1.50,"name"');
    const { stdout } = convert(Buffer.from(text), findPlugin);
    expect(stdout).toContain('"odd": 12345678901234567890');
    expect(stdout).toContain('"real": 1.50');
  });

  test('takes a single plugin for a list of one, as runtimes do', () => {
    const [bridge] = PODMAN.plugins;
    const { list, remarks } = converted({ cniVersion: '1.0.0', name: 'single', ...bridge });
    expect(list).toMatchObject({ cniVersion: '1.0.0', name: 'single', plugins: [{ type: 'patchbay' }] });
    expect(toldByPatchbay(list)).toEqual([{ ...bridge, cniVersion: '1.0.0', name: 'single' }]);
    expect(remarks).toEqual([expect.stringContaining('became a list')]);
  });
});

describe('what is said about', () => {
  test.each<[string, object, object, string]>([
    [
      'an old version',
      { cniVersion: '0.3.1' },
      { cniVersion: '0.4.0' },
      'Raised "cniVersion" from "0.3.1" to "0.4.0"',
    ],
    [
      'no version',
      { cniVersion: undefined },
      { cniVersion: '0.4.0' },
      'Raised "cniVersion" from "none" to "0.4.0"',
    ],
  ])('%s', (_, before, after, remark) => {
    const { list, remarks } = converted({ ...PODMAN, ...before });
    expect(list).toMatchObject(after);
    expect(remarks).toEqual([expect.stringContaining(remark)]);
  });

  test('an old version beside newer ones is nothing', () => {
    const { list, remarks } = converted({ ...PODMAN, cniVersion: '0.3.1', cniVersions: ['0.3.1', '1.0.0'] });
    expect(remarks).toEqual([]);
    expect(list).toMatchObject({ cniVersion: '0.3.1', cniVersions: ['0.3.1', '1.0.0'] });
  });

  const [bridge, portmap, firewall, tuning] = PODMAN.plugins as [Entry, Entry, Entry, Entry];
  const bandwidth = { type: 'bandwidth', capabilities: { bandwidth: true } };

  test.each<[string, Entry[], Entry[], string[]]>([
    [
      'a plugin of others behind all: it stays',
      [bridge, portmap, bandwidth],
      [bandwidth],
      ['Plugin "bandwidth" is no part of patchbay: it stays in the list, behind patchbay'],
    ],
    [
      'a plugin of others in between: its place',
      [bridge, bandwidth, firewall, tuning],
      [bandwidth],
      [
        'Plugin "bandwidth" is no part',
        '"firewall" came behind "bandwidth" in the list and is before it now',
        '"tuning" came behind "bandwidth" in the list and is before it now',
      ],
    ],
    [
      'a plugin that is there twice: the second stays',
      [bridge, tuning, { type: 'tuning', mtu: 1400 }],
      [{ type: 'tuning', mtu: 1400 }],
      ['Plugin "tuning" is in the list twice: it stays'],
    ],
    [
      'fields that do nothing',
      [bridge, { ...portmap, ipam: {}, dns: {}, name: 'other', cniVersion: '0.1.0' }],
      [],
      ['Left out "ipam" of "portmap"', 'Left out "dns" of "portmap"'],
    ],
    [
      'args that hold for all plugins now',
      [bridge, { ...tuning, args: { cni: { mac: '02:00:00:00:00:01' } } }],
      [],
      ['Field "args" of "tuning" holds for all plugins of patchbay now'],
    ],
    [
      'a runtimeConfig that is written down',
      [bridge, { type: 'portmap', runtimeConfig: { portMappings: [] } }],
      [],
      ['Field "runtimeConfig" of "portmap" holds for all'],
    ],
  ])('%s', (_, plugins, left, expected) => {
    const { list, remarks } = converted({ ...PODMAN, plugins });
    expect(list.plugins.slice(1)).toEqual(left);
    expect(remarks).toEqual(expected.map((line) => expect.stringContaining(line)));
  });

  test('any order of the plugins behind bridge is nothing', () => {
    const { list, remarks } = converted({ ...PODMAN, plugins: [bridge, tuning, firewall, portmap] });
    expect(remarks).toEqual([]);
    expect(list).toEqual(converted(PODMAN).list);
  });
});

describe('no list comes of', () => {
  const [bridge, portmap] = PODMAN.plugins as [Entry, Entry];
  const mac = (last: number) => ({ args: { cni: { mac: `02:00:00:00:00:0${last}` } } });
  test.each<[string, unknown, number, string]>([
    ['an empty text', '', 6, 'it is empty'],
    ['no JSON', '{"plugins":', 6, 'Cannot decode the network list on stdin'],
    ['a JSON list', [], 7, 'must be a JSON object'],
    ['no plugins', { ...PODMAN, plugins: [] }, 7, 'a list with a plugin in it'],
    [
      'plugins that are none',
      { ...PODMAN, plugins: ['bridge'] },
      7,
      '"plugins[0]" of the network list must be',
    ],
    ['a plugin without a type', { ...PODMAN, plugins: [bridge, {}] }, 7, 'Field "type" of "plugins[1]"'],
    [
      'another main plugin',
      { ...PODMAN, plugins: [{ type: 'macvlan' }, portmap] },
      7,
      'begins with "macvlan"',
    ],
    ['a converted list', { ...PODMAN, plugins: [{ type: 'patchbay' }] }, 7, 'begins with "patchbay"'],
    ['two bridges', { ...PODMAN, plugins: [bridge, bridge] }, 7, 'two attachments by "bridge"'],
    [
      'odd capabilities',
      { ...PODMAN, plugins: [bridge, { ...portmap, capabilities: 1 }] },
      7,
      'of "portmap" must be an object',
    ],
    [
      'args that differ',
      {
        ...PODMAN,
        plugins: [
          { ...bridge, ...mac(1) },
          { type: 'tuning', ...mac(2) },
        ],
      },
      7,
      'Field "args" says one thing for "bridge" and another for "tuning"',
    ],
    [
      'a runtimeConfig beside capabilities',
      { ...PODMAN, plugins: [{ ...bridge, runtimeConfig: {} }, portmap] },
      7,
      'has "runtimeConfig" and "capabilities"',
    ],
    [
      'a list that ADD refuses',
      { ...PODMAN, plugins: [{ ...bridge, mtu: 'big' }] },
      7,
      'In "bridge": Field "mtu" of bridge config must be',
    ],
    [
      'a list without a name',
      { ...PODMAN, name: undefined },
      7,
      'Field "name" of the network configuration is missing',
    ],
  ])('%s', (_, list, code, message) => {
    expect(refusal(list)).toMatchObject({ code, message: expect.stringContaining(message) });
  });
});

function capabilitiesOf({ plugins }: List): unknown {
  const all = Object.assign({}, ...plugins.map(({ capabilities }) => capabilities)) as object;
  return Object.keys(all).length === 0 ? undefined : all;
}
