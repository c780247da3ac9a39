// Every plugin of every chain killed right before and right after every system call that changes something: whatever is left, DEL, a
// new ADD, and GC each come to a clean end. Part of `npm test` with a third of the places and one of these at
// each, in turn, and of `npm run test:faults` with all of them.
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { nameOf, STAGES, type Stage, shareOf } from '../support/fault-chain.ts';
import {
  listPoints,
  type Place,
  type Point,
  placesOf,
  runKilled,
  textOf,
  untilMet,
} from '../support/fault-points.ts';
import { pick, report, TIMEOUT, thin } from '../support/fault-scale.ts';
import {
  collect,
  delChain,
  type Ground,
  leftovers,
  MEMORIES,
  openLanes,
  type Progress,
  reach,
  retryChain,
  type Scene,
  settle,
} from '../support/fault-scene.ts';

/** What is done after the kill; it must succeed, and leave nothing. */
interface Recovery {
  readonly name: string;
  run(scene: Scene, progress: Progress): Promise<void>;
}

const RECOVERIES: readonly Recovery[] = [
  ...MEMORIES.map((memory) => ({
    name: `DEL with ${JSON.stringify(memory)}`,
    run: (scene: Scene, { result }: Progress) => delChain(scene, result, memory),
  })),
  {
    name: 'ADD again',
    async run(scene, { result }) {
      await delChain(scene, (await retryChain(scene)) ?? result);
    },
  },
  { name: 'GC', run: collect },
];

/** One kill and what follows. */
interface Trial extends Place {
  readonly recovery: Recovery;
}

describe('killed at any system call that changes something', () => {
  test.for(STAGES)('%s is made good by DEL, by ADD, by GC', TIMEOUT, async ([, stage]) => {
    await using lanes = await openLanes(stage.chain);
    const points = await pointsOf(lanes.first, stage);
    const trials = trialsOf(points);
    const problems = await lanes.run(trials, (scene, trial) => tryOnce(scene, stage, trial));
    report(nameOf(stage), {
      points: points.filter(({ isChange }) => isChange).length,
      'points killed': trials.length,
      converged: trials.length - problems.length,
    });
    expect(problems).toEqual([]);
    expect(points.length).toBeGreaterThan(1);
    await lanes.expectSettings();
  });
});

async function pointsOf(scene: Scene, stage: Stage): Promise<readonly Point[]> {
  const { call, result } = await reach(scene, stage);
  const points = await listPoints(scene.host, stage.verb, call);
  await delChain(scene, result, { netns: true, prevResult: false });
  return shareOf(stage.chain, points);
}

function trialsOf(points: readonly Point[]): Trial[] {
  const places = thin(placesOf(points), 3);
  return places.flatMap((place, turn) => pick(RECOVERIES, turn).map((recovery) => ({ ...place, recovery })));
}

/** Tells what went wrong, undefined when nothing did. */
async function tryOnce(scene: Scene, stage: Stage, trial: Trial) {
  const { point, side, recovery } = trial;
  try {
    const progress = await untilMet(() => killAt(scene, stage, trial));
    await programsEnded(scene);
    expectWholeRecords(scene);
    await recovery.run(scene, progress);
    const left = await leftovers(scene);
    if (left.length > 0) throw new Error(left.join('\n  '));
    return undefined;
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    return `killed ${side} ${textOf(point)}, then ${recovery.name}: ${said}`;
  }
}

/** How far the stage had come when it was killed; undefined, and the scene as before, when it was not killed there. */
async function killAt(scene: Scene, stage: Stage, place: Place): Promise<Progress | undefined> {
  const progress = await reach(scene, stage);
  if ((await runKilled(scene.host, stage.verb, progress.call, place)) !== undefined) return progress;
  await programsEnded(scene);
  await delChain(scene, progress.result);
  await settle(scene);
  return undefined;
}

/** A helper program outlives the plugin that started it, and does or leaves what it was told. */
async function programsEnded({ host }: Ground): Promise<void> {
  const isHelper = (pid: string) => {
    try {
      return /^(ip6?tables|xtables)/.test(readFileSync(host.file(`/proc/${pid}/comm`), 'utf8'));
    } catch {
      return false;
    }
  };
  for (const deadline = Date.now() + 10_000; readdirSync(host.file('/proc')).some(isHelper); await delay(5)) {
    if (Date.now() > deadline) throw new Error('A helper program does not end');
  }
}

/** No address file is ever torn: it is there as a whole, or not. */
function expectWholeRecords({ host, chain }: Ground): void {
  const directory = host.file(`/var/lib/cni/networks/${chain.network.name}`);
  const names = readdirSync(directory).filter((name) => /^(10\.92\.0\.(?!250$)|fd00:)/.test(name));
  for (const name of names) {
    expect(readFileSync(`${directory}/${name}`, 'latin1'), name).toMatch(/^(pod|resident)\r\neth0$/);
  }
}
