// The Node of another machine: npm installs only the one of this machine. Called by node-binary.ts.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Target } from './target.ts';

/** The package that holds the Node of a machine: its binary and its licence. */
export function nodePackage(target: Target): string {
  return `node-linux-${target.arch}`;
}

/**
 * Returns the directory of the unpacked package that package-lock.json names for `target`, kept in .cache of the checkout
 * `root`. Throws Error when the lockfile has no such package, npm cannot fetch it, or what it fetched has another hash.
 */
export function fetchForeignNode(root: string, target: Target): string {
  const name = nodePackage(target);
  const { version, integrity } = readLock(root, name);
  const directory = join(root, '.cache', `${name}-${version}`);
  if (existsSync(directory)) return directory;
  mkdirSync(join(root, '.cache'), { recursive: true });
  const work = mkdtempSync(join(root, '.cache', 'fetch-'));
  try {
    console.log(`Fetching ${name} ${version} …`);
    execFileSync('npm', ['pack', '--silent', '--pack-destination', work, `${name}@${version}`], {
      cwd: root,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const archive = join(work, `${name}-${version}.tgz`);
    const hash = `sha512-${createHash('sha512').update(readFileSync(archive)).digest('base64')}`;
    if (hash !== integrity) throw new Error(`The package "${name}" has the hash ${hash}, not ${integrity}`);
    const wanted = ['package/bin', 'package/LICENSE', 'package/package.json'];
    execFileSync('tar', ['-xzf', archive, '-C', work, ...wanted]);
    renameSync(join(work, 'package'), directory);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
  return directory;
}

interface Locked {
  readonly version: string;
  readonly integrity: string;
}

function readLock(root: string, name: string): Locked {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, Partial<Locked>>;
  };
  const { version, integrity } = packages[`node_modules/${name}`] ?? {};
  if (version === undefined || integrity === undefined) {
    throw new Error(`package-lock.json names no package "${name}" with its hash`);
  }
  return { version, integrity };
}
