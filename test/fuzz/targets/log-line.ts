// The line that the log gets of a failed call: one line, and without the values that the runtime handed in.
import fc from 'fast-check';
import { findPlugin } from '../../../plugins/registry.ts';
import { describeCall } from '../../../shared/cni/call-log.ts';
import { isJsonObject, parseJson } from '../../../shared/cni/decode.ts';
import { dispatch } from '../../../shared/cni/dispatch.ts';
import { CniError } from '../../../shared/cni/error.ts';
import { defineTarget } from '../driver.ts';
import { callOf } from '../inputs/calls.ts';
import { oddText } from '../inputs/values.ts';
import { quietIo } from '../reading.ts';
import { promise } from '../target.ts';

/** Stands for what nobody else may learn. It is no value of any field. */
const SECRET = 'hunter2-hunter2';

/** Fields that take text, and fields that do not. */
const PLACES = ['bridge', 'ipam', 'runtimeConfig', 'args', 'backend', 'sysctl', 'mtu', 'dns', 'prevResult'];

export const logLine = defineTarget({
  name: 'log line',
  weight: 4,
  input: fc.record({
    call: callOf(),
    place: fc.constantFrom(...PLACES),
    wrapping: fc.constantFrom('text', 'list', 'mac', 'name', 'longer'),
    around: oddText(),
    traceParent: fc.oneof(oddText(), fc.constant('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')),
  }),
  run({ call, place, wrapping, around, traceParent }) {
    const config = parse(call.stdin);
    if (config === undefined) return 'no config';
    const secretive = { ...config, cniVersion: '1.1.0', [place]: wrap(wrapping, around) };
    const args = `IgnoreUnknown=1;MAC=${SECRET}`;
    const error = errorOf(call.plugin, secretive, args);
    if (error === undefined) return 'no error';
    const line = JSON.stringify(
      describeCall({
        plugin: call.plugin,
        verb: 'ADD',
        network: 'fuzz',
        containerId: 'fuzzed',
        ifname: 'eth0',
        error,
        answer: 'printed',
        config: secretive,
        args,
        traceParent,
        duration: 1,
        phases: undefined,
        version: '0.0.0',
        pid: 1,
        time: 1e12,
      }),
    );
    promise(!line.includes(SECRET), `The log tells the secret: ${line}`);
    promise(!line.includes('\n') && line.length < 20_000, `It is no line: ${line.slice(0, 500)}`);
    return 'ok';
  },
});

function parse(stdin: Uint8Array): Readonly<Record<string, unknown>> | undefined {
  try {
    const value = parseJson(Buffer.from(stdin), 'a config');
    return isJsonObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

function wrap(wrapping: string, around: string): unknown {
  if (wrapping === 'list') return [SECRET];
  if (wrapping === 'mac') return { mac: SECRET, cni: { mac: SECRET, ips: [SECRET] }, ips: [SECRET] };
  if (wrapping === 'name') return { type: 'host-local', dataDir: SECRET, nameservers: SECRET, ips: SECRET };
  return wrapping === 'longer' ? `${around}${SECRET}${around}` : SECRET;
}

/** The error of an ADD whose config is read, as the dispatcher prints it. */
function errorOf(name: string, config: object, args: string): CniError | undefined {
  const plugin = findPlugin(name);
  if (plugin === undefined) throw new Error(`There is no plugin "${name}"`);
  const add = (source: Parameters<typeof plugin.read>[0]) => {
    plugin.read(source);
    return {};
  };
  const env = {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: 'fuzzed',
    CNI_NETNS: '/run/netns/nowhere',
    CNI_IFNAME: 'eth0',
    CNI_PATH: '/nowhere',
    CNI_ARGS: args,
  };
  const { stdout, exitCode } = dispatch({ ...plugin, add }, quietIo(env, JSON.stringify(config)));
  if (exitCode === 0) return undefined;
  const { code, msg, details } = JSON.parse(stdout) as { code: number; msg: string; details?: string };
  return new CniError(code, msg, details === undefined ? {} : { details });
}
