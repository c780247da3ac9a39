// What a verb costs apart from time: programs started, and memory at its peak. Called by bench.ts.

import { openBenchHost } from './host.ts';
import {
  configOf,
  type Implementation,
  invocation,
  MEASURED,
  type NetworkShape,
  portmapConfigOf,
} from './network.ts';
import { attach } from './prefill.ts';

/** Of one verb. Memory is in MB (10⁶ bytes), of the largest process among it and what it started. */
export interface Footprint {
  readonly implementation: string;
  readonly plugin: 'bridge' | 'portmap';
  readonly verb: 'ADD' | 'CHECK' | 'DEL';
  readonly programs: number;
  readonly peakMb: number;
}

const VERBS = ['ADD', 'CHECK', 'DEL'] as const;
const ROUNDS = 3;
const REPORT = '/run/bench/report';
const STRACE = ['/usr/bin/strace', '-f', '-qq', '-e', 'trace=execve,execveat', '-o', REPORT];

// GNU time is small and forks: the peak the kernel reports of a child counts what it was before its exec, too, and
// the worker that starts it is a hundred megabytes.
const TIME = ['/usr/bin/time', '-f', '%M', '-o', REPORT];

/**
 * Runs the verbs of a plugin under strace, then under GNU time, on a host of their own. The largest of a few rounds
 * counts. What portmap is chained after is not part of it.
 */
export async function measureFootprint(
  implementation: Implementation,
  plugin: Footprint['plugin'],
  shape: NetworkShape,
): Promise<Footprint[]> {
  await using host = await openBenchHost();
  const chained =
    plugin === 'portmap'
      ? await attach(host, implementation, 'bridge', MEASURED, configOf(shape))
      : undefined;

  async function round(wrapper: readonly string[]): Promise<Map<string, string>> {
    const reports = new Map<string, string>();
    let prevResult: unknown;
    for (const verb of VERBS) {
      const config =
        plugin === 'portmap'
          ? portmapConfigOf(shape, { prevResult: chained })
          : configOf(shape, { prevResult });
      const order = invocation(implementation, plugin, verb, MEASURED, config);
      const finished = await host.run({ ...order, argv: [...wrapper, ...order.argv] });
      if (finished.exitCode !== 0) throw new Error(`${verb} failed under ${wrapper[0]}: ${finished.stdout}`);
      if (verb === 'ADD') prevResult = JSON.parse(finished.stdout);
      reports.set(verb, await host.shell(`cat ${REPORT}`));
    }
    return reports;
  }

  await round(TIME); // makes the bridge and the static rules: steady state from here
  const traces = await round(STRACE);
  const memory: Map<string, string>[] = [];
  for (let i = 0; i < ROUNDS; i++) memory.push(await round(TIME));
  return VERBS.map((verb) => ({
    implementation: implementation.name,
    plugin,
    verb,
    programs: countPrograms(traces.get(verb) ?? ''),
    peakMb: Math.max(...memory.map((reports) => (Number(reports.get(verb)) * 1024) / 1e6)),
  }));
}

// A program looked for along PATH fails with ENOENT before it is found: those are no starts.
function countPrograms(trace: string): number {
  return trace.split('\n').filter((line) => /execve(at)?\(.*= 0$|execve(at)? resumed>.*= 0$/.test(line))
    .length;
}
