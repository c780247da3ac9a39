// The long run: `npm run fuzz -- [--seed N] [--state FILE] [--minutes N] [--cases N] [--black-box N] [--target NAME]`, and
// `npm run fuzz -- --replay TARGET:SEED:PATH` for one finding. Called by package.json; docs/fuzzing.md tells about it.
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { replayBlackBox, runBlackBox } from './black-box.ts';
import { type ChunkReport, type Finding, replay } from './driver.ts';
import { runInProcess } from './in-process.ts';
import { planChunks } from './schedule.ts';
import {
  BLACK_BOX,
  count,
  describeTotals,
  type FuzzState,
  loadState,
  saveState,
  tallyOf,
  totalsOf,
} from './state.ts';
import { TARGETS, targetNamed } from './targets.ts';

const STATE_FILE = join(import.meta.dirname, '../../node_modules/.cache/fuzz.json');
const PROGRESS_MS = 5000;

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    state: { type: 'string', default: STATE_FILE },
    minutes: { type: 'string', default: 'Infinity' },
    cases: { type: 'string', default: '2000000' },
    'black-box': { type: 'string', default: '20000' },
    target: { type: 'string' },
    replay: { type: 'string' },
  },
});

process.exitCode = values.replay === undefined ? await runAll() : await replayOne(values.replay);

async function runAll(): Promise<0 | 1> {
  const start = Date.now();
  const state = loadState(values.state, values.seed === undefined ? undefined : Number(values.seed));
  const before = state.seconds;
  const isTimeUp = (): boolean => Date.now() - start > Number(values.minutes) * 60_000;
  const keep = (): void => {
    state.seconds = before + (Date.now() - start) / 1000;
    saveState(values.state, state);
  };
  const progress = setInterval(() => console.log(describeProgress(state)), PROGRESS_MS);
  try {
    await fuzzInProcess(state, isTimeUp, keep);
    if (values.target === undefined || values.target === BLACK_BOX) await fuzzBlackBox(state, isTimeUp, keep);
  } finally {
    clearInterval(progress);
    keep();
  }
  console.log(describeTotals(state));
  for (const finding of state.findings) console.log(describeFinding(finding));
  if (isTimeUp()) console.log(`Stopped after ${values.minutes} minutes; the same command goes on from here`);
  return state.findings.length === 0 ? 0 : 1;
}

async function fuzzInProcess(state: FuzzState, isTimeUp: () => boolean, keep: () => void): Promise<void> {
  const targets = TARGETS.filter(({ name }) => values.target === undefined || name === values.target);
  if (targets.length === 0) return;
  const isResting = (name: string): boolean => state.findings.some(({ target }) => target === name);
  for (;;) {
    // A target with a finding rests: most of what it would find is the same.
    const chunks = planChunks(targets, state.seed, Number(values.cases)).filter(
      ({ target, chunk }) => chunk >= tallyOf(state, target).done && !isResting(target),
    );
    if (chunks.length === 0 || isTimeUp()) return;
    const broken = await runInProcess({
      chunks,
      onChunk({ target }, report) {
        countChunk(state, target, report);
        keep();
        return !isTimeUp() && report.finding === undefined;
      },
    });
    if (broken !== undefined) state.findings.push(broken);
  }
}

function countChunk(state: FuzzState, target: string, { cases, outcomes, finding }: ChunkReport): void {
  count(tallyOf(state, target), cases, outcomes);
  if (finding !== undefined) state.findings.push(finding);
}

async function fuzzBlackBox(state: FuzzState, isTimeUp: () => boolean, keep: () => void): Promise<void> {
  const isResting = state.findings.some(({ target }) => target === BLACK_BOX);
  if (isResting || isTimeUp()) return;
  const tally = tallyOf(state, BLACK_BOX);
  await runBlackBox({
    seed: state.seed,
    cases: Number(values['black-box']),
    firstBatch: tally.done,
    onBatch(report) {
      countChunk(state, BLACK_BOX, report);
      keep();
      return !isTimeUp() && report.finding === undefined;
    },
  });
}

async function replayOne(name: string): Promise<0 | 1> {
  const [, target = '', seed = '', path = ''] = /^(.*?):(-?\d+):([\d:]+)$/.exec(name) ?? [];
  if (target === BLACK_BOX) {
    console.log(`It ends well now: ${await replayBlackBox(Number(seed), path)}`);
    return 0;
  }
  const { finding, outcomes } = replay(targetNamed(target), Number(seed), path);
  console.log(
    finding === undefined ? `It ends well now: ${JSON.stringify(outcomes)}` : describeFinding(finding),
  );
  return finding === undefined ? 0 : 1;
}

function describeProgress(state: FuzzState): string {
  const { inProcess, blackBox } = totalsOf(state);
  const wanted = `${values.cases} in process, ${blackBox} of ${values['black-box']} black box`;
  return `${inProcess} of ${wanted}, ${state.findings.length} findings`;
}

function describeFinding({ target, replay: name, input, error }: Finding): string {
  return `\n${target} (--replay '${name}')\n${input}\n${error}`;
}
