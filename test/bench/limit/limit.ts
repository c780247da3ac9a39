// Makes the programs in C that do the bare kernel work of a plugin's verbs: records the verbs on a host and compiles
// what was recorded. Called by measure.ts for the lane that stands beside ours, and by the test that holds both together.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { BenchHost } from '../host.ts';
import type { RunOrder } from '../host-worker.ts';
import { parseRecording, RECORDING, type RecordedCall } from './recording.ts';
import { translate, type Varying } from './translate.ts';

export const LIMIT_VERBS = ['ADD', 'CHECK', 'DEL'] as const;
export type LimitVerb = (typeof LIMIT_VERBS)[number];

/** How a plugin is called; `prevResult` is what ADD printed. */
export type Invocation = (verb: LimitVerb, prevResult: unknown) => Omit<RunOrder, 'kind'>;

export interface LimitPrograms extends Disposable {
  /** Holds a program for each verb, named after it. */
  readonly directory: string;
  /** What ADD printed when it was recorded: the programs make that attachment. */
  readonly result: unknown;
  /** The two runs of each verb that were recorded. */
  readonly recordings: Readonly<
    Record<LimitVerb, readonly [readonly RecordedCall[], readonly RecordedCall[]]>
  >;
}

/** What is in the way of making them here, as a sentence; undefined when nothing is. */
export async function findLimitObstacle(): Promise<string | undefined> {
  const { exitCode } = await execa('cc', ['--version'], { reject: false });
  return exitCode === 0 ? undefined : 'there is no C compiler (Debian packages gcc and libc6-dev)';
}

const SOURCE = join(import.meta.dirname, 'limit.c');
const TRACE = '/run/bench/trace';
const ATTEMPTS = 5;

/**
 * Records the verbs twice on a host on which they have run before, and compiles them. `pointer` is host-local's file
 * with the address that was given last: both runs are to get the same address. What two runs send may differ in link
 * indexes and the like; in anything else that came in between (an event, a retry) it is recorded again.
 */
export async function makeLimitPrograms(
  host: BenchHost,
  invocation: Invocation,
  pointer: string,
): Promise<LimitPrograms> {
  const last = await host.shell(`cat ${pointer}`);
  for (let attempt = 1; ; attempt++) {
    const first = await record(host, invocation, 0);
    await host.shell(`printf %s ${last} > ${pointer}`); // in place: the directory must look untouched
    const second = await record(host, invocation, 1);
    await host.shell(`printf %s ${last} > ${pointer}`);
    try {
      return await compile(first, second);
    } catch (error) {
      if (attempt === ATTEMPTS) throw error;
    }
  }
}

interface Recorded {
  readonly result: unknown;
  readonly varying: Varying;
  readonly recordings: Record<LimitVerb, RecordedCall[]>;
}

/** `shift`: how many more descriptors are open than usual, so that messages which hold one give it away. */
async function record(host: BenchHost, invocation: Invocation, shift: 0 | 1): Promise<Recorded> {
  const recordings: Partial<Record<LimitVerb, RecordedCall[]>> = {};
  let result: unknown;
  let varying: Varying = { hostIndex: 0, sandboxIndex: 0 };
  for (const verb of LIMIT_VERBS) {
    const order = invocation(verb, result);
    const { lines, stdout } = await trace(host, order, shift);
    recordings[verb] = parseRecording(lines);
    if (verb !== 'ADD') continue;
    result = JSON.parse(stdout);
    varying = await indexesOf(host);
  }
  return { result, varying, recordings: recordings as Record<LimitVerb, RecordedCall[]> }; // all verbs had their turn
}

/** A program under strace: what it printed and what was written down. Throws Error when it fails. */
export async function trace(
  host: BenchHost,
  order: Omit<RunOrder, 'kind'>,
  shift: 0 | 1 = 0,
): Promise<{ readonly stdout: string; readonly lines: readonly string[] }> {
  const script = shift === 0 ? 'exec "$@"' : 'exec 9< /dev/null; exec "$@"';
  const strace = ['/usr/bin/strace', '-o', TRACE, ...RECORDING];
  const argv = ['/bin/bash', '--norc', '-c', script, 'bash', ...strace, ...order.argv];
  const { exitCode, stdout, stderr } = await host.run({ ...order, argv });
  if (exitCode !== 0) throw new Error(`${order.argv[0]} failed under strace: ${stdout}${stderr}`);
  return { stdout, lines: (await host.shell(`cat ${TRACE}`)).split('\n') };
}

// The bridge's newest port, and the sandbox's link.
async function indexesOf(host: BenchHost): Promise<Varying> {
  const text = await host.shell('ip -j link show type veth; ip -n s1 -j link show eth0');
  const [outside, inside] = text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { ifindex: number }[]);
  const hostIndex = Math.max(...(outside ?? []).map(({ ifindex }) => ifindex));
  return { hostIndex, sandboxIndex: inside?.[0]?.ifindex ?? 0 };
}

async function compile(first: Recorded, second: Recorded): Promise<LimitPrograms> {
  const directory = mkdtempSync(join(tmpdir(), 'patchbay-limit-'));
  const remove = () => rmSync(directory, { recursive: true, force: true });
  try {
    for (const verb of LIMIT_VERBS) {
      const calls = join(directory, `${verb}.inc`);
      const varying = [first.varying, second.varying] as const;
      writeFileSync(calls, translate(first.recordings[verb], second.recordings[verb], varying));
      const flags = ['-O2', '-static', '-Wall', '-Wno-stringop-truncation', `-DCALLS="${calls}"`];
      await execa('cc', [...flags, '-o', join(directory, verb), SOURCE]);
    }
  } catch (error) {
    remove();
    throw error;
  }
  const both = (verb: LimitVerb) => [first.recordings[verb], second.recordings[verb]] as const;
  const recordings = { ADD: both('ADD'), CHECK: both('CHECK'), DEL: both('DEL') };
  return { directory, result: first.result, recordings, [Symbol.dispose]: remove };
}
