// The smallest Debian there is, as a directory. Used by the tests that run the executables where hardly anything else is,
// and that install their Debian package.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { arch } from 'node:os';
import { join } from 'node:path';

const ROOT = join(import.meta.dirname, '../..');

/** A minimal Debian of the machine's own release, from the mirror its apt uses; made once and kept in .cache. */
export function makeMinimalRoot(): string {
  const codename = /^VERSION_CODENAME=(.+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? 'stable';
  const directory = join(ROOT, '.cache', `debian-${codename}-${arch()}`);
  if (existsSync(directory)) return directory;
  const partial = `${directory}.${process.pid}`;
  mkdirSync(partial, { recursive: true });
  try {
    execFileSync('debootstrap', ['--variant=minbase', codename, partial, ...findMirror(codename)], {
      stdio: 'pipe',
    });
    renameSync(partial, directory);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
  return directory;
}

function findMirror(codename: string): string[] {
  const format = ['indextargets', '--format', '$(CODENAME) $(COMPONENT) $(REPO_URI)', 'Created-By: Packages'];
  const { stdout } = spawnSync('apt-get', format, { encoding: 'utf8' });
  const line = stdout.split('\n').find((target) => target.startsWith(`${codename} main http`));
  return line === undefined ? [] : [line.split(' ')[2] ?? ''];
}
