// Says that installing changes each name over in one step, keeps what others put there, and can be undone, all of it
// in a directory of its own; a caller runs the plugins meanwhile, and an installer is killed at each of its steps.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { installPlugins, undoInstallation } from '../../build/install.ts';
import { listPlugins } from '../../plugins/registry.ts';
import { pluginDirectory } from '../support/run-plugin.ts';

const INSTALLER = join(import.meta.dirname, '../../build/install.ts');
const REFERENCE = '/usr/lib/cni';

let prefix: string;
beforeEach(() => {
  const directory = mkdtempSync(join(tmpdir(), 'patchbay-install-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  prefix = join(directory, 'bin');
});

describe('Installing the executables', () => {
  test('makes the directory and puts one file there under every name', () => {
    expect(install()).toMatchObject({ installed: listPlugins(), replaced: [], foreign: [] });
    expect(visible()).toEqual([...listPlugins()].sort());
    expect(new Set(listPlugins().map((name) => statSync(join(prefix, name)).ino)).size).toBe(1);
    expect(statSync(join(prefix, 'bridge')).mode & 0o777).toBe(0o755);
    for (const name of listPlugins()) expect(bannerOf(name)).toMatch(`CNI ${name} plugin v`);
  });

  test('keeps files of others, and undoing gives back what it replaced', () => {
    fillWithForeign();
    const before = contents();
    expect(install().replaced).toEqual(['bridge', 'host-local', 'portmap']);
    expect(readFileSync(join(prefix, 'flannel'), 'utf8')).toBe('somebody else');
    expect(bannerOf('bridge')).toMatch('CNI bridge plugin v2');
    expect(undoInstallation(prefix).restored.toSorted()).toEqual(['bridge', 'host-local', 'portmap']);
    expect(contents()).toEqual(before);
  });

  test('twice, the second time with fewer names, is undone as if it had been done once', () => {
    fillWithForeign();
    const before = contents();
    install();
    const first = statSync(join(prefix, 'bridge')).ino;
    const again = install(['bridge']);
    expect(again.replaced).toEqual([]);
    expect(again.restored.toSorted()).toEqual(['host-local', 'portmap']);
    expect(statSync(join(prefix, 'bridge')).ino).not.toBe(first);
    undoInstallation(prefix);
    expect(contents()).toEqual(before);
  });

  test('and undoing leaves alone what somebody put in the place of ours', () => {
    fillWithForeign();
    install();
    rmSync(join(prefix, 'bridge'));
    writeFileSync(join(prefix, 'bridge'), 'a newer release of theirs');
    rmSync(join(prefix, 'portmap'));
    const { foreign, restored } = undoInstallation(prefix);
    expect([foreign, restored.toSorted()]).toEqual([['bridge'], ['host-local', 'portmap']]);
    expect(readFileSync(join(prefix, 'bridge'), 'utf8')).toBe('a newer release of theirs');
    expect(readFileSync(join(prefix, '.patchbay/replaced/bridge'), 'utf8')).toBe('the bridge of before');
  });

  test('is refused before anything changed where a directory has one of the names', () => {
    mkdirSync(join(prefix, 'portmap'), { recursive: true });
    expect(() => install()).toThrow(`Cannot install "portmap" in "${prefix}": a directory has that name`);
    expect(readdirSync(prefix)).toEqual(['portmap']);
    expect(() => undoInstallation(prefix)).toThrow('Nothing is installed');
  });

  test('is refused while another installation is at work', async () => {
    mkdirSync(prefix);
    const other = spawn('flock', [prefix, 'sh', '-c', 'echo locked; cat'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(other.stdout, 'data');
    expect(() => install()).toThrow('another installation is at work');
    other.stdin.end();
    await once(other, 'exit');
    expect(install().installed).toEqual(listPlugins());
  });
});

describe('A runtime that calls meanwhile', () => {
  test('finds a whole plugin under every name at any time, first theirs, then ours, then theirs again', async () => {
    mkdirSync(prefix);
    for (const name of listPlugins().filter(isReference)) cpSync(join(REFERENCE, name), join(prefix, name));
    const names = readdirSync(prefix);
    const caller = spawn('bash', ['--norc', '-c', CALLER, prefix, ...names], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    let said = '';
    caller.stdout.on('data', (chunk) => {
      said += chunk;
    });
    const calls = (answer: string) => said.split('\n').filter((line) => line === answer).length;
    const settle = async (answer: string) => {
      const seen = calls(answer);
      for (const deadline = Date.now() + 20_000; calls(answer) < seen + 3 && Date.now() < deadline; )
        await delay(5);
    };
    await settle('theirs');
    for (let round = 0; round < 3; round++) {
      runInstaller();
      await settle('ours');
      runInstaller('--undo');
      await settle('theirs');
    }
    caller.stdin.end();
    await once(caller, 'exit');
    expect([...new Set(said.trim().split('\n'))].sort()).toEqual(['ours', 'theirs']);
  });

  test('gets its answer from a plugin that was replaced while it ran', async () => {
    install();
    const running = spawn(join(prefix, 'host-local'), [], {
      env: { CNI_COMMAND: 'STATUS', CNI_PATH: prefix },
    });
    let said = '';
    running.stdout.on('data', (chunk) => {
      said += chunk;
    });
    const gone = once(running, 'exit');
    await delay(100); // it waits for its standard input
    install();
    undoInstallation(prefix);
    expect(running.exitCode).toBe(null);
    const ipam = { type: 'host-local', ranges: [[{ subnet: '10.1.0.0/24' }]], dataDir: join(prefix, '..') };
    running.stdin.end(JSON.stringify({ cniVersion: '1.1.0', name: 'net', type: 'bridge', ipam }));
    expect([await gone, said]).toEqual([[0, null], '']);
  });
});

test('An installer that is killed at any step leaves whole files, and the next one or an undoing mends the rest', () => {
  const image = join(prefix, '..', 'image');
  writeFileSync(image, 'ours');
  const script = `import { installPlugins } from '${INSTALLER}';
    installPlugins({ prefix: '${prefix}', names: ['bridge', 'loopback'], image: '${image}' });`;
  let killed = 0;
  for (const call of ['mkdir', 'link', 'rename', 'unlink', 'fsync']) {
    for (let step = 1, ended = false; !ended; step++) {
      rmSync(prefix, { recursive: true, force: true });
      fillWithForeign();
      const before = contents();
      const { signal } = spawnSync('strace', [
        ...['-f', '-o', '/dev/null', '-e', `trace=${call}`, '-e', `inject=${call}:signal=KILL:when=${step}`],
        ...[process.execPath, '--input-type=module', '-e', script],
      ]);
      for (const name of ['bridge', 'portmap']) {
        expect(readFileSync(join(prefix, name), 'utf8')).toMatch(/^(ours|the \w+ of before)$/);
      }
      if (step % 2 === 0) installPlugins({ prefix, names: ['bridge', 'host-local'], image });
      if (readdirSync(prefix).includes('.patchbay')) undoInstallation(prefix);
      expect(contents(), `killed at ${call} ${step}`).toEqual(before);
      ended = signal === null;
      killed += ended ? 0 : 1;
    }
  }
  expect(killed).toBeGreaterThan(10);
});

function install(names: readonly string[] = listPlugins()): ReturnType<typeof installPlugins> {
  return installPlugins({ prefix, names, image: join(pluginDirectory(), 'bridge') });
}

function runInstaller(...options: readonly string[]): void {
  const args = ['--disable-warning=ExperimentalWarning', INSTALLER, '--prefix', prefix, ...options];
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect([status, stderr]).toEqual([0, '']);
}

// Two names for one file, and a symlink: as `install` and Debian's alternatives leave them.
function fillWithForeign(): void {
  mkdirSync(prefix, { recursive: true });
  writeFileSync(join(prefix, 'bridge'), 'the bridge of before', { mode: 0o755 });
  writeFileSync(join(prefix, 'portmap'), 'the portmap of before', { mode: 0o755 });
  writeFileSync(join(prefix, 'flannel'), 'somebody else', { mode: 0o700 });
  linkSync(join(prefix, 'flannel'), join(prefix, 'flannel2'));
  symlinkSync('flannel', join(prefix, 'host-local'));
}

function visible(): string[] {
  return readdirSync(prefix).filter((name) => !name.startsWith('.'));
}

/** Every name with the kind, the mode and the content of what it leads to. */
function contents(): string[] {
  return readdirSync(prefix, { recursive: true, encoding: 'utf8' })
    .sort()
    .map((name) => {
      const path = join(prefix, name);
      const { mode } = lstatSync(path);
      const isLink = lstatSync(path).isSymbolicLink();
      const content = isLink
        ? readlinkSync(path)
        : lstatSync(path).isFile()
          ? readFileSync(path, 'utf8')
          : '';
      return `${name} ${mode.toString(8)} ${content}`;
    });
}

function bannerOf(name: string): string {
  return spawnSync(join(prefix, name), { env: {}, encoding: 'utf8', input: '' }).stderr;
}

function isReference(name: string): boolean {
  return readdirSync(REFERENCE).includes(name);
}

// Only ours knows the version 1.1.0; what is neither is printed as it is.
const CALLER = `
  export CNI_COMMAND=VERSION
  while :; do
    read -t 0.001 -r
    [ $? -gt 128 ] || break # the end of standard input
    for name; do
      said=$("$0/$name" < /dev/null 2>&1) || said="exit code $?: $said"
      case $said in
        *'"supportedVersions":'*'"1.1.0"'*'}') echo ours ;;
        *'"supportedVersions":'*'}') echo theirs ;;
        *) echo "$name: $said" ;;
      esac
    done
  done
`;
