// Packages Patchbay: dist/bin holds one executable, hard-linked under the name of every plugin. Run by
// `npm run build`; with --empty it packages a program that does nothing, the floor the benchmark measures from.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  existsSync,
  globSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { basename, delimiter, dirname, join, relative } from 'node:path';
import type { Metafile } from 'esbuild';
import { DELEGATES, findPlugin, listPlugins } from '../plugins/registry.ts';
import { alignCaches, roomy } from './align-caches.ts';
import {
  type Bundle,
  bundleLibrary,
  bundleProgram,
  bundleVersion,
  LIBRARIES,
  type PluginFace,
} from './bundle.ts';
import { makeCodeCaches, type Sources, V8_FLAGS, VERSION_PROGRAM, type WarmUpCall } from './code-cache.ts';
import { fetchForeignNode, nodePackage } from './foreign-node.ts';
import { prepareNode } from './node-binary.ts';
import { keepBuiltinCaches, makeStartSnapshot } from './start-snapshot.ts';
import { hostTarget, isHost, runnable, type Target } from './target.ts';
import { readStamp, type Stamp } from './version.ts';

/** What dist/build.json says about the executables; the tests read it. */
export interface BuildReport extends Stamp {
  /** SHA-256 over everything the executables are made from. */
  readonly inputs: string;
  readonly node: string;
  /** Sizes of the scripts and their code caches in the image. */
  readonly bytes: Readonly<Record<string, number>>;
  readonly packages: readonly string[];
  readonly warmUp: readonly WarmUpCall[];
}

const ROOT = join(import.meta.dirname, '..');
const DIST = join(ROOT, 'dist');
const EMPTY = join(DIST, 'empty');
const REPORT = 'build.json';
const PIECE = 128 * 1024;

/**
 * Options of Node that are part of the executables, see docs/security.md: no inspector on SIGUSR1, no OpenSSL
 * configuration (which can load code), no warning that FFI and single executables are experimental: the Node that
 * is in the image is the one they are tested with.
 */
const NODE_OPTIONS = [
  ...V8_FLAGS,
  '--disable-warning=ExperimentalWarning',
  '--disable-sigusr1',
  '--openssl-config=/dev/null',
];

interface SeaOptions {
  readonly nodePath: string;
  readonly targets: readonly { nodeRange: string; platform: string; arch: string; output: string }[];
  readonly seaConfig: Readonly<Record<string, unknown>>;
}

// A file of the package without types, behind its command line: that one downloads a Node for every target.
const { default: sea } = createRequire(import.meta.url)('@yao-pkg/pkg/lib-es5/sea.js') as {
  default: (entry: string, options: SeaOptions) => Promise<void>;
};

/** The main script, in the directory of the image that is made. */
const LAUNCHER = 'launcher.cjs';

/** What pkg is given in its place. */
const MAIN = 'main.cjs';

/** What pkg takes for Node: `node --experimental-sea-config <path>`. */
const NODE_FOR_PKG = `#!/bin/sh
set -e
cd "$(dirname "$0")/.."
path/this-node "$@"
exec path/this-node --disable-warning=ExperimentalWarning path/insert-snapshot.ts "$2" path/snapshot
`;

if (import.meta.main) {
  if (process.argv.includes('--empty')) await packageEmpty();
  else await packagePatchbay();
}

/**
 * Where the executables for a machine are, and what is known of them: `bin`, `build.json`, `metafile.json` and
 * `third-party-licenses.txt`.
 */
export function distOf(target: Target): string {
  return isHost(target) ? DIST : join(DIST, target.debian);
}

/** Packages dist/bin, or the like of it for another machine, unless it is up to date. */
export async function packagePatchbay(target = hostTarget()): Promise<void> {
  const stamp = readStamp(ROOT);
  const inputs = hashInputs(stamp);
  const dist = distOf(target);
  const links = listPlugins().map((name) => join(dist, 'bin', name));
  if (readReport(target)?.inputs === inputs && links.every((link) => existsSync(link))) {
    console.log(`${relative(ROOT, dist)}/bin is up to date`);
    return;
  }
  const started = performance.now();
  const bundles: Record<string, Bundle> = {};
  for (const name of listPlugins()) {
    const plugins = [name, ...(DELEGATES[name] ?? [])];
    bundles[name] = await bundleProgram(ROOT, stamp, { plugins, names: listPlugins() });
  }
  for (const name of LIBRARIES) bundles[name] = await bundleLibrary(name, ROOT);
  bundles[VERSION_PROGRAM] = await bundleVersion(ROOT, listFaces());
  const sources = Object.fromEntries(Object.entries(bundles).map(([name, { source }]) => [name, source]));
  const { image, bytes, calls } = await packageProgram(sources, listPlugins(), target);
  for (const { name } of calls.filter(({ exitCode }) => exitCode !== 0)) {
    console.warn(`The warm-up call "${name}" failed: it will run slower until it is mended`);
  }
  if (calls.length <= listPlugins().length) {
    console.warn('No right to make namespaces: the code cache knows VERSION only, other verbs start slower');
  }
  link(image, links);
  const packages = [...new Set(Object.values(bundles).flatMap((bundle) => bundle.packages))].sort();
  writeNotices(packages, target);
  writeFileSync(join(dist, 'metafile.json'), JSON.stringify(mergeMetafiles(Object.values(bundles))));
  writeReport(target, {
    ...stamp,
    inputs,
    node: process.version,
    bytes,
    packages,
    warmUp: calls,
  });
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`Packaged ${listPlugins().join(', ')} ${stamp.version} (${stamp.revision}) in ${seconds} s`);
}

function listFaces(): PluginFace[] {
  return listPlugins().map((name) => ({
    name,
    supportedVersions: findPlugin(name)?.supportedVersions ?? [],
  }));
}

/** Packages dist/empty, a program that does nothing but exit, in the same way; returns its path. */
export async function packageEmpty(): Promise<string> {
  const sources = { empty: '(function (require, process) { process.exit(0); })' };
  const { image } = await packageProgram(sources, [], hostTarget());
  renameSync(image, EMPTY);
  return EMPTY;
}

interface Packaged {
  readonly image: string;
  readonly bytes: Readonly<Record<string, number>>;
  readonly calls: readonly WarmUpCall[];
}

async function packageProgram(
  sources: Sources,
  plugins: readonly string[],
  target: Target,
): Promise<Packaged> {
  const directory = join(DIST, `.work-${process.pid}`);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  process.once('exit', () => rmSync(directory, { recursive: true, force: true }));
  const node = join(directory, 'node');
  copyFileSync(prepareNode(ROOT, target), node);
  const launcher = join(directory, LAUNCHER);
  writeFileSync(launcher, makeLauncher(plugins.length > 0 ? plugins : Object.keys(sources)));
  const snapshot = makeStartSnapshot(node, { launcher, directory, target });
  const caches = await makeCodeCaches(node, sources, {
    directory: join(directory, 'caches'),
    plugins,
    target,
    snapshot,
  });
  writeFileSync(snapshot, keepBuiltinCaches(readFileSync(snapshot), caches.modules));
  const assets = Object.fromEntries([
    ...Object.keys(sources).map((name) => [name, join(caches.directory, `${name}.js`)]),
    ...caches.files.map((file) => [file, join(caches.directory, file)]),
  ]) as Record<string, string>;
  const cached = caches.files.map((file) => readFileSync(join(caches.directory, file)));
  for (const [index, file] of caches.files.entries()) {
    writeFileSync(join(caches.directory, file), roomy(cached[index] ?? Buffer.alloc(0)));
  }
  const image = join(directory, plugins[0] ?? 'empty');
  const injected = join(directory, 'injected');
  await inject({ node, snapshot, assets, target }, injected);
  writeInPieces(alignCaches(readFileSync(injected), cached), image);
  expectRuns(runnable(target, [image]), plugins.length > 0 ? '"supportedVersions"' : '');
  const bytes = Object.fromEntries(Object.entries(assets).map(([name, path]) => [name, statSync(path).size]));
  return { image, bytes, calls: caches.calls };
}

/** What goes into an image, as paths of files; assets by name. The main script is there already. */
interface Content {
  readonly node: string;
  readonly snapshot: string;
  readonly assets: Readonly<Record<string, string>>;
  readonly target: Target;
}

/** The main script, told the names of the programs in the image, as whose own it is then called. */
function makeLauncher(programs: readonly string[]): string {
  const launcher = readFileSync(join(import.meta.dirname, LAUNCHER), 'utf8');
  const place = 'const PROGRAMS = [];';
  if (!launcher.includes(place))
    throw new Error(`There is no place for the names of the programs in ${LAUNCHER}`);
  return launcher.replace(place, `const PROGRAMS = ${JSON.stringify(programs)};`);
}

/**
 * Puts snapshot, programs and caches into a copy of Node by @yao-pkg/pkg's SEA function. It finds `node` and `npx postject`
 * on PATH and works in a directory of its own, so both are laid there: it must be a Node of this very version that writes
 * the blob, and npx must not look for postject anywhere else. The snapshot that this Node makes, of nothing and for this
 * machine, gives way to ours. The path of the main script goes into the blob, so it is one that is the same in every build.
 */
async function inject({ node, snapshot, assets, target }: Content, image: string): Promise<void> {
  const path = join(dirname(image), 'path');
  mkdirSync(path);
  symlinkSync(process.execPath, join(path, 'this-node'));
  symlinkSync(join(import.meta.dirname, 'insert-snapshot.ts'), join(path, 'insert-snapshot.ts'));
  symlinkSync(snapshot, join(path, 'snapshot'));
  writeFileSync(
    join(dirname(image), MAIN),
    "require('node:v8').startupSnapshot.setDeserializeMainFunction(() => {});",
  );
  writeFileSync(join(path, 'node'), NODE_FOR_PKG, { mode: 0o755 });
  writeFileSync(join(path, 'npx'), '#!/bin/sh\nexec "$@"\n', { mode: 0o755 });
  const before = process.env['PATH'];
  process.env['PATH'] = [path, join(ROOT, 'node_modules/.bin'), before].join(delimiter);
  try {
    await sea(join(dirname(image), MAIN), {
      nodePath: node,
      targets: [
        { nodeRange: `node${process.versions.node}`, platform: 'linux', arch: target.arch, output: image },
      ],
      seaConfig: {
        main: MAIN,
        disableExperimentalSEAWarning: true,
        useSnapshot: true,
        useCodeCache: false,
        execArgv: NODE_OPTIONS,
        // Neither NODE_OPTIONS nor --node-options may add to them.
        execArgvExtension: 'none',
        assets,
      },
    });
  } finally {
    process.env['PATH'] = before;
  }
}

// A kernel since 6.18 maps a file in units of its page cache, and those are as large as the writes that filled it. Larger
// pieces are fewer page faults and more resident memory: an ADD has 1,576 faults and 46 MB with pieces of 64 KiB, 1,394 and
// 54 MB with these (0.4 ms less), 1,286 and 65 MB with 256.
export function writeInPieces(bytes: Buffer, to: string): void {
  const fd = openSync(to, 'w', 0o755);
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at, Math.min(PIECE, bytes.length - at));
  closeSync(fd);
}

// pkg drops the errors of its last steps, so the image is looked at: does it run, and does V8 take the code cache?
function expectRuns([program = '', ...args]: readonly string[], expected: string): void {
  const env = { PATH: process.env['PATH'], CNI_COMMAND: 'VERSION', PATCHBAY_TRACE: 'start' };
  const { status, stdout, stderr, error } = spawnSync(program, args, { env, input: '', encoding: 'utf8' });
  if (status !== 0 || !stdout.includes(expected)) {
    throw new Error(`The executable does not work: exit code ${status}, ${stdout}${stderr}`, {
      cause: error,
    });
  }
  if (!/^code cache of \S+ accepted\n$/.test(stderr)) throw new Error(`The executable complains: ${stderr}`);
}

// Each name changes over in one step: a runtime may call it at any time.
function link(image: string, links: readonly string[]): void {
  for (const path of links) {
    mkdirSync(dirname(path), { recursive: true });
    const fresh = `${path}.${process.pid}`;
    linkSync(image, fresh);
    renameSync(fresh, path);
  }
  const directory = dirname(links[0] ?? '');
  const names = new Set(links.map((path) => basename(path)));
  for (const name of readdirSync(directory).filter((name) => !names.has(name))) rmSync(join(directory, name));
}

// The licences of what is in the image ask for their text to go with it.
function writeNotices(packages: readonly string[], target: Target): void {
  const parts = [nodePackage(target), ...packages].map((name) => {
    const isForeign = name === nodePackage(target) && !isHost(target);
    const directory = isForeign ? fetchForeignNode(ROOT, target) : join(ROOT, 'node_modules', name);
    const file = readdirSync(directory).find((entry) => /^licen[cs]e/i.test(entry));
    if (file === undefined) throw new Error(`The package "${name}" has no licence text`);
    return `${name}\n${'='.repeat(name.length)}\n\n${readFileSync(join(directory, file), 'utf8').trim()}\n`;
  });
  writeFileSync(join(distOf(target), 'third-party-licenses.txt'), parts.join('\n\n'));
}

function mergeMetafiles(bundles: readonly Bundle[]): Metafile {
  return {
    inputs: Object.assign({}, ...bundles.map(({ metafile }) => metafile.inputs)),
    outputs: Object.fromEntries(
      bundles.flatMap(({ metafile }, index) =>
        Object.entries(metafile.outputs).map(([name, output]) => [`${index}/${name}`, output]),
      ),
    ),
  };
}

function hashInputs(stamp: Stamp): string {
  const files = globSync(['{plugins,shared,build}/**/*.{ts,cjs}', 'package-lock.json'], { cwd: ROOT }).sort();
  const texts = files.flatMap((file) => [file, readFileSync(join(ROOT, file), 'utf8')]);
  return hash([process.version, stamp.version, stamp.revision, ...texts]);
}

function hash(texts: readonly string[]): string {
  const sum = createHash('sha256');
  for (const text of texts) sum.update(`${text.length} ${text}`);
  return sum.digest('hex');
}

/** What is known of the executables in dist/bin, or the like of it for another machine; undefined when there are none. */
export function readReport(target = hostTarget()): BuildReport | undefined {
  const path = join(distOf(target), REPORT);
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as BuildReport) : undefined;
}

function writeReport(target: Target, report: BuildReport): void {
  writeFileSync(join(distOf(target), REPORT), `${JSON.stringify(report, null, 2)}\n`);
}
