// Makes the code caches of the bundled programs: V8's bytecode of the functions that calls need, so that the packaged
// programs compile next to nothing. Called by package.ts.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { bundleTool, LIBRARIES } from './bundle.ts';
import type { RenumberOrder } from './renumber-caches.ts';
import { isHost, runnable, type Target } from './target.ts';

/**
 * Scripts by name, one for each plugin and each library, and one that answers VERSION: each is the text of an expression whose
 * value is a `Program`.
 */
export type Sources = Readonly<Record<string, string>>;

/** The name of the script that answers VERSION. */
export const VERSION_PROGRAM = 'version';

export interface CodeCaches {
  /** Directory with a file for each: `bridge.ADD`, `execa.library` … */
  readonly directory: string;
  readonly files: readonly string[];
  /** What was run to find out which functions are needed. */
  readonly calls: readonly WarmUpCall[];
  /** Which of Node's modules were loaded by it, and are not in the snapshot. */
  readonly modules: readonly string[];
}

export interface WarmUpCall {
  readonly name: string;
  readonly exitCode: number;
  readonly stdout: string;
}

/** What build/warm-up.ts is told, as JSON in its first argument. */
export interface WarmUpOrder {
  /** Where the sources are, `bridge.js` …, and where caches and report go. */
  readonly directory: string;
  readonly libraries: readonly string[];
  /** The script that answers VERSION, if there is one. */
  readonly version: string | undefined;
  /** Names to run the program under; empty for a program that is no plugin. */
  readonly plugins: readonly string[];
  /** Whether this is a private host, to run whole calls in. */
  readonly host: 'private' | 'shared';
  /** Whether the kernel is asked by an emulator, which knows not all of its calls. */
  readonly isEmulated: boolean;
}

/** What build/warm-up.ts leaves in report.json. */
export interface WarmUpReport {
  readonly files: readonly string[];
  readonly calls: readonly WarmUpCall[];
  readonly modules: readonly string[];
}

/** Where caches are made, and what for. */
export interface CodeCacheOptions {
  readonly directory: string;
  readonly plugins: readonly string[];
  readonly target: Target;
  /** The file of the start snapshot. V8 takes a cache only where it has the snapshot that the cache was made with. */
  readonly snapshot: string;
}

/**
 * The flags under which the executables run and their caches are made. V8 refuses a cache made under other flags;
 * Node's own are relabelled (builtin-caches.ts), so a flag must not change what a code cache holds.
 *
 * `--no-rehash-snapshot` keeps the hash seed of Node's own snapshot, which saves 2.5 ms of a start. A young generation
 * of 16 MB is never full before a call is over, so nothing is collected (3 to 6 ms); memory is only touched when used. Nor
 * does V8 wake anybody to give some of it back once a call has been idle for a while.
 * The compilers behind the interpreter have no time to earn what they cost (2 ms), nor has that of regular expressions,
 * which would translate each pattern into machine code when it is used for the second time. Notes on the types that a
 * function meets are for compilers, too, and take until its hundredth call to begin (1 ms).
 */
export const V8_FLAGS = [
  '--no-rehash-snapshot',
  '--min-semi-space-size=16',
  '--no-memory-reducer',
  '--no-opt',
  '--no-maglev',
  '--no-sparkplug',
  '--regexp-interpret-all',
  '--invocation-count-for-feedback-allocation=100',
] as const;

/**
 * Compiles the sources with the Node at `node`, which is one for `target` and starts from `snapshot`, and runs them: for each
 * plugin VERSION and, in a host of its own (network and mount namespaces), the lives of attachments. Each verb gets a cache
 * of the functions that ran for it: with all functions in one, every start is 3 ms longer.
 *
 * Without the right to make namespaces the caches hold what VERSION needs. Throws Error when the program does not
 * run or a cache is not accepted.
 */
export async function makeCodeCaches(
  node: string,
  sources: Sources,
  { directory, plugins, target, snapshot }: CodeCacheOptions,
): Promise<CodeCaches> {
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  for (const [name, source] of Object.entries(sources)) writeFileSync(join(directory, `${name}.js`), source);
  const order: WarmUpOrder = {
    directory,
    libraries: LIBRARIES.filter((name) => name in sources),
    version: VERSION_PROGRAM in sources ? VERSION_PROGRAM : undefined,
    plugins,
    host: plugins.length > 0 && canUnshare() ? 'private' : 'shared',
    isEmulated: !isHost(target),
  };
  const command = async (tool: string, order: object) => {
    const script = join(directory, `${tool}.tool.cjs`);
    writeFileSync(script, (await bundleTool(join(import.meta.dirname, `${tool}.ts`))).source);
    const options = [...V8_FLAGS, '--disable-warning=ExperimentalWarning', '--snapshot-blob', snapshot];
    return runnable(target, [node, ...options, script, JSON.stringify(order)]);
  };
  run([
    ...(order.host === 'private' ? UNSHARE : []),
    ...lendSockets(target),
    ...(await command('warm-up', order)),
  ]);
  const report = JSON.parse(readFileSync(join(directory, 'report.json'), 'utf8')) as WarmUpReport;
  const { files } = report;
  run(await command('renumber-caches', { directory, files } satisfies RenumberOrder));
  return { directory, ...report };
}

// An emulator refuses sockets of some kinds, but not to use them: see lend-sockets.ts.
function lendSockets(target: Target): string[] {
  return isHost(target)
    ? []
    : [
        process.execPath,
        '--disable-warning=ExperimentalWarning',
        join(import.meta.dirname, 'lend-sockets.ts'),
      ];
}

// With an environment of its own: what the build is started with must not decide over what is compiled.
function run([program = '', ...args]: readonly string[]): void {
  const { status, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'] ?? '' },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (status !== 0) throw new Error(`The code caches cannot be made: ${stderr}`);
}

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
