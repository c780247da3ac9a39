// The common fields of a config: name, version, prevResult, valid attachments.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import type { Command } from '../../../shared/cni/environment.ts';
import {
  type NetworkConfig,
  parseHeader,
  parseNetworkConfig,
  parseVersion,
} from '../../../shared/cni/network-config.ts';
import { CNI_VERSIONS, type CniVersion } from '../../../shared/cni/versions.ts';

const COMMANDS: readonly Command[] = ['ADD', 'DEL', 'CHECK', 'STATUS', 'GC'];

function header(stdin: unknown) {
  return parseHeader(Buffer.from(typeof stdin === 'string' ? stdin : JSON.stringify(stdin)));
}

function parse(stdin: object, command: Command, version: CniVersion = '1.1.0'): NetworkConfig {
  return parseNetworkConfig(header({ name: 'n1', ...stdin }), version, command);
}

describe('the name of the network', () => {
  test.each(['n1', 'a', '0', 'A-b_c.d', 'podman', 'n'.repeat(300)])('may be "%.20s"', (name) => {
    expect(header({ name }).name).toBe(name);
    expect(header({ NAME: name }).name).toBe(name);
  });

  test.each<[string, number, string]>([
    ['null', 7, 'Field "name" of the network configuration is missing'],
    ['{}', 7, 'Field "name" of the network configuration is missing'],
    ['{"name": ""}', 7, 'Field "name" of the network configuration is missing'],
    ['{"name": null}', 7, 'Field "name" of the network configuration is missing'],
    ['{"name": "../../etc"}', 7, 'not be "../../etc"'],
    ['{"name": "a/b"}', 7, 'not be "a/b"'],
    ['{"name": ".."}', 7, 'not be ".."'],
    ['{"name": "-n"}', 7, 'not be "-n"'],
    ['{"name": "a b"}', 7, 'not be "a b"'],
    ['{"name": "a\\n"}', 7, String.raw`not be "a\n"`],
    ['{"name": "a\\u0000"}', 7, String.raw`not be "a\u0000"`],
    ['{"name": "é"}', 7, 'not be "é"'],
    ['{"name": 5}', 6, 'must be a string, not 5'],
    ['{"name": ["n1"]}', 6, 'must be a string, not ["n1"]'],
    ['{"name": {}}', 6, 'must be a string, not {}'],
    ['[]', 6, 'must be a JSON object, not []'],
    ['[{"name": "n1"}]', 6, 'must be a JSON object'],
    ['"n1"', 6, 'must be a JSON object, not "n1"'],
    ['5', 6, 'must be a JSON object, not 5'],
    ['1.5', 6, 'must be a JSON object, not 1.5'],
    ['true', 6, 'must be a JSON object, not true'],
    ['', 6, 'it is empty'],
  ])('is refused in %s with code %i', (stdin, code, message) => {
    expect(() => header(stdin)).toThrow(
      expect.objectContaining({ code, message: expect.stringContaining(message) }),
    );
  });
});

describe('the version', () => {
  test.each(CNI_VERSIONS)('%s is itself for ADD and DEL', (cniVersion) => {
    expect(parseVersion({ cniVersion }, 'ADD', CNI_VERSIONS)).toBe(cniVersion);
    expect(parseVersion({ CNIversion: cniVersion }, 'DEL', CNI_VERSIONS)).toBe(cniVersion);
  });

  test.each([{}, { cniVersion: '' }, { cniVersion: null }])('is 0.1.0 for %o', (raw) => {
    expect(parseVersion(raw, 'ADD', CNI_VERSIONS)).toBe('0.1.0');
    expect(() => parseVersion(raw, 'CHECK', CNI_VERSIONS)).toThrow(
      'Cannot run CHECK with cniVersion "0.1.0"',
    );
  });

  test.each<[Command, CniVersion]>([
    ['ADD', '0.1.0'],
    ['DEL', '0.1.0'],
    ['CHECK', '0.4.0'],
    ['STATUS', '1.1.0'],
    ['GC', '1.1.0'],
  ])('%s needs at least %s', (command, since) => {
    for (const cniVersion of CNI_VERSIONS) {
      const run = () => parseVersion({ cniVersion }, command, CNI_VERSIONS);
      if (CNI_VERSIONS.indexOf(cniVersion) >= CNI_VERSIONS.indexOf(since)) expect(run()).toBe(cniVersion);
      else expect(run).toThrow(expect.objectContaining({ code: 1, message: expect.stringContaining(since) }));
    }
  });

  test('must be one the plugin supports', () => {
    for (const command of ['ADD', 'DEL'] as const) {
      expect(() => parseVersion({ cniVersion: '0.3.1' }, command, ['0.4.0', '1.0.0'])).toThrow(
        expect.objectContaining({
          code: 1,
          message: 'Cannot use cniVersion "0.3.1"',
          details: 'The plugin supports 0.4.0, 1.0.0',
        }),
      );
    }
  });

  test.each(['9.9.9', '1.2.0', '1.1', '1', '0.0.1'])('%s is unknown, whatever the command', (cniVersion) => {
    for (const command of COMMANDS) {
      expect(() => parseVersion({ cniVersion }, command, CNI_VERSIONS)).toThrow(
        expect.objectContaining({ code: 1, message: expect.stringContaining(`"${cniVersion}"`) }),
      );
    }
  });

  test.each(['v1.1.0', '1.0.0-rc1', 'newest', '1.0.0.0', '1.1.0 '])(
    '"%s" is unknown to ADD and DEL, and no number to the commands that compare',
    (cniVersion) => {
      for (const command of COMMANDS) {
        const code = command === 'ADD' || command === 'DEL' ? 1 : 6;
        expect(() => parseVersion({ cniVersion }, command, CNI_VERSIONS)).toThrow(
          expect.objectContaining({ code, message: expect.stringContaining(`"${cniVersion}"`) }),
        );
      }
    },
  );

  test.each([[5], [['1.1.0']], [{}], [true]])('%o is no string', (cniVersion) => {
    for (const command of COMMANDS) {
      expect(() => parseVersion({ cniVersion }, command, CNI_VERSIONS)).toThrow(
        expect.objectContaining({ code: 6, message: expect.stringContaining('"cniVersion"') }),
      );
    }
  });
});

describe('the common fields', () => {
  test('are decoded once, and the object stays as written', () => {
    const config = parse({ TYPE: 'bridge', Bridge: 'br0', prevResult: null }, 'ADD', '0.4.0');
    expect(config.text?.toString()).toBe(JSON.stringify(config.raw));
    expect(config).toEqual({
      cniVersion: '0.4.0',
      name: 'n1',
      type: 'bridge',
      raw: { name: 'n1', TYPE: 'bridge', Bridge: 'br0', prevResult: null },
      text: config.text,
      prevResult: undefined,
      validAttachments: undefined,
    });
  });

  test('a wrong type is refused, and overlooked by DEL and GC', () => {
    for (const command of ['ADD', 'CHECK', 'STATUS'] as const) {
      expect(() => parse({ type: 5 }, command)).toThrow(
        expect.objectContaining({
          code: 7,
          message: 'Field "type" of the network configuration must be a string, not 5',
        }),
      );
    }
    for (const command of ['DEL', 'GC'] as const) expect(parse({ type: 5 }, command).type).toBeUndefined();
  });

  test('prevResult is parsed for every command that gets one', () => {
    const prevResult = { cniVersion: '1.0.0', ips: [{ address: '10.1.0.2/16' }] };
    for (const command of COMMANDS) {
      expect(parse({ prevResult }, command).prevResult).toEqual({ ips: [{ address: '10.1.0.2/16' }] });
    }
  });

  test.each([
    ['of another type', 5],
    ['with a wrong field', { ips: [{ address: 'foo' }] }],
    ['of another family', { cniVersion: '0.4.0' }],
    ['of an unknown version', { cniVersion: '9.9.9' }],
  ])('a prevResult %s is refused by ADD and CHECK, and no obstacle otherwise', (_what, prevResult) => {
    for (const command of ['ADD', 'CHECK'] as const) {
      expect(() => parse({ prevResult }, command)).toThrow(
        expect.objectContaining({ code: 7, message: expect.stringMatching(/prevResult/i) }),
      );
    }
    for (const command of ['DEL', 'STATUS', 'GC'] as const) {
      expect(parse({ prevResult }, command).prevResult).toBeUndefined();
    }
  });
});

describe('cni.dev/valid-attachments', () => {
  const key = 'cni.dev/valid-attachments';

  test('absent is undefined, null and [] are empty', () => {
    expect(parse({}, 'GC').validAttachments).toBeUndefined();
    expect(parse({ 'cni.dev/attachments': [] }, 'GC').validAttachments).toBeUndefined();
    expect(parse({ [key]: null }, 'GC').validAttachments).toEqual([]);
    expect(parse({ [key]: [] }, 'GC').validAttachments).toEqual([]);
  });

  test('lists container id and ifname, in any spelling of the keys', () => {
    const list = [
      { containerID: 'c1', ifname: 'eth0' },
      { CONTAINERID: 'c2', IfName: 'eth1', more: 1 },
    ];
    const expected = [
      { containerId: 'c1', ifname: 'eth0' },
      { containerId: 'c2', ifname: 'eth1' },
    ];
    expect(parse({ [key]: list }, 'GC').validAttachments).toEqual(expected);
    expect(parse({ 'CNI.dev/Valid-Attachments': list }, 'GC').validAttachments).toEqual(expected);
    expect(parse({ 'CNI.dev/Valid-Attachments': [], [key]: list }, 'GC').validAttachments).toEqual(expected);
  });

  test.each<[unknown, string]>([
    ['all', ''],
    [{}, ''],
    [[5], '[0]'],
    [[null], '[0]'],
    [[{ containerID: 'c1', ifname: 'eth0' }, { ifname: 'eth0' }], '[1].containerID'],
    [[{ containerID: 'c1' }], '[0].ifname'],
    [[{ containerID: 7, ifname: 'eth0' }], '[0].containerID'],
    [[{ containerID: 'c1', ifname: null }], '[0].ifname'],
  ])('%j stops GC before it removes anything', (list, path) => {
    expect(() => parse({ [key]: list }, 'GC')).toThrow(
      expect.objectContaining({ code: 6, message: expect.stringContaining(`"${key}${path}"`) }),
    );
  });

  test('is no business of other commands', () => {
    for (const command of ['ADD', 'DEL', 'CHECK', 'STATUS'] as const) {
      expect(parse({ [key]: 'all' }, command).validAttachments).toBeUndefined();
    }
  });
});
