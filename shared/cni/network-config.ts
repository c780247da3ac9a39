// The network configuration on stdin: the fields common to all plugins, decoded once.
// Called by the dispatcher; plugins get it with each call and read their own fields from `raw`.
import { parseLogField } from './call-log.ts';
import { isJsonObject, type JsonObject, parseJson, pickKeys } from './decode.ts';
import { type Command, IDENTIFIER, IDENTIFIER_RULE } from './environment.ts';
import { type CniError, decodingFailure, incompatibleVersion, invalidConfig, quote } from './error.ts';
import { parseResult, type Result } from './result.ts';
import { type CniVersion, isCniVersion, isVersionNumberAtLeast, OLDEST_VERSION } from './versions.ts';

/** The part of an attachment that the runtime lists for GC; the network is the config's own. */
export interface AttachmentKey {
  readonly containerId: string;
  readonly ifname: string;
}

export interface NetworkConfig {
  readonly cniVersion: CniVersion;
  /** Letters, digits, `_`, `.` and `-` only: safe as a file name and in comments. */
  readonly name: string;
  readonly type: string | undefined;
  /** The whole decoded object, keys as written. */
  readonly raw: JsonObject;
  /** The text that `raw` was decoded from, for what a decoded object does not tell: keys that stand there twice. */
  readonly text?: Buffer;
  /** Where in that text the fields of the plugin stand, when they are an object of their own. */
  readonly textPath?: readonly string[];
  /** For DEL, STATUS and GC undefined as well when it can't be understood. */
  readonly prevResult: Result | undefined;
  /** GC: undefined only when the key is absent; null and [] say that nothing is valid. */
  readonly validAttachments: readonly AttachmentKey[] | undefined;
}

/** What can be said about stdin before the command and the versions are looked at. */
export interface NetworkHeader {
  readonly name: string;
  readonly raw: JsonObject;
  readonly text: Buffer;
  /** The field `log` as it stands there. */
  readonly log: unknown;
}

/**
 * The object on stdin and the network's name. Throws `decodingFailure` for what is no JSON object,
 * `invalidConfig` for a name that is missing or holds other characters than an identifier.
 */
export function parseHeader(stdin: Buffer): NetworkHeader {
  const value = parseJson(stdin, STDIN);
  // The reference reads null as an object without keys.
  const raw = value === null ? {} : value;
  if (!isJsonObject(raw))
    throw decodingFailure(`Cannot decode ${STDIN}: it must be a JSON object, not ${quote(raw)}`);
  const { name = '', log } = pickKeys(raw, ['name', 'log']);
  if (typeof name !== 'string') {
    throw decodingFailure(`Field "name" of ${CONFIG} must be a string, not ${quote(name)}`);
  }
  if (name === '') throw invalidConfig(`Field "name" of ${CONFIG} is missing`);
  if (!IDENTIFIER.test(name)) {
    throw invalidConfig(`Field "name" of ${CONFIG} must ${IDENTIFIER_RULE}, not be ${quote(name)}`);
  }
  return { name, raw, text: stdin, log };
}

/**
 * The config's version, known to the plugin and new enough for the command. Throws `incompatibleVersion`, or
 * `decodingFailure` when the field is no string or, for a command that not every version has, no number.
 */
export function parseVersion(
  raw: JsonObject,
  command: Command,
  supported: readonly CniVersion[],
): CniVersion {
  const { cniVersion: given = '' } = pickKeys(raw, ['cniVersion']);
  if (typeof given !== 'string') {
    throw decodingFailure(`Field "cniVersion" of ${CONFIG} must be a string, not ${quote(given)}`);
  }
  const version = given === '' ? OLDEST_VERSION : given;
  const since = COMMAND_SINCE[command];
  if (since !== undefined && !isVersionNumberAtLeast(version, since)) {
    throw incompatibleVersion(
      `Cannot run ${command} with cniVersion ${quote(version)}: it needs ${since} or newer`,
    );
  }
  if (isCniVersion(version) && supported.includes(version)) return version;
  throw incompatibleVersion(`Cannot use cniVersion ${quote(version)}`, {
    details: `The plugin supports ${supported.join(', ')}`,
  });
}

/**
 * The config with what this command may use of it. ADD, CHECK and STATUS throw `invalidConfig` for a wrong
 * `type` or `log`, ADD and CHECK for a wrong prevResult; GC throws `decodingFailure` for a list of valid attachments
 * that can't be read, because guessing would remove live ones.
 */
export function parseNetworkConfig(
  header: NetworkHeader,
  cniVersion: CniVersion,
  command: Command,
): NetworkConfig {
  const { name, raw, text, log } = header;
  const keys = pickKeys(raw, ['type', 'prevResult']);
  if (log !== undefined && log !== '' && command !== 'DEL' && command !== 'GC') parseLogField(log);
  return {
    cniVersion,
    name,
    type: parseType(keys.type, command),
    raw,
    text,
    prevResult: parsePrevResult(keys.prevResult, cniVersion, command),
    validAttachments: command === 'GC' ? parseValidAttachments(raw) : undefined,
  };
}

const CONFIG = 'the network configuration';
const STDIN = `${CONFIG} on stdin`;

const COMMAND_SINCE: Readonly<Partial<Record<Command, CniVersion>>> = {
  CHECK: '0.4.0',
  STATUS: '1.1.0',
  GC: '1.1.0',
};

function parseType(type: unknown, command: Command): string | undefined {
  if (type === undefined || typeof type === 'string') return type;
  if (command === 'DEL' || command === 'GC') return undefined;
  throw invalidConfig(`Field "type" of ${CONFIG} must be a string, not ${quote(type)}`);
}

function parsePrevResult(value: unknown, version: CniVersion, command: Command): Result | undefined {
  if (value === undefined) return undefined;
  try {
    return parseResult(value, version);
  } catch (error) {
    if (command === 'ADD' || command === 'CHECK') throw error;
    return undefined;
  }
}

// CNI SPEC 1.1, section 2 "GC". The official library also sends the list as cni.dev/attachments, a misnomer
// of old.
const VALID_ATTACHMENTS = 'cni.dev/valid-attachments';

function parseValidAttachments(raw: JsonObject): readonly AttachmentKey[] | undefined {
  const isNamed = (key: string) => key.toLowerCase() === VALID_ATTACHMENTS;
  const name = Object.hasOwn(raw, VALID_ATTACHMENTS) ? VALID_ATTACHMENTS : Object.keys(raw).findLast(isNamed);
  if (name === undefined) return undefined;
  const list = raw[name] ?? [];
  if (!Array.isArray(list)) throw undecodableAttachments('', 'a list', list);
  return list.map((entry: unknown, position) => {
    if (!isJsonObject(entry)) throw undecodableAttachments(`[${position}]`, 'an object', entry);
    const { containerID, ifname } = pickKeys(entry, ['containerID', 'ifname']);
    if (typeof containerID !== 'string') {
      throw undecodableAttachments(`[${position}].containerID`, 'a string', containerID);
    }
    if (typeof ifname !== 'string') throw undecodableAttachments(`[${position}].ifname`, 'a string', ifname);
    return { containerId: containerID, ifname };
  });
}

function undecodableAttachments(path: string, expected: string, value: unknown): CniError {
  const field = quote(`${VALID_ATTACHMENTS}${path}`);
  return decodingFailure(
    `Field ${field} of ${CONFIG} must be ${expected}, not ${quote(value)}; nothing was removed`,
  );
}
