// The program: finds the plugin it is called as, runs the call, prints, exits. It is the only file that knows
// `process`; the executables in dist/bin are this file and what it imports.
import { readSync, writeSync } from 'node:fs';
import { basename } from 'node:path';
import { type DispatchIo, dispatch, type Outcome } from '../shared/cni/dispatch.ts';
import { encodeJson } from '../shared/cni/encode.ts';
import { invalidEnvironment, ioFailure, toCniError } from '../shared/cni/error.ts';
import type { AnyPlugin } from '../shared/cni/plugin.ts';
import { runTool } from '../shared/cni/tool.ts';
import { pause } from '../shared/linux/clock.ts';
import { exitAtOnce } from '../shared/linux/libc.ts';
import { dropPrivileges } from '../shared/linux/privileges.ts';
import { enableTrace } from '../shared/netlink/trace.ts';
import { findPlugin, listPlugins } from './registry.ts';

// Stamped in by the build; there is nothing to stamp when the sources run as they stand.
declare const PATCHBAY_VERSION: string | undefined;
declare const PATCHBAY_REVISION: string | undefined;

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

const exitCode = main();
// The build runs this program several times in one process, under a `process` of its own that must outlive it.
if (process === globalThis.process) exitAtOnce(exitCode);
process.exit(exitCode);

function main(): number {
  let outcome: Outcome;
  try {
    if (process.env['PATCHBAY_TRACE'] === 'netlink') enableTrace(log);
    const plugin = getOwnPlugin();
    const command = process.env['CNI_COMMAND'];
    const isForRuntimes = Boolean(command);
    if (isForRuntimes && command !== 'VERSION') dropWhatIsNotNeeded(plugin);
    const args = process.argv.slice(2);
    if (!isForRuntimes && args.length > 0 && plugin.tools.length > 0) {
      outcome = runTool(plugin, args, makeIo());
    } else {
      outcome = dispatch(plugin, makeIo());
      if (!isForRuntimes) log(`Patchbay ${version()}, revision ${revision()}`);
    }
  } catch (error) {
    outcome = { stdout: encodeFailure(error), exitCode: 1 };
  }
  const isPrinted = print(outcome.stdout);
  // The runtime takes this for a failed ADD, and a failed ADD leaves nothing behind.
  if (!isPrinted) outcome.undo?.();
  outcome.writeLog?.(isPrinted ? 'printed' : 'lost');
  return isPrinted ? outcome.exitCode : 1;
}

// Whoever runs it as another user than root has chosen its capabilities, and inheritance works in other ways then. The build,
// which runs this program in its own process, keeps its own.
function dropWhatIsNotNeeded({ needs }: AnyPlugin): void {
  if (process === globalThis.process && process.geteuid?.() === 0) dropPrivileges(needs);
}

// The path of the image follows hard links, so it names the plugin; argv[0] is the caller's word, and tells symlinks
// and renamed copies apart.
function getOwnPlugin(): AnyPlugin {
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

function makeIo(): DispatchIo {
  return {
    env: process.env,
    readStdin,
    log,
    registry: findPlugin,
    // Leads to our own inode even when the path no longer does.
    ownExecutable: '/proc/self/exe',
    version: version(),
    pid: process.pid,
    uptime: () => 1000 * process.uptime(),
  };
}

function version(): string {
  return typeof PATCHBAY_VERSION === 'string' ? PATCHBAY_VERSION : '0.0.0';
}

function revision(): string {
  return typeof PATCHBAY_REVISION === 'string' ? PATCHBAY_REVISION : 'unknown';
}

// readFileSync(0) gives up on a pipe that is set to non-blocking and momentarily empty; runtimes hand down such.
function readStdin(): Buffer {
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
function print(text: string): boolean {
  try {
    writeAll(STDOUT, text);
    return true;
  } catch (error) {
    log(`Cannot write to standard output: ${toCniError(error).message}`);
    return false;
  }
}

function log(line: string): void {
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

// Only for what happens outside of a call: dispatch reports everything else itself, in the call's own version.
function encodeFailure(error: unknown): string {
  const { code, message, details } = toCniError(error);
  return encodeJson({ cniVersion: '1.1.0', code, msg: message, ...(details !== undefined && { details }) });
}
