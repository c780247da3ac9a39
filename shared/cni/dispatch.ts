// The life of one call: environment, stdin, versions, the plugin's verb, and what to print.
// Called by main.ts; the delegate runs our own IPAM plugins through the same steps.
import { measurePhases, phaseTimes } from '../linux/phases.ts';
import type { Attachment } from './attachment.ts';
import { bannerLines, versionAnswer } from './banner.ts';
import { type FinishedCall, parseLogField, parseLogVariable, writeCallLog } from './call-log.ts';
import { pickKeys } from './decode.ts';
import { createIpamDelegate } from './delegate.ts';
import { encodeError } from './encode.ts';
import {
  type Command,
  type Env,
  type Environment,
  holdForeignNetns,
  isCommand,
  parseEnvironment,
} from './environment.ts';
import { CniError, invalidConfig, invalidEnvironment, ioFailure, quote, toCniError } from './error.ts';
import {
  type NetworkConfig,
  type NetworkHeader,
  parseHeader,
  parseNetworkConfig,
  parseVersion,
} from './network-config.ts';
import type { AnyPlugin, Call, ConfigSource, Unread } from './plugin.ts';
import { encodeResult } from './result.ts';
import { type CniVersion, isCniVersion, NEWEST_VERSION, OLDEST_VERSION } from './versions.ts';

/** Everything a call takes from the process. */
export interface DispatchIo {
  readonly env: Env;
  /** Called once at most; never for VERSION and the bare run. */
  readonly readStdin: () => Buffer;
  /** Writes one line to stderr. */
  readonly log: (line: string) => void;
  /** The plugins this executable holds, by name. */
  readonly registry: (name: string) => AnyPlugin | undefined;
  /** Path of the running executable, compared by inode with what is found on CNI_PATH. */
  readonly ownExecutable: string;
  /** Semantic version of Patchbay, with or without the leading `v`. */
  readonly version: string;
  readonly pid: number;
  /** Milliseconds since the process started. */
  readonly uptime: () => number;
}

/** What the process prints on stdout and exits with; stderr has gone through `log` already. */
export interface Outcome {
  readonly stdout: string;
  readonly exitCode: 0 | 1;
  /** Takes back what an ADD has made: for a result that nobody could be told. Never throws. */
  readonly undo?: () => void;
  /** Writes the line about the call to the log, where one is wanted. Never throws: no verb fails for its log. */
  readonly writeLog?: (answer: FinishedCall['answer']) => void;
}

/** Runs the call the environment asks for. Never throws: what goes wrong is printed as a CNI error. */
export function dispatch(plugin: AnyPlugin, io: DispatchIo): Outcome {
  const command = io.env['CNI_COMMAND'] ?? '';
  if (command === '') {
    for (const line of bannerLines(plugin, io.version)) io.log(line);
    return { stdout: '', exitCode: 0 };
  }
  if (command === 'VERSION') return { stdout: versionAnswer(plugin), exitCode: 0 };
  return runCommand(plugin, command, io);
}

/** What stays the same for every plugin that takes part in one call. */
interface Session {
  readonly io: DispatchIo;
  readonly environment: Environment;
  readonly stdin: Buffer;
  readonly header: NetworkHeader;
  /** Whether an interface plugin of this process asks, whose own call has passed the guard. */
  readonly isDelegated: boolean;
}

/** What has become known of a call so far, for whoever tells of its end. */
interface Known {
  environment?: Environment;
  header?: NetworkHeader;
}

// The order is the reference's, because clients see it in the code of a call with more than one mistake:
// variables, stdin, unknown command, version, and then the plugin.
function runCommand(plugin: AnyPlugin, command: string, io: DispatchIo): Outcome {
  const known: Known = {};
  try {
    const environment = isCommand(command) ? parseEnvironment(io.env, command) : undefined;
    if (environment !== undefined) known.environment = environment;
    const stdin = readStdin(io);
    const header = parseHeader(stdin);
    known.header = header;
    if (isLogWanted(io, known)) measurePhases(io.uptime);
    if (!isCommand(command) || environment === undefined) throw unknownCommand(command);
    const session = { io, environment, stdin, header, isDelegated: false };
    const stdout = runVerb(plugin, command, session);
    const undo = command === 'ADD' ? { undo: () => takeBack(plugin, session) } : {};
    return logged({ stdout, exitCode: 0, ...undo }, undefined, { plugin, io, known });
  } catch (error) {
    const stdout = encodeError(error, versionOf(known.header));
    return logged({ stdout, exitCode: 1 }, error, { plugin, io, known });
  }
}

interface Ending {
  readonly plugin: AnyPlugin;
  readonly io: DispatchIo;
  readonly known: Known;
}

/** The variable is for whoever runs the runtime, so it wins over a config. */
function isLogWanted({ env }: DispatchIo, { header }: Known): boolean {
  return Boolean(env['PATCHBAY_LOG']) || (header?.log !== undefined && header.log !== '');
}

function logged(outcome: Outcome, error: unknown, ending: Ending): Outcome {
  if (!isLogWanted(ending.io, ending.known)) return outcome;
  return { ...outcome, writeLog: (answer) => writeLog(answer, error, ending) };
}

function writeLog(answer: FinishedCall['answer'], error: unknown, { plugin, io, known }: Ending): void {
  const { env } = io;
  const { environment, header } = known;
  const command = env['CNI_COMMAND'] ?? '';
  const hasAttachment = environment !== undefined && command !== 'STATUS' && command !== 'GC';
  try {
    const variable = env['PATCHBAY_LOG'];
    writeCallLog(variable ? parseLogVariable(variable) : parseLogField(header?.log), {
      plugin: plugin.name,
      verb: isCommand(command) ? command : undefined,
      network: header?.name,
      containerId: hasAttachment ? environment.containerId : undefined,
      ifname: hasAttachment ? environment.ifname : undefined,
      error,
      answer,
      config: header?.raw,
      args: env['CNI_ARGS'] ?? '',
      traceParent: env['TRACEPARENT'],
      duration: io.uptime(),
      phases: phaseTimes(),
      version: io.version,
      pid: io.pid,
      time: Date.now(),
    });
  } catch (failure) {
    const { message, details } = toCniError(failure);
    io.log(details === undefined ? message : `${message}: ${details}`);
  }
}

function takeBack(plugin: AnyPlugin, session: Session): void {
  try {
    runVerb(plugin, 'DEL', session);
  } catch (error) {
    session.io.log(`Cannot undo an ADD whose result cannot be printed: ${toCniError(error).message}`);
  }
}

function readStdin(io: DispatchIo): Buffer {
  try {
    return io.readStdin();
  } catch (cause) {
    if (cause instanceof CniError) throw cause;
    throw ioFailure('Cannot read the network configuration from stdin', { cause });
  }
}

function unknownCommand(command: string): Error {
  return invalidEnvironment(
    `Cannot run CNI_COMMAND ${quote(command)}: the commands are ADD, DEL, CHECK, STATUS, GC and VERSION`,
  );
}

// Runs one verb of one plugin and returns what it prints.
function runVerb(plugin: AnyPlugin, command: Command, session: Session): string {
  const { environment, header } = session;
  const version = parseVersion(header.raw, command, plugin.supportedVersions);
  const isGuarded = !session.isDelegated && (command === 'ADD' || command === 'DEL');
  using _netns = isGuarded ? holdForeignNetns(environment) : undefined;
  const network = parseNetworkConfig(header, version, command);
  const source = { network, args: environment.args, command };
  const call = openCall(plugin, network, session);
  const attachment = {
    network: header.name,
    containerId: environment.containerId,
    ifname: environment.ifname,
  };
  const { netns } = environment;
  switch (command) {
    case 'ADD':
      return add(plugin, source, { ...call, attachment, netns });
    case 'DEL':
      plugin.del(source, { ...call, attachment, netns: netns === '' ? undefined : netns });
      break;
    case 'CHECK':
      if (plugin.checkNeedsPrevResult) expectPrevResult(network);
      plugin.check(source, { ...call, attachment, netns });
      break;
    case 'STATUS':
      plugin.status(source, call);
      break;
    case 'GC':
      plugin.gc(source, { ...call, validAttachments: network.validAttachments });
      break;
  }
  return '';
}

function openCall(plugin: AnyPlugin, network: NetworkConfig, session: Session): Unread<Call<unknown>> {
  const { io, environment, stdin } = session;
  const ipam = createIpamDelegate({
    caller: plugin.name,
    cniVersion: network.cniVersion,
    env: io.env,
    path: environment.path,
    stdin,
    ownExecutable: io.ownExecutable,
    registry: io.registry,
    runOwn: (own, command) => runVerb(own, command, { ...session, isDelegated: true }),
    log: io.log,
  });
  return { network, ipam, registry: io.registry, log: io.log };
}

interface Attached extends Unread<Call<unknown>> {
  readonly attachment: Attachment;
  readonly netns: string;
}

// A result that its version cannot express is a failed ADD, and a failed ADD leaves nothing behind.
function add(plugin: AnyPlugin, source: ConfigSource, call: Attached): string {
  const result = plugin.add(source, call);
  try {
    return encodeResult(result, call.network.cniVersion);
  } catch (error) {
    undoAdd(plugin, source, call);
    throw error;
  }
}

function undoAdd(plugin: AnyPlugin, source: ConfigSource, call: Attached): void {
  try {
    plugin.del({ ...source, command: 'DEL' }, call);
  } catch (error) {
    call.log(`Cannot undo an ADD whose result cannot be printed: ${toCniError(error).message}`);
  }
}

function expectPrevResult({ prevResult }: NetworkConfig): void {
  if (prevResult !== undefined) return;
  throw invalidConfig(
    'Field "prevResult" of the network configuration is missing: CHECK compares with what ADD returned',
  );
}

// An error is in the version of the config as far as that is known (CNI SPEC, section 5 "Error").
function versionOf(header: NetworkHeader | undefined): CniVersion {
  if (header === undefined) return NEWEST_VERSION;
  const { cniVersion = '' } = pickKeys(header.raw, ['cniVersion']);
  if (cniVersion === '') return OLDEST_VERSION;
  return typeof cniVersion === 'string' && isCniVersion(cniVersion) ? cniVersion : NEWEST_VERSION;
}
