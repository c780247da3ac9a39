// How the tuning plugin reads its config: where settings may stand, which of them wins, and what is refused by name.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { DEFAULT_DATA_DIR, parseTeardown } from '../../../plugins/tuning/config.ts';
import { type Fields, parsed, refusalOf, source } from './source.ts';

const [TOP, ARGS, RUNTIME, CNI] = ['0a', '0b', '0c', '0d'].map((byte) => `02:00:00:00:00:${byte}`);

test('a config without settings wishes for nothing', () => {
  expect(parsed({})).toEqual({ sysctls: [], link: {}, dataDir: '/run/cni/tuning' });
});

test('what is null, empty, 0 or false where that means nothing is not set', () => {
  const fields = { sysctl: {}, mac: '', mtu: 0, promisc: false, allmulti: null, txQLen: null, dataDir: '' };
  expect(parsed(fields)).toEqual(parsed({}));
});

test('every setting is read, in any letter case', () => {
  const fields = {
    MAC: '02-00-00-00-00-0A',
    mtu: 1400,
    Promisc: true,
    allMulti: false,
    txqlen: 0,
    dataDir: '/x',
  };
  expect(parsed(fields)).toEqual({
    sysctls: [],
    link: { mac: TOP, mtu: 1400, promisc: true, allmulti: false, txQLen: 0 },
    dataDir: '/x',
  });
});

describe('the MAC address', () => {
  const everywhere = { mac: TOP, runtimeConfig: { mac: RUNTIME }, args: { cni: { mac: CNI } } };

  test.each([
    ['args.cni over all others', everywhere, `MAC=${ARGS}`, CNI],
    ['runtimeConfig over CNI_ARGS', { ...everywhere, args: {} }, `MAC=${ARGS}`, RUNTIME],
    ['CNI_ARGS over the field', { mac: TOP }, `IgnoreUnknown=1;K8S_POD_NAME=web;MAC=${ARGS}`, ARGS],
    ['the field', { mac: TOP, runtimeConfig: { mac: '' } }, 'MAC=', TOP],
  ])('comes from %s', (_, fields, args, mac) => {
    expect(parsed(fields, args).link).toEqual({ mac });
  });

  test.each([
    ['mac', { mac: 'nonsense' }, ''],
    ['mac', { mac: '01:00:5e:00:00:01' }, ''],
    ['runtimeConfig.mac', { runtimeConfig: { mac: '00:00:00:00:00:00' } }, ''],
    ['args.cni.mac', { args: { cni: { mac: '02:00' } } }, ''],
    ['CNI_ARGS MAC', {}, 'MAC=zz'],
  ])('is refused by the name of its source, %s', (field, fields, args) => {
    const { code, msg } = refusalOf(() => parsed(fields, args));
    expect({ code, msg }).toEqual({ code: 7, msg: expect.stringContaining(`"${field}"`) });
  });

  test('of CNI_ARGS is alone there, unless unknown keys are to be ignored', () => {
    expect(refusalOf(() => parsed({}, 'K8S_POD_NAME=web'))).toMatchObject({ code: 4 });
  });
});

test('settings of args.cni come in the place of the others, and can take them back', () => {
  const fields = { mtu: 1400, promisc: true, allmulti: true, txQLen: 5 };
  const more = { mtu: 1300, promisc: false, allmulti: false, txQLen: 6 };
  expect(parsed({ ...fields, args: { cni: more } }).link).toEqual({ mtu: 1300, allmulti: false, txQLen: 6 });
});

describe('sysctls', () => {
  test('keep the order of the config, and those of args.cni come on top', () => {
    const sysctl = { 'net.core.somaxconn': '1', 'net.ipv4.ip_forward': '0' };
    const more = { 'net.ipv4.ip_forward': '1', 'net.ipv4.tcp_rmem': '1 2 3' };
    const { sysctls } = parsed({ sysctl, args: { cni: { sysctl: more } } });
    expect(sysctls.map(({ key, value }) => `${key}=${value}`)).toEqual([
      'net.core.somaxconn=1',
      'net.ipv4.ip_forward=1',
      'net.ipv4.tcp_rmem=1 2 3',
    ]);
  });

  test('of args.cni need none beside them', () => {
    expect(parsed({ args: { cni: { sysctl: { 'net.core.somaxconn': '1' } } } }).sysctls).toHaveLength(1);
  });

  test.each([
    'kernel.hostname',
    'net',
    '',
    '.',
    '../../kernel/hostname',
    'net/../../etc/passwd\0',
    `net.${'x'.repeat(255)}`,
    'vm/net.x',
    'Net.ipv4.ip_forward',
  ])('outside of /proc/sys/net, such as %j, are refused', (key) => {
    const { code, msg } = refusalOf(() => parsed({ sysctl: { [key]: '1' } }));
    expect({ code, msg }).toEqual({ code: 7, msg: expect.stringContaining('"sysctl"') });
  });

  // Dots are what stands between steps, so no step is ever "..".
  test.each([
    ['net/../../../etc/passwd', ['net', 'etc', 'passwd']],
    ['/net//ipv4..conf/all/', ['net', 'ipv4', 'conf', 'all']],
  ])('written as %s stay below it', (key, steps) => {
    expect(parsed({ sysctl: { [key]: '1' } }).sysctls[0]?.steps).toEqual(steps);
  });

  test.each([
    ['sysctl', '{"sysctl": {"net.a.b": "1", "net.a.c": "1", "net.a.b": "2"}}', 'net.a.b'],
    ['SYSCTL', '{"SYSCTL": {"net.a.b": "1", "net.a.\\u0062": "1"}}', 'net.a.b'],
    ['args.cni.sysctl', '{"args": {"cni": {"sysctl": {"net.a.b": "1", "net.a.b": "1"}}}}', 'net.a.b'],
  ])('that stand twice in %s are refused', (_, text, key) => {
    const { code, msg } = refusalOf(() => parsed(text));
    expect({ code, msg }).toEqual({ code: 7, msg: expect.stringContaining(`"${key}" twice`) });
  });

  test('that stand twice elsewhere are none of ours', () => {
    const text =
      '{"x": {"a": 1, "a": 2}, "y": [{"sysctl": {"a": "1", "a": "2"}}], "sysctl": {"net.a.b": "x, \\"a\\""}}';
    expect(parsed(text).sysctls.map(({ key }) => key)).toEqual(['net.a.b']);
  });
});

test.each<[string, Fields]>([
  ['sysctl.net.core.somaxconn', { sysctl: { 'net.core.somaxconn': 512 } }],
  ['sysctl', { sysctl: ['net.core.somaxconn=512'] }],
  ['mac', { mac: 7 }],
  ['mtu', { mtu: 67 }],
  ['mtu', { mtu: 65_536 }],
  ['mtu', { mtu: '1400' }],
  ['promisc', { promisc: 'yes' }],
  ['allmulti', { allmulti: 1 }],
  ['txQLen', { txQLen: -1 }],
  ['txQLen', { txQLen: 2 ** 31 }],
  ['dataDir', { dataDir: 'run/cni' }],
  ['dataDir', { dataDir: '/run/\0' }],
  ['args.cni.mtu', { args: { cni: { mtu: 1 } } }],
  ['args', { args: 'mtu=1' }],
  ['runtimeConfig', { runtimeConfig: [] }],
])('a wrong "%s" is refused by its name', (field, fields) => {
  const { code, msg } = refusalOf(() => parsed(fields));
  expect({ code, msg }).toEqual({ code: 7, msg: expect.stringContaining(`"${field}"`) });
});

test.each<[unknown, string]>([
  ['/srv/backups', '/srv/backups'],
  ['', DEFAULT_DATA_DIR],
  ['relative', DEFAULT_DATA_DIR],
  [7, DEFAULT_DATA_DIR],
  [undefined, DEFAULT_DATA_DIR],
])('a teardown with the dataDir %j looks in %s, whatever else is wrong', (dataDir, expected) => {
  expect(parseTeardown(source({ dataDir, sysctl: 7, mac: [] }, '=;='))).toEqual({ dataDir: expected });
});

test('every field that the parser knows is in the table of the guide, and no other', () => {
  const root = join(import.meta.dirname, '../../..');
  const guide = readFileSync(join(root, 'docs/plugins/tuning.md'), 'utf8');
  const code = readFileSync(join(root, 'plugins/tuning/config.ts'), 'utf8');
  const schema = code.slice(code.indexOf('function tuningSchema'), code.indexOf('function sysctlValue'));
  const known = new Set([...schemaKeys(schema)]);
  // What stands beside the fields is told in prose.
  for (const place of ['args', 'cni', 'runtimeConfig']) {
    expect(known.delete(place), place).toBe(true);
    expect(guide).toContain(place);
  }
  const rows = guide.split('\n').filter((line) => line.startsWith('| `'));
  const told = rows.map((row) => /`(\w+)`/.exec(row)?.[1] ?? '');
  // The dispatcher reads that one.
  expect([...told].sort()).toEqual([...known, 'log'].sort());
  expect(guide).toContain(`\`${DEFAULT_DATA_DIR}\``);
});

function schemaKeys(schema: string): string[] {
  return [...schema.matchAll(/\b(\w+): (?:\(\) =>|v\.|[a-z])/g)].map(([, key = '']) => key);
}
