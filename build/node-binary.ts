// The Node that goes into the image, made from the one npm installed. Called by package.ts.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { skipDeadlockCheck } from './deadlock-check.ts';
import { hardenEnvironment } from './environment.ts';
import { fetchForeignNode } from './foreign-node.ts';
import { useHugePages } from './huge-pages.ts';
import { patchLibatomic } from './libatomic.ts';
import { useHugePagesForMalloc } from './malloc-pages.ts';
import { prelink } from './prelink.ts';
import { skipProfiling } from './profiler.ts';
import { isHost, runnable, type Target } from './target.ts';
import { setUpTools, TOOLS } from './tools.ts';

const STEPS = [
  'node-binary.ts',
  'elf.ts',
  'deadlock-check.ts',
  'padding.ts',
  'libatomic.ts',
  'huge-pages.ts',
  'malloc-pages.ts',
  'prelink.ts',
  'profiler.ts',
  'environment.ts',
];

/**
 * Returns the path of a Node for `target` without debug information (150 MB become 117), without need of libatomic, deaf to the
 * variables that would load code or write files, and quicker to start. It is kept in .cache of the
 * checkout `root`, for it changes only with Node and with these steps.
 */
export function prepareNode(root: string, target: Target): string {
  const original = isHost(target)
    ? realpathSync(join(root, 'node_modules/.bin/node'))
    : join(fetchForeignNode(root, target), 'bin/node');
  const prepared = join(root, '.cache', `node-${process.version}-${target.arch}-${fingerprint(original)}`);
  if (existsSync(prepared)) return prepared;
  makeRoom(join(root, '.cache'), target);
  const partial = `${prepared}.${process.pid}`;
  writeFileSync(partial, skipDeadlockCheck(readFileSync(original)));
  strip(partial, target);
  chmodSync(partial, 0o755);
  const node = runnable(target, [partial]);
  expectVersion(node);
  const roomy = useHugePagesForMalloc(useHugePages(patchLibatomic(readFileSync(partial))));
  writeFileSync(partial, hardenEnvironment(skipProfiling(prelink(roomy))));
  renameSync(partial, prepared);
  return prepared;
}

// Size and time stand for Node's content: reading it would take longer than all the rest of a build.
function fingerprint(node: string): string {
  const { size, mtimeMs } = statSync(node);
  const sum = createHash('sha256').update(`${size} ${mtimeMs}`);
  for (const step of STEPS) sum.update(readFileSync(join(import.meta.dirname, step)));
  return sum.digest('hex').slice(0, 12);
}

function makeRoom(cache: string, target: Target): void {
  mkdirSync(cache, { recursive: true });
  const isOld = (name: string) => name.startsWith('node-v') && name.includes(`-${target.arch}-`);
  for (const old of readdirSync(cache).filter(isOld)) rmSync(join(cache, old));
}

function strip(node: string, target: Target): void {
  if (!isHost(target)) {
    run([`${target.triplet}-strip`, node]);
    return;
  }
  setUpTools(TOOLS.filter(({ program }) => program === 'strip'));
  run(['strip', node]);
}

function expectVersion(node: readonly string[]): void {
  const version = run([...node, '--version'])
    .toString()
    .trim();
  if (version !== process.version)
    throw new Error(`The Node for the image is ${version}, not ${process.version}`);
}

function run([program = '', ...args]: readonly string[]): Buffer {
  const { status, stdout, stderr, error } = spawnSync(program, args);
  if (status !== 0) throw new Error(`"${program}" failed: ${stderr ?? ''}`, { cause: error });
  return stdout;
}
