// Running another program, the one place where that happens. cni/delegate.ts runs foreign IPAM plugins with it,
// iptables/ its tools. Everything else speaks to the kernel itself, and never loads this file's library.
import { createRequire } from 'node:module';
import { again } from './again.ts';

export interface RunOptions {
  readonly args?: readonly string[] | undefined;
  /** Fed to stdin; without it stdin is empty. */
  readonly input?: Uint8Array | string | undefined;
  /** The whole environment; without it the program gets an empty one. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined;
  /** After so many milliseconds the program is killed and `timedOut` is true. */
  readonly timeoutMs?: number | undefined;
}

export interface Finished {
  /** `undefined` when a signal ended it. */
  readonly exitCode: number | undefined;
  readonly signal: string | undefined;
  readonly timedOut: boolean;
  readonly stdout: Buffer;
  readonly stderr: Buffer;
}

// More than any CNI result or ruleset we ask for; a program that never stops talking must not fill our memory.
const OUTPUT_LIMIT = 64 * 1024 * 1024;

/**
 * Runs `program`, an absolute path, without a shell, and waits for its end. A bad exit code is a value, no error. One
 * that cannot be started just now (EAGAIN, fork(2)) is tried again for a moment.
 *
 * Throws Error with Node's error (`code` "ENOENT", "EACCES" …) as its cause when it cannot be started.
 */
export function run(program: string, options: RunOptions = {}): Finished {
  const { args = [], input, env = {}, timeoutMs } = options;
  if (!program.startsWith('/')) throw new Error(`Cannot run "${program}": its path is not absolute`);
  const start = () => {
    const result = loadExeca().execaSync(program, args, {
      input: input ?? '',
      env,
      extendEnv: false,
      preferLocal: false,
      shell: false,
      encoding: 'buffer',
      stripFinalNewline: false,
      maxBuffer: OUTPUT_LIMIT,
      reject: false,
      ...(timeoutMs !== undefined && { timeout: timeoutMs, killSignal: 'SIGKILL' }),
    });
    const neverRan = result.exitCode === undefined && result.signal === undefined && !result.timedOut;
    if (neverRan || result.isMaxBuffer) throw causeOf(result);
    return result;
  };
  const result = attempt(program, () => again(start));
  return {
    exitCode: result.exitCode,
    signal: result.signal,
    timedOut: result.timedOut,
    stdout: toBuffer(result.stdout),
    stderr: toBuffer(result.stderr),
  };
}

function attempt<T>(program: string, start: () => T): T {
  try {
    return start();
  } catch (cause) {
    throw new Error(`Cannot run "${program}"`, { cause });
  }
}

/** execa wraps the system's error, whose `code` callers look for. */
function causeOf(result: object): unknown {
  return result instanceof Error ? (result.cause ?? result) : undefined;
}

function toBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Loaded by the first call: execa brings some hundred modules. An `import()` would be lazy too, but asynchronous. In
 * the bundle esbuild makes a lazy module of the literal `require` below; as plain ESM, where there is no `require`,
 * Node makes one, and it loads ESM packages as well.
 */
function loadExeca(): typeof import('execa') {
  return typeof require === 'function' ? require('execa') : createRequire(import.meta.url)('execa');
}
