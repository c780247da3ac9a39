// Runs one packaged plugin inside a private host as a runtime does: CNI_* variables, config on stdin.
// Called through `host.runPlugin` by the binary tests and the demo.
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { execa } from 'execa';
import { type Finished, HOST_PATH, type Place } from './place.ts';

export type Verb = 'ADD' | 'DEL' | 'CHECK' | 'GC' | 'STATUS' | 'VERSION';

export interface PluginCall {
  /** Name of the executable, `bridge` unless said otherwise. */
  readonly plugin?: string;
  /** Directory of the executable, which is also CNI_PATH; the plugins under test unless said otherwise. */
  readonly directory?: string;
  /** Standard input: text and bytes go as they are, anything else as JSON. */
  readonly config?: unknown;
  readonly containerId?: string;
  readonly netns?: string;
  readonly ifname?: string;
  /** CNI_ARGS */
  readonly args?: string;
  /** More variables; `undefined` takes one away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
}

export interface PluginOutcome extends Finished {
  /** Wall time from fork to the end of the process, in milliseconds. */
  readonly ms: number;
}

/** A result in the shape of CNI 1.0 and 1.1, as far as tests look at it. */
export interface CniResult {
  readonly cniVersion: string;
  readonly interfaces?: readonly {
    readonly name: string;
    readonly mac?: string;
    readonly sandbox?: string;
  }[];
  readonly ips?: readonly {
    readonly address: string;
    readonly gateway?: string;
    readonly interface?: number;
  }[];
  readonly routes?: readonly { readonly dst: string; readonly gw?: string }[];
  readonly dns?: { readonly nameservers?: readonly string[]; readonly search?: readonly string[] };
}

export interface CniErrorReport {
  readonly cniVersion?: string;
  readonly code: number;
  readonly msg: string;
  readonly details?: string;
}

/** The directory of the plugins under test: PATCHBAY_PLUGIN_DIR, or dist/bin of this checkout. */
export function pluginDirectory(): string {
  const directory = process.env['PATCHBAY_PLUGIN_DIR'] ?? join(import.meta.dirname, '../../dist/bin');
  if (!existsSync(join(directory, 'bridge'))) {
    throw new Error(`There is no plugin in "${directory}": run "npm run build" first`);
  }
  return resolve(directory);
}

/**
 * Runs a verb and returns everything that came of it; no exit code throws.
 * The time is taken inside the host, around fork, exec and wait, so entering the namespaces does not count.
 */
export async function runPlugin(
  host: Place,
  verb: Verb | undefined,
  call: PluginCall,
): Promise<PluginOutcome> {
  const [program, args] = host.entering('bash', ['--norc', '-c', TIMED, executableOf(call)]);
  const { exitCode, stdout, stderr, stdio, cause } = await execa(program, args, {
    reject: false,
    extendEnv: false,
    env: environmentOf(verb, call),
    input: encodeConfig(call.config),
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    stripFinalNewline: false,
  });
  if (exitCode === undefined) throw new Error(`The plugin did not end by itself`, { cause });
  return { exitCode, stdout, stderr, ms: Number(stdio[3]) / 1000 };
}

/** The file that a call runs. */
export function executableOf({ directory = pluginDirectory(), plugin = 'bridge' }: PluginCall): string {
  return join(directory, plugin);
}

/** The environment that a call is made with. */
export function environmentOf(
  verb: Verb | undefined,
  call: PluginCall,
): Readonly<Record<string, string | undefined>> {
  return {
    PATH: HOST_PATH,
    CNI_COMMAND: verb,
    CNI_CONTAINERID: call.containerId,
    CNI_NETNS: call.netns,
    CNI_IFNAME: call.ifname,
    CNI_ARGS: call.args,
    CNI_PATH: call.directory ?? pluginDirectory(),
    ...call.env,
  };
}

/** The result of a verb that must have succeeded; throws with both streams otherwise. */
export function expectResult(outcome: Finished): CniResult {
  expectSuccess(outcome);
  return JSON.parse(outcome.stdout) as CniResult;
}

/** Throws with both streams unless the verb succeeded. */
export function expectSuccess(outcome: Finished): void {
  if (outcome.exitCode === 0) return;
  throw new Error(
    `The plugin exited with ${outcome.exitCode}\nstdout: ${outcome.stdout}\nstderr: ${outcome.stderr}`,
  );
}

/** The one error document of a verb that must have failed in the way CNI prescribes; throws otherwise. */
export function expectError(outcome: Finished): CniErrorReport {
  const said = `exit code ${outcome.exitCode}\nstdout: ${outcome.stdout}\nstderr: ${outcome.stderr}`;
  if (outcome.exitCode !== 1) throw new Error(`The plugin should have failed with exit code 1, but: ${said}`);
  const report = parseOrUndefined(outcome.stdout);
  if (!isErrorReport(report))
    throw new Error(`Standard output should be one CNI error document, but: ${said}`);
  return report;
}

// $EPOCHREALTIME costs no process; the separator in it depends on the locale. File descriptor 3 stays with
// bash.
const TIMED = `
  start=$EPOCHREALTIME
  "$0" "$@" 3>&-
  code=$?
  end=$EPOCHREALTIME
  echo $(( \${end/[.,]/} - \${start/[.,]/} )) >&3
  exit $code
`;

/** Standard input of a call: text and bytes as they are, anything else as JSON. */
export function encodeConfig(config: unknown): string | Uint8Array {
  if (config === undefined) return '';
  if (typeof config === 'string' || config instanceof Uint8Array) return config;
  return JSON.stringify(config);
}

function parseOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isErrorReport(value: unknown): value is CniErrorReport {
  if (typeof value !== 'object' || value === null) return false;
  const { code, msg } = value as { code?: unknown; msg?: unknown };
  return typeof code === 'number' && code > 0 && typeof msg === 'string' && msg !== '';
}
