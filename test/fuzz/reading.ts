// Calls that go through the dispatcher up to where a plugin would act: the plugin reads its config and goes on with what
// is pure. Used by the targets of the dispatcher and of each plugin's config.
import { findPlugin } from '../../plugins/registry.ts';
import { type DispatchIo, dispatch } from '../../shared/cni/dispatch.ts';
import type { AnyPlugin, ConfigSource } from '../../shared/cni/plugin.ts';
import type { Result } from '../../shared/cni/result.ts';
import { defineTarget } from './driver.ts';
import { callOf, type FuzzedCall } from './inputs/calls.ts';
import type { PluginName } from './inputs/configs.ts';
import { judge } from './judge.ts';
import { promise, type Target } from './target.ts';

/** What a plugin does before it acts. */
export interface Reader {
  /** What ADD, CHECK and STATUS decide; a result where ADD prints one. Throws typed errors. */
  readonly decide?: (source: ConfigSource, call: Decided) => Result | undefined;
  /** Never throws. */
  readonly parseTeardown?: (source: ConfigSource) => unknown;
}

/** Of which attachment the decision is. */
export interface Decided {
  readonly containerId: string;
  readonly ifname: string;
}

/** A target of calls to one plugin, whose config is read and decided on. */
export function configTarget(plugin: PluginName, weight: number, reader: Reader = {}): Target {
  return defineTarget({
    name: `${plugin} config`,
    weight,
    input: callOf([plugin]),
    run: (call) => runReading(call, reader),
  });
}

/** Makes the call; throws when it ends otherwise than a call may. */
export function runReading({ plugin, env, stdin }: FuzzedCall, reader: Reader = {}): string {
  const command = env['CNI_COMMAND'];
  const outcome = dispatch(readingOnly(plugin, reader), quietIo(env, stdin));
  if ((command ?? '') === '') {
    // A bare start greets on stderr.
    promise(outcome.stdout === '' && outcome.exitCode === 0, 'A bare start failed');
    return 'ok';
  }
  const end = judge(command, outcome);
  if (command === 'DEL' || command === 'GC') expectLenient(end, outcome.stdout);
  return end;
}

/** What a process would give the dispatcher, without anybody to read its stderr. */
export function quietIo(env: DispatchIo['env'], stdin: string | Uint8Array): DispatchIo {
  return {
    env,
    readStdin: () => Buffer.from(stdin),
    log: () => {},
    registry: findPlugin,
    ownExecutable: '/proc/self/exe',
    pid: 1,
    uptime: () => 0,
    version: '0.0.0',
  };
}

/** What may keep DEL and GC from acting: version, environment, stdin, the network's name, our own namespace. */
function expectLenient(end: string, stdout: string): void {
  const isNamed = end !== 'error 7' || stdout.includes('\\"name\\"');
  promise(
    isNamed && ['ok', 'error 1', 'error 4', 'error 6', 'error 7', 'error 8'].includes(end),
    `It refused ${stdout}`,
  );
}

function readingOnly(name: PluginName, { decide, parseTeardown }: Reader): AnyPlugin {
  const plugin = findPlugin(name);
  if (plugin === undefined) throw new Error(`There is no plugin "${name}"`);
  const read = (source: ConfigSource, call: Decided): Result => {
    plugin.read(source);
    return decide?.(source, call) ?? source.network.prevResult ?? {};
  };
  const tearDown = (source: ConfigSource): void => void parseTeardown?.(source);
  return {
    ...plugin,
    add: (source, { attachment }) => read(source, attachment),
    check: (source, { attachment }) => void read(source, attachment),
    status: (source) => void read(source, { containerId: 'none', ifname: 'none' }),
    del: tearDown,
    gc: tearDown,
  };
}
