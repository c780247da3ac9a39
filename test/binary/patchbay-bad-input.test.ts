// Wrong fields of every part given to the packaged patchbay plugin, which nothing else has validated.
// Part of `npm run test:binary`; each call must fail in the documented way and leave the host alone.
import { describe, expect, test } from 'vitest';
import { type BadCase, everyVerb, type Fields, strictVerbs, testRefusals } from '../support/bad-input.ts';
import { readNetwork } from '../support/network-list.ts';
import { openTestHost } from '../support/primed-host.ts';
import { executableOf } from '../support/run-plugin.ts';

const BRIDGE = { bridge: 'br-scene', isDefaultGateway: true, ipMasq: true };

/** A good config with these fields in place of some of it. */
function patchbay(fields: Fields): Fields {
  return { type: 'patchbay', bridge: BRIDGE, portmap: {}, firewall: {}, tuning: {}, ...fields };
}

type Row = readonly [title: string, fields: Fields, says: readonly string[], code?: number];

const PARTS: readonly Row[] = [
  ['no bridge', { bridge: undefined }, ['Field "bridge" of the network configuration is missing']],
  ['the name of a bridge', { bridge: 'br-scene' }, ['Field "bridge"', 'must be an object', '"br-scene"']],
  ['a part that is a switch', { portmap: true }, ['Field "portmap"', 'must be an object', 'true']],
  ['a part that is a list', { tuning: [] }, ['Field "tuning"', 'must be an object']],
  ['"ipam" in a part', { bridge: { ...BRIDGE, ipam: {} } }, ['"ipam" of "bridge" stands in the wrong place']],
  ['"dns" in a part', { bridge: { ...BRIDGE, dns: {} } }, ['"dns" of "bridge" stands in the wrong place']],
  [
    '"capabilities" in a part',
    { portmap: { capabilities: { portMappings: true } } },
    ['"capabilities" of "portmap" stands in the wrong place'],
  ],
  ['"runtimeConfig" in a part', { portmap: { runtimeConfig: {} } }, ['"runtimeConfig" of "portmap" stands']],
];

const FIELDS: readonly Row[] = [
  ['no name of a link', { bridge: { bridge: 'br/odd' } }, ['In "bridge": Field "bridge"', 'br/odd']],
  ['an MTU of text', { bridge: { ...BRIDGE, mtu: 'big' } }, ['In "bridge": Field "mtu"', 'big']],
  ['two modes at once', { bridge: { ...BRIDGE, hairpinMode: true, promiscMode: true } }, ['In "bridge": ']],
  ['a MAC for all that is none', { args: { cni: { mac: 'nonsense' } } }, ['In "bridge": ', 'nonsense']],
  ['a mark bit of 40', { portmap: { markMasqBit: 40 } }, ['In "portmap": Field "markMasqBit"', '40']],
  ['an unknown backend', { portmap: { backend: 'pf' } }, ['In "portmap": Field "backend"', 'pf']],
  [
    'a port of 70000',
    { runtimeConfig: { portMappings: [{ hostPort: 70000, containerPort: 80, protocol: 'tcp' }] } },
    ['In "portmap": ', 'hostPort', '70000'],
  ],
  [
    'a port that is there twice',
    {
      runtimeConfig: {
        portMappings: [1, 2].map((containerPort) => ({ hostPort: 80, containerPort, protocol: 'tcp' })),
      },
    },
    ['In "portmap": ', 'publish the same port'],
  ],
  [
    'an unknown policy',
    { firewall: { ingressPolicy: 'shut' } },
    ['In "firewall": Field "ingressPolicy"', 'shut'],
  ],
  ['a zone that is none', { firewall: { firewalldZone: '-x' } }, ['In "firewall": Field "firewalldZone"']],
  [
    'a sysctl of the kernel',
    { tuning: { sysctl: { 'kernel.hostname': 'x' } } },
    ['In "tuning": ', 'below "net."'],
  ],
  ['a directory that is no path', { tuning: { dataDir: 'here' } }, ['In "tuning": Field "dataDir"', 'here']],
  ['a tuned MTU of text', { tuning: { mtu: 'big' } }, ['In "tuning": Field "mtu"', 'big']],
];

function caseOf([title, fields, says, code = 7]: Row): BadCase {
  return { title, ...strictVerbs(code), says, config: patchbay(fields), call: { plugin: 'patchbay' } };
}

testRefusals('patchbay', [
  ...PARTS.map(caseOf),
  ...FIELDS.map(caseOf),
  {
    title: 'a sysctl that stands there twice',
    ...strictVerbs(7),
    says: ['In "tuning": Field "sysctl"', 'twice'],
    stdin:
      '{"cniVersion":"1.1.0","name":"scene","type":"patchbay","bridge":{"bridge":"br-scene"},' +
      '"prevResult":{"cniVersion":"1.1.0"},"cni.dev/valid-attachments":[{"containerID":"resident","ifname":"eth0"}],' +
      '"tuning":{"sysctl":{"net.core.somaxconn":"1","net.core.somaxconn":"2"}}}',
    call: { plugin: 'patchbay' },
  },
  {
    title: 'ranges that are none',
    fails: { ADD: 7, CHECK: 7, STATUS: 7 },
    tolerates: ['DEL', 'GC'],
    says: ['In "bridge": '],
    config: patchbay({ ipam: { type: 'host-local', ranges: [[{ subnet: 'x' }]] } }),
    call: { plugin: 'patchbay' },
  },
  {
    title: 'itself for its IPAM plugin',
    fails: { ADD: 7, CHECK: 7, STATUS: 7 },
    tolerates: ['DEL', 'GC'],
    says: ['In "bridge": ', '"patchbay"', 'the plugin that asks'],
    config: patchbay({ ipam: { type: 'patchbay' } }),
    call: { plugin: 'patchbay' },
  },
  {
    title: 'CHECK without a result',
    fails: { CHECK: 7 },
    says: ['"prevResult"'],
    config: patchbay({ prevResult: undefined }),
    call: { plugin: 'patchbay' },
  },
  {
    title: 'a result that is a word',
    fails: { ADD: 7, CHECK: 7 },
    tolerates: ['DEL'],
    says: ['prevResult'],
    config: patchbay({ prevResult: 'good' }),
    call: { plugin: 'patchbay' },
  },
  {
    title: 'a version that firewall does not speak',
    fails: { ADD: 1, DEL: 1 },
    says: ['0.3.1'],
    config: patchbay({ cniVersion: '0.3.1' }),
    call: { plugin: 'patchbay' },
  },
  {
    title: 'a list',
    fails: everyVerb(6),
    says: ['must be a JSON object'],
    stdin: '[]',
    call: { plugin: 'patchbay' },
  },
]);

describe('patchbay convert', () => {
  test('turns the list on its input into one, and stops at one that it cannot express', async () => {
    const host = await openTestHost();
    const program = executableOf({ plugin: 'patchbay' });
    const { text } = readNetwork('bridge-portmap.conflist');
    const converted = await host.run(program, ['convert'], { input: text });
    expect(converted.stderr).toBe('');
    expect(JSON.parse(converted.stdout)).toMatchObject({
      name: 'ports',
      plugins: [{ type: 'patchbay', portmap: {} }],
    });
    const old = await host.run(program, ['convert'], { input: text.replace('1.1.0', '0.3.1') });
    expect(old.stderr).toMatch(/^Raised "cniVersion" from "0\.3\.1" to "0\.4\.0".*\n?$/);

    const refused = await host.attempt(program, ['convert'], { input: converted.stdout });
    expect(refused).toMatchObject({ exitCode: 1, stdout: '' });
    expect(refused.stderr).toContain('begins with "patchbay"');
  });

  test('is explained by --help, and does not get in the way of a runtime', async () => {
    const host = await openTestHost();
    const program = executableOf({ plugin: 'patchbay' });
    const { stdout, stderr } = await host.run(program, ['--help']);
    expect({ stdout, stderr }).toMatchObject({
      stdout: expect.stringContaining('patchbay convert <'),
      stderr: '',
    });
    expect(await host.attempt(program, ['convrt'])).toMatchObject({
      exitCode: 1,
      stdout: '',
      stderr: expect.stringContaining('"convrt"'),
    });
    const version = await host.run(program, ['convert'], { env: { CNI_COMMAND: 'VERSION' } });
    expect(JSON.parse(version.stdout)).toMatchObject({ supportedVersions: ['0.4.0', '1.0.0', '1.1.0'] });
  });
});
