// The network configuration on stdin: the fields common to all plugins, decoded once.
// Called by the dispatcher; plugins get it with each call and read their own fields from `raw`.
import { isJsonObject, type JsonObject, parseJson, pickKeys } from './decode.ts';
import type { Command } from './environment.ts';
import { decodingFailure, incompatibleVersion, invalidConfig, quote } from './error.ts';
import { parseResult, type Result } from './result.ts';
import {
  CNI_VERSIONS,
  type CniVersion,
  isCniVersion,
  isVersionNumberAtLeast,
  OLDEST_VERSION,
} from './versions.ts';

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
  /** For DEL, STATUS and GC undefined as well when it can't be understood. */
  readonly prevResult: Result | undefined;
  /** GC: undefined only when the key is absent; null and [] say that nothing is valid. */
  readonly validAttachments: readonly AttachmentKey[] | undefined;
}
