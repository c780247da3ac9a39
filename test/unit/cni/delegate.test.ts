// Delegation to an IPAM plugin: how it is found, and that exec and a call in process come to the same.
// Run with the unit tests; the plugins by exec are scripts.
import { spawn } from 'node:child_process';
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { DispatchIo } from '../../../shared/cni/dispatch.ts';
import type { Command } from '../../../shared/cni/environment.ts';
import type { IpamDelegate } from '../../../shared/cni/plugin.ts';
import type { Result } from '../../../shared/cni/result.ts';
import { type CniVersion, isVersionAtLeast } from '../../../shared/cni/versions.ts';
import { type Behaviour, fakeIpam } from '../../support/fake-ipam.ts';
import { callPlugin, type Dispatched, fakePlugin } from '../../support/fake-plugin.ts';

// One file in place of twenty starts four times as fast.
let program: string;
beforeAll(() => {
  program = join(mkdtempSync(join(tmpdir(), 'cni-fake-ipam-')), 'fake-ipam.mjs');
  const source = fileURLToPath(new URL('../../support/fake-ipam.ts', import.meta.url));
  buildSync({
    entryPoints: [source],
    outfile: program,
    bundle: true,
    platform: 'node',
    format: 'esm',
    external: ['execa'],
  });
});
afterAll(() => {
  rmSync(dirname(program), { recursive: true, force: true });
});

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'cni-delegate-'));
});
afterEach(() => {
  rmSync(directory, { recursive: true, force: true });
});

// An executable shell script on our CNI_PATH.
function script(name: string, body: string, folder = directory): string {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`);
  chmodSync(path, 0o755);
  return path;
}

const VERB: Readonly<Record<Command, keyof IpamDelegate>> = {
  ADD: 'add',
  DEL: 'del',
  CHECK: 'check',
  STATUS: 'status',
  GC: 'gc',
};

interface Delegation {
  readonly outcome: Dispatched;
  /** What `ipam.add` returned. */
  readonly result: Result | undefined;
}

// One call of a plugin that does nothing but delegate it.
function delegate(
  type: string,
  options: Parameters<typeof callPlugin>[1] & { readonly command?: Command } = {},
): Delegation {
  const { command = 'ADD', env, ...rest } = options;
  let result: Result | undefined;
  const pass = ({ ipam }: { ipam: IpamDelegate }) => {
    const returned = ipam[VERB[command]](type);
    result = returned ?? undefined;
    return result ?? {};
  };
  const { plugin } = fakePlugin({ name: 'main', add: pass, del: pass, check: pass, status: pass, gc: pass });
  const outcome = callPlugin(plugin, { env: { CNI_COMMAND: command, CNI_PATH: directory, ...env }, ...rest });
  return { outcome, result };
}

describe('the IPAM plugin is found', () => {
  const answer = (address: string) => `echo '{"ips": [{"address": "${address}"}]}'`;
  const addressOf = ({ result }: Delegation) => result?.ips?.[0]?.address;

  test('in the first directory of CNI_PATH that holds a regular file of its name', () => {
    const [first = '', second = '', third = ''] = ['a', 'b', 'c'].map((name) => join(directory, name));
    for (const folder of [first, second, third]) mkdirSync(folder);
    mkdirSync(join(first, 'ipam'));
    script('ipam', answer('10.0.0.2/8'), second);
    script('ipam', answer('10.0.0.3/8'), third);
    const missing = join(directory, 'missing');
    const notDirectory = script('file', '');
    expect(
      addressOf(
        delegate('ipam', { env: { CNI_PATH: [missing, notDirectory, first, second, third].join(':') } }),
      ),
    ).toBe('10.0.0.2/8');
    expect(addressOf(delegate('ipam', { env: { CNI_PATH: `:${third}::${second}` } }))).toBe('10.0.0.3/8');
  });

  test('through a symlink, and in a relative directory', () => {
    symlinkSync(script('real', answer('10.0.0.4/8')), join(directory, 'ipam'));
    expect(addressOf(delegate('ipam'))).toBe('10.0.0.4/8');
    expect(addressOf(delegate('ipam', { env: { CNI_PATH: relative(process.cwd(), directory) } }))).toBe(
      '10.0.0.4/8',
    );
  });

  test.each(['file', 'directory'] as const)('and not begun where everybody may write to its %s', (what) => {
    const path = script('ipam', answer('10.0.0.5/8'));
    chmodSync(what === 'file' ? path : directory, 0o777);
    const sentence = /^The IPAM plugin "ipam" can be replaced by everybody: run "chmod o-w" on "/;
    for (const command of ['ADD', 'CHECK', 'STATUS'] as const) {
      const { outcome } = delegate('ipam', { command });
      expect(outcome.json, command).toMatchObject({ code: 111, msg: expect.stringMatching(sentence) });
    }
    for (const command of ['DEL', 'GC'] as const) {
      const { outcome } = delegate('ipam', { command });
      expect(outcome, command).toMatchObject({ exitCode: 0, log: [expect.stringMatching(sentence)] });
    }
    chmodSync(directory, 0o1777);
    chmodSync(path, 0o755);
    expect(delegate('ipam').outcome).toMatchObject({ exitCode: 0, log: [] });
  });

  test.each(['ADD', 'DEL', 'CHECK', 'STATUS', 'GC'] as const)('or %s says where it looked', (command) => {
    const { outcome } = delegate('nobody', { command });
    expect(outcome).toMatchObject({
      exitCode: 1,
      json: { code: 111, msg: `Cannot find the IPAM plugin "nobody" in CNI_PATH "${directory}"` },
      log: [],
    });
  });

  test('never as an empty entry of CNI_PATH, which would mean the working directory', () => {
    expect(delegate('package.json', { env: { CNI_PATH: ':' } }).outcome.json).toMatchObject({ code: 111 });
  });

  describe.each([
    ['', 'is empty'],
    ['../ipam', 'is a path and no plugin name'],
    ['/bin/true', 'is a path and no plugin name'],
    ['a/b', 'is a path and no plugin name'],
    ['.', 'is a path and no plugin name'],
    ['..', 'is a path and no plugin name'],
    ['a\0b', 'is a path and no plugin name'],
    ['main', 'the plugin that asks'],
  ])('but "%s"', (type, reason) => {
    test.each(['ADD', 'CHECK', 'STATUS'] as const)('is refused by %s', (command) => {
      script('main', 'echo {}');
      const { outcome } = delegate(type, { command });
      expect(outcome.json).toMatchObject({ code: 7, msg: expect.stringContaining('"ipam.type"') });
      expect(outcome.stdout).toContain(reason);
    });

    test.each(['DEL', 'GC'] as const)('has nothing that %s could release', (command) => {
      script('main', 'exit 1');
      const { outcome } = delegate(type, { command });
      expect(outcome).toMatchObject({ exitCode: 0, stdout: '' });
      expect(outcome.log).toEqual([expect.stringContaining(`Skipping IPAM ${command}`)]);
    });
  });
});

describe('an IPAM plugin by exec', () => {
  test.each(['ADD', 'DEL', 'CHECK', 'STATUS', 'GC'] as const)(
    'gets environment and stdin of %s unchanged',
    (command) => {
      script('ipam', `cat > ${directory}/stdin; env > ${directory}/env; echo null`);
      const stdin = Buffer.from(
        '{"name":"n1",  "cniVersion":"1.1.0", "é":1e3,\n"name":"n1","cni.dev/valid-attachments":[]}  \n',
      );
      const env = { CNI_ARGS: 'IgnoreUnknown=1;A=b c', TRACEPARENT: '00-1', CNI_IFNAME: 'eth0' };
      const { outcome } = delegate('ipam', { command, stdin, env });
      expect(outcome.exitCode).toBe(0);
      expect(readFileSync(join(directory, 'stdin'))).toEqual(stdin);
      const seen = readFileSync(join(directory, 'env'), 'utf8').split('\n');
      expect(seen).toEqual(
        expect.arrayContaining([
          `CNI_COMMAND=${command}`,
          'CNI_ARGS=IgnoreUnknown=1;A=b c',
          'TRACEPARENT=00-1',
          'CNI_IFNAME=eth0',
          'CNI_CONTAINERID=c1',
          `CNI_PATH=${directory}`,
        ]),
      );
    },
  );

  test('need not read its stdin, however long', () => {
    script('ipam', 'echo null');
    const stdin = { name: 'n1', cniVersion: '1.1.0', filler: 'x'.repeat(1_000_000) };
    expect(delegate('ipam', { stdin })).toMatchObject({ result: {}, outcome: { exitCode: 0 } });
  });

  test.each<[CniVersion, string, Result]>([
    ['1.1.0', 'null', {}],
    ['1.1.0', '{}', {}],
    ['1.1.0', '{"ips":[{"address":"10.0.0.2/8","more":1}],"vendor":2}', { ips: [{ address: '10.0.0.2/8' }] }],
    [
      '0.4.0',
      '{"ips":[{"version":"4","address":"10.0.0.2/8"}],"dns":{}}',
      { ips: [{ address: '10.0.0.2/8' }] },
    ],
    ['0.2.0', '{"ip4":{"ip":"10.0.0.2/8"},"dns":{}}', { ips: [{ address: '10.0.0.2/8' }] }],
    ['1.1.0', '{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/8"}}', { ips: [{ address: '10.0.0.2/8' }] }],
    [
      '0.2.0',
      '{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/8"}]}',
      { ips: [{ address: '10.0.0.2/8' }] },
    ],
  ])('at %s may answer %s', (cniVersion, answer, expected) => {
    script('ipam', `echo '${answer}'`);
    const { plugin } = fakePlugin({
      name: 'main',
      add: ({ ipam }) => ({ ips: [{ address: '10.9.9.9/8' }], ...ipam.add('ipam') }),
    });
    let result: Result | undefined;
    const asking = fakePlugin({
      name: 'main',
      add: ({ ipam }) => {
        result = ipam.add('ipam');
        return { ips: [{ address: '10.9.9.9/8' }] };
      },
    });
    const options = { env: { CNI_PATH: directory }, stdin: { name: 'n1', cniVersion } };
    expect(callPlugin(asking.plugin, options).exitCode).toBe(0);
    expect(result).toEqual(expected);
    expect(callPlugin(plugin, options).json).toHaveProperty('cniVersion', cniVersion);
  });

  test.each([
    ['nothing', '', 'it is empty'],
    ['no JSON', 'done', 'Cannot decode the result of the IPAM plugin "ipam" as JSON'],
    ['a list', '[]', 'The result of the IPAM plugin "ipam" must be an object, not []'],
    ['an unknown version', '{"cniVersion":"7"}', 'must be one of the CNI versions'],
    [
      'a bad address',
      '{"ips":[{"address":"x"}]}',
      'Field "ips[0].address" of the result of the IPAM plugin "ipam" must be',
    ],
  ])('that answers ADD with %s is called off', (_what, answer, message) => {
    script(
      'ipam',
      `echo $CNI_COMMAND >> ${directory}/calls; [ $CNI_COMMAND = DEL ] || printf %s '${answer}'`,
    );
    expect(delegate('ipam').outcome.json).toMatchObject({ code: 111, msg: expect.stringContaining(message) });
    expect(readFileSync(join(directory, 'calls'), 'utf8')).toBe('ADD\nDEL\n');
  });

  test.each(['DEL', 'CHECK', 'STATUS', 'GC'] as const)('may print anything on a successful %s', (command) => {
    script('ipam', 'echo whatever');
    expect(delegate('ipam', { command }).outcome).toMatchObject({ exitCode: 0, stdout: '', log: [] });
  });

  test.each(['ADD', 'DEL', 'CHECK', 'STATUS', 'GC'] as const)(
    'has its error relayed unchanged from %s',
    (command) => {
      script(
        'ipam',
        `echo '{"code": 11, "msg": "try <later>", "details": "a & b", "cniVersion": "0.4.0"}'; exit 1`,
      );
      expect(delegate('ipam', { command }).outcome.json).toEqual({
        cniVersion: '1.1.0',
        code: 11,
        msg: 'try <later>',
        details: 'a & b',
      });
    },
  );

  test('has an error without details, or with keys in other spelling, relayed', () => {
    script('ipam', `echo '{"Code": 50, "MSG": "no"}'; exit 3`);
    expect(delegate('ipam', { command: 'STATUS' }).outcome.json).toEqual({
      cniVersion: '1.1.0',
      code: 50,
      msg: 'no',
    });
  });

  test.each([
    ['without a word', 'exit 3', 'The IPAM plugin "ipam" ended with exit code 3 on CHECK without a message'],
    [
      'with words on stderr',
      'echo "no lease" >&2; exit 1',
      'ended with exit code 1 on CHECK saying "no lease"',
    ],
    ['with words on stdout', 'echo panic; exit 2', 'ended with exit code 2 on CHECK saying "panic"'],
    ['with JSON that is no error', 'echo "[1]"; exit 1', 'saying "[1]"'],
    ['with an error without code', `echo '{"msg": "no"}'; exit 1`, 'saying "{\\"msg\\": \\"no\\"}"'],
    [
      'with code 0',
      `echo '{"code": 0, "msg": "no"}'; exit 1`,
      'saying "{\\"code\\": 0, \\"msg\\": \\"no\\"}"',
    ],
    ['with a code that is no number', `echo '{"code": "7", "msg": "no"}'; exit 1`, 'saying'],
    ['by a signal', 'kill -9 $$', 'The IPAM plugin "ipam" was killed on CHECK without a message'],
  ])('that fails %s is an internal error, never code 0', (_what, body, message) => {
    script('ipam', body);
    const { outcome } = delegate('ipam', { command: 'CHECK' });
    expect(outcome).toMatchObject({
      exitCode: 1,
      json: { code: 999, msg: expect.stringContaining(message) },
    });
  });

  test.each([0, 1])('has its stderr passed on when it exits with %i', (exitCode) => {
    script('ipam', `echo "one" >&2; echo "two  2" >&2; echo '{"code": 7, "msg": "no"}'; exit ${exitCode}`);
    expect(delegate('ipam', { command: 'CHECK' }).outcome.log).toEqual(['one', 'two  2']);
  });

  test('that may not be executed says so', () => {
    chmodSync(script('ipam', ''), 0o644);
    const { outcome } = delegate('ipam', { command: 'CHECK' });
    expect(outcome.json).toMatchObject({
      code: 111,
      msg: `Cannot run the IPAM plugin "ipam" at "${directory}/ipam"`,
      details: expect.stringContaining('EACCES'),
    });
  });

  test('is started once it is no longer being written', () => {
    const path = script('ipam', 'echo null');
    const writing = openSync(path, 'r+');
    // A holder outlives our own descriptor for 50 ms.
    const holder = spawn('sleep', ['0.05'], { stdio: ['ignore', 'ignore', 'ignore', writing] });
    expect(holder.pid).toBeGreaterThan(0);
    closeSync(writing);
    const { outcome } = delegate('ipam', { command: 'CHECK' });
    expect(outcome.exitCode).toBe(0);
    expect(outcome.log).toEqual([`Waiting for "${path}": the file is being written`]);
  });
});

describe('after a failed ADD', () => {
  const calls = () =>
    existsSync(join(directory, 'calls')) ? readFileSync(join(directory, 'calls'), 'utf8').split('\n') : [];

  test('the IPAM plugin gets its DEL, and the first error is reported', () => {
    script(
      'ipam',
      `echo $CNI_COMMAND >> ${directory}/calls; echo "{\\"code\\": 11, \\"msg\\": \\"$CNI_COMMAND\\"}"; exit 1`,
    );
    const { outcome } = delegate('ipam');
    expect(outcome.json).toEqual({ cniVersion: '1.1.0', code: 11, msg: 'ADD' });
    expect(calls()).toEqual(['ADD', 'DEL', '']);
    expect(outcome.log).toEqual(['Cannot clean up with IPAM DEL after its ADD failed: DEL']);
  });

  test('nothing else does: other commands have nothing to take back', () => {
    script('ipam', `echo $CNI_COMMAND >> ${directory}/calls; exit 1`);
    for (const command of ['DEL', 'CHECK', 'STATUS', 'GC'] as const) delegate('ipam', { command });
    expect(calls()).toEqual(['DEL', 'CHECK', 'STATUS', 'GC', '']);
  });

  test('a second ADD of one attachment does not cost the first its address, if the IPAM plugin is ours', () => {
    script('ipam', `echo $CNI_COMMAND >> ${directory}/calls; echo '{"code": 102, "msg": "exists"}'; exit 1`);
    const own = fakeIpam();
    expect(delegate('ipam', { io: { registry: () => own } }).outcome.json).toMatchObject({ code: 102 });
    expect(calls()).toEqual(['ADD', '']);
    expect(delegate('ipam').outcome.json).toMatchObject({ code: 102 });
    expect(calls()).toEqual(['ADD', 'ADD', 'DEL', '']);
  });
});

describe('our own IPAM plugin', () => {
  const record = () => join(directory, 'record');

  // As program and in process: CNI_PATH names the same script, which is "our own inode" the second time.
  function both(
    command: Command,
    options: {
      version?: CniVersion;
      behaviour?: Behaviour;
      more?: object;
      env?: Record<string, string>;
    } = {},
  ) {
    const { version = '1.1.0', behaviour = {}, more = {}, env = {} } = options;
    const path = script('fake-ipam', `exec '${process.execPath}' '${program}'`);
    const ipam = { type: 'fake-ipam', record: record(), behaviours: { [command]: behaviour } };
    const stdin = { cniVersion: version, name: 'n1', ipam, ...more };
    const own = fakeIpam();
    const registry = (name: string) => (name === 'fake-ipam' ? own : undefined);
    const run = (ownExecutable: string) => {
      rmSync(record(), { force: true });
      const delegation = delegate('fake-ipam', { command, env, stdin, io: { registry, ownExecutable } });
      return { ...delegation, calls: existsSync(record()) ? readFileSync(record(), 'utf8') : '' };
    };
    linkSync(path, join(directory, 'own'));
    return { program: run('/proc/self/exe'), inProcess: run(join(directory, 'own')) };
  }

  const full: Result = {
    ips: [
      { address: '10.1.0.2/16', gateway: '10.1.0.1' },
      { address: '10.2.0.2/16' },
      { address: 'fd00::2/64', gateway: 'fd00::1' },
    ],
    routes: [
      { dst: '0.0.0.0/0', priority: 7, table: 0 },
      { dst: '::/0', gw: 'fd00::1' },
    ],
    dns: { nameservers: ['10.1.0.1'], domain: 'a<b>' },
  };

  // One version of each family: every program costs the start of a Node.
  test.each(['0.2.0', '0.4.0', '1.1.0'] as const)(
    'gives the same result in process as by exec at %s',
    (version) => {
      const { program, inProcess } = both('ADD', {
        version,
        behaviour: { result: full, log: ['one', 'two'] },
      });
      expect(inProcess).toEqual(program);
      expect(inProcess.outcome.exitCode).toBe(0);
      expect(inProcess.outcome.log).toEqual(['one', 'two']);
      expect(inProcess.calls).toBe('ADD\n');
      // The oldest shape has room for one address a family: what is lost by exec is lost in process.
      expect(inProcess.result?.ips).toHaveLength(isVersionAtLeast(version, '0.3.0') ? 3 : 2);
    },
  );

  test.each(['DEL', 'CHECK', 'STATUS', 'GC'] as const)('does the same on %s', (command) => {
    const more = { prevResult: {}, 'cni.dev/valid-attachments': [] };
    const { program, inProcess } = both(command, { more });
    expect(inProcess).toEqual(program);
    expect(inProcess).toMatchObject({ outcome: { exitCode: 0, stdout: '' }, calls: `${command}\n` });
  });

  const error = { code: 100, msg: 'No IP addresses available in range set "a-b"', details: 'a & b' };
  test.each<[string, Command, Parameters<typeof both>[1], number]>([
    ['an error with details', 'ADD', { behaviour: { error } }, 100],
    [
      'an error without details',
      'CHECK',
      { behaviour: { error: { code: 107, msg: 'gone' } }, more: { prevResult: {} } },
      107,
    ],
    ['an error with an errno', 'DEL', { behaviour: { crash: 'errno' } }, 105],
    ['a duplicate', 'ADD', { behaviour: { error: { code: 102, msg: 'exists' } } }, 102],
    ['a missing prevResult', 'CHECK', {}, 7],
    ['a STATUS of 50', 'STATUS', { behaviour: { error: { code: 50, msg: 'no' } } }, 50],
    ['a result its version cannot express', 'ADD', { version: '0.2.0', behaviour: { result: {} } }, 1],
  ])('reports %s the same way', (_what, command, options, code) => {
    const { program, inProcess } = both(command, options);
    expect(inProcess).toEqual(program);
    expect(inProcess.outcome.json).toMatchObject({ code });
  });

  test('reports a crash the same way, but for the stack', () => {
    const { program, inProcess } = both('ADD', { behaviour: { crash: 'TypeError' } });
    for (const { outcome, calls } of [program, inProcess]) {
      expect(outcome.json).toMatchObject({ code: 999, msg: expect.stringContaining('please report it') });
      expect(calls).toBe('ADD\nDEL\n');
    }
    expect(inProcess.outcome.json).toHaveProperty('msg', (program.outcome.json as { msg: string }).msg);
  });

  test('runs in process only when the file is ours and the name is known', () => {
    const path = script('fake-ipam', `echo exec >> '${directory}/exec'; echo null`);
    const own = fakeIpam();
    const stdin = { cniVersion: '1.1.0', name: 'n1', ipam: { type: 'fake-ipam', record: record() } };
    const wasExecuted = (io: Partial<DispatchIo>) => {
      rmSync(join(directory, 'exec'), { force: true });
      expect(delegate('fake-ipam', { stdin, io }).outcome.exitCode).toBe(0);
      return existsSync(join(directory, 'exec'));
    };
    expect(wasExecuted({ registry: () => own, ownExecutable: path })).toBe(false);
    expect(wasExecuted({ registry: () => undefined, ownExecutable: path })).toBe(true);
    expect(wasExecuted({ registry: () => own, ownExecutable: '/proc/self/exe' })).toBe(true);
    expect(wasExecuted({ registry: () => own, ownExecutable: `${path} (deleted)` })).toBe(true);
  });

  test('must support the version itself', () => {
    const path = script('fake-ipam', 'exit 1');
    const own = fakeIpam(['1.0.0']);
    const io = { registry: () => own, ownExecutable: path };
    const stdin = { cniVersion: '1.1.0', name: 'n1', ipam: { type: 'fake-ipam', record: record() } };
    expect(delegate('fake-ipam', { stdin, io }).outcome.json).toMatchObject({
      code: 1,
      details: 'The plugin supports 1.0.0',
    });
  });
});
