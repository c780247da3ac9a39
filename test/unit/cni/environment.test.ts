// The CNI_ variables: which command needs which, what is valid, and the guard of our own namespace.
// Run with the unit tests.
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  type Command,
  holdForeignNetns,
  isCommand,
  parseEnvironment,
} from '../../../shared/cni/environment.ts';
import { ENV } from '../../support/fake-plugin.ts';

const COMMANDS: readonly Command[] = ['ADD', 'DEL', 'CHECK', 'STATUS', 'GC'];
const ATTACHED: readonly Command[] = ['ADD', 'DEL', 'CHECK'];

describe('commands', () => {
  test('are known in upper case only', () => {
    expect(COMMANDS.every(isCommand)).toBe(true);
    for (const text of ['', 'add', 'ADD ', 'VERSION', 'FOO', 'toString', '__proto__'])
      expect(isCommand(text)).toBe(false);
  });
});

describe('parseEnvironment', () => {
  test('gives what a command needs', () => {
    expect(parseEnvironment({ ...ENV, CNI_PATH: '/a::/b:', CNI_ARGS: 'A=b' }, 'ADD')).toEqual({
      containerId: 'c1',
      netns: ENV.CNI_NETNS,
      ifname: 'eth0',
      args: 'A=b',
      path: ['/a', '/b'],
      ownNetns: 'refuse',
    });
  });

  test.each<[Command, string]>([
    ['ADD', 'CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH'],
    ['CHECK', 'CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH'],
    ['DEL', 'CNI_CONTAINERID,CNI_IFNAME,CNI_PATH'],
    ['STATUS', 'CNI_PATH'],
    ['GC', 'CNI_PATH'],
  ])('%s needs %s, and names all that is missing at once', (command, names) => {
    const thrown = expect.objectContaining({ code: 4, message: expect.stringContaining(`[${names}]`) });
    expect(() => parseEnvironment({}, command)).toThrow(thrown);
    const empty = { CNI_CONTAINERID: '', CNI_NETNS: '', CNI_IFNAME: '', CNI_PATH: '' };
    expect(() => parseEnvironment(empty, command)).toThrow(thrown);
    for (const name of names.split(',')) {
      expect(() => parseEnvironment({ ...ENV, [name]: undefined }, command)).toThrow(`[${name}]`);
    }
  });

  test('STATUS and GC do not look at what they do not need', () => {
    const env = { CNI_CONTAINERID: '-', CNI_IFNAME: 'a/b', CNI_NETNS: '', CNI_PATH: '/x' };
    for (const command of ['STATUS', 'GC'] as const)
      expect(parseEnvironment(env, command).path).toEqual(['/x']);
  });

  test('DEL takes a missing namespace', () => {
    expect(parseEnvironment({ ...ENV, CNI_NETNS: undefined }, 'DEL').netns).toBe('');
  });

  test.each(['a', '0', 'A-b_c.d', 'a..', 'c'.repeat(5000)])('takes the container id %.20s', (id) => {
    for (const command of ATTACHED) {
      expect(parseEnvironment({ ...ENV, CNI_CONTAINERID: id }, command).containerId).toBe(id);
    }
  });

  test.each(['-a', '.', '..', '_a', 'a/b', '../../etc', 'a b', 'a\n', 'a:b', 'é', 'a\0b'])(
    'refuses the container id "%s"',
    (id) => {
      for (const command of ATTACHED) {
        expect(() => parseEnvironment({ ...ENV, CNI_CONTAINERID: id }, command)).toThrow(
          expect.objectContaining({
            code: 4,
            message: expect.stringContaining(`CNI_CONTAINERID ${JSON.stringify(id)}`),
          }),
        );
      }
    },
  );

  test.each(['eth0', 'a', 'a-15-byte-name1', '...', '-', 'a"b', 'é', 'a\ufeffb'])(
    'takes the ifname "%s"',
    (ifname) => {
      for (const command of ATTACHED)
        expect(parseEnvironment({ ...ENV, CNI_IFNAME: ifname }, command).ifname).toBe(ifname);
    },
  );

  test.each([
    ['a-16-byte-name12', '16 bytes'],
    ['éééééééé', '16 bytes'],
    ['.', '"."'],
    ['..', '".."'],
    ['a/b', '"/"'],
    ['a:b', '":"'],
    ['a b', 'white space'],
    ['a\tb', 'white space'],
    ['a\u00a0b', 'white space'],
    ['a\u0085b', 'white space'],
    ['a\u2003b', 'white space'],
  ])('refuses the ifname "%s" because of %s', (ifname, reason) => {
    for (const command of ATTACHED) {
      expect(() => parseEnvironment({ ...ENV, CNI_IFNAME: ifname }, command)).toThrow(
        expect.objectContaining({ code: 4, message: expect.stringMatching(/^CNI_IFNAME /) }),
      );
      expect(() => parseEnvironment({ ...ENV, CNI_IFNAME: ifname }, command)).toThrow(reason);
    }
  });

  test('reports an invalid value before missing ones, and the container id before the ifname', () => {
    expect(() => parseEnvironment({ CNI_IFNAME: 'a/b' }, 'ADD')).toThrow('CNI_IFNAME "a/b"');
    expect(() => parseEnvironment({ CNI_CONTAINERID: '-', CNI_IFNAME: 'a/b' }, 'ADD')).toThrow(
      'CNI_CONTAINERID "-"',
    );
  });
});

describe('the guard of our own namespace', () => {
  const own = '/proc/self/ns/net';
  const guard = (env: Record<string, string>) => () => {
    holdForeignNetns(parseEnvironment({ ...ENV, ...env }, 'ADD'))?.[Symbol.dispose]();
  };

  test('refuses it, also through a symlink', () => {
    const directory = mkdtempSync(join(tmpdir(), 'cni-netns-'));
    try {
      const link = join(directory, 'netns');
      symlinkSync(own, link);
      for (const path of [own, '/proc/thread-self/ns/net', link]) {
        expect(guard({ CNI_NETNS: path })).toThrow(
          expect.objectContaining({ code: 8, message: expect.stringContaining(JSON.stringify(path)) }),
        );
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  });

  test.each(['1', 'true', 'TRUE', 'True'])('lets it pass with CNI_NETNS_OVERRIDE=%s', (override) => {
    expect(guard({ CNI_NETNS: own, CNI_NETNS_OVERRIDE: override })).not.toThrow();
  });

  test.each(['', '0', 'false', 'yes', ' 1'])('is not turned off by CNI_NETNS_OVERRIDE="%s"', (override) => {
    expect(guard({ CNI_NETNS: own, CNI_NETNS_OVERRIDE: override })).toThrow(
      expect.objectContaining({ code: 8 }),
    );
  });

  test.each([
    '',
    '/nowhere',
    '/etc/passwd',
    '/etc/passwd/below',
    '/proc/self/ns/mnt',
    'relative',
    `/${'x'.repeat(5000)}`,
  ])('has nothing against "%.30s"', (path) => {
    const environment = { ...parseEnvironment(ENV, 'DEL'), netns: path };
    expect(() => holdForeignNetns(environment)?.[Symbol.dispose]()).not.toThrow();
  });
});
