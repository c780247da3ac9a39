// Runs the IPAM plugin that the config names: found on CNI_PATH, by exec, or in process when the file is our
// own. Created by the dispatcher for each call; a plugin cannot tell the two ways apart.
import { type BigIntStats, statSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { pause } from '../linux/clock.ts';
import { isTrustedOwner } from '../linux/files.ts';
import { inPhase } from '../linux/phases.ts';
import { run } from '../linux/spawn.ts';
import { isJsonObject, parseJson, pickKeys } from './decode.ts';
import type { Command, Env } from './environment.ts';
import { CniError, delegateFailed, hasCode, internal, invalidConfig, quote, toCniError } from './error.ts';
import type { AnyPlugin, IpamDelegate } from './plugin.ts';
import type { Result } from './result.ts';
import { decodeResult, withoutUnknownKeys } from './result-versions.ts';
import type { CniVersion } from './versions.ts';

/** What delegation needs to know about the call it is part of. */
export interface DelegateContext {
  /** The plugin that delegates: it cannot be its own IPAM plugin. */
  readonly caller: string;
  readonly cniVersion: CniVersion;
  /** The environment of the process; the child gets it with another CNI_COMMAND. */
  readonly env: Env;
  /** Entries of CNI_PATH. */
  readonly path: readonly string[];
  /** What the caller read, byte for byte. */
  readonly stdin: Buffer;
  readonly ownExecutable: string;
  readonly registry: (name: string) => AnyPlugin | undefined;
  /** Runs one of our own plugins through the same steps as a process of its own; returns what it would print. */
  readonly runOwn: (plugin: AnyPlugin, command: Command) => string;
  readonly log: (line: string) => void;
}

/**
 * The IPAM plugin of a call. An error it reports is thrown with its code, message and details unchanged; the
 * methods also throw `invalidConfig` for a `type` that is no plugin name, `delegateFailed` when it cannot be
 * found, run or understood, and `internal` when it fails without saying why.
 */
export function createIpamDelegate(context: DelegateContext): IpamDelegate {
  return {
    add: (type) => add(type, context),
    check: (type) => void runStrictly(type, 'CHECK', context),
    status: (type) => void runStrictly(type, 'STATUS', context),
    del: (type) => runLeniently(type, 'DEL', context),
    gc: (type) => runLeniently(type, 'GC', context),
  };
}

function add(type: string, context: DelegateContext): Result {
  expectPluginName(type, context);
  const file = findOnPath(type, context);
  try {
    return parseAnswer(runFile(type, file, 'ADD', context), type, context);
  } catch (error) {
    if (!isOwnDuplicate(error, type, context)) releaseAfterFailure(type, file, context);
    throw error;
  }
}

function runStrictly(type: string, command: Command, context: DelegateContext): void {
  expectPluginName(type, context);
  runFile(type, findOnPath(type, context), command, context);
}

function runLeniently(type: string, command: Command, context: DelegateContext): void {
  const objection = objectionTo(type, context);
  if (objection === undefined) runStrictly(type, command, context);
  else context.log(`Skipping IPAM ${command}: ${objection}, so no ADD can have used it`);
}

function expectPluginName(type: string, context: DelegateContext): void {
  const objection = objectionTo(type, context);
  if (objection !== undefined) throw invalidConfig(objection);
}

function objectionTo(type: string, { caller }: DelegateContext): string | undefined {
  if (type === '') return 'Field "ipam.type" of the network configuration is empty';
  const given = `field "ipam.type" of the network configuration is ${quote(type)}`;
  if (/[/\0]/.test(type) || type === '.' || type === '..')
    return `${given}, which is a path and no plugin name`;
  // Two plugins of ours could go round in circles without ever starting a process.
  return type === caller ? `${given}, the plugin that asks` : undefined;
}

// The first regular file of that name, symlinks followed, as the reference looks for it.
function findOnPath(type: string, { path }: DelegateContext): string {
  for (const directory of path) {
    const file = resolve(directory, type);
    if (findFile(file)?.isFile() === true) return file;
  }
  throw delegateFailed(`Cannot find the IPAM plugin ${quote(type)} in CNI_PATH ${quote(path.join(':'))}`);
}

function runFile(type: string, file: string, command: Command, context: DelegateContext): Buffer {
  const own = context.registry(type);
  const isOwn = own !== undefined && isSameFile(file, context.ownExecutable);
  return inPhase('ipam', () =>
    isOwn ? runInProcess(own, command, context) : runProcess(type, file, command, context),
  );
}

function runInProcess(plugin: AnyPlugin, command: Command, context: DelegateContext): Buffer {
  try {
    return Buffer.from(context.runOwn(plugin, command));
  } catch (error) {
    // What the other process would have printed, and no more: causes don't travel as JSON.
    const { code, message, details } = toCniError(error);
    throw new CniError(code, message, details === undefined ? {} : { details });
  }
}

function runProcess(type: string, file: string, command: Command, context: DelegateContext): Buffer {
  refuseReplaceable(type, file, command, context);
  const { exitCode, stdout, stderr } = start(type, file, command, context);
  const complaint = stderr.toString('utf8').trim();
  if (complaint !== '') for (const line of complaint.split('\n')) context.log(line);
  if (exitCode === 0) return stdout;
  throw (
    reportedError(stdout) ?? unexplained(type, command, exitCode, complaint || stdout.toString('utf8').trim())
  );
}

/**
 * Whoever may write to the program, or exchange it in its directory, would run as root by us. Where that is everybody, nothing
 * new is begun; what exists is still cleaned up. Where it is a group, or the owner of a file that came out of an archive, the
 * operator may have meant it, and reads about it.
 */
function refuseReplaceable(type: string, file: string, command: Command, { log }: DelegateContext): void {
  const danger = dangerOf(file);
  if (danger === undefined) return;
  const sentence = `The IPAM plugin ${quote(type)} ${danger.what}`;
  if (danger.isOpenToAll && command !== 'DEL' && command !== 'GC') throw delegateFailed(sentence);
  log(sentence);
}

function dangerOf(file: string): { readonly what: string; readonly isOpenToAll: boolean } | undefined {
  for (const path of [file, dirname(file)]) {
    const stat = findFile(path);
    if (stat === undefined) continue;
    const mode = Number(stat.mode & 0o7777n);
    // In a directory such as /tmp nobody but the owner of a file may put another in its place.
    const isSticky = path !== file && (mode & 0o1000) !== 0;
    const where = `${quote(path)} (mode ${mode.toString(8)})`;
    if (!isSticky && (mode & 0o002) !== 0) {
      return { what: `can be replaced by everybody: run "chmod o-w" on ${where}`, isOpenToAll: true };
    }
    if (!isSticky && (mode & 0o020) !== 0 && stat.gid !== 0n) {
      return {
        what: `can be replaced by group ${stat.gid}, which may write to ${where}`,
        isOpenToAll: false,
      };
    }
    if (!isTrustedOwner(Number(stat.uid))) {
      return { what: `can be replaced by user ${stat.uid}, whose ${where} is`, isOpenToAll: false };
    }
  }
  return undefined;
}

// A plugin that is being replaced on disk is busy for a moment: somebody still holds it open for writing.
const BUSY_PAUSES_MS = [20, 50, 100, 200, 400, 800];

function start(
  type: string,
  file: string,
  command: Command,
  context: DelegateContext,
): ReturnType<typeof run> {
  const env = { ...context.env, CNI_COMMAND: command };
  for (const [attempt, wait] of [...BUSY_PAUSES_MS, undefined].entries()) {
    try {
      return run(file, { args: [], input: context.stdin, env });
    } catch (cause) {
      if (wait === undefined || !hasCode(cause, 'ETXTBSY')) {
        throw delegateFailed(`Cannot run the IPAM plugin ${quote(type)} at ${quote(file)}`, { cause });
      }
      if (attempt === 0) context.log(`Waiting for ${quote(file)}: the file is being written`);
      pause(wait);
    }
  }
  throw new Error('Cannot come here: the last attempt returns or throws');
}

function reportedError(stdout: Buffer): CniError | undefined {
  try {
    const value = parseJson(stdout, 'an error');
    if (!isJsonObject(value)) return undefined;
    const { code, msg = '', details } = pickKeys(value, ['code', 'msg', 'details']);
    // Code 0 means success to some clients; the reference prints it for "don't know".
    if (typeof code !== 'number' || !(code > 0) || typeof msg !== 'string') return undefined;
    return new CniError(code, msg, typeof details === 'string' && details !== '' ? { details } : {});
  } catch {
    return undefined;
  }
}

function unexplained(type: string, command: Command, exitCode: number | undefined, output: string): CniError {
  const how = exitCode === undefined ? 'was killed' : `ended with exit code ${exitCode}`;
  const said = output === '' ? 'without a message' : `saying ${quote(output)}`;
  return internal(`The IPAM plugin ${quote(type)} ${how} on ${command} ${said}`);
}

function parseAnswer(stdout: Buffer, type: string, { cniVersion }: DelegateContext): Result {
  const where = `the result of the IPAM plugin ${quote(type)}`;
  try {
    const value = parseJson(stdout, where);
    // Its unknown keys are no prevResult that has to be passed on; the caller makes a result of its own.
    return withoutUnknownKeys(decodeResult(value ?? {}, cniVersion, where).result);
  } catch (error) {
    throw delegateFailed(toCniError(error).message, {
      details: `It printed ${quote(stdout.toString('utf8'))}`,
    });
  }
}

// Our own IPAM plugins refuse a second ADD of one attachment and keep what the first one got: its container
// may be alive, and a DEL would take the address away from it.
function isOwnDuplicate(error: unknown, type: string, { registry }: DelegateContext): boolean {
  return registry(type) !== undefined && error instanceof CniError && error.code === DUPLICATE_ATTACHMENT;
}

const DUPLICATE_ATTACHMENT = 102;

// CNI SPEC, section 4: after a failed ADD of a delegate, its DEL, before the failure is reported.
function releaseAfterFailure(type: string, file: string, context: DelegateContext): void {
  try {
    runFile(type, file, 'DEL', context);
  } catch (error) {
    context.log(`Cannot clean up with IPAM DEL after its ADD failed: ${toCniError(error).message}`);
  }
}

function isSameFile(a: string, b: string): boolean {
  const [first, second] = [findFile(a), findFile(b)];
  return first !== undefined && first.dev === second?.dev && first.ino === second.ino;
}

function findFile(path: string): BigIntStats | undefined {
  try {
    return statSync(path, { bigint: true, throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}
