// The snapshot that the executables start from: a Node that has started, without what no call needs. Called by package.ts;
// what is in it is build/launcher.cjs's to say, and docs/performance.md says what it saves.
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { relabelBuiltinCaches } from './builtin-caches.ts';
import { V8_FLAGS } from './code-cache.ts';
import { runnable, type Target } from './target.ts';

/** With these flags two builds write the same bytes: one thread, and the same random numbers. */
const REPRODUCIBLE = ['--predictable', '--random-seed=1'];

/** What these are called is part of the snapshot, so it is the same everywhere: the launcher, and the file that is written. */
const LAUNCHER = '/proc/self/fd/0';
const BLOB = 'start.blob';

/** What V8 writes into a file that holds a code cache for each of Node's modules; see `src/node_snapshotable.cc`. */
const SNAPSHOT_MAGIC = 0x0143da19;
const WORD = 8;

/** And what stands at the beginning of what is put into an executable; see `src/node_sea.cc`. */
const SEA_MAGIC = 0x0143da20;
const SEA_FLAGS = 4;
const USE_SNAPSHOT = 1 << 1;
const SEA_PATH = 10;

/**
 * Writes the snapshot of the Node at `node`, one for `target`, after it has run `launcher`, and returns its path in
 * `directory`: a file for Node's `--snapshot-blob`. Node's own code caches, which are in it, are labelled for V8_FLAGS.
 *
 * Throws Error when Node cannot write it, or writes it in another way than is known here.
 */
export function makeStartSnapshot(
  node: string,
  { launcher, directory, target }: { launcher: string; directory: string; target: Target },
): string {
  const path = join(directory, BLOB);
  const options = [...V8_FLAGS, ...REPRODUCIBLE, '--expose-internals', '--no-warnings'];
  const stdin = openSync(launcher, 'r');
  const command = [node, ...options, '--snapshot-blob', BLOB, '--build-snapshot', LAUNCHER];
  run([...atFixedAddresses(), ...runnable(target, command)], { stdin, cwd: directory });
  closeSync(stdin);
  const label = join(directory, 'label.cjs');
  writeFileSync(label, PRINT_CODE_CACHE);
  const makeCodeCache = (flags: readonly string[]) =>
    run(runnable(target, [node, ...flags, '--snapshot-blob', path, label]));
  const labels = {
    made: makeCodeCache([...V8_FLAGS, ...REPRODUCIBLE]),
    wanted: makeCodeCache(V8_FLAGS),
  };
  writeFileSync(path, relabelBuiltinCaches(readFileSync(path), labels));
  return path;
}

const PRINT_CODE_CACHE = `(function (require) {
  const { Script } = require('node:vm');
  require('node:fs').writeSync(1, new Script('0').createCachedData());
})`;

// Some of V8's tables are in the order of addresses. Where nobody may choose them the snapshot is as good, but not the same twice.
function atFixedAddresses(): string[] {
  const command = ['setarch', '-R'];
  return spawnSync('setarch', ['-R', 'true']).status === 0 ? command : [];
}

function run(
  [program = '', ...args]: readonly string[],
  { stdin, cwd }: { readonly stdin?: number; readonly cwd?: string } = {},
): Buffer {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    cwd,
    // With an environment of its own: what the build is started with must not decide over what is in the snapshot.
    env: { PATH: process.env['PATH'] ?? '' },
    stdio: [stdin ?? 'ignore', 'pipe', 'pipe'],
  });
  if (status !== 0) throw new Error(`The start snapshot cannot be made: ${stderr}`, { cause: error });
  return stdout;
}

/**
 * Returns a copy of a snapshot that has the code caches of these of Node's modules only: each start copies them all.
 * Throws Error when the snapshot does not end with a list of code caches, or one of these is not in it.
 */
export function keepBuiltinCaches(snapshot: Buffer, modules: readonly string[]): Buffer {
  if (snapshot.readUInt32LE(0) !== SNAPSHOT_MAGIC) throw new Error('This is no snapshot of Node');
  const { at, entries } = findBuiltinCaches(snapshot);
  const kept = entries.filter(({ id }) => modules.includes(id));
  const missing = modules.filter((id) => !kept.some((entry) => entry.id === id));
  if (missing.length > 0) throw new Error(`The snapshot has no code cache of ${missing.join(', ')}`);
  const count = Buffer.alloc(WORD);
  count.writeBigUInt64LE(BigInt(kept.length));
  const caches = kept.map(({ begin, end }) => snapshot.subarray(begin, end));
  return Buffer.concat([snapshot.subarray(0, at), count, ...caches]);
}

interface Entry {
  readonly id: string;
  readonly begin: number;
  readonly end: number;
}

// The last thing in the file is their number, then a name and a cache each, with its length before it. Where that begins,
// only who reads all before it would know; but no other place has as many entries up to the very end.
function findBuiltinCaches(snapshot: Buffer): { readonly at: number; readonly entries: readonly Entry[] } {
  for (let at = WORD; at + WORD < snapshot.length; at++) {
    const count = snapshot.readUInt32LE(at);
    if (count < FEWEST || count > MOST) continue;
    const entries = readEntries(snapshot, at + WORD, count);
    if (entries?.at(-1)?.end === snapshot.length) return { at, entries };
  }
  throw new Error('The snapshot does not end with a list of code caches');
}

// Node 26 has 441.
const FEWEST = 300;
const MOST = 1000;
const LONGEST_ID = 100;

function readEntries(snapshot: Buffer, at: number, count: number): Entry[] | undefined {
  const entries: Entry[] = [];
  for (let begin = at; entries.length < count; ) {
    const length = readWord(snapshot, begin);
    if (length === 0 || length > LONGEST_ID) return undefined;
    const size = begin + WORD + length;
    const end = size + WORD + readWord(snapshot, size);
    if (end > snapshot.length) return undefined;
    entries.push({ id: snapshot.toString('latin1', begin + WORD, size), begin, end });
    begin = end;
  }
  return entries;
}

/**
 * Returns a copy of what is put into an executable (NODE_SEA_BLOB) with `snapshot` in the place of the one it has.
 * Throws Error when it has none.
 */
export function replaceSnapshot(blob: Buffer, snapshot: Buffer): Buffer {
  if (blob.readUInt32LE(0) !== SEA_MAGIC) throw new Error('This is nothing to put into an executable');
  if ((blob.readUInt32LE(SEA_FLAGS) & USE_SNAPSHOT) === 0) throw new Error('There is no snapshot to replace');
  const at = SEA_PATH + WORD + readWord(blob, SEA_PATH);
  const end = at + WORD + readWord(blob, at);
  if (blob.readUInt32LE(at + WORD) !== SNAPSHOT_MAGIC) throw new Error('The snapshot is not where it was');
  const length = Buffer.alloc(WORD);
  length.writeBigUInt64LE(BigInt(snapshot.length));
  return Buffer.concat([blob.subarray(0, at), length, snapshot, blob.subarray(end)]);
}

/** A length, of 64 bits; one that is larger than any file is as good as one that ends behind this file. */
function readWord(bytes: Buffer, at: number): number {
  return at + WORD <= bytes.length ? Number(bytes.readBigUInt64LE(at)) : Number.MAX_SAFE_INTEGER;
}
