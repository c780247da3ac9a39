// Makes release archives: the same files give the same bytes, on every machine and at any time. Called by release.ts,
// and by the tests for the executables at hand.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, copyFileSync, linkSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { listPlugins } from '../plugins/registry.ts';
import { distOf } from './package.ts';
import type { Target } from './target.ts';

const ROOT = join(import.meta.dirname, '..');

export interface ArchiveOptions {
  readonly target: Target;
  /** What stands in the name of the file, such as `2.0.0`. */
  readonly version: string;
  /** Seconds since 1970 that every file gets as its time. */
  readonly epoch: number;
  /** Directory that the archive is made in. */
  readonly to: string;
  /** gzip's, 1 to 9. */
  readonly level?: number;
}

/** The file name of an archive: what the reference plugins' is called but for the first word. */
export function archiveName(target: Target, version: string): string {
  return `patchbay-linux-${target.debian}-v${version}.tgz`;
}

/**
 * Packs the executables of `target` as the reference plugins are packed: everything at the top level, `./` first. One file
 * is under all names, which tar keeps as hard links. Returns the path of the archive.
 */
export function writeArchive({ target, version, epoch, to, level = 9 }: ArchiveOptions): string {
  const stage = join(to, `.stage-${target.debian}`);
  const path = join(to, archiveName(target, version));
  rmSync(stage, { recursive: true, force: true });
  mkdirSync(stage, { recursive: true });
  try {
    stageExecutables(target, stage);
    for (const file of ['LICENSE', 'README.md']) copyFileSync(join(ROOT, file), join(stage, file));
    copyFileSync(join(distOf(target), NOTICES), join(stage, NOTICES));
    const options = ['--format=ustar', '--sort=name', '--owner=0', '--group=0', '--numeric-owner'];
    // Neither the umask nor the time of the build may show, and gzip keeps no name and no time.
    const normal = ['--mode=u=rwX,go=rX', `--mtime=@${epoch}`, `--use-compress-program=gzip -n -${level}`];
    const env = { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' };
    execFileSync('tar', ['--create', ...options, ...normal, '--file', path, '--directory', stage, '.'], {
      env,
    });
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
  return path;
}

/** Licences of what is in the image; made by package.ts. */
export const NOTICES = 'third-party-licenses.txt';

/** Puts the executables of `target` into a directory, one file under every name. */
export function stageExecutables(target: Target, directory: string): void {
  const [first = '', ...others] = listPlugins();
  copyFileSync(join(distOf(target), 'bin', first), join(directory, first));
  chmodSync(join(directory, first), 0o755);
  for (const name of others) linkSync(join(directory, first), join(directory, name));
}

/** Writes SHA256SUMS for these files beside them, as sha256sum(1) does and checks; returns its path. */
export function writeSums(directory: string, files: readonly string[]): string {
  const lines = files
    .map((file) => basename(file))
    .sort()
    .map((name) => `${sha256(join(directory, name))}  ${name}\n`);
  const path = join(directory, 'SHA256SUMS');
  writeFileSync(path, lines.join(''));
  return path;
}

export function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}
