// The dispatcher from environment and stdin to stdout and exit code, around a plugin that only records its calls.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import type { Command } from '../../../shared/cni/environment.ts';
import { addressesExhausted, kernelRefused } from '../../../shared/cni/error.ts';
import type { Result } from '../../../shared/cni/result.ts';
import { CNI_VERSIONS, type CniVersion, isVersionAtLeast } from '../../../shared/cni/versions.ts';
import { callPlugin, ENV, fakePlugin } from '../../support/fake-plugin.ts';

const COMMANDS: readonly Command[] = ['ADD', 'DEL', 'CHECK', 'STATUS', 'GC'];
const SINCE: Readonly<Record<Command, CniVersion>> = {
  ADD: '0.1.0',
  DEL: '0.1.0',
  CHECK: '0.4.0',
  STATUS: '1.1.0',
  GC: '1.1.0',
};
const OWN_NETNS = '/proc/self/ns/net';

function config(cniVersion: CniVersion, more: object = {}): object {
  return { cniVersion, name: 'n1', type: 'fake', ...more };
}

describe('a call', () => {
  for (const command of COMMANDS) {
    test.each(CNI_VERSIONS)(
      `${command} at %s runs the plugin exactly where the version has it`,
      (version) => {
        const { plugin, calls } = fakePlugin();
        const outcome = callPlugin(plugin, { env: { CNI_COMMAND: command }, stdin: config(version) });
        expect(outcome.log).toEqual([]);
        if (!isVersionAtLeast(version, SINCE[command])) {
          expect(calls).toEqual([]);
          expect(outcome).toMatchObject({ exitCode: 1, json: { cniVersion: version, code: 1 } });
          return;
        }
        expect(outcome.exitCode).toBe(0);
        expect(calls.map(({ verb }) => verb)).toEqual([command]);
        if (command === 'ADD') expect(outcome.json).toMatchObject({ cniVersion: version });
        else expect(outcome.stdout).toBe('');
      },
    );
  }

  test('is told all there is to know', () => {
    for (const command of COMMANDS) {
      const { plugin, calls } = fakePlugin();
      const env = { CNI_COMMAND: command, CNI_ARGS: 'A=b' };
      callPlugin(plugin, { env, stdin: config('1.1.0', { Extra: 1, 'cni.dev/valid-attachments': [] }) });
      const attached = {
        attachment: { network: 'n1', containerId: 'c1', ifname: 'eth0' },
        netns: ENV.CNI_NETNS,
      };
      const network = {
        cniVersion: '1.1.0',
        name: 'n1',
        type: 'fake',
        raw: expect.objectContaining({ Extra: 1 }),
      };
      expect(calls).toEqual([
        {
          verb: command,
          call: {
            config: { network: expect.objectContaining(network), args: 'A=b', command },
            network: expect.objectContaining(network),
            ipam: expect.anything(),
            registry: expect.any(Function),
            log: expect.any(Function),
            ...(['ADD', 'DEL', 'CHECK'].includes(command) && attached),
            ...(command === 'GC' && { validAttachments: [] }),
          },
        },
      ]);
    }
  });

  test('of DEL without a namespace says so', () => {
    const { plugin, calls } = fakePlugin();
    expect(callPlugin(plugin, { env: { CNI_COMMAND: 'DEL', CNI_NETNS: '' } }).exitCode).toBe(0);
    expect(calls[0]?.call).toHaveProperty('netns', undefined);
  });

  test('lets what the plugin logs through', () => {
    const { plugin } = fakePlugin({ check: ({ log }) => log('MTU 9000 is larger than the uplink has') });
    const outcome = callPlugin(plugin, { env: { CNI_COMMAND: 'CHECK' } });
    expect(outcome).toMatchObject({
      exitCode: 0,
      stdout: '',
      log: ['MTU 9000 is larger than the uplink has'],
    });
  });

  test('of CHECK wants the prevResult where the plugin needs it', () => {
    const { plugin, calls } = fakePlugin({ checkNeedsPrevResult: true });
    const env = { CNI_COMMAND: 'CHECK' };
    for (const more of [{}, { prevResult: null }]) {
      const outcome = callPlugin(plugin, { env, stdin: config('1.0.0', more) });
      expect(outcome.json).toMatchObject({ code: 7, msg: expect.stringContaining('"prevResult"') });
    }
    expect(calls).toEqual([]);
    expect(callPlugin(plugin, { env, stdin: config('1.0.0', { prevResult: {} }) }).exitCode).toBe(0);
    for (const command of COMMANDS.filter((name) => name !== 'CHECK')) {
      expect(callPlugin(plugin, { env: { CNI_COMMAND: command } }).exitCode).toBe(0);
    }
  });

  test('prints a prevResult that is passed on, unknown keys included', () => {
    const { plugin } = fakePlugin({ add: ({ network }) => network.prevResult ?? {} });
    const prevResult = {
      cniVersion: '1.1.0',
      ips: [{ address: '10.1.0.2/16', zone: 1 }],
      vendor: { a: [1.5, null] },
    };
    expect(callPlugin(plugin, { stdin: config('1.1.0', { prevResult }) }).json).toEqual(prevResult);
  });
});

describe('VERSION', () => {
  const answer = (versions: readonly string[]) =>
    `{"cniVersion":"1.1.0","supportedVersions":[${versions.map((version) => `"${version}"`).join(',')}]}\n`;
  const neverRead = () => {
    throw new Error('stdin must not be read');
  };

  test('is one compact line, whatever the environment and stdin hold', () => {
    const { plugin, calls } = fakePlugin();
    const junk = {
      CNI_COMMAND: 'VERSION',
      CNI_NETNS: 'dummy',
      CNI_IFNAME: 'a/b c',
      CNI_CONTAINERID: '-',
      CNI_PATH: 'dummy',
    };
    const io = { readStdin: neverRead };
    for (const env of [junk, { ...junk, CNI_PATH: undefined, CNI_CONTAINERID: undefined }]) {
      const outcome = callPlugin(plugin, { env, io });
      expect(outcome).toMatchObject({ stdout: answer(CNI_VERSIONS), exitCode: 0, log: [] });
    }
    expect(calls).toEqual([]);
  });

  test('lists what the plugin supports, under our newest version', () => {
    const { plugin } = fakePlugin({ supportedVersions: ['0.4.0', '1.0.0'] });
    const outcome = callPlugin(plugin, { env: { CNI_COMMAND: 'VERSION' }, io: { readStdin: neverRead } });
    expect(outcome.stdout).toBe(answer(['0.4.0', '1.0.0']));
  });
});

describe('a run without CNI_COMMAND', () => {
  test.each(['2.0.0', 'v2.0.0'])(
    'tells who we are on stderr, as version %s, and reads nothing',
    (version) => {
      const readStdin = () => {
        throw new Error('stdin must not be read');
      };
      for (const CNI_COMMAND of [undefined, '']) {
        const { plugin } = fakePlugin({ name: 'bridge' });
        const outcome = callPlugin(plugin, { env: { CNI_COMMAND }, io: { version, readStdin } });
        expect(outcome).toMatchObject({
          stdout: '',
          exitCode: 0,
          log: [
            'CNI bridge plugin v2.0.0',
            'CNI protocol versions supported: 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0',
          ],
        });
      }
    },
  );
});

describe('the order of checks', () => {
  const good = JSON.stringify(config('1.1.0'));
  const readFails = {
    readStdin: () => {
      throw Object.assign(new Error('read: EIO'), { code: 'EIO' });
    },
  };

  test.each<[string, Record<string, string | undefined>, string, number]>([
    ['a missing variable before bad stdin', { CNI_COMMAND: 'ADD', CNI_PATH: '' }, '{', 4],
    ['an invalid variable before bad stdin', { CNI_COMMAND: 'ADD', CNI_IFNAME: 'a/b' }, '{', 4],
    ['bad stdin before an unknown command', { CNI_COMMAND: 'FOO' }, '{', 6],
    ['a missing name before an unknown command', { CNI_COMMAND: 'FOO' }, '{}', 7],
    ['an unknown command before its version', { CNI_COMMAND: 'FOO' }, '{"name": "n1", "cniVersion": 5}', 4],
    ['an unknown command, whose variables nobody knows', { CNI_COMMAND: 'FOO', CNI_IFNAME: 'a/b' }, good, 4],
    ['a command in lower case', { CNI_COMMAND: 'add' }, good, 4],
    ['a bad name before a bad version', { CNI_COMMAND: 'ADD' }, '{"name": "-", "cniVersion": "9"}', 7],
    [
      'a bad version before our own namespace',
      { CNI_NETNS: OWN_NETNS },
      '{"name": "n1", "cniVersion": "9"}',
      1,
    ],
    ['our own namespace before a bad type', { CNI_NETNS: OWN_NETNS }, '{"name": "n1", "type": 5}', 8],
    [
      'our own namespace before a bad prevResult',
      { CNI_NETNS: OWN_NETNS },
      '{"name": "n1", "prevResult": 5}',
      8,
    ],
    ['a bad prevResult', {}, '{"name": "n1", "prevResult": 5}', 7],
    [
      'a version that is no number, for CHECK',
      { CNI_COMMAND: 'CHECK' },
      '{"name": "n1", "cniVersion": "x"}',
      6,
    ],
    ['an unknown version for DEL', { CNI_COMMAND: 'DEL' }, '{"name": "n1", "cniVersion": "9.9.9"}', 1],
  ])('reports %s', (_what, env, stdin, code) => {
    const { plugin, calls } = fakePlugin();
    const outcome = callPlugin(plugin, { env, stdin });
    expect(outcome).toMatchObject({ exitCode: 1, json: { code } });
    expect(calls).toEqual([]);
  });

  test('reports an unreadable stdin after the environment', () => {
    const { plugin } = fakePlugin();
    expect(callPlugin(plugin, { io: readFails }).json).toEqual({
      cniVersion: '1.1.0',
      code: 5,
      msg: 'Cannot read the network configuration from stdin',
      details: 'read: EIO',
    });
    expect(callPlugin(plugin, { env: { CNI_PATH: '' }, io: readFails }).json).toMatchObject({ code: 4 });
    expect(callPlugin(plugin, { env: { CNI_COMMAND: 'FOO' }, io: readFails }).json).toMatchObject({
      code: 5,
    });
  });

  test.each(['ADD', 'DEL'])('%s on our own namespace is refused before anything happens', (command) => {
    const { plugin, calls } = fakePlugin();
    const env = { CNI_COMMAND: command, CNI_NETNS: OWN_NETNS };
    const outcome = callPlugin(plugin, { env });
    expect(outcome).toMatchObject({
      exitCode: 1,
      json: { code: 8, msg: expect.stringContaining(`"${OWN_NETNS}"`) },
    });
    expect(calls).toEqual([]);
    expect(callPlugin(plugin, { env: { ...env, CNI_NETNS_OVERRIDE: 'true' } }).exitCode).toBe(0);
    expect(calls).toHaveLength(1);
  });

  test.each(['CHECK', 'STATUS', 'GC'])('%s has no such guard', (command) => {
    const { plugin, calls } = fakePlugin();
    expect(callPlugin(plugin, { env: { CNI_COMMAND: command, CNI_NETNS: OWN_NETNS } }).exitCode).toBe(0);
    expect(calls).toHaveLength(1);
  });

  test.each(COMMANDS)('%s takes wrong fields as its verb allows', (command) => {
    const { plugin, calls } = fakePlugin();
    const stdin = config('1.1.0', { type: 5, prevResult: 5 });
    const outcome = callPlugin(plugin, { env: { CNI_COMMAND: command }, stdin });
    const isLenient = command === 'DEL' || command === 'GC';
    expect(outcome.exitCode).toBe(isLenient ? 0 : 1);
    expect(calls).toHaveLength(isLenient ? 1 : 0);
  });

  test('reads the config strictly for ADD, CHECK and STATUS, leniently for DEL and GC', () => {
    for (const command of COMMANDS) {
      const parsers: string[] = [];
      const { plugin } = fakePlugin({
        parseConfig: (source) => {
          parsers.push('parseConfig');
          return source;
        },
        parseTeardown: (source) => {
          parsers.push('parseTeardown');
          return source;
        },
      });
      expect(callPlugin(plugin, { env: { CNI_COMMAND: command } }).exitCode).toBe(0);
      expect(parsers).toEqual([command === 'DEL' || command === 'GC' ? 'parseTeardown' : 'parseConfig']);
    }
  });
});

describe('an error', () => {
  const failing = (error: unknown) => {
    const add = (): Result => {
      throw error;
    };
    return fakePlugin({ add }).plugin;
  };

  test('is printed like the reference prints it, with the version the protocol asks for', () => {
    const outcome = callPlugin(failing(addressesExhausted('No <free> address', { details: 'a & b' })), {
      stdin: config('0.4.0'),
    });
    expect(outcome).toMatchObject({ exitCode: 1, log: [] });
    expect(outcome.stdout).toBe(
      String.raw`{
    "cniVersion": "0.4.0",
    "code": 100,
    "msg": "No \u003cfree\u003e address",
    "details": "a \u0026 b"
}`,
    );
  });

  test('has no details when there are none', () => {
    const outcome = callPlugin(failing(addressesExhausted('None', { details: '' })));
    expect(outcome.json).toEqual({ cniVersion: '1.1.0', code: 100, msg: 'None' });
  });

  test.each<[string, string]>([
    ['{"name": "n1", "cniVersion": "9.9.9"}', '1.1.0'],
    ['{"name": "n1", "cniVersion": 5}', '1.1.0'],
    ['{', '1.1.0'],
    ['{"name": "-", "cniVersion": "0.4.0"}', '1.1.0'],
    ['{"name": "n1", "type": 5, "cniVersion": "0.4.0"}', '0.4.0'],
    ['{"name": "n1", "type": 5, "CNIVERSION": "0.3.1"}', '0.3.1'],
  ])('for %s carries version %s', (stdin, version) => {
    expect(callPlugin(fakePlugin().plugin, { stdin }).json).toHaveProperty('cniVersion', version);
  });

  test('of an absent version carries 0.1.0, which that means', () => {
    expect(callPlugin(failing(addressesExhausted('None')), { stdin: { name: 'n1' } }).json).toHaveProperty(
      'cniVersion',
      '0.1.0',
    );
  });

  test('with an errno is the kernel refusing', () => {
    const cause = Object.assign(new Error('RTM_NEWLINK: EPERM'), { code: 'EPERM' });
    expect(callPlugin(failing(new Error('Cannot add link "cni0"', { cause }))).json).toEqual({
      cniVersion: '1.1.0',
      code: 105,
      msg: 'Cannot add link "cni0"',
      details: 'RTM_NEWLINK: EPERM',
    });
  });

  test('of our own making asks to be reported', () => {
    const crash = () => (undefined as unknown as { x: { y: 1 } }).x.y;
    const { plugin } = fakePlugin({ status: () => void crash() });
    const outcome = callPlugin(plugin, { env: { CNI_COMMAND: 'STATUS' } });
    expect(outcome).toMatchObject({
      exitCode: 1,
      json: {
        code: 999,
        msg: expect.stringMatching(
          /^This is a defect of the plugin, please report it .*Cannot read properties of undefined/,
        ),
        details: expect.stringContaining('dispatch.test.ts'),
      },
    });
  });

  test('in a runaway recursion is printed as well', () => {
    const recurse = (): Result => recurse();
    expect(callPlugin(fakePlugin({ add: recurse }).plugin).json).toMatchObject({ code: 999 });
  });
});

describe('a result that its version cannot express', () => {
  test.each(['0.1.0', '0.2.0'] as const)('is undone in %s', (version) => {
    const { plugin, calls } = fakePlugin({ add: () => ({ interfaces: [{ name: 'eth0' }] }) });
    const outcome = callPlugin(plugin, { stdin: config(version) });
    expect(outcome).toMatchObject({ exitCode: 1, json: { cniVersion: version, code: 1 }, log: [] });
    expect(calls.map(({ verb }) => verb)).toEqual(['ADD', 'DEL']);
    expect(calls[1]?.call.config.command).toBe('DEL');
    expect(calls[1]?.call).toMatchObject({ netns: ENV.CNI_NETNS, attachment: { ifname: 'eth0' } });
  });

  test('is the error reported also when the undo fails', () => {
    const { plugin } = fakePlugin({
      add: () => ({}),
      del: () => {
        throw kernelRefused('Link "veth1" is busy');
      },
    });
    const outcome = callPlugin(plugin, { stdin: config('0.2.0') });
    expect(outcome.json).toMatchObject({ code: 1 });
    expect(outcome.log).toEqual([expect.stringContaining('Link "veth1" is busy')]);
  });
});

describe('a config of 1 MB', () => {
  test('is read like a small one', () => {
    const { plugin, calls } = fakePlugin();
    const start = performance.now();
    const stdin = config('1.1.0', {
      filler: 'x'.repeat(500_000),
      more: Object.fromEntries(Array.from({ length: 40_000 }, (_, i) => [`k${i}`, i])),
    });
    expect(callPlugin(plugin, { stdin }).exitCode).toBe(0);
    expect(calls).toHaveLength(1);
    expect(performance.now() - start).toBeLessThan(1000);
  });

  test('gives a short error when a field is wrong', () => {
    const { plugin } = fakePlugin();
    for (const stdin of [
      { name: 'x y'.repeat(400_000) },
      { name: 'n1', cniVersion: 'x'.repeat(1_000_000) },
      { name: 'n1', type: Array.from({ length: 300_000 }, () => 1) },
      'x'.repeat(1_000_000),
    ]) {
      const outcome = callPlugin(plugin, { stdin });
      expect(outcome.exitCode).toBe(1);
      expect(outcome.stdout.length).toBeLessThan(1000);
    }
  });
});
