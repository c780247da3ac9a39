// The scene for faults: a host with other people's things and a living attachment, and a chain of plugins that is hurt.
// Used by the faults tests; everything but the hurt attachment must be what it was after each round.
import { expect } from 'vitest';
import { type Attached, attach, withPrevResult } from './attachment.ts';
import { type Mapping, PORTS, type Published, portCallOf, publish, unpublish } from './chain.ts';
import { inParallel } from './fault-scale.ts';
import { type BridgeConfig, installResolvConf } from './network-list.ts';
import type { Finished } from './place.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from './private-host.ts';
import {
  type CniResult,
  expectError,
  expectResult,
  expectSuccess,
  type PluginCall,
  type Verb,
} from './run-plugin.ts';
import { difference, type Snapshot } from './snapshot.ts';
import { addSurroundings, listSettings } from './surroundings.ts';

/** Where attachments come and go. */
export interface Ground {
  readonly host: PrivateHost;
  /** Called `pod`, on no network between rounds. */
  readonly sandbox: Sandbox;
}

export interface Scene extends Ground, AsyncDisposable {
  /** An attachment with ports on the same network that lives through everything. */
  readonly resident: Published;
  /** What the host must be like after each round. */
  readonly before: Snapshot;
  /** Throws unless all network settings are what they were at the beginning. */
  expectSettings(): Promise<void>;
}

export const MAPPINGS: readonly Mapping[] = [
  { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
  { hostPort: 5353, containerPort: 53, protocol: 'udp' },
];

const RESIDENT_MAPPINGS: readonly Mapping[] = [{ hostPort: 9090, containerPort: 90, protocol: 'tcp' }];

/** Opens a host on which the network was used and is in use. */
export async function openScene(): Promise<Scene> {
  const host = await openPrivateHost();
  installResolvConf(host);
  await addSurroundings(host, PORTS.name);
  const sandbox = await host.addSandbox('pod');
  const resident = await publish(host, await host.addSandbox('resident'), RESIDENT_MAPPINGS);
  await unpublish(host, await publish(host, sandbox, MAPPINGS));
  const settings = await listSettings(host);
  const before = await host.snapshot();
  return {
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

export async function openLanes(): Promise<Lanes> {
  const scenes = await Promise.all(Array.from({ length: LANES }, openScene));
  const sceneOf = (lane: number) => scenes[lane] as Scene;
  return {
    first: sceneOf(0),
    async run(items, trial) {
      const outcomes = await inParallel(items, LANES, async (item, lane) => {
        const problem = await trial(sceneOf(lane), item);
        if (problem !== undefined) {
          await sceneOf(lane)[Symbol.asyncDispose]();
          scenes[lane] = await openScene();
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

/** The place of a plugin in the chain. */
export type Link = 'bridge' | 'portmap';

/** Where a runtime is when the fault strikes: the verb, the plugin, and what was made before. */
export interface Stage {
  readonly verb: 'ADD' | 'DEL';
  readonly plugin: Link;
}

const ADD_OF_BRIDGE: Stage = { verb: 'ADD', plugin: 'bridge' };

/** In the order in which a runtime comes to them. */
export const STAGES: readonly Stage[] = [
  ADD_OF_BRIDGE,
  { verb: 'ADD', plugin: 'portmap' },
  { verb: 'DEL', plugin: 'portmap' },
  { verb: 'DEL', plugin: 'bridge' },
];

/** What the runtime knows of the attachment in that moment. */
export interface Progress {
  readonly stage: Stage;
  /** The call to make next. */
  readonly call: PluginCall;
  /** The result so far; undefined while bridge has given none. */
  readonly result: CniResult | undefined;
}

/** Does everything that comes before the stage. Throws when any of it fails. */
export async function reach({ host, sandbox }: Ground, stage: Stage): Promise<Progress> {
  if (stage.verb === 'ADD' && stage.plugin === 'bridge') {
    return { stage, call: bridgeCall(sandbox, undefined), result: undefined };
  }
  if (stage.verb === 'ADD') {
    const attached = await attach(host, PORTS, sandbox);
    return { stage, call: portCallOf(attached, MAPPINGS), result: attached.result };
  }
  const { portCall, result } = await publish(host, sandbox, MAPPINGS);
  if (stage.plugin === 'portmap') return { stage, call: portCall, result };
  expectSuccess(await host.runPlugin('DEL', portCall));
  return { stage, call: bridgeCall(sandbox, result), result };
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

/** DEL of the whole chain, as a runtime sends it; every step must succeed. */
export async function delChain(
  scene: Ground,
  result: CniResult | undefined,
  memory: Memory = { netns: true, prevResult: true },
): Promise<void> {
  for (const call of delCalls(scene, result, memory)) expectSuccess(await scene.host.runPlugin('DEL', call));
}

/**
 * ADD of the whole chain once more. Either all of it succeeds, CHECKs included, or bridge refuses it with a message
 * that tells what to do. Gives the result, undefined after a refusal.
 */
export async function retryChain(scene: Ground): Promise<CniResult | undefined> {
  const call = bridgeCall(scene.sandbox, undefined);
  const outcome = await scene.host.runPlugin('ADD', call);
  if (outcome.exitCode !== 0) {
    expect(expectError(outcome).msg).toMatch(/\bDEL\b/);
    return undefined;
  }
  return finishChain(scene, { stage: ADD_OF_BRIDGE, call, result: undefined }, outcome);
}

/**
 * What a runtime does when an ADD has succeeded after all: the rest of the chain, then CHECK of both plugins, of which
 * every step must succeed. Gives the result.
 */
export async function finishChain(
  { host, sandbox }: Ground,
  { stage }: Progress,
  outcome: Finished,
): Promise<CniResult> {
  const result = expectResult(outcome);
  const attached: Attached = { call: bridgeCall(sandbox, undefined), result, ip4: '', ip6: '' };
  const portCall = portCallOf(attached, MAPPINGS);
  if (stage.plugin === 'bridge') expectSuccess(await host.runPlugin('ADD', portCall));
  expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
  expectSuccess(await host.runPlugin('CHECK', portCall));
  return result;
}

/**
 * An attachment that comes and goes without a fault: what killed verbs left beside the store is put in order, so that the
 * next verb makes exactly the calls that were counted.
 */
export async function settle({ host, sandbox }: Ground): Promise<void> {
  await unpublish(host, await publish(host, sandbox, MAPPINGS));
}

/** GC of both plugins with the resident alone on the list. */
export async function collect({ host }: Ground): Promise<void> {
  const list = { 'cni.dev/valid-attachments': [{ containerID: 'resident', ifname: 'eth0' }] };
  const { cniVersion, name } = PORTS;
  expectSuccess(await host.runPlugin('GC', { config: { ...PORTS, ...list } }));
  const config = { cniVersion, name, type: 'portmap', ...list };
  expectSuccess(await host.runPlugin('GC', { plugin: 'portmap', config }));
}

/**
 * What is different from the beginning. The index beside the store is made anew after a killed verb, so its files are no
 * state.
 */
export async function leftovers({ host, before }: Scene): Promise<string[]> {
  return difference(before, await host.snapshot()).filter((line) => !line.includes('/networks/.patchbay'));
}

/** The calls of a DEL, last plugin first. */
export function delCalls(
  { sandbox }: Ground,
  result: CniResult | undefined,
  memory: Memory,
): [portmap: PluginCall, bridge: PluginCall] {
  const known = memory.prevResult ? result : undefined;
  const netns = memory.netns ? sandbox.path : '';
  const bridge = { ...bridgeCall(sandbox, known), netns };
  const { cniVersion, name } = PORTS;
  const config = {
    cniVersion,
    name,
    type: 'portmap',
    runtimeConfig: { portMappings: MAPPINGS },
    ...(known && { prevResult: known }),
  };
  return [{ ...bridge, plugin: 'portmap', config }, bridge];
}

export function bridgeCall(sandbox: Sandbox, prevResult: CniResult | undefined): PluginCall {
  const config: BridgeConfig = prevResult === undefined ? PORTS : { ...PORTS, prevResult };
  return { plugin: 'bridge', config, containerId: sandbox.name, netns: sandbox.path, ifname: 'eth0' };
}

/** `ADD bridge`: how messages name a stage. */
export function nameOf({ verb, plugin }: { readonly verb: Verb; readonly plugin: Link }): string {
  return `${verb} ${plugin}`;
}
