// An older version of the plugins beside those under test: sources of an earlier commit, bundled and run by Node.
// Called by the tests of two versions that work on one host at once.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildSync } from 'esbuild';

export interface OlderVersion extends Disposable {
  /** For `PluginCall.directory`. */
  readonly directory: string;
  readonly revision: string;
}

const ROOT = join(import.meta.dirname, '../..');

/** The file with whose arrival a version ends: the one before it is taken. */
const MILESTONE = 'test/faults/kill.test.ts';

const PLUGINS = ['bridge', 'host-local', 'portmap'];

/** Makes a directory of plugins. Where the history is not there to be asked, their sources are those of today. */
export function openOlderVersion(): OlderVersion {
  const home = mkdtempSync(join(tmpdir(), 'patchbay-older-'));
  const revision = findRevision();
  const archive = git('archive', '--format=tar', revision, 'plugins', 'shared', 'package.json');
  execFileSync('tar', ['-x', '-C', home], { input: archive });
  symlinkSync(join(ROOT, 'node_modules'), join(home, 'node_modules'));
  const directory = join(home, 'bin');
  mkdirSync(directory);
  const program = join(home, 'main.cjs');
  buildSync({
    entryPoints: [join(home, 'plugins/main.ts')],
    outfile: program,
    bundle: true,
    platform: 'node',
    format: 'cjs',
    external: ['execa'],
    logLevel: 'error',
  });
  const node = `${process.execPath} --disable-warning=ExperimentalWarning`;
  for (const name of PLUGINS) {
    const script = `#!/bin/bash\nexec -a ${name} ${node} ${program}\n`;
    writeFileSync(join(directory, name), script, { mode: 0o755 });
  }
  return { directory, revision, [Symbol.dispose]: () => rmSync(home, { recursive: true }) };
}

function findRevision(): string {
  const [milestone] = String(git('log', '--diff-filter=A', '--format=%h %p', '--', MILESTONE))
    .split('\n')
    .slice(-2);
  return milestone?.split(' ')[1] || 'HEAD';
}

function git(...args: readonly string[]): Buffer {
  return execFileSync('git', ['-c', `safe.directory=${ROOT}`, ...args], {
    cwd: ROOT,
    maxBuffer: 64 * 1024 * 1024,
  });
}
