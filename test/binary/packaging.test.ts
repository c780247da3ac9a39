// Says that the executables are what packaging promises: one image under every name, each name a whole program, and
// an answer on stdout whatever becomes of the standard streams.
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  constants,
  copyFileSync,
  linkSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readReport } from '../../build/package.ts';
import { findPlugin, listPlugins } from '../../plugins/registry.ts';
import type { AnyPlugin } from '../../shared/cni/plugin.ts';
import { pluginDirectory } from '../support/run-plugin.ts';

const BIN = pluginDirectory();
const ADD = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'c1',
  CNI_NETNS: '/run/none',
  CNI_IFNAME: 'eth0',
  CNI_PATH: BIN,
};

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'patchbay-packaging-'));
});
afterAll(() => rmSync(directory, { recursive: true }));

describe('The folder of executables', () => {
  test('holds one file under the name of every plugin', () => {
    expect(readdirSync(BIN).sort()).toEqual([...listPlugins()].sort());
    const inodes = listPlugins().map((name) => statSync(join(BIN, name)).ino);
    expect(new Set(inodes).size).toBe(1);
  });

  test('was made with a code cache that every verb had a hand in', () => {
    const { warmUp = [] } = readReport() ?? {};
    const failed = warmUp.filter(({ exitCode }) => exitCode !== 0);
    expect(failed).toEqual([]);
    const verbs = warmUp.map(({ name }) => name.split(' ')[1]);
    expect([...new Set(verbs)].sort()).toEqual(['ADD', 'CHECK', 'DEL', 'GC', 'STATUS', 'VERSION']);
  });

  // Each starts from a snapshot of a Node that ran where it was built.
  test('tells nothing of the place where it was made', () => {
    expect(readFileSync(join(BIN, 'bridge')).includes(join(import.meta.dirname, '../..'))).toBe(false);
  });

  test('carries the licences of what is in the image', () => {
    const notices = readFileSync(join(BIN, '../third-party-licenses.txt'), 'utf8');
    for (const name of ['node-linux-', ...(readReport()?.packages ?? [])])
      expect(notices).toContain(`${name}`);
  });
});

describe.each([...listPlugins()])('%s', (name) => {
  const { supportedVersions } = pluginOf(name);
  const VERSION = versionAnswerOf(name);

  test.each(['VERSION', 'STATUS', 'ADD', 'CHECK', 'GC', 'DEL'])('runs %s from the code cache', (verb) => {
    const { stderr } = run(join(BIN, name), { CNI_COMMAND: verb, PATCHBAY_TRACE: 'start' });
    expect(stderr).toMatch(/^code cache of \S+ accepted$/m);
  });

  test('says on stderr who it is when nobody asks for anything', () => {
    const { status, stdout, stderr } = run(join(BIN, name), {});
    const { version, revision } = readReport() ?? {};
    expect({ status, stdout }).toEqual({ status: 0, stdout: '' });
    expect(stderr).toBe(
      `CNI ${name} plugin v${version}\nCNI protocol versions supported: ${supportedVersions.join(', ')}\n` +
        `Patchbay ${version}, revision ${revision}\n`,
    );
  });

  test('answers VERSION whatever else the environment holds, and does not look at stdin', () => {
    const silent = openSync(makeFifo(`silent-${name}`), constants.O_RDWR);
    const junk = { CNI_CONTAINERID: '../..', CNI_NETNS: '/dev/null', CNI_IFNAME: 'a/b', CNI_ARGS: ';;=;' };
    const { status, stdout, stderr } = spawnSync(join(BIN, name), [], {
      env: { ...junk, CNI_COMMAND: 'VERSION' },
      stdio: [silent, 'pipe', 'pipe'],
      encoding: 'utf8',
      timeout: 10_000,
    });
    closeSync(silent);
    expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: VERSION, stderr: '' });
  });

  test('works as a plain copy, alone in another folder', () => {
    const alone = mkdtempSync(join(directory, 'alone-'));
    copyFileSync(join(BIN, name), join(alone, name));
    expect(run(join(alone, name), { CNI_COMMAND: 'VERSION' })).toEqual({
      status: 0,
      stdout: VERSION,
      stderr: '',
    });
  });

  test('works through a symlink of its name to a file of another name', () => {
    const other = mkdtempSync(join(directory, 'other-'));
    linkOrCopy(join(BIN, name), join(other, 'plugins'));
    symlinkSync('plugins', join(other, name));
    expect(run(join(other, name), { CNI_COMMAND: 'VERSION' }).stdout).toBe(VERSION);
  });
});

describe('A name that is no plugin', () => {
  test('is an error that tells both names it was looked up by', () => {
    const other = join(mkdtempSync(join(directory, 'unknown-')), 'brigde');
    linkOrCopy(join(BIN, 'bridge'), other);
    const { status, stdout } = run('bash', { CNI_COMMAND: 'VERSION' }, [
      '--norc',
      '-c',
      `exec -a /x/brdige ${other}`,
    ]);
    expect(status).toBe(1);
    expect(JSON.parse(stdout)).toEqual({
      cniVersion: '1.1.0',
      code: 4,
      msg: expect.stringMatching(new RegExp(`"brigde".*"brdige".*${listPlugins().join(', ')}`)),
    });
  });

  test('is no plugin either when every object has a property of that name', () => {
    const other = join(mkdtempSync(join(directory, 'unknown-')), 'constructor');
    linkOrCopy(join(BIN, 'bridge'), other);
    expect(JSON.parse(run(other, { CNI_COMMAND: 'VERSION' }).stdout)).toMatchObject({ code: 4 });
  });
});

test('an executable that was deleted under way still knows its name', () => {
  const gone = join(mkdtempSync(join(directory, 'gone-')), 'bridge');
  linkOrCopy(join(BIN, 'bridge'), gone);
  const script = `exec 9< ${gone}; rm ${gone}; exec /proc/self/fd/9`;
  const { stderr } = run('bash', {}, ['--norc', '-c', script]);
  expect(stderr).toContain('CNI bridge plugin v');
});

describe('Standard streams', () => {
  test('closed ones do no harm to a verb that needs none', () => {
    const { status } = run('bash', { CNI_COMMAND: 'VERSION' }, [
      '--norc',
      '-c',
      `${BIN}/bridge <&- >&- 2>&-`,
    ]);
    expect(status).toBe(0);
  });

  test('a closed stdin is an empty config', () => {
    const { status, stdout } = run('bash', ADD, ['--norc', '-c', `${BIN}/bridge <&-`]);
    expect(status).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ code: 6 });
  });

  test('a folder as stdin is an error in JSON', () => {
    const { status, stdout } = run('bash', ADD, ['--norc', '-c', `${BIN}/bridge < /`]);
    expect(status).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ code: expect.any(Number), msg: expect.stringMatching(/./) });
  });

  test('an endless stdin is an error in JSON', () => {
    const { status, stdout } = run('bash', ADD, ['--norc', '-c', `${BIN}/bridge < /dev/zero`]);
    expect(status).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ code: 5, msg: expect.stringContaining('stdin') });
  });

  test('a reader that went away before the answer makes the call fail, without a stack trace', () => {
    const script = `${BIN}/bridge | true; exit \${PIPESTATUS[0]}`;
    const { status, stderr } = run('bash', { CNI_COMMAND: 'VERSION' }, ['--norc', '-c', script]);
    expect(status).toBe(1);
    expect(stderr).toMatch(/^Cannot write to standard output: .*EPIPE[^\n]*\n$/);
  });

  test('a config may come late through a pipe that does not block', async () => {
    const pipe = makeFifo('late');
    const end = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK);
    const child = spawn(join(BIN, 'host-local'), [], { env: { ...ADD }, stdio: [end, 'pipe', 'inherit'] });
    const writer = openSync(pipe, constants.O_WRONLY);
    closeSync(end);
    const answer = child.stdout === null ? '' : text(child.stdout);
    await delay(150);
    writeSync(writer, '{"cniVersion": "1.1.0", ');
    await delay(50);
    writeSync(writer, '"name": "n1", "type": "host-local", "ipam": {}}');
    closeSync(writer);
    expect(JSON.parse(await answer)).toMatchObject({ cniVersion: '1.1.0', code: expect.any(Number) });
  });

  test('an answer waits for a full pipe that does not block', async () => {
    const pipe = makeFifo('full');
    const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK);
    const end = openSync(pipe, constants.O_WRONLY | constants.O_NONBLOCK);
    const filled = fill(end);
    const child = spawn(join(BIN, 'bridge'), [], {
      env: { CNI_COMMAND: 'VERSION' },
      stdio: ['ignore', end, 'inherit'],
    });
    closeSync(end);
    await delay(150);
    expect(child.exitCode).toBeNull();
    const exited = once(child, 'exit');
    let received = readAvailable(reader);
    const [exitCode] = (await exited) as [number];
    received += readAvailable(reader);
    closeSync(reader);
    expect(exitCode).toBe(0);
    expect(received.slice(filled)).toBe(versionAnswerOf('bridge'));
  });
});

function pluginOf(name: string): AnyPlugin {
  const plugin = findPlugin(name);
  if (plugin === undefined) throw new Error(`There is no plugin "${name}"`);
  return plugin;
}

function versionAnswerOf(name: string): string {
  const { supportedVersions } = pluginOf(name);
  return `${JSON.stringify({ cniVersion: '1.1.0', supportedVersions })}\n`;
}

interface Finished {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

function run(program: string, env: Readonly<Record<string, string>>, args: readonly string[] = []): Finished {
  const { status, stdout, stderr } = spawnSync(program, args, {
    env: { PATH: process.env['PATH'], ...env },
    input: '',
    encoding: 'utf8',
  });
  return { status, stdout, stderr };
}

function linkOrCopy(from: string, to: string): void {
  try {
    linkSync(from, to);
  } catch {
    copyFileSync(from, to); // another file system
  }
}

function makeFifo(name: string): string {
  const path = join(directory, name);
  execFileSync('mkfifo', [path]);
  return path;
}

/** Writes until the pipe takes no more and returns how much that was. */
function fill(fd: number): number {
  let total = 0;
  for (const chunk of [Buffer.alloc(4096, '.'), Buffer.alloc(1, '.')]) {
    for (;;) {
      try {
        total += writeSync(fd, chunk);
      } catch {
        break; // EAGAIN: full
      }
    }
  }
  return total;
}

function readAvailable(fd: number): string {
  const buffer = Buffer.alloc(256 * 1024);
  try {
    return buffer.toString('latin1', 0, readSync(fd, buffer));
  } catch {
    return ''; // EAGAIN: nothing more for now
  }
}

async function text(stream: NodeJS.ReadableStream): Promise<string> {
  let all = '';
  for await (const chunk of stream) all += String(chunk);
  return all;
}
