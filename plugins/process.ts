// The door to the process: by what name it runs, what it is told, and its standard streams. It is the only file that knows
// `process`; main.ts and version.ts, the programs in the executables, are its callers.
import { readSync, writeSync } from 'node:fs';
import { basename } from 'node:path';
import { invalidEnvironment, ioFailure, toCniError } from '../shared/cni/error.ts';
import type { AnyPlugin } from '../shared/cni/plugin.ts';
import { pause } from '../shared/linux/clock.ts';
import { findPlugin, listPlugins } from './registry.ts';

const STDIN = 0;
const STDOUT = 1;
const STDERR = 2;

/**
 * A config has a few KiB; the rest is room for a prevResult and for GC's list of 30,000 attachments. Full of the smallest
 * lists, this much takes half a GiB of memory to decode, and a node may have little.
 */
const STDIN_LIMIT = 8 * 1024 * 1024;

/** Still running after the executable was replaced, we find this behind its path (proc(5), /proc/pid/exe). */
const DELETED = ' (deleted)';

/** The environment, as it is at the moment. */
export function environment(): Readonly<Record<string, string | undefined>> {
  return process.env;
}

/** What stands behind the name of the program. */
export function listArguments(): readonly string[] {
  return process.argv.slice(2);
}

export function pid(): number {
  return process.pid;
}

/** Milliseconds since the process started. */
export function uptime(): number {
  return 1000 * process.uptime();
}

/**
 * Whether the process is ours alone. The build runs these programs several times in one process, under a `process` of its own
 * that must outlive them.
 */
export function isOwnProcess(): boolean {
  return process === globalThis.process;
}

export function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

export function exit(exitCode: number): never {
  process.exit(exitCode);
}

/**
 * The plugin this process is called as. The path of the image follows hard links, so it names the plugin; argv[0] is the
 * caller's word, and tells symlinks and renamed copies apart. Throws CniError when neither names one.
 */
export function getOwnPlugin(): AnyPlugin {
  const path = process.execPath;
  const image = basename(path.endsWith(DELETED) ? path.slice(0, -DELETED.length) : path);
  const called = basename(process.argv0);
  const plugin = findPlugin(image) ?? findPlugin(called);
  if (plugin !== undefined) return plugin;
  throw invalidEnvironment(
    `There is no plugin named ${JSON.stringify(image)}, nor ${JSON.stringify(called)}: ` +
      `call this executable by one of the names ${listPlugins().join(', ')}`,
  );
}

/**
 * All of standard input. Throws CniError when there is too much of it. readFileSync(0) gives up on a pipe that is set to
 * non-blocking and momentarily empty; runtimes hand down such.
 */
export function readStdin(): Buffer {
  const chunks: Buffer[] = [];
  let size = 0;
  for (;;) {
    const chunk = Buffer.allocUnsafe(64 * 1024);
    const length = retry(() => readSync(STDIN, chunk));
    if (length === 0) return Buffer.concat(chunks, size);
    chunks.push(chunk.subarray(0, length));
    size += length;
    if (size > STDIN_LIMIT)
      throw ioFailure(`The network configuration on stdin is larger than ${STDIN_LIMIT} bytes`);
  }
}

/** Writes all of `text` to stdout; false when nobody can read it any more. */
export function print(text: string): boolean {
  try {
    writeAll(STDOUT, text);
    return true;
  } catch (error) {
    log(`Cannot write to standard output: ${toCniError(error).message}`);
    return false;
  }
}

/** Writes a line to stderr, for whoever listens. */
export function log(line: string): void {
  try {
    writeAll(STDERR, `${line}\n`);
  } catch {
    // A runtime that closed our stderr has no interest in it.
  }
}

function writeAll(fd: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let written = 0; written < bytes.length; ) {
    written += retry(() => writeSync(fd, bytes, written));
  }
}

// Pipes may be non-blocking: we share them with whoever set them so.
function retry(transfer: () => number): number {
  for (;;) {
    try {
      return transfer();
    } catch (error) {
      const code = error instanceof Error && 'code' in error ? error.code : undefined;
      if (code !== 'EAGAIN' && code !== 'EINTR') throw error;
      pause(1);
    }
  }
}
