// Bridge, host-local and portmap killed before and after every system call that changes something: whatever is left,
// DEL, a new ADD, and GC each come to a clean end. Part of `npm run test:binary`; PATCHBAY_FAULTS=full tries every
// combination.
import { describe, expect, test } from 'vitest';
import { listPoints, type Point, runKilled, type Side } from '../support/fault-points.ts';
import { pick } from '../support/fault-scale.ts';
import {
  collect,
  delChain,
  leftovers,
  MEMORIES,
  nameOf,
  openLanes,
  type Progress,
  reach,
  retryChain,
  type Scene,
  STAGES,
  type Stage,
  settle,
} from '../support/fault-scene.ts';

const SIDES: readonly Side[] = ['before', 'after'];

const TIMEOUT = { timeout: 1_800_000 };

/** What is done after the kill; it must succeed, and leave nothing. */
interface Recovery {
  readonly name: string;
  run(scene: Scene, progress: Progress): Promise<void>;
}

const DELETIONS: readonly Recovery[] = MEMORIES.map((memory) => ({
  name: `DEL with ${JSON.stringify(memory)}`,
  run: (scene, { result }) => delChain(scene, result, memory),
}));

const ADDITION: Recovery = {
  name: 'ADD again',
  async run(scene, { result }) {
    await delChain(scene, (await retryChain(scene)) ?? result);
  },
};

const COLLECTION: Recovery = { name: 'GC', run: collect };

/** One kill and what follows. */
interface Trial {
  readonly point: Point;
  readonly side: Side;
  readonly recovery: Recovery;
}

describe('killed at any system call that changes something', () => {
  test.for(STAGES)('$verb of $plugin is made good by DEL, by ADD, by GC', TIMEOUT, async (stage) => {
    await using lanes = await openLanes();
    const points = await pointsOf(lanes.first, stage);
    const trials = trialsOf(points);
    const problems = await lanes.run(trials, (scene, trial) => tryOnce(scene, stage, trial));
    const converged = trials.length - problems.length;
    console.log(
      `${nameOf(stage)}: ${points.length} points, ${trials.length} times killed, ${converged} converged`,
    );
    expect(problems).toEqual([]);
    expect(points.length).toBeGreaterThan(4);
    await lanes.expectSettings();
  });
});

/** Only what changes something: dying at a question is dying after the change before it. */
async function pointsOf(scene: Scene, stage: Stage): Promise<Point[]> {
  const { call, result } = await reach(scene, stage);
  const points = await listPoints(scene.host, stage.verb, call);
  await delChain(scene, result, { netns: true, prevResult: false });
  return points.filter(({ isChange }) => isChange);
}

function trialsOf(points: readonly Point[]): Trial[] {
  const places = points.flatMap((point) => SIDES.map((side) => ({ point, side })));
  return places.flatMap((place, turn) =>
    [...pick(DELETIONS, turn), ADDITION, COLLECTION].map((recovery) => ({ ...place, recovery })),
  );
}

/** Tells what went wrong, undefined when nothing did. */
async function tryOnce(scene: Scene, stage: Stage, trial: Trial): Promise<string | undefined> {
  const { point, side, recovery } = trial;
  const where = `killed ${side} ${point.label} (${point.when}), then ${recovery.name}`;
  try {
    const progress = await killAt(scene, stage, point, side);
    await recovery.run(scene, progress);
    const left = await leftovers(scene);
    return left.length === 0 ? undefined : `${where}: ${left.join('\n  ')}`;
  } catch (error) {
    return `${where}: ${error instanceof Error ? error.message : String(error)}`;
  }
}

const SHOTS = 5;

async function killAt(scene: Scene, stage: Stage, point: Point, side: Side): Promise<Progress> {
  for (let shot = 1; shot <= SHOTS; shot += 1) {
    const progress = await reach(scene, stage);
    if ((await runKilled(scene.host, stage.verb, progress.call, point, side)) !== undefined) return progress;
    await delChain(scene, progress.result);
    await settle(scene);
  }
  throw new Error(`The kill missed ${SHOTS} times`);
}
