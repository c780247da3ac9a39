// A plugin that records its calls and does what a test tells it, and a dispatcher around it without any
// process. Used by the tests of shared/cni.
import { type DispatchIo, dispatch, type Outcome } from '../../shared/cni/dispatch.ts';
import type { Command } from '../../shared/cni/environment.ts';
import {
  type AnyPlugin,
  type Call,
  type ConfigSource,
  definePlugin,
  type Plugin,
} from '../../shared/cni/plugin.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';

type Verbs = Omit<Plugin<ConfigSource>, 'name' | 'supportedVersions'>;

/** One call a fake plugin got: its verb, and all it was told. */
export interface Recorded {
  readonly verb: Command;
  readonly call: Call<ConfigSource> & { readonly [key: string]: unknown };
}

export interface FakePlugin {
  readonly plugin: AnyPlugin;
  readonly calls: readonly Recorded[];
}

/** A plugin whose config is the ConfigSource itself; every verb succeeds unless `verbs` says otherwise. */
export function fakePlugin(
  verbs: Partial<Verbs> & {
    readonly name?: string;
    readonly supportedVersions?: AnyPlugin['supportedVersions'];
  } = {},
): FakePlugin {
  const calls: Recorded[] = [];
  const record = (verb: Command) => (call: Call<ConfigSource>) =>
    void calls.push({ verb, call: { ...call } });
  const plugin = definePlugin<ConfigSource, ConfigSource>({
    name: 'fake',
    supportedVersions: CNI_VERSIONS,
    needs: { sandbox: 'enter', programs: 'run' },
    parseConfig: (source) => source,
    parseTeardown: (source) => source,
    ...verbs,
    add: (call) => {
      record('ADD')(call);
      return verbs.add?.(call) ?? { ips: [{ address: '10.1.0.2/16' }] };
    },
    check: (call) => {
      record('CHECK')(call);
      verbs.check?.(call);
    },
    del: (call) => {
      record('DEL')(call);
      verbs.del?.(call);
    },
    status: (call) => {
      record('STATUS')(call);
      verbs.status?.(call);
    },
    gc: (call) => {
      record('GC')(call);
      verbs.gc?.(call);
    },
  });
  return { plugin, calls };
}

/** A complete environment for any command. */
export const ENV = {
  CNI_COMMAND: 'ADD',
  CNI_CONTAINERID: 'c1',
  CNI_NETNS: '/run/netns/none-of-this-name',
  CNI_IFNAME: 'eth0',
  CNI_PATH: '/nowhere/cni/bin',
} as const;

export interface Dispatched extends Omit<Outcome, 'undo'> {
  readonly log: readonly string[];
  /** Stdout as JSON; undefined when it is empty. */
  readonly json: unknown;
}

/** Dispatches one call; `stdin` is bytes, text, or a value to be written as JSON. */
export function callPlugin(
  plugin: AnyPlugin,
  options: {
    readonly env?: Readonly<Record<string, string | undefined>>;
    readonly stdin?: unknown;
    readonly io?: Partial<DispatchIo>;
  } = {},
): Dispatched {
  const log: string[] = [];
  const outcome = dispatch(plugin, {
    env: { ...ENV, ...options.env },
    readStdin: () => toBytes(options.stdin ?? { cniVersion: '1.1.0', name: 'n1', type: 'fake' }),
    log: (line) => log.push(line),
    registry: () => undefined,
    ownExecutable: '/proc/self/exe',
    pid: 1,
    uptime: () => 0,
    version: '2.0.0',
    ...options.io,
  });
  const { stdout, exitCode } = outcome;
  return { stdout, exitCode, log, json: outcome.stdout === '' ? undefined : JSON.parse(outcome.stdout) };
}

function toBytes(stdin: unknown): Buffer {
  if (Buffer.isBuffer(stdin)) return stdin;
  return Buffer.from(typeof stdin === 'string' ? stdin : JSON.stringify(stdin));
}
