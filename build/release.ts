// Makes a release in dist/release and proves it: archives, Debian packages, lists of components, checksums, twice.
// Run by `npm run release [-- --dirty] [--debian-prefix DIR] [--to DIR] [--build-only]`; see docs/release.md.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { listPlugins } from '../plugins/registry.ts';
import { archiveName, writeArchive, writeSums } from './archive.ts';
import { DEBIAN_PREFIXES, type DebianPrefix, writeDebianPackage } from './debian-package.ts';
import { installPlugins } from './install.ts';
import { distOf, packagePatchbay, readReport } from './package.ts';
import { makeSbom } from './sbom.ts';
import { smokeTest } from './smoke-test.ts';
import { hostTarget, TARGETS, type Target } from './target.ts';
import { runTests } from './test.ts';
import { readStamp } from './version.ts';

const ROOT = join(import.meta.dirname, '..');

interface Release {
  /** As in file names: a release of a modified tree says so there. */
  readonly version: string;
  /** Time of the commit, in seconds since 1970 (SOURCE_DATE_EPOCH of reproducible-builds.org). */
  readonly epoch: number;
  readonly debianPrefix: DebianPrefix;
  /** Directory of the release. */
  readonly to: string;
}

/** What a node's operator builds an image of and runs on a cluster; beside the archives in a release. */
const DEPLOYMENT = [
  'deploy/image/Containerfile',
  'deploy/image/install.sh',
  'deploy/kubernetes/daemonset.yaml',
];

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      dirty: { type: 'boolean', default: false },
      'build-only': { type: 'boolean', default: false },
      'debian-prefix': { type: 'string', default: '/opt/cni/bin' },
      to: { type: 'string', default: join(ROOT, 'dist/release') },
    },
  });
  const modified = listModified();
  if (modified.length > 0 && !values.dirty) throw new Error(refusal(modified));
  const debianPrefix = values['debian-prefix'];
  if (!Object.hasOwn(DEBIAN_PREFIXES, debianPrefix)) {
    const known = Object.keys(DEBIAN_PREFIXES).join(', ');
    throw new Error(`Debian packages are made for ${known}, not for "${debianPrefix}"`);
  }
  const release: Release = {
    version: `${readStamp(ROOT).version}${modified.length > 0 ? '-modified' : ''}`,
    epoch: Number(git('log', '-1', '--format=%ct')),
    debianPrefix: debianPrefix as DebianPrefix,
    to: resolve(values.to),
  };
  clear(release.to);
  const files = await timed('Built', () => buildRelease(release));
  if (values['build-only']) return;

  for (const target of TARGETS) {
    await timed(`Tried the executables for ${target.debian}`, () => tryArchive(release, target));
  }
  await timed('lintian has nothing to say', () => lintian(files));
  await timed('Ran the end-to-end tests from the archive', () => testArchive(release));
  await timed('Built it again elsewhere: all hashes are equal', () => expectSameElsewhere(release));
  tell(release, files);
}

// What an earlier release left there goes; anything else is not ours to remove.
function clear(directory: string): void {
  mkdirSync(directory, { recursive: true });
  const found = readdirSync(directory);
  if (found.length > 0 && !found.includes('Containerfile')) {
    throw new Error(
      `"${directory}" holds something else than a release, "${found[0]}": give an empty directory`,
    );
  }
  for (const name of found) rmSync(join(directory, name), { recursive: true });
}

/** Makes everything, from nothing that an earlier build left. Returns the paths of the files. */
async function buildRelease(release: Release): Promise<string[]> {
  const { version, epoch, debianPrefix, to } = release;
  const files = DEPLOYMENT.map((path) => {
    copyFileSync(join(ROOT, path), join(to, basename(path)));
    return join(to, basename(path));
  });
  for (const target of TARGETS) {
    rmSync(join(distOf(target), 'build.json'), { force: true }); // or what is there may be called up to date
    await packagePatchbay(target);
    expectWarm(target);
    files.push(writeArchive({ target, version, epoch, to }));
    files.push(
      writeDebianPackage({ target, version: debianVersion(version), prefix: debianPrefix, epoch, to }),
    );
    const sbom = join(to, `patchbay-linux-${target.debian}-v${version}.cdx.json`);
    writeFileSync(sbom, await makeSbom({ target, version, epoch }));
    files.push(sbom);
  }
  return [...files, writeSums(to, files)];
}

// Debian takes `-` for the beginning of a revision of its own.
function debianVersion(version: string): string {
  return version.replace('-', '+');
}

// A cache without the functions of a verb makes no error, only a slow plugin.
function expectWarm(target: Target): void {
  const calls = readReport(target)?.warmUp ?? [];
  const failed = calls.filter(({ exitCode }) => exitCode !== 0).map(({ name }) => name);
  if (failed.length > 0) throw new Error(`The warm-up for ${target.debian} failed at ${failed.join(', ')}`);
  if (calls.length <= listPlugins().length) {
    throw new Error(
      'A release needs root, or the right to make namespaces: without, its code caches are poor',
    );
  }
}

function tryArchive({ version, to }: Release, target: Target): void {
  const directory = mkdtempSync(join(tmpdir(), 'patchbay-archive-'));
  try {
    execFileSync('tar', ['-xzf', join(to, archiveName(target, version)), '-C', directory]);
    smokeTest(target, directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

// The packages differ in nothing that it looks at, and it takes a minute for each.
function lintian(files: readonly string[]): void {
  const file = files.find((path) => path.endsWith(`_${hostTarget().debian}.deb`)) ?? '';
  const options = ['--allow-root', '--fail-on=error,warning'];
  const { status, stdout, error } = spawnSync('lintian', [...options, file], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`lintian complains:\n${stdout}`, { cause: error });
}

/** Installs what the archive holds, as an operator would, and has cnitool drive it in private hosts. */
async function testArchive({ version, to }: Release): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'patchbay-installed-'));
  try {
    const unpacked = join(directory, 'unpacked');
    const prefix = join(directory, 'opt/cni/bin');
    mkdirSync(unpacked);
    execFileSync('tar', ['-xzf', join(to, archiveName(hostTarget(), version)), '-C', unpacked]);
    installPlugins({ prefix, names: listPlugins(), image: join(unpacked, 'bridge') });
    process.env['PATCHBAY_PLUGIN_DIR'] = prefix;
    const { passed, failed } = await runTests(['e2e'], []);
    if (failed > 0 || passed === 0)
      throw new Error(`Of the end-to-end tests ${failed} failed, ${passed} passed`);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/**
 * Builds the same commit once more: from a clone, in a directory with another and longer name, with packages that npm
 * installs anew, under another umask, time zone and language. Throws Error that names the files which differ.
 */
function expectSameElsewhere({ version, debianPrefix, to }: Release): void {
  const work = mkdtempSync(join(tmpdir(), 'patchbay-built-again-in-a-directory-with-a-longer-name-'));
  try {
    const clone = join(work, 'checkout');
    execFileSync('git', ['clone', '--quiet', '--no-hardlinks', ROOT, clone], { stdio: 'inherit' });
    const isModified = version.endsWith('-modified');
    if (isModified) copyModified(clone);
    const again = join(work, 'release');
    const options = ['--build-only', '--to', again, '--debian-prefix', debianPrefix];
    const build = ['node', 'build/bootstrap.mjs', 'node', 'build/release.ts', ...options];
    const command = [...build, ...(isModified ? ['--dirty'] : [])];
    execFileSync('sh', ['-c', 'umask 077; exec "$@"', 'sh', ...command], {
      cwd: clone,
      env: { ...withoutNpm(process.env), TZ: 'Pacific/Kiritimati', LC_ALL: 'C.UTF-8', LANG: 'C.UTF-8' },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const sums = readFileSync(join(to, 'SHA256SUMS'), 'utf8').split('\n');
    const other = new Set(readFileSync(join(again, 'SHA256SUMS'), 'utf8').split('\n'));
    const different = sums.filter((line) => !other.has(line)).map((line) => line.split('  ')[1]);
    if (different.length > 0) throw new Error(`Built again elsewhere, these differ: ${different.join(', ')}`);
  } finally {
    rmSync(work, { recursive: true });
  }
}

// npm tells its children where it was started; but for its own path that is of no use elsewhere.
function withoutNpm(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const isForeign = (name: string) => name.startsWith('npm_') && name !== 'npm_execpath';
  return Object.fromEntries(Object.entries(env).filter(([name]) => !isForeign(name)));
}

function copyModified(clone: string): void {
  for (const path of listModified()) {
    rmSync(join(clone, path), { force: true });
    mkdirSync(dirname(join(clone, path)), { recursive: true });
    if (statSync(join(ROOT, path), { throwIfNoEntry: false }) !== undefined) {
      copyFileSync(join(ROOT, path), join(clone, path));
    }
  }
}

/** Files that are not as in the commit, new ones as well, as paths of the checkout. */
function listModified(): string[] {
  return parseStatus(git('status', '--porcelain', '--no-renames', '--untracked-files=all', '-z'));
}

/** The paths in what `git status --porcelain -z` prints: two letters, a space and a path, each ended by NUL. */
export function parseStatus(text: string): string[] {
  return text
    .split('\0')
    .filter((entry) => entry !== '')
    .map((entry) => entry.slice(3));
}

/** What is said to somebody who wants a release of a tree with changes. */
export function refusal(modified: readonly string[]): string {
  const shown = modified.slice(0, 10).map((path) => `  ${path}`);
  const rest = modified.length > shown.length ? [`  and ${modified.length - shown.length} more`] : [];
  return [
    'A release is made of a commit, and these files are not as in the last one:',
    ...shown,
    ...rest,
    'Commit or remove them, or try it with "npm run release -- --dirty", whose result is marked "-modified"',
  ].join('\n');
}

function git(...args: readonly string[]): string {
  return execFileSync('git', ['-c', `safe.directory=${ROOT}`, ...args], { cwd: ROOT, encoding: 'utf8' });
}

async function timed<T>(what: string, work: () => T | Promise<T>): Promise<T> {
  const started = performance.now();
  const result = await work();
  console.log(`${what} (${((performance.now() - started) / 1000).toFixed(1)} s)`);
  return result;
}

function tell({ to }: Release, files: readonly string[]): void {
  console.log(`\n${relative(process.cwd(), to)}:`);
  for (const file of files) {
    const megabytes = (statSync(file).size / 1e6).toFixed(3).padStart(9);
    console.log(`${megabytes} MB  ${basename(file)}`);
  }
  process.stdout.write(`\n${readFileSync(join(to, 'SHA256SUMS'), 'utf8')}`);
}
