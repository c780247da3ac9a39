// Makes the code cache of the bundled program: V8's bytecode of the functions that calls need, so that the packaged
// program compiles next to nothing. Called by package.ts.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface CodeCache {
  readonly bytes: Buffer;
  /** What was run to find out which functions are needed, each with its exit code. */
  readonly calls: readonly WarmUpCall[];
}

export interface WarmUpCall {
  readonly name: string;
  readonly exitCode: number;
  readonly stdout: string;
}

/** What build/warm-up.ts is told, as JSON in its first argument. */
export interface WarmUpOrder {
  readonly directory: string;
  /** Path of the program's source. */
  readonly program: string;
  /** Where to write the code cache, and the list of calls. */
  readonly cache: string;
  readonly report: string;
  /** Names to run the program under; empty for a program that is no plugin. */
  readonly plugins: readonly string[];
  /** Whether there is a private host to run whole calls in. */
  readonly kernel: 'private' | 'none';
}

/**
 * The flags under which the executables run and their cache is made. V8 refuses a cache made under other flags.
 *
 * `--no-rehash-snapshot` keeps the hash seed of Node's own snapshot, which saves 2.5 ms of a start.
 */
export const V8_FLAGS = ['--no-rehash-snapshot'] as const;

/**
 * Compiles `source` with the Node at `node` and runs it: for each plugin VERSION and, in a host of its own (network
 * and mount namespaces), the life of an attachment. Only functions that ran are in the cache: all of them would make
 * every start longer.
 *
 * Without the right to make namespaces the cache holds what VERSION needs, and a line says so. Throws Error when the
 * program does not run or the cache is not accepted.
 */
export function makeCodeCache(
  node: string,
  source: string,
  options: { readonly directory: string; readonly plugins: readonly string[] },
): CodeCache {
  const directory = join(options.directory, 'warm-up');
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const order: WarmUpOrder = {
    directory,
    program: join(directory, 'program.js'),
    cache: join(directory, 'cache'),
    report: join(directory, 'report.json'),
    plugins: options.plugins,
    kernel: canUnshare() && options.plugins.length > 0 ? 'private' : 'none',
  };
  writeFileSync(order.program, source);
  const command = [
    node,
    ...V8_FLAGS,
    '--disable-warning=ExperimentalWarning',
    WARM_UP,
    JSON.stringify(order),
  ];
  const [program = '', ...args] = order.kernel === 'private' ? [...UNSHARE, ...command] : command;
  const { status, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (status !== 0) throw new Error(`The warm-up of the code cache failed: ${stderr}`);
  return {
    bytes: readFileSync(order.cache),
    calls: JSON.parse(readFileSync(order.report, 'utf8')) as WarmUpCall[],
  };
}

const WARM_UP = join(import.meta.dirname, 'warm-up.ts');

// A host of its own: mounts are private, /run and /var/lib are empty, nothing of it outlives the process.
const UNSHARE = [
  'unshare',
  ...(process.getuid?.() === 0 ? [] : ['--map-root-user']),
  '--net',
  '--mount',
  '--propagation=private',
  'sh',
  '-ec',
  'mount -t tmpfs none /run; mount -t tmpfs none /var/lib; exec "$@"',
  'sh',
];

function canUnshare(): boolean {
  const [program = '', ...args] = [...UNSHARE, 'true'];
  return spawnSync(program, args, { stdio: 'ignore' }).status === 0;
}
