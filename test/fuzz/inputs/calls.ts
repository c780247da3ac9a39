// Whole calls as a runtime makes them: a plugin, its environment, and the bytes on its standard input.
// Used by the targets that go through the dispatcher, and on the packaged executables by black-box.ts.
import fc from 'fast-check';
import { configOf, PLUGINS, type PluginName } from './configs.ts';
import { jsonBytes } from './json.ts';
import { ipText, macText, oddText } from './values.ts';

export interface FuzzedCall {
  readonly plugin: PluginName;
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: Uint8Array;
}

/** A call of one plugin, or of any. */
export function callOf(plugins: readonly PluginName[] = PLUGINS): fc.Arbitrary<FuzzedCall> {
  const env = environment();
  return fc.oneof(
    ...plugins.map((plugin) =>
      fc.record({ plugin: fc.constant(plugin), env, stdin: jsonBytes(configOf(plugin)) }),
    ),
  );
}

/** The variables of a call; every one of them may be wrong or missing, most often none is. */
export function environment(): fc.Arbitrary<Record<string, string>> {
  return fc
    .record({
      CNI_COMMAND: variable(
        fc.constantFrom(
          'ADD',
          'ADD',
          'ADD',
          'ADD',
          'CHECK',
          'CHECK',
          'DEL',
          'DEL',
          'STATUS',
          'GC',
          'VERSION',
        ),
      ),
      CNI_CONTAINERID: variable(fc.constant('fuzzed')),
      CNI_NETNS: variable(mostly('/run/netns/fuzzed', NETNS)),
      CNI_IFNAME: variable(fc.constantFrom('eth0', 'eth0', 'net1')),
      CNI_ARGS: fc.option(cniArgs(), { nil: undefined }),
      CNI_PATH: variable(mostly(PLUGIN_DIRECTORY, PATHS)),
      CNI_NETNS_OVERRIDE: fc.constantFrom(undefined, undefined, undefined, '0', 'no', ''),
    })
    .map(asEnvironment);
}

/** As `callOf`, with variables that are about the process: what it tells beside its answer, and where. */
export function processCall(): fc.Arbitrary<FuzzedCall> {
  const surroundings = fc
    .record({
      PATCHBAY_TRACE: rare('netlink', 'nothing', ''),
      PATCHBAY_LOG: rare('/dev/null', '/run/odd/fifo', '/run/odd', '/nowhere/log', 'relative', 'journal', ''),
      TRACEPARENT: rare(
        '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        '00-0-0-0',
        '\n',
        'x'.repeat(5000),
      ),
    })
    .map(asEnvironment);
  return fc.tuple(callOf(), surroundings).map(([call, more]) => ({ ...call, env: { ...call.env, ...more } }));
}

/** CNI_ARGS: pairs of known and unknown keys, and what is no pair. */
export function cniArgs(): fc.Arbitrary<string> {
  const pair = fc.oneof(
    fc.constantFrom(
      'IgnoreUnknown=1',
      'IgnoreUnknown=true',
      'IgnoreUnknown=maybe',
      'K8S_POD_NAME=x',
      '',
      '=',
      'MAC',
      '__proto__=1',
    ),
    macText().map((mac) => `MAC=${mac}`),
    ipText().map((ip) => `IP=${ip}`),
    oddText(),
  );
  return fc
    .array(pair, { maxLength: 4 })
    .map((pairs) => ['IgnoreUnknown=1', ...pairs].slice(pairs.length % 2).join(';'));
}

/** Stands for the directory of the executables, which whoever runs the call knows. */
export const PLUGIN_DIRECTORY = '@plugins@';

const NETNS = [
  '/run/netns/nowhere',
  '/proc/self/ns/net',
  '/proc/1/ns/net',
  '/run/odd/fifo',
  '/run/odd/file',
  '/proc/self/ns/uts',
  '/dev/zero',
  '',
];

const PATHS = [`/nowhere:${PLUGIN_DIRECTORY}`, '/run/odd', ':', '/'];

function mostly(right: string, others: readonly string[]): fc.Arbitrary<string> {
  return fc.oneof(
    { weight: 10, arbitrary: fc.constant(right) },
    { weight: 1, arbitrary: fc.constantFrom(...others) },
  );
}

function rare(...values: readonly string[]): fc.Arbitrary<string | undefined> {
  return fc.oneof(
    { weight: 20, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.constantFrom(...values) },
  );
}

function variable(right: fc.Arbitrary<string>): fc.Arbitrary<string | undefined> {
  return fc.oneof(
    { weight: 60, arbitrary: right },
    { weight: 1, arbitrary: oddText() },
    { weight: 1, arbitrary: fc.constant(undefined) },
  );
}

// No variable can hold a NUL, and what is no Unicode arrives as the sign for that.
function asEnvironment(given: Readonly<Record<string, string | undefined>>): Record<string, string> {
  const env: Record<string, string> = {};
  for (const [name, value] of Object.entries(given)) {
    if (value !== undefined) env[name] = value.replaceAll('\0', '').toWellFormed();
  }
  return env;
}
