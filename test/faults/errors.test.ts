// Every plugin of every chain when system calls fail, and when the kernel refuses what it is asked over netlink: ADD is
// all or nothing, DEL does what it can. Part of `npm test` with one error at a third of the points, and of
// `npm run test:faults` with all of them.
import { describe, expect, test } from 'vitest';
import { errnoOf } from '../../shared/linux/system-error.ts';
import { nameOf, STAGES, type Stage, shareOf, TOGETHER } from '../support/fault-chain.ts';
import {
  isAboutPrograms,
  isAboutRules,
  isNetlink,
  listPoints,
  type Point,
  runAnswered,
  runRefused,
  textOf,
  untilMet,
} from '../support/fault-points.ts';
import { pick, report, TIMEOUT, thin } from '../support/fault-scale.ts';
import {
  delChain,
  finishChain,
  leftovers,
  openLanes,
  type Progress,
  reach,
  type Scene,
  settle,
} from '../support/fault-scene.ts';
import { expectError } from '../support/run-plugin.ts';
import type { Traced } from '../support/strace.ts';

const ERRORS = ['ENOMEM', 'EBUSY', 'EEXIST', 'ENOSPC', 'EROFS', 'EPERM'] as const;

/** What a call or the kernel says when there is nothing wrong but the moment. */
const TRANSIENT = ['EINTR', 'EAGAIN'] as const;

/** `call`: the system call fails. `answer`: it succeeds, and the kernel answers with an error. */
type How = 'call' | 'answer';

interface Trial {
  readonly point: Point;
  readonly how: How;
  readonly errno: string;
}

describe('when one call fails, or one answer is a refusal,', () => {
  test.for(STAGES.filter(([, { verb }]) => verb === 'ADD'))('%s is all or nothing', TIMEOUT, ([, stage]) =>
    tryAll(stage, expectAllOrNothing),
  );

  test.for(STAGES.filter(([, { verb }]) => verb === 'DEL'))('%s does the rest', TIMEOUT, ([, stage]) =>
    tryAll(stage, expectTheRest),
  );
});

type Expectation = (scene: Scene, progress: Progress, outcome: Traced, trial: Trial) => Promise<void>;

async function tryAll(stage: Stage, expectation: Expectation): Promise<void> {
  await using lanes = await openLanes(stage.chain);
  const trials = trialsOf(await pointsOf(lanes.first, stage));
  const problems = await lanes.run(trials, async (scene, trial) => {
    const where = `${trial.errno} from ${trial.how} ${textOf(trial.point)}`;
    try {
      const [progress, outcome] = await untilMet(() => strike(scene, stage, trial));
      await expectation(scene, progress, outcome, trial);
      return undefined;
    } catch (error) {
      return `${where}: ${error instanceof Error ? error.message : String(error)}`;
    }
  });
  report(nameOf(stage), { faults: trials.length, 'met as promised': trials.length - problems.length });
  expect(problems).toEqual([]);
  expect(trials.length).toBeGreaterThan(0);
  await lanes.expectSettings();
}

// What is written to a program fails when the program has ended, and that is tried where it is started.
async function pointsOf(scene: Scene, stage: Stage): Promise<readonly Point[]> {
  const { call, result } = await reach(scene, stage);
  const points = await listPoints(scene.host, stage.verb, call);
  await delChain(scene, result);
  return shareOf(stage.chain, points).filter((point) => point.call !== undefined);
}

function trialsOf(points: readonly Point[]): Trial[] {
  return thin(points, 3).flatMap((point, turn) => {
    const ways: readonly How[] = point.answer === undefined ? ['call'] : ['call', 'answer'];
    return pick(
      [...ERRORS, ...TRANSIENT].flatMap((errno) => ways.map((how) => ({ point, how, errno }))),
      turn * STRIDE,
    );
  });
}

// Prime to the number of ways at any point, and long enough to meet calls, answers, and all errors in turn.
const STRIDE = 5;

/** How far the stage had come, and what came of it; undefined, and the scene as before, when the fault was not met. */
async function strike(
  scene: Scene,
  stage: Stage,
  { point, how, errno }: Trial,
): Promise<[Progress, Traced] | undefined> {
  const progress = await reach(scene, stage);
  const { call, result } = progress;
  const outcome =
    how === 'call'
      ? await runRefused(scene.host, stage.verb, call, point, errno)
      : await runAnswered(scene.host, stage.verb, call, point, errnoOf(errno));
  if (outcome !== undefined) return [progress, outcome];
  await delChain(scene, result);
  await settle(scene);
  return undefined;
}

// After a failure the first plugin leaves the host as it was, and any other leaves what those before it have made.
async function expectAllOrNothing(scene: Scene, progress: Progress, outcome: Traced, trial: Trial) {
  if (outcome.exitCode === 0) {
    const result = await finishChain(scene, progress, outcome);
    await delChain(scene, result);
  } else {
    expectNamed(outcome, trial);
    expect(outcome.stderr).not.toMatch(/after a failure/);
    await delChain(scene, progress.result, undefined, progress.stage.position);
  }
  expect(await leftovers(scene)).toEqual([]);
}

async function expectTheRest(scene: Scene, progress: Progress, outcome: Traced, trial: Trial) {
  if (outcome.exitCode !== 0) {
    expectNamed(outcome, trial);
    if (progress.stage.position === 0) expectOnly(await leftovers(scene), progress.stage, trial);
  }
  await delChain(scene, progress.result);
  expect(await leftovers(scene)).toEqual([]);
}

// What the fault was about may be left, and the addresses of a link that could not be deleted; nothing else. A port that is
// published still must not lead to somebody else, so patchbay keeps the addresses for its rules as well.
function expectOnly(left: readonly string[], { chain }: Stage, { point }: Trial): void {
  const ofRules = isAboutRules(point) || isAboutPrograms(point);
  const ofLinks = isNetlink(point) && !ofRules;
  const kinds = new Set(
    left.map((line) =>
      /^[-+] (nft|ip6?tables-save)/.test(line) ? 'rules' : line.startsWith('+ file') ? 'store' : 'links',
    ),
  );
  if (!ofRules) expect(kinds).not.toContain('rules');
  if (!ofLinks) expect(kinds).not.toContain('links');
  if (ofRules && chain !== TOGETHER) expect(kinds).not.toContain('store');
}

// An error that cannot be printed on stdout is told on stderr.
function expectNamed(outcome: Traced, { point, errno, how }: Trial): void {
  const { msg, details = '' } =
    point.label === 'write stdout' ? { msg: outcome.stderr } : expectError(outcome);
  expect(`${msg} ${details}`).toContain(errno);
  if (how === 'call') expect(TRANSIENT, 'errors that are tried again').not.toContain(errno);
}
