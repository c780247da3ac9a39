// Carries out one group of the scale benchmark: opens a host for each lane, fills it, and takes the lanes' times in turn.
// Called by scale.ts.
import { setTimeout as delay } from 'node:timers/promises';
import type { Burst, Call, Look } from '../burst.ts';
import type { BenchHost } from '../host.ts';
import type { Implementation } from '../network.ts';
import { addForeignRules, crowdOf, storeAddresses } from '../prefill.ts';
import { type Contestant, type ScaleVerb, sandboxOf } from './contestants.ts';
import { attachOurs, imitateNetavark, imitateReference, linkCrowd } from './crowd.ts';
import { type ContestantName, type Group, type LaneName, PLAIN, type Scene } from './plan.ts';
import type { Memory, Round, Sample } from './state.ts';

export interface Effort {
  /** Rounds of each lane. */
  readonly rounds: number;
  /** Milliseconds after which a lane other than ours has had enough, whatever its rounds. */
  readonly budgetMs: number;
}

/** Everybody by name, and where the executables are that crowds are made with. */
export interface Cast {
  readonly contestants: ReadonlyMap<ContestantName, Contestant>;
  readonly implementations: ReadonlyMap<ContestantName, Implementation>;
  readonly netavark: string | undefined;
}

export interface Listener {
  /** What is going on, a few words. */
  readonly doing: (text: string) => void;
  readonly finished: (round: Round) => void;
}

// As in measure.ts: links, rules and namespaces are freed behind a program's back.
const SETTLE_MS = 8;
const WARM_UP_ROUNDS = 2;

/** Goes on behind the rounds that are there already. Throws Error when a verb of ours fails: a failure is no time. */
export async function measureGroup(
  group: Group,
  cast: Cast,
  earlier: readonly Round[],
  effort: Effort,
  { doing, finished }: Listener,
): Promise<void> {
  await using hosts = new AsyncDisposableStack();
  doing(`${group.name}: preparing`);
  // Side by side: each waits for programs most of the time, and there are thousands of links and rules to make.
  const lanes = await Promise.all(
    group.lanes.map(async (name) => {
      const contestant = contestantOf(cast, name);
      const scene = name === 'ours, empty node' ? PLAIN : group.scene;
      const host = hosts.use(await contestant.open());
      await prepare(host, contestant, scene, cast);
      doing(`${group.name}: prepared ${name}`);
      const own = earlier.filter((round) => round.lane === name);
      return new Lane(name, group, scene, contestant, host, own);
    }),
  );
  for (let turn = 0; ; turn++) {
    const waiting = lanes.filter((lane) => lane.wants(effort));
    if (waiting.length === 0) return;
    for (const lane of waiting) if (!lane.isWarm) await lane.warmUp();
    doing(`${group.name}: round ${turn + 1} of ${effort.rounds}`);
    // Who goes first changes: what the one before left to the kernel slows the one after.
    const order = turn % 2 === 0 ? waiting : waiting.toReversed();
    for (const round of await takeTurns(order, group)) finished(round);
  }
}

/** Verb by verb, so that what slows the machine for a moment meets all lanes; with many clients round by round. */
async function takeTurns(lanes: readonly Lane[], group: Group): Promise<Round[]> {
  if (group.kind !== 'latency') {
    const rounds: Round[] = [];
    for (const lane of lanes) rounds.push(await lane.runClients());
    return rounds;
  }
  for (const verb of ['ADD', 'CHECK', 'DEL'] as const) {
    for (const lane of lanes.filter((lane) => lane.has(verb))) await lane.runOnce(verb);
  }
  return lanes.map((lane) => lane.endRound());
}

async function prepare(
  host: BenchHost,
  contestant: Contestant,
  scene: Scene,
  { implementations, netavark }: Cast,
): Promise<void> {
  const { attachments, parallel, foreignRules, stored } = scene;
  const more = Array.from({ length: parallel - 1 }, (_, client) => sandboxOf(client + 1));
  await host.shell(more.map((name) => `ip netns add ${name}; ip -n ${name} link set lo up\n`).join(''));
  if (foreignRules > 0) await addForeignRules(host, foreignRules);
  await contestant.prepare(host, scene);
  const implementation = implementations.get(contestant.name);
  if (attachments > 0) {
    const { name } = contestant;
    if (name === 'ours' && implementation) await attachOurs(host, implementation, attachments);
    else if (implementation) {
      const backend = name === 'reference, nftables' ? 'nftables' : 'default';
      await imitateReference(host, implementation, backend, attachments);
    } else if (name === 'netavark' && netavark) await imitateNetavark(host, netavark, attachments);
    else await linkCrowd(host, attachments);
  }
  if (stored > 0) {
    const owners = crowdOf({ attachments: stored, networks: 1 });
    await storeAddresses(
      host,
      0,
      owners.map(({ attachment }) => attachment),
    );
  }
}

/** One contestant on its host. */
class Lane {
  readonly #name: LaneName;
  readonly #group: Group;
  readonly #scene: Scene;
  readonly #contestant: Contestant;
  readonly #host: BenchHost;
  #roundsDone: number;
  #spentMs: number;
  #isWarm = false;
  #bursts: Burst[] = [];

  constructor(
    name: LaneName,
    group: Group,
    scene: Scene,
    contestant: Contestant,
    host: BenchHost,
    earlier: readonly Round[],
  ) {
    this.#name = name;
    this.#group = group;
    this.#scene = scene;
    this.#contestant = contestant;
    this.#host = host;
    this.#roundsDone = earlier.length;
    this.#spentMs = earlier.reduce((sum, { samples, wallMs }) => sum + (wallMs ?? sumOf(samples)), 0);
  }

  get isWarm(): boolean {
    return this.#isWarm;
  }

  wants({ rounds, budgetMs }: Effort): boolean {
    return this.#roundsDone < rounds && this.#hasBudget(budgetMs);
  }

  has(verb: ScaleVerb): boolean {
    return this.#contestant.verbs.includes(verb);
  }

  /** The first rounds make bridge, tables, store and index, and fill the page cache. One is enough for the slow. */
  async warmUp(): Promise<void> {
    this.#isWarm = true;
    for (let round = 0; round < WARM_UP_ROUNDS; round++) {
      let tookMs = 0;
      for (const verb of this.#contestant.verbs)
        tookMs += (await this.#burst([[this.#call(verb, 0)]])).wallMs;
      if (tookMs > 2000) return;
    }
  }

  async runOnce(verb: ScaleVerb): Promise<void> {
    this.#bursts.push(await this.#burst([[this.#call(verb, 0)]]));
    await delay(SETTLE_MS);
  }

  endRound(): Round {
    const samples = this.#bursts.flatMap(({ calls, daemonCpuMs }) =>
      calls.map(({ label, wallMs, cpuMs }): Sample => [label, rounded(wallMs), rounded(cpuMs + daemonCpuMs)]),
    );
    const failures = failuresOf(this.#bursts);
    this.#bursts = [];
    return this.#count({ ...this.#head(), samples, ...failures });
  }

  /** All clients at once, each ADD and DEL in turn, some of them more than once where there are few clients. */
  async runClients(): Promise<Round> {
    const { parallel } = this.#scene;
    const isMemory = this.#group.kind === 'memory';
    const pairs = isMemory ? 1 : Math.max(2, Math.ceil(16 / parallel));
    const clients = Array.from({ length: parallel }, (_, client) =>
      Array.from({ length: pairs }, () => [this.#call('ADD', client), this.#call('DEL', client)]).flat(),
    );
    const burst = await this.#burst(clients, isMemory ? this.#contestant.directory : undefined);
    await delay(SETTLE_MS);
    return this.#count({
      ...this.#head(),
      samples: burst.calls.map(
        ({ label, wallMs, cpuMs }): Sample => [label, rounded(wallMs), rounded(cpuMs)],
      ),
      ...failuresOf([burst]),
      wallMs: rounded(burst.wallMs),
      daemonCpuMs: rounded(burst.daemonCpuMs),
      ...(isMemory && { memory: memoryOf(burst.looks, parallel) }),
    });
  }

  #count(round: Round): Round {
    this.#roundsDone++;
    this.#spentMs += round.wallMs ?? sumOf(round.samples);
    return round;
  }

  #head(): Pick<Round, 'group' | 'lane' | 'round'> {
    return { group: this.#group.name, lane: this.#name, round: this.#roundsDone };
  }

  #hasBudget(budgetMs: number): boolean {
    const isOurs = this.#contestant.name === 'ours';
    return isOurs || this.#roundsDone === 0 || this.#spentMs < budgetMs;
  }

  #call(verb: ScaleVerb, client: number): Call {
    return this.#contestant.call(verb, client, this.#scene);
  }

  async #burst(clients: readonly (readonly Call[])[], watch?: string): Promise<Burst> {
    const burst = await this.#host.burst({ clients, daemon: this.#contestant.daemon, watch });
    const failed = burst.calls.find(({ failure }) => failure !== undefined);
    if (failed !== undefined && this.#contestant.name === 'ours') {
      throw new Error(`${failed.label} of ours failed in "${this.#group.name}": ${failed.failure}`);
    }
    return burst;
  }
}

/** Pure. A mean is of moments when most of the clients had a process. */
export function memoryOf(looks: readonly Look[], clients: number): Memory {
  const most = looks.reduce((best, look) => (look.pssMb > best.pssMb ? look : best), {
    processes: 0,
    rssMb: 0,
    pssMb: 0,
  });
  const full = looks.filter(({ processes }) => processes >= 0.75 * clients);
  const largest = (of: (look: Look) => number) => Math.max(...full.map((look) => of(look) / look.processes));
  return {
    ...most,
    ...(full.length > 0 && {
      pssEachMb: rounded(largest(({ pssMb }) => pssMb)),
      rssEachMb: rounded(largest(({ rssMb }) => rssMb)),
    }),
  };
}

function failuresOf(bursts: readonly Burst[]): { failed: number; said?: string } {
  const failures = bursts.flatMap(({ calls }) => calls.flatMap(({ failure }) => failure ?? []));
  const [said] = failures;
  return { failed: failures.length, ...(said !== undefined && { said: said.slice(0, 300) }) };
}

function contestantOf({ contestants }: Cast, lane: LaneName): Contestant {
  const contestant = contestants.get(lane === 'ours, empty node' ? 'ours' : lane);
  if (contestant === undefined) throw new Error(`Nobody is called "${lane}"`);
  return contestant;
}

function sumOf(samples: readonly Sample[]): number {
  return samples.reduce((sum, [, wallMs]) => sum + wallMs, 0);
}

function rounded(ms: number): number {
  return Math.round(ms * 1000) / 1000;
}
