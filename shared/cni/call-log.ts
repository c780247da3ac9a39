// A line of JSON about one call: what it was, how it ended, and where its time went. The dispatcher writes it when
// PATCHBAY_LOG or the field `log` of the config asks for it.
import { sendToJournal } from '../linux/journal.ts';
import { appendLine } from '../linux/log-file.ts';
import type { PhaseTimes } from '../linux/phases.ts';
import type { JsonObject } from './decode.ts';
import { errorChain, invalidConfig, quote, toCniError } from './error.ts';
import { redact } from './redact.ts';
import { parseTraceParent } from './traceparent.ts';

/** What is known of a call when it ends; a call may have failed before anything was. */
export interface FinishedCall {
  readonly plugin: string;
  /** CNI_COMMAND, undefined when it is none of the commands. */
  readonly verb: string | undefined;
  readonly network: string | undefined;
  readonly containerId: string | undefined;
  readonly ifname: string | undefined;
  /** What was thrown; undefined when the call succeeded. */
  readonly error: unknown;
  /** Whether the answer could be printed. */
  readonly answer: 'printed' | 'lost';
  readonly config: JsonObject | undefined;
  readonly args: string;
  readonly traceParent: string | undefined;
  /** Milliseconds since the process started. */
  readonly duration: number;
  readonly phases: PhaseTimes | undefined;
  readonly version: string;
  readonly pid: number;
  /** Now, in milliseconds since 1970. */
  readonly time: number;
}

/** The journal by this name, a file by its path. */
export type LogTarget = string;

/**
 * The target that a config names. A config may come from somebody who is not root on this host, so the files it can have
 * appended to are those of a directory that is for nothing else. Throws invalidConfig (7).
 */
export function parseLogField(value: unknown): LogTarget {
  const file = /^\/var\/log\/patchbay\/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$/;
  if (value === JOURNAL || (typeof value === 'string' && file.test(value))) return value;
  throw invalidConfig(
    `Field "log" of the network configuration must be "${JOURNAL}" or a file in "${LOG_DIRECTORY}", such as ` +
      `"${LOG_DIRECTORY}/net1.log", not ${quote(value)}; PATCHBAY_LOG takes any path`,
  );
}

/** The target that PATCHBAY_LOG names. Throws Error for a relative path: nobody knows what directory we run in. */
export function parseLogVariable(text: string): LogTarget {
  if (text === JOURNAL || text.startsWith('/')) return text;
  throw new Error(`PATCHBAY_LOG must be "${JOURNAL}" or an absolute path, not ${quote(text)}`);
}

/** Writes the line. Throws what keeps it from being written. */
export function writeCallLog(target: LogTarget, call: FinishedCall): void {
  const line = JSON.stringify(describeCall(call));
  if (target === JOURNAL) sendToJournal(journalFields(line, call));
  else appendLine(target, line);
}

/** The line as an object, its keys in the order they are written in; docs/logging.md tells what they mean. */
export function describeCall(call: FinishedCall): JsonObject {
  const { error, duration } = call;
  const trace = parseTraceParent(call.traceParent);
  const fields = {
    time: new Date(Math.round(call.time - duration)).toISOString(),
    plugin: call.plugin,
    version: call.version,
    verb: call.verb ?? 'unknown',
    network: call.network,
    container_id: call.containerId,
    ifname: call.ifname,
    outcome: error !== undefined ? 'error' : call.answer === 'lost' ? 'answer lost' : 'success',
    ...(error !== undefined && describeError(error, call)),
    duration_ms: roundToMicroseconds(duration),
    phases_ms:
      call.phases &&
      Object.fromEntries(Object.entries(call.phases).map(([phase, ms]) => [phase, roundToMicroseconds(ms)])),
    pid: call.pid,
    trace_id: trace?.traceId,
    parent_span_id: trace?.spanId,
    trace_flags: trace?.flags,
  };
  return fields;
}

const JOURNAL = 'journal';
const LOG_DIRECTORY = '/var/log/patchbay';

// What another program printed may be long; a line must fit a datagram of the journal.
const MESSAGE_LIMIT = 2000;

function describeError(error: unknown, { config, args }: FinishedCall): JsonObject {
  const confidential = { config, args };
  const keep = (message: string) => cut(redact(message, confidential));
  const { code, message } = toCniError(error);
  // What lies below says, of a config that could not be decoded, the same with more of the config in it.
  const causes = config === undefined ? [] : errorChain(error).filter((text) => text !== message);
  return { code, error: keep(message), causes: causes.map(keep) };
}

function cut(text: string): string {
  return text.length <= MESSAGE_LIMIT ? text : `${text.slice(0, MESSAGE_LIMIT).toWellFormed()}…`;
}

function roundToMicroseconds(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}

// Priorities as syslog(3) has them. The fields of our own can be searched for: `journalctl PATCHBAY_NETWORK=net1`.
const LOG_ERR = '3';
const LOG_INFO = '6';

function journalFields(line: string, call: FinishedCall): Readonly<Record<string, string>> {
  const { network, containerId, ifname } = call;
  return {
    MESSAGE: line,
    PRIORITY: call.error === undefined ? LOG_INFO : LOG_ERR,
    SYSLOG_IDENTIFIER: 'patchbay',
    PATCHBAY_PLUGIN: call.plugin,
    PATCHBAY_VERB: call.verb ?? 'unknown',
    ...(network !== undefined && { PATCHBAY_NETWORK: network }),
    ...(containerId !== undefined && { PATCHBAY_CONTAINER_ID: containerId }),
    ...(ifname !== undefined && { PATCHBAY_IFNAME: ifname }),
  };
}
