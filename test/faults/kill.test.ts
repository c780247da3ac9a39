// Every plugin of every chain killed before and after every system call that changes something: whatever is left, DEL, a
// new ADD, and GC each come to a clean end. Part of `npm test` with a third of the places and one of these at
// each, in turn, and of `npm run test:faults` with all of them.
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { nameOf, STAGES, type Stage, shareOf } from '../support/fault-chain.ts';
import { listPoints, type Point, runKilled, type Side } from '../support/fault-points.ts';
import { IS_EVERY_KILL, pick, report, TIMEOUT, thin } from '../support/fault-scale.ts';
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

const SIDES: readonly Side[] = ['before', 'after'];

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
interface Trial {
  readonly point: Point;
  readonly side: Side;
  readonly recovery: Recovery;
}

describe('killed at any system call that changes something', () => {
  test.for(STAGES)('%s is made good by DEL, by ADD, by GC', TIMEOUT, async ([, stage]) => {
    await using lanes = await openLanes(stage.chain);
    const points = await pointsOf(lanes.first, stage);
    const trials = trialsOf(points);
    const missed: Trial[] = [];
    const problems = await lanes.run(trials, (scene, trial) => tryOnce(scene, stage, trial, missed));
    const killed = trials.length - missed.length;
    report(nameOf(stage), {
      points: points.length,
      'points killed': killed,
      converged: killed - problems.length,
      ...(missed.length > 0 && { missed: missed.length }),
    });
    expect(problems).toEqual([]);
    // Where programs are started, the number of writes before a point changes from run to run.
    expect(missed.length).toBeLessThanOrEqual(trials.length / 3);
    expect(points.length).toBeGreaterThan(1);
    await lanes.expectSettings();
  });
});

/** Only what changes something: dying at a question is dying after the change before it. */
async function pointsOf(scene: Scene, stage: Stage): Promise<readonly Point[]> {
  const { call, result } = await reach(scene, stage);
  const points = await listPoints(scene.host, stage.verb, call);
  await delChain(scene, result, { netns: true, prevResult: false });
  return shareOf(stage.chain, points).filter(({ isChange }) => isChange);
}

function trialsOf(points: readonly Point[]): Trial[] {
  const all = points.flatMap((point) => SIDES.map((side) => ({ point, side })));
  const places = thin(all, 3, IS_EVERY_KILL);
  return places.flatMap((place, turn) =>
    pick(RECOVERIES, turn, IS_EVERY_KILL).map((recovery) => ({ ...place, recovery })),
  );
}

/** Tells what went wrong, undefined when nothing did. */
async function tryOnce(
  scene: Scene,
  stage: Stage,
  trial: Trial,
  missed: Trial[],
): Promise<string | undefined> {
  const { point, side, recovery } = trial;
  const where = `killed ${side} ${point.label} (${point.when}), then ${recovery.name}`;
  try {
    const progress = await killAt(scene, stage, point, side);
    if (progress === undefined) {
      missed.push(trial);
      return undefined;
    }
    await programsEnded(scene);
    expectWholeRecords(scene);
    await recovery.run(scene, progress);
    const left = await leftovers(scene);
    return left.length === 0 ? undefined : `${where}: ${left.join('\n  ')}`;
  } catch (error) {
    return `${where}: ${error instanceof Error ? error.message : String(error)}`;
  }
}

const SHOTS = 5;

/** How far the stage had come when it was killed; undefined when the point was not met in any of five runs. */
async function killAt(scene: Scene, stage: Stage, point: Point, side: Side): Promise<Progress | undefined> {
  for (let shot = 1; shot <= SHOTS; shot += 1) {
    const progress = await reach(scene, stage);
    if ((await runKilled(scene.host, stage.verb, progress.call, point, side)) !== undefined) return progress;
    await programsEnded(scene);
    await delChain(scene, progress.result);
    await settle(scene);
  }
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
