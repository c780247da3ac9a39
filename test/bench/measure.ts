// Runs a scenario: opens a host for each lane, fills it, and takes the lanes' times in turn, verb by verb.
// Called by bench.ts.

import { join } from 'node:path';
import { findCnitool } from '../support/cnitool.ts';
import { connecting, openOutside } from './clients.ts';
import { type BenchHost, openBenchHost } from './host.ts';
import type { Finished, RunOrder } from './host-worker.ts';
import { type LimitPrograms, makeLimitPrograms } from './limit/limit.ts';
import {
  type AttachmentAt,
  CHAIN_DIRECTORY,
  chainInvocation,
  chainListOf,
  configOf,
  invocation,
  MEASURED,
  patchbayConfigOf,
  patchbayListOf,
  portmapConfigOf,
  storeOf,
  type Verb,
} from './network.ts';
import {
  addForeignRules,
  attach,
  attachCrowd,
  crowdOf,
  imitateCrowd,
  publishCrowd,
  storeAddresses,
} from './prefill.ts';
import type { Cycle, Lane, Scenario } from './scenarios.ts';

/** The times of one lane's verb, in the order they were taken. Milliseconds. */
export interface Series {
  readonly lane: Lane['name'] | typeof FLOOR;
  readonly verb: string;
  readonly wallMs: readonly number[];
  readonly cpuMs: readonly number[];
}

export interface Measured {
  readonly scenario: string;
  readonly series: readonly Series[];
}

/** A verb of a round as the tables name it. */
interface Step {
  readonly label: string;
  readonly verb: Verb | 'connect';
  readonly attachment: AttachmentAt;
}

// The first rounds make bridge, tables, store and index, and fill the page cache.
const WARM_UP_ROUNDS = 2;

const UNKNOWN: AttachmentAt = { ...MEASURED, containerId: 'never-added' };
const ADD: Step = { label: 'ADD', verb: 'ADD', attachment: MEASURED };
const CHECK: Step = { label: 'CHECK', verb: 'CHECK', attachment: MEASURED };
const DEL: Step = { label: 'DEL', verb: 'DEL', attachment: MEASURED };
const STEPS: Readonly<Record<Cycle, readonly Step[]>> = {
  bridge: [ADD, CHECK, DEL, { ...DEL, label: 'DEL again' }],
  'bridge, once': [ADD, CHECK, DEL],
  'host-local': [ADD, CHECK, DEL, { ...DEL, label: 'DEL unknown', attachment: UNKNOWN }],
  portmap: [ADD, CHECK, DEL, { ...DEL, label: 'DEL again' }],
  patchbay: [ADD, CHECK, DEL],
  chain: [ADD, CHECK, DEL],
  connections: [{ ...ADD, label: 'connect', verb: 'connect' }],
  VERSION: [{ ...ADD, label: 'VERSION', verb: 'VERSION' }],
};

/** Takes the times of `rounds` rounds. Throws Error when a verb fails: a failure is not a time. */
export async function measure(
  scenario: Scenario,
  rounds: number,
  progress: (done: string) => void,
): Promise<Measured> {
  await using hosts = new AsyncDisposableStack();
  const runners: Runner[] = [];
  for (const lane of scenario.lanes) {
    progress(`preparing ${lane.name}`);
    const host = hosts.use(await openBenchHost());
    await prepare(host, lane);
    if (scenario.cycle === 'chain') {
      const list = lane.name === 'ours, one process' ? patchbayListOf(lane.shape) : chainListOf(lane.shape);
      await host.write([[`${CHAIN_DIRECTORY}/bench.conflist`, JSON.stringify(list)]]);
    }
    const chained = await chain(host, lane, scenario.cycle);
    const programs =
      lane.name === 'bare calls in C' ? hosts.use(await makePrograms(host, lane, scenario.cycle)) : undefined;
    runners.push(new Runner(host, lane, scenario.cycle, { prevResult: chained, programs }));
  }
  for (let round = -WARM_UP_ROUNDS; round < rounds; round++) {
    if (round >= 0) progress(`round ${round + 1} of ${rounds}`);
    for (const step of STEPS[scenario.cycle]) {
      // Who goes first changes: what the one before left to the kernel slows the one after.
      const order = round % 2 === 0 ? runners : runners.toReversed();
      for (const runner of order) await runner.run(step, { keep: round >= 0 });
    }
  }
  return { scenario: scenario.name, series: withFloor(runners.flatMap((runner) => runner.series())) };
}

/** What a program of this kind cannot get below: its start, and the calls alone. */
export const FLOOR = 'empty program + bare calls in C';

/** Where both are there, their sum, round by round. Pure. */
export function withFloor(series: readonly Series[]): Series[] {
  const floors = series
    .filter(({ lane }) => lane === 'bare calls in C')
    .flatMap((calls): Series[] => {
      const start = series.find(({ lane, verb }) => lane === 'empty program' && verb === calls.verb);
      if (start === undefined) return [];
      const sum = (of: 'wallMs' | 'cpuMs') =>
        start[of].map((ms, round) => ms + (calls[of][round] ?? Number.NaN));
      return [{ lane: FLOOR, verb: calls.verb, wallMs: sum('wallMs'), cpuMs: sum('cpuMs') }];
    });
  return [...series, ...floors];
}

async function prepare(host: BenchHost, { name, implementation, shape, prefill }: Lane): Promise<void> {
  if (prefill.foreignRules > 0) await addForeignRules(host, prefill.foreignRules);
  if (prefill.attachments > 0) {
    const attachOurs = prefill.portsEach > 0 ? publishCrowd : attachCrowd;
    const fill = name === 'reference' ? imitateCrowd : attachOurs;
    await fill(host, implementation, shape, prefill);
  }
  if (prefill.stored > 0) {
    const owners = crowdOf({ ...prefill, attachments: prefill.stored });
    await storeAddresses(
      host,
      0,
      owners.map((member) => member.attachment),
    );
  }
}

// What portmap's verbs, or clients, find: the attachment by bridge, and for clients its ports as well.
async function chain(host: BenchHost, { implementation, shape }: Lane, cycle: Cycle): Promise<unknown> {
  if (cycle !== 'portmap' && cycle !== 'connections') return undefined;
  const prevResult = await attach(host, implementation, 'bridge', MEASURED, configOf(shape));
  if (cycle === 'connections') {
    await attach(host, implementation, 'portmap', MEASURED, portmapConfigOf(shape, { prevResult }));
    await openOutside(host, shape.ports);
  }
  return prevResult;
}

/** The system calls of ours, recorded on this host once our plugin has been there, as programs in C. */
async function makePrograms(host: BenchHost, lane: Lane, cycle: Cycle): Promise<LimitPrograms> {
  const call = (verb: Verb, prevResult: unknown) =>
    invocation(
      lane.implementation,
      pluginOf(lane, cycle),
      verb,
      MEASURED,
      configFor(lane, cycle, prevResult),
    );
  for (let round = 0; round < WARM_UP_ROUNDS; round++) {
    const { stdout } = await host.run(call('ADD', undefined));
    await host.run(call('DEL', JSON.parse(stdout)));
  }
  return makeLimitPrograms(host, call, `${storeOf(0)}/last_reserved_ip.0`);
}

function pluginOf({ name }: Lane, cycle: Cycle): 'bridge' | 'host-local' | 'patchbay' | 'empty' {
  if (name === 'empty program') return 'empty';
  return cycle === 'host-local' || cycle === 'patchbay' ? cycle : 'bridge';
}

function configFor({ shape }: Lane, cycle: Cycle, prevResult: unknown): unknown {
  return cycle === 'patchbay' ? patchbayConfigOf(shape, { prevResult }) : configOf(shape, { prevResult });
}

/** One lane on its host. It remembers the result of the last ADD, which CHECK and DEL are given as prevResult. */
class Runner {
  readonly #host: BenchHost;
  readonly #lane: Lane;
  readonly #cycle: Cycle;
  readonly #kept = new Map<string, Finished[]>();
  readonly #programs: LimitPrograms | undefined;
  #prevResult: unknown;

  constructor(
    host: BenchHost,
    lane: Lane,
    cycle: Cycle,
    { prevResult, programs }: { readonly prevResult: unknown; readonly programs: LimitPrograms | undefined },
  ) {
    this.#host = host;
    this.#lane = lane;
    this.#cycle = cycle;
    this.#prevResult = programs?.result ?? prevResult;
    this.#programs = programs;
  }

  async run(step: Step, { keep }: { keep: boolean }): Promise<void> {
    const finished = await this.#host.run(this.#orderOf(step));
    if (finished.exitCode !== 0) {
      const { exitCode, stdout, stderr } = finished;
      throw new Error(`${step.label} of ${this.#lane.name} ended with ${exitCode}: ${stdout}${stderr}`);
    }
    // The empty program prints nothing, and the calls in C what was recorded.
    if (step.verb === 'ADD' && finished.stdout !== '') this.#prevResult = JSON.parse(finished.stdout);
    // A client says itself how long it took: its own start is not of interest.
    const counted = step.verb === 'connect' ? { ...finished, wallMs: Number(finished.stdout) } : finished;
    if (keep) this.#kept.set(step.label, [...(this.#kept.get(step.label) ?? []), counted]);
  }

  series(): Series[] {
    return Array.from(this.#kept, ([verb, runs]) => ({
      lane: this.#lane.name,
      verb,
      wallMs: runs.map((run) => run.wallMs),
      cpuMs: runs.map((run) => run.cpuMs),
    }));
  }

  #orderOf({ verb, attachment }: Step): Omit<RunOrder, 'kind'> {
    const { implementation, shape } = this.#lane;
    if (verb === 'connect') return connecting(shape.ports);
    if (this.#cycle === 'chain')
      return chainInvocation(implementation, getCnitool(), verb, attachment, shape);
    if (this.#cycle === 'portmap') {
      const config = portmapConfigOf(shape, { prevResult: this.#prevResult });
      return invocation(implementation, 'portmap', verb, attachment, config);
    }
    const prevResult = verb === 'CHECK' || verb === 'DEL' ? this.#prevResult : undefined;
    const config = configFor(this.#lane, this.#cycle, prevResult);
    const order = invocation(implementation, pluginOf(this.#lane, this.#cycle), verb, attachment, config);
    return this.#programs === undefined ? order : { ...order, argv: [join(this.#programs.directory, verb)] };
  }
}

function getCnitool(): string {
  const cnitool = findCnitool();
  if (cnitool === undefined) throw new Error('cnitool is missing: without Go it cannot be built');
  return cnitool;
}
