// The scene for faults: a host with other people's things and a living attachment, and a chain of plugins that is hurt.
// Used by the faults tests; everything but the hurt attachment must be what it was after each round.
import { expect } from 'vitest';
import { type Chain, callsOf, gcCallsOf, type Known, type Stage, stagesOf } from './fault-chain.ts';
import { inParallel } from './fault-scale.ts';
import { installResolvConf } from './network-list.ts';
import type { Finished } from './place.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from './private-host.ts';
import { type CniResult, expectError, expectResult, expectSuccess, type PluginCall } from './run-plugin.ts';
import { difference, type Snapshot } from './snapshot.ts';
import { addSurroundings, listSettings } from './surroundings.ts';

/** Where attachments come and go. */
export interface Ground {
  readonly chain: Chain;
  readonly host: PrivateHost;
  /** Called `pod`, on no network between rounds. */
  readonly sandbox: Sandbox;
}

export interface Scene extends Ground, AsyncDisposable {
  /** What an attachment on the same network that lives through everything was told. */
  readonly resident: CniResult | undefined;
  /** What the host must be like after each round. */
  readonly before: Snapshot;
  /** Throws unless all network settings are what they were at the beginning. */
  expectSettings(): Promise<void>;
}

export const MAPPINGS: Known['mappings'] = [
  { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
  { hostPort: 5353, containerPort: 53, protocol: 'udp' },
];

const RESIDENT_MAPPINGS: Known['mappings'] = [{ hostPort: 9090, containerPort: 90, protocol: 'tcp' }];

/** Opens a host on which the network was used and is in use. */
export async function openScene(chain: Chain): Promise<Scene> {
  const host = await openPrivateHost();
  installResolvConf(host);
  await addSurroundings(host, chain.network.name);
  await host.shell(chain.prepare ?? ':');
  const sandbox = await host.addSandbox('pod');
  const { path } = await host.addSandbox('resident');
  const resident = await addChain(host, chain, {
    containerId: 'resident',
    netns: path,
    mappings: RESIDENT_MAPPINGS,
    prevResult: undefined,
  });
  await settle({ chain, host, sandbox });
  const settings = await listSettings(host);
  const before = await host.snapshot();
  return {
    chain,
    host,
    sandbox,
    resident,
    before,
    async expectSettings() {
      expect(await listSettings(host)).toEqual(settings);
    },
    [Symbol.asyncDispose]: () => host.close(),
  };
}

/** Scenes that work side by side. */
export interface Lanes extends AsyncDisposable {
  readonly first: Scene;
  /**
   * Runs a trial for each item on whichever scene is free, and gives what went wrong. A scene on which something did is
   * replaced, so that no trial is charged for another.
   */
  run<T>(
    items: readonly T[],
    trial: (scene: Scene, item: T) => Promise<string | undefined>,
  ): Promise<string[]>;
  expectSettings(): Promise<void>;
}

// Two cores, and a trial waits for grace periods of the kernel a good part of its time.
const LANES = 3;

export async function openLanes(chain: Chain): Promise<Lanes> {
  const scenes = await Promise.all(Array.from({ length: LANES }, () => openScene(chain)));
  const sceneOf = (lane: number) => scenes[lane] as Scene;
  return {
    first: sceneOf(0),
    async run(items, trial) {
      const outcomes = await inParallel(items, LANES, async (item, lane) => {
        const problem = await trial(sceneOf(lane), item);
        if (problem !== undefined) {
          await sceneOf(lane)[Symbol.asyncDispose]();
          scenes[lane] = await openScene(chain);
        }
        return problem;
      });
      return outcomes.filter((problem) => problem !== undefined);
    },
    async expectSettings() {
      for (const scene of scenes) await scene.expectSettings();
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(scenes.map((scene) => scene[Symbol.asyncDispose]()));
    },
  };
}

/** What the runtime knows of the attachment in that moment. */
export interface Progress {
  readonly stage: Stage;
  /** The call to make next. */
  readonly call: PluginCall;
  /** The result so far; undefined while the first plugin has given none. */
  readonly result: CniResult | undefined;
}

/** Does everything that comes before the stage. Throws when any of it fails. */
export async function reach(ground: Ground, stage: Stage): Promise<Progress> {
  const { host } = ground;
  const { verb, position } = stage;
  if (verb === 'ADD') {
    const result = await addPod(ground, undefined, { to: position });
    return { stage, call: callAt(ground, position, result), result };
  }
  const result = await addPod(ground, undefined);
  for (const call of calls(ground, result)
    .slice(position + 1)
    .reverse()) {
    expectSuccess(await host.runPlugin('DEL', call));
  }
  return { stage, call: callAt(ground, position, result), result };
}

/** Which plugins of a chain: `to` is the first that is not meant any more. */
interface Part {
  readonly from?: number;
  readonly to?: number;
}

/**
 * ADD of a chain, or of a part of it behind what gave `prevResult`; throws when a step fails. Gives the last result, and
 * that of before when there is nothing to add.
 */
export async function addChain(
  host: PrivateHost,
  chain: Chain,
  known: Known,
  { from = 0, to = 1 + chain.chained.length }: Part = {},
): Promise<CniResult | undefined> {
  let { prevResult } = known;
  for (let position = from; position < to; position += 1) {
    const call = callsOf(chain, { ...known, prevResult })[position] as PluginCall;
    prevResult = expectResult(await host.runPlugin('ADD', call));
  }
  return prevResult;
}

function addPod({ host, chain, sandbox }: Ground, prevResult: CniResult | undefined, part: Part = {}) {
  const known = { containerId: sandbox.name, netns: sandbox.path, mappings: MAPPINGS, prevResult };
  return addChain(host, chain, known, part);
}

/** How much of what it knew the runtime still knows. */
export interface Memory {
  readonly netns: boolean;
  readonly prevResult: boolean;
}

export const MEMORIES: readonly Memory[] = [
  { netns: true, prevResult: true },
  { netns: false, prevResult: false },
  { netns: true, prevResult: false },
  { netns: false, prevResult: true },
];

/** DEL of the whole chain, or of its first plugins alone, as a runtime sends it; every step must succeed. */
export async function delChain(
  ground: Ground,
  result: CniResult | undefined,
  memory: Memory = { netns: true, prevResult: true },
  count = Number.POSITIVE_INFINITY,
): Promise<void> {
  const known = memory.prevResult ? result : undefined;
  const netns = memory.netns ? ground.sandbox.path : '';
  for (const call of calls(ground, known, netns).slice(0, count).reverse()) {
    expectSuccess(await ground.host.runPlugin('DEL', call));
  }
}

/**
 * ADD of the whole chain once more. Either all of it succeeds, CHECKs included, or the first plugin refuses it with a
 * message that tells what to do. Gives the result, undefined after a refusal.
 */
export async function retryChain(ground: Ground): Promise<CniResult | undefined> {
  const [stage] = stagesOf(ground.chain) as [Stage];
  const call = callAt(ground, 0, undefined);
  const outcome = await ground.host.runPlugin('ADD', call);
  if (outcome.exitCode !== 0) {
    expect(expectError(outcome).msg).toMatch(/\bDEL\b/);
    return undefined;
  }
  return finishChain(ground, { stage, call, result: undefined }, outcome);
}

/**
 * What a runtime does when an ADD has succeeded after all: the rest of the chain, then CHECK of all plugins, of which
 * every step must succeed. Gives the result.
 */
export async function finishChain(
  ground: Ground,
  { stage }: Progress,
  outcome: Finished,
): Promise<CniResult> {
  const from = stage.position + 1;
  const result = (await addPod(ground, expectResult(outcome), { from })) as CniResult;
  for (const call of calls(ground, result)) expectSuccess(await ground.host.runPlugin('CHECK', call));
  return result;
}

/**
 * An attachment that comes and goes without a fault: what killed verbs left beside the store is put in order, so that the
 * next verb makes exactly the calls that were counted.
 */
export async function settle(ground: Ground): Promise<void> {
  await delChain(ground, await addPod(ground, undefined));
}

/** GC of all plugins with the resident alone on the list. */
export async function collect({ chain, host }: Ground): Promise<void> {
  for (const call of gcCallsOf(chain, ['resident'])) expectSuccess(await host.runPlugin('GC', call));
}

/**
 * What is different from the beginning. The index beside the store is made anew after a killed verb, so its files are no
 * state.
 */
export async function leftovers({ host, before }: Scene): Promise<string[]> {
  return difference(before, await host.snapshot()).filter((line) => !line.includes('/networks/.patchbay'));
}

/** The calls of the attachment that comes and goes, first plugin first. */
export function calls(
  { chain, sandbox }: Ground,
  prevResult: CniResult | undefined,
  netns = sandbox.path,
): PluginCall[] {
  return callsOf(chain, { containerId: sandbox.name, netns, mappings: MAPPINGS, prevResult });
}

function callAt(ground: Ground, position: number, prevResult: CniResult | undefined): PluginCall {
  return calls(ground, prevResult)[position] as PluginCall;
}
