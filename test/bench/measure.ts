// Runs a scenario: opens a host for each lane, fills it, and takes the lanes' times in turn, verb by verb.
// Called by bench.ts.

import { findCnitool } from '../support/cnitool.ts';
import { connecting, openOutside } from './clients.ts';
import { type BenchHost, openBenchHost } from './host.ts';
import type { Finished, RunOrder } from './host-worker.ts';
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
  readonly lane: Lane['name'];
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
    runners.push(new Runner(host, lane, scenario.cycle, chained));
  }
  for (let round = -WARM_UP_ROUNDS; round < rounds; round++) {
    if (round >= 0) progress(`round ${round + 1} of ${rounds}`);
    for (const step of STEPS[scenario.cycle]) {
      // Who goes first changes: what the one before left to the kernel slows the one after.
      const order = round % 2 === 0 ? runners : runners.toReversed();
      for (const runner of order) await runner.run(step, { keep: round >= 0 });
    }
  }
  return { scenario: scenario.name, series: runners.flatMap((runner) => runner.series()) };
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

/** One lane on its host. It remembers the result of the last ADD, which CHECK and DEL are given as prevResult. */
class Runner {
  readonly #host: BenchHost;
  readonly #lane: Lane;
  readonly #cycle: Cycle;
  readonly #kept = new Map<string, Finished[]>();
  #prevResult: unknown;

  constructor(host: BenchHost, lane: Lane, cycle: Cycle, chained: unknown) {
    this.#host = host;
    this.#lane = lane;
    this.#cycle = cycle;
    this.#prevResult = chained;
  }

  async run(step: Step, { keep }: { keep: boolean }): Promise<void> {
    const finished = await this.#host.run(this.#orderOf(step));
    if (finished.exitCode !== 0) {
      const { exitCode, stdout, stderr } = finished;
      throw new Error(`${step.label} of ${this.#lane.name} ended with ${exitCode}: ${stdout}${stderr}`);
    }
    // The empty program prints nothing.
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
    const { implementation, shape, name } = this.#lane;
    if (verb === 'connect') return connecting(shape.ports);
    if (this.#cycle === 'chain')
      return chainInvocation(implementation, getCnitool(), verb, attachment, shape);
    if (this.#cycle === 'portmap') {
      const config = portmapConfigOf(shape, { prevResult: this.#prevResult });
      return invocation(implementation, 'portmap', verb, attachment, config);
    }
    if (this.#cycle === 'patchbay') {
      const prevResult = verb === 'ADD' ? undefined : this.#prevResult;
      const plugin = name === 'empty program' ? 'empty' : 'patchbay';
      return invocation(implementation, plugin, verb, attachment, patchbayConfigOf(shape, { prevResult }));
    }
    const plugin =
      name === 'empty program' ? 'empty' : this.#cycle === 'host-local' ? 'host-local' : 'bridge';
    const prevResult = verb === 'CHECK' || verb === 'DEL' ? this.#prevResult : undefined;
    return invocation(implementation, plugin, verb, attachment, configOf(shape, { prevResult }));
  }
}

function getCnitool(): string {
  const cnitool = findCnitool();
  if (cnitool === undefined) throw new Error('cnitool is missing: without Go it cannot be built');
  return cnitool;
}
