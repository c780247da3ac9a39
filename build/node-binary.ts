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
import { arch } from 'node:os';
import { join } from 'node:path';
import { hardenEnvironment } from './environment.ts';
import { patchLibatomic } from './libatomic.ts';
import { setUpTools, TOOLS } from './tools.ts';

/**
 * Returns the path of a Node without debug information (150 MB become 117), without need of libatomic, and deaf to
 * the variables that would load code or write files. It is kept in .cache of the checkout `root`, for it changes
 * only with Node and with these steps.
 */
export function prepareNode(root: string): string {
  const original = realpathSync(join(root, 'node_modules/.bin/node'));
  const prepared = join(root, '.cache', `node-${process.version}-${arch()}-${fingerprint(original)}`);
  if (existsSync(prepared)) return prepared;
  makeRoom(join(root, '.cache'));
  const partial = `${prepared}.${process.pid}`;
  strip(original, partial);
  writeFileSync(partial, hardenEnvironment(patchLibatomic(readFileSync(partial))));
  chmodSync(partial, 0o755);
  run(partial, ['--version']);
  renameSync(partial, prepared);
  return prepared;
}

// Size and time stand for Node's content: reading it would take longer than all the rest of a build.
function fingerprint(node: string): string {
  const { size, mtimeMs } = statSync(node);
  const sum = createHash('sha256').update(`${size} ${mtimeMs}`);
  for (const step of ['node-binary.ts', 'libatomic.ts', 'environment.ts']) {
    sum.update(readFileSync(join(import.meta.dirname, step)));
  }
  return sum.digest('hex').slice(0, 12);
}

function makeRoom(cache: string): void {
  mkdirSync(cache, { recursive: true });
  for (const old of readdirSync(cache).filter((name) => name.startsWith('node-v'))) rmSync(join(cache, old));
}

function strip(original: string, target: string): void {
  setUpTools(TOOLS.filter(({ program }) => program === 'strip'));
  run('strip', ['-o', target, original]);
}

function run(program: string, args: readonly string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`"${program}" failed: ${stderr ?? ''}`, { cause: error });
}
