// What a plugin is: a record of functions, told everything they need and free of process, stdin and stdout.
// Implemented by each plugin's index.ts through `definePlugin`; run by the dispatcher.
import { inPhase } from '../linux/phases.ts';
import type { Needs } from '../linux/privileges.ts';
import type { Attachment } from './attachment.ts';
import type { Command } from './environment.ts';
import type { AttachmentKey, NetworkConfig } from './network-config.ts';
import type { Result } from './result.ts';
import type { Tool } from './tool.ts';
import type { CniVersion } from './versions.ts';

/** All that a plugin's own config can come from. */
export interface ConfigSource {
  readonly network: NetworkConfig;
  /** CNI_ARGS as given; empty when unset. */
  readonly args: string;
  readonly command: Command;
}

export interface Call<C> {
  readonly config: C;
  readonly network: NetworkConfig;
  readonly ipam: IpamDelegate;
  /** The plugins of this executable that this one may run itself, by name. */
  readonly registry: (name: string) => AnyPlugin | undefined;
  /** Writes one line to stderr. */
  readonly log: (line: string) => void;
}

export interface AddCall<C> extends Call<C> {
  readonly attachment: Attachment;
  /** Path of the sandbox as given; it is not our own namespace, and may be no namespace at all. */
  readonly netns: string;
}

export interface CheckCall<C> extends Call<C> {
  readonly attachment: Attachment;
  readonly netns: string;
}

export interface DelCall<T> extends Call<T> {
  readonly attachment: Attachment;
  /** Undefined when the runtime gave none. */
  readonly netns: string | undefined;
}

export type StatusCall<C> = Call<C>;

export interface GcCall<T> extends Call<T> {
  /** Attachments to keep; undefined when the runtime said nothing about it, which is not "none". */
  readonly validAttachments: readonly AttachmentKey[] | undefined;
}

/**
 * The IPAM plugin of this call: same environment and stdin, the command of the method's name. `type` is the
 * config's `ipam.type`. An error of the IPAM plugin is thrown as the CniError it reported, code and all.
 */
export interface IpamDelegate {
  /**
   * The IPAM result in the current shape. When it throws, the IPAM plugin has been sent its DEL already (CNI
   * SPEC, section 4): arm the release *after* this returns.
   */
  add(type: string): Result;
  /** A `type` that no ADD can have used holds nothing, so it is logged and no error. */
  del(type: string): void;
  check(type: string): void;
  status(type: string): void;
  /** As `del` for a `type` that no ADD can have used. */
  gc(type: string): void;
}

/**
 * `C` is the config that ADD, CHECK and STATUS need; `T` what DEL and GC could understand of it. Every verb
 * may throw anything: a CniError keeps its code, the rest is translated by `toCniError`.
 */
export interface Plugin<C, T = C> {
  readonly name: string;
  readonly supportedVersions: readonly CniVersion[];
  /** Capabilities that nothing of this needs are given up at the start. */
  readonly needs: Needs;
  /** CHECK without `prevResult` is refused before `check` runs (CNI SPEC, section 2 "CHECK"). */
  readonly checkNeedsPrevResult?: boolean;
  /** Strict; throws `invalidConfig`, `unsupportedField` or `invalidEnvironment`. */
  readonly parseConfig: (source: ConfigSource) => C;
  /** Understands what it can and never throws: a wrong field must not keep anything from being cleaned up. */
  readonly parseTeardown: (source: ConfigSource) => T;
  readonly add: (call: AddCall<C>) => Result;
  readonly check: (call: CheckCall<C>) => void;
  /** Repeatable; what is gone already is success. */
  readonly del: (call: DelCall<T>) => void;
  readonly status: (call: StatusCall<C>) => void;
  readonly gc: (call: GcCall<T>) => void;
  /** What else the executable does, for people. */
  readonly tools?: readonly Tool[];
}

/** A call before the plugin has read its config. */
export type Unread<C extends Call<unknown>> = Omit<C, 'config'>;

/** A plugin whose config types are its own business: each verb reads its config, then acts. */
export interface AnyPlugin {
  readonly name: string;
  readonly supportedVersions: readonly CniVersion[];
  readonly needs: Needs;
  readonly checkNeedsPrevResult: boolean;
  /** Reads the config for ADD, CHECK and STATUS, and does nothing yet. Throws what they would throw about it. */
  readonly read: (source: ConfigSource) => ReadPlugin;
  readonly add: (source: ConfigSource, call: Unread<AddCall<unknown>>) => Result;
  readonly check: (source: ConfigSource, call: Unread<CheckCall<unknown>>) => void;
  readonly del: (source: ConfigSource, call: Unread<DelCall<unknown>>) => void;
  readonly status: (source: ConfigSource, call: Unread<StatusCall<unknown>>) => void;
  readonly gc: (source: ConfigSource, call: Unread<GcCall<unknown>>) => void;
  readonly tools: readonly Tool[];
}

/** A plugin that has read its config. What a call says besides may have come later, such as the result before it. */
export interface ReadPlugin {
  readonly add: (call: Unread<AddCall<unknown>>) => Result;
  readonly check: (call: Unread<CheckCall<unknown>>) => void;
  readonly status: (call: Unread<StatusCall<unknown>>) => void;
}

/** Hides the config types of a plugin, so that plugins of any kind fit one registry. */
export function definePlugin<C, T>(plugin: Plugin<C, T>): AnyPlugin {
  const read = (source: ConfigSource): ReadPlugin => {
    const config = inPhase('config', () => plugin.parseConfig(source));
    return {
      add: (call) => plugin.add({ ...call, config }),
      check: (call) => plugin.check({ ...call, config }),
      status: (call) => plugin.status({ ...call, config }),
    };
  };
  const readTeardown = (source: ConfigSource): T => inPhase('config', () => plugin.parseTeardown(source));
  return {
    name: plugin.name,
    supportedVersions: plugin.supportedVersions,
    needs: plugin.needs,
    checkNeedsPrevResult: plugin.checkNeedsPrevResult ?? false,
    read,
    add: (source, call) => read(source).add(call),
    check: (source, call) => read(source).check(call),
    del: (source, call) => plugin.del({ ...call, config: readTeardown(source) }),
    status: (source, call) => read(source).status(call),
    gc: (source, call) => plugin.gc({ ...call, config: readTeardown(source) }),
    tools: plugin.tools ?? [],
  };
}
