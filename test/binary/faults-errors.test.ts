// Bridge, host-local and portmap when system calls fail, and when the kernel refuses what it is asked over netlink: ADD
// is all or nothing, DEL does what it can. Part of `npm run test:binary`; PATCHBAY_FAULTS=full tries every error at
// every point.
import { describe, expect, test } from 'vitest';
import { errnoOf } from '../../shared/linux/system-error.ts';
import { isNetlink, listPoints, type Point, runAnswered, runRefused } from '../support/fault-points.ts';
import { pick } from '../support/fault-scale.ts';
import {
  bridgeCall,
  delChain,
  finishChain,
  leftovers,
  nameOf,
  openLanes,
  type Progress,
  reach,
  type Scene,
  STAGES,
  type Stage,
} from '../support/fault-scene.ts';
import { expectError, expectSuccess } from '../support/run-plugin.ts';
import { type Traced, wasInjected } from '../support/strace.ts';

const TIMEOUT = { timeout: 1_800_000 };

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
  test.for(STAGES.filter(({ verb }) => verb === 'ADD'))(
    '$verb of $plugin is all or nothing',
    TIMEOUT,
    (stage) => tryAll(stage, expectAllOrNothing),
  );

  test.for(STAGES.filter(({ verb }) => verb === 'DEL'))('$verb of $plugin does the rest', TIMEOUT, (stage) =>
    tryAll(stage, expectTheRest),
  );
});

type Expectation = (scene: Scene, progress: Progress, outcome: Traced, trial: Trial) => Promise<void>;

async function tryAll(stage: Stage, expectation: Expectation): Promise<void> {
  await using lanes = await openLanes();
  const trials = trialsOf(await pointsOf(lanes.first, stage));
  const problems = await lanes.run(trials, async (scene, trial) => {
    const where = `${trial.errno} from ${trial.how} ${trial.point.label} (${trial.point.when})`;
    try {
      const progress = await reach(scene, stage);
      const outcome = await strike(scene, progress, trial);
      await expectation(scene, progress, outcome, trial);
      return undefined;
    } catch (error) {
      return `${where}: ${error instanceof Error ? error.message : String(error)}`;
    }
  });
  console.log(
    `${nameOf(stage)}: ${trials.length} faults, ${trials.length - problems.length} as they should be`,
  );
  expect(problems).toEqual([]);
  expect(trials.length).toBeGreaterThan(20);
  await lanes.expectSettings();
}

async function pointsOf(scene: Scene, stage: Stage): Promise<Point[]> {
  const { call, result } = await reach(scene, stage);
  const points = await listPoints(scene.host, stage.verb, call);
  await delChain(scene, result);
  return points;
}

function trialsOf(points: readonly Point[]): Trial[] {
  return points.flatMap((point, turn) => [
    ...pick(ERRORS, turn).map((errno) => ({ point, how: 'call' as const, errno })),
    ...pick(TRANSIENT, turn).map((errno) => ({ point, how: 'call' as const, errno })),
    ...(point.answer === undefined
      ? []
      : pick([...ERRORS, ...TRANSIENT], turn + 1).map((errno) => ({ point, how: 'answer' as const, errno }))),
  ]);
}

async function strike({ host }: Scene, { stage, call }: Progress, trial: Trial): Promise<Traced> {
  const { point, how, errno } = trial;
  const outcome =
    how === 'call'
      ? await runRefused(host, stage.verb, call, point, errno)
      : await runAnswered(host, stage.verb, call, point, errnoOf(errno));
  if (!wasInjected(outcome)) throw new Error('the fault was not met');
  return outcome;
}

// After a failure bridge leaves the host as it was, and portmap leaves what bridge has made.
async function expectAllOrNothing(scene: Scene, progress: Progress, outcome: Traced, trial: Trial) {
  if (outcome.exitCode === 0) {
    const result = await finishChain(scene, progress, outcome);
    await delChain(scene, result);
  } else {
    expectNamed(outcome, trial);
    expect(outcome.stderr).not.toMatch(/after a failure/);
    if (progress.result !== undefined) await delBridge(scene, progress);
  }
  expect(await leftovers(scene)).toEqual([]);
}

async function delBridge({ host, sandbox }: Scene, { result }: Progress): Promise<void> {
  expectSuccess(await host.runPlugin('DEL', bridgeCall(sandbox, result)));
}

async function expectTheRest(scene: Scene, progress: Progress, outcome: Traced, trial: Trial) {
  if (outcome.exitCode !== 0) {
    expectNamed(outcome, trial);
    if (progress.stage.plugin === 'bridge') expectOnly(await leftovers(scene), trial);
  }
  await delChain(scene, progress.result);
  expect(await leftovers(scene)).toEqual([]);
}

// What the fault was about may be left, and the addresses of a link that could not be deleted; nothing else.
function expectOnly(left: readonly string[], { point }: Trial): void {
  const isAboutRules = /NFNL|nftables/.test(point.label);
  const isAboutLinks = isNetlink(point) && !isAboutRules;
  const kinds = new Set(
    left.map((line) => (line.startsWith('+ nft') ? 'rules' : line.startsWith('+ file') ? 'store' : 'links')),
  );
  if (!isAboutRules) expect(kinds).not.toContain('rules');
  if (!isAboutLinks) expect(kinds).not.toContain('links');
  if (isAboutRules) expect(kinds).not.toContain('store');
}

// An error that cannot be printed on stdout is told on stderr.
function expectNamed(outcome: Traced, { point, errno, how }: Trial): void {
  const { msg, details = '' } =
    point.label === 'write stdout' ? { msg: outcome.stderr } : expectError(outcome);
  expect(`${msg} ${details}`).toContain(errno);
  if (how === 'call') expect(TRANSIENT, 'errors that are tried again').not.toContain(errno);
}
