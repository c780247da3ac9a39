// Starts programs and waits for them with as little between the clock and the kernel as this language allows.
// Called by the benchmark's worker: child_process.spawnSync adds 0.6 ms of its own, and noise, to each run.

import { dlopen, getRawPointer } from 'node:ffi';
import { closeSync, openSync } from 'node:fs';

/** One finished program. Times are milliseconds. */
export interface Run {
  readonly wallMs: number;
  /** User and system time of the program and of what it waited for. */
  readonly cpuMs: number;
  /** The exit code, or 128 plus the signal that ended it. */
  readonly exitCode: number;
}

export interface Streams {
  readonly stdin: string;
  readonly stdout: string;
  readonly stderr: string;
}

type Environment = Readonly<Record<string, string>>;

// Room for glibc's posix_spawn_file_actions_t (80 bytes) and posix_spawnattr_t (336 bytes), and to spare.
const OPAQUE_BYTES = 1024;
const POSIX_SPAWN_SETSIGDEF = 0x04;

const { functions: libc } = dlopen('libc.so.6', {
  posix_spawn: {
    return: 'int32',
    arguments: ['buffer', 'buffer', 'buffer', 'buffer', 'buffer', 'buffer'],
  },
  posix_spawn_file_actions_init: { return: 'int32', arguments: ['buffer'] },
  posix_spawn_file_actions_adddup2: { return: 'int32', arguments: ['buffer', 'int32', 'int32'] },
  posix_spawn_file_actions_destroy: { return: 'int32', arguments: ['buffer'] },
  posix_spawnattr_init: { return: 'int32', arguments: ['buffer'] },
  posix_spawnattr_setflags: { return: 'int32', arguments: ['buffer', 'int16'] },
  posix_spawnattr_setsigdefault: { return: 'int32', arguments: ['buffer', 'buffer'] },
  sigfillset: { return: 'int32', arguments: ['buffer'] },
  wait4: { return: 'int32', arguments: ['int32', 'buffer', 'int32', 'buffer'] },
});

/**
 * Runs `argv[0]`, an absolute path, with its streams on files. The wall time runs from just before posix_spawn(3),
 * which is a vfork, to just after wait4(2). Throws Error when it can't be started.
 */
export function spawnTimed(argv: readonly string[], env: Environment, streams: Streams): Run {
  const { pid, started } = start(argv, env, streams);
  const { ended, ...run } = waitFor(pid);
  return { wallMs: Number(ended - started) / 1e6, ...run };
}

/** A program that runs. `started` is on the clock of `process.hrtime.bigint()`, as is `ended`. */
export interface Started {
  readonly pid: number;
  readonly started: bigint;
}

export interface Ended extends Omit<Run, 'wallMs'> {
  readonly pid: number;
  readonly ended: bigint;
}

/** As `spawnTimed` without the waiting. */
export function start(argv: readonly string[], env: Environment, streams: Streams): Started {
  const fds = [openSync(streams.stdin, 'r'), openSync(streams.stdout, 'w'), openSync(streams.stderr, 'w')];
  const actions = Buffer.alloc(OPAQUE_BYTES);
  libc.posix_spawn_file_actions_init(actions);
  try {
    for (const [number, fd] of fds.entries()) libc.posix_spawn_file_actions_adddup2(actions, fd, number);
    return spawn(argv, env, actions);
  } finally {
    libc.posix_spawn_file_actions_destroy(actions);
    for (const fd of fds) closeSync(fd);
  }
}

/** Waits for one of the programs that were started, whichever ends first. */
export function waitForAny(): Ended {
  return waitFor(ANY);
}

/** One of the programs that were started, if one has ended. */
export function findEnded(): Ended | undefined {
  const ended = waitFor(ANY, WNOHANG);
  return ended.pid === 0 ? undefined : ended;
}

const ANY = -1;
const WNOHANG = 1;

function spawn(argv: readonly string[], env: Environment, actions: Buffer): Started {
  const path = cString(argv[0] ?? '');
  const words = cStrings(argv);
  const variables = cStrings(Object.entries(env).map(([name, value]) => `${name}=${value}`));
  const attributes = defaultSignals();
  const pid = Buffer.alloc(4);
  const started = process.hrtime.bigint();
  const error = libc.posix_spawn(pid, path, actions, attributes, words.pointers, variables.pointers);
  if (error !== 0) throw new Error(`Cannot start "${argv[0]}": error number ${error}`);
  return { pid: pid.readInt32LE(), started };
}

function waitFor(pid: number, options = 0): Ended {
  const status = Buffer.alloc(4);
  const usage = Buffer.alloc(144); // struct rusage
  const waited = libc.wait4(pid, status, options, usage);
  const ended = process.hrtime.bigint();
  if (waited < 0) throw new Error('Cannot wait: no program that was started is left');
  return {
    pid: waited,
    ended,
    cpuMs: timevalMs(usage, 0) + timevalMs(usage, 16),
    exitCode: exitCodeOf(status.readInt32LE()),
  };
}

// Node ignores SIGPIPE, and what is ignored is inherited.
function defaultSignals(): Buffer {
  const attributes = Buffer.alloc(OPAQUE_BYTES);
  const all = Buffer.alloc(128); // sigset_t
  libc.posix_spawnattr_init(attributes);
  libc.sigfillset(all);
  libc.posix_spawnattr_setsigdefault(attributes, all);
  libc.posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGDEF);
  return attributes;
}

// `texts` is returned with the pointers so that it lives as long as they do.
function cStrings(values: readonly string[]): { pointers: Buffer; texts: readonly Buffer[] } {
  const texts = values.map(cString);
  const pointers = Buffer.alloc(8 * (texts.length + 1));
  for (const [i, text] of texts.entries()) pointers.writeBigUInt64LE(getRawPointer(text), 8 * i);
  return { pointers, texts };
}

// Buffer.alloc takes nothing from the shared pool, so the text has memory of its own, which never moves.
function cString(text: string): Buffer {
  const bytes = Buffer.alloc(Buffer.byteLength(text) + 1);
  bytes.write(text);
  return bytes;
}

function timevalMs(usage: Buffer, offset: number): number {
  return Number(usage.readBigInt64LE(offset)) * 1e3 + Number(usage.readBigInt64LE(offset + 8)) / 1e3;
}

function exitCodeOf(status: number): number {
  return (status & 0x7f) === 0 ? (status >> 8) & 0xff : 128 + (status & 0x7f);
}
