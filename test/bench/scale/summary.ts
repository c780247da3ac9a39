// The figures of the scale benchmark: from single rounds to quantiles, throughput, and whether what was promised holds.
// Called by scale.ts and the report, pure.
import type { Verdict } from '../limits.ts';
import { type Summary, summarise } from '../statistics.ts';
import { type Axis, type Group, type LaneName, MEMORY_AT } from './plan.ts';
import type { Circumstances, Memory, Round, Sample } from './state.ts';

/** What a run of the scale benchmark leaves in its JSON file. */
export interface ScaleReport {
  readonly circumstances: Circumstances;
  readonly groups: readonly Group[];
  readonly rounds: readonly Round[];
}

/** Times of one verb of a lane, in milliseconds; of calls that succeeded and failed alike. */
export interface VerbFigures extends Summary {
  readonly verb: string;
  readonly count: number;
  /** The mean: what Docker's daemon uses is only known in hundredths of a second. */
  readonly cpuMs: number;
}

export interface LaneFigures {
  readonly lane: LaneName;
  readonly verbs: readonly VerbFigures[];
  readonly failed: number;
  readonly said: string | undefined;
  /** ADD and DEL, both, per second: the median of the rounds. Of groups with clients. */
  readonly pairsPerSecond: number | undefined;
  /** Processor time of a pair, a daemon's included. */
  readonly cpuMsPerPair: number | undefined;
  readonly memory: Memory | undefined;
}

export interface GroupFigures extends Pick<Group, 'name' | 'kind' | 'axis' | 'value' | 'leftOut'> {
  readonly lanes: readonly LaneFigures[];
}

export interface ScaleFigures {
  readonly circumstances: Circumstances;
  readonly groups: readonly GroupFigures[];
  /** Names of groups that nobody has measured. */
  readonly unmeasured: readonly string[];
  readonly verdicts: readonly Verdict[];
}

/** Groups nobody has measured are named only. */
export function summariseScale({ circumstances, groups, rounds }: ScaleReport): ScaleFigures {
  const figures = groups
    .map(({ name, kind, axis, value, leftOut, lanes }) => ({
      ...{ name, kind, axis, value, leftOut },
      lanes: lanes.flatMap((lane) => {
        const own = rounds.filter((round) => round.group === name && round.lane === lane);
        return own.length === 0 ? [] : [figuresOf(lane, own)];
      }),
    }))
    .filter(({ lanes }) => lanes.length > 0);
  const measured = new Set(figures.map(({ name }) => name));
  const unmeasured = groups.map(({ name }) => name).filter((name) => !measured.has(name));
  return { circumstances, groups: figures, unmeasured, verdicts: judgeScale(figures) };
}

/** What is promised of ours at scale. */
function judgeScale(groups: readonly GroupFigures[]): Verdict[] {
  const crowd = laneOf(groups, 'attachments 5000');
  const clients = laneOf(groups, 'parallel 64');
  const p99 = (lane: LaneName) => crowd(lane)?.verbs.find(({ verb }) => verb === 'ADD')?.p99;
  return [
    judge('ADD + DEL per second with 64 clients, chain of four ÷ reference', 'at least', 3, [
      clients('ours')?.pairsPerSecond,
      clients('reference')?.pairsPerSecond,
    ]),
    judge('p99 of ADD at 5,000 attachments ÷ at none', 'at most', 1.5, [
      p99('ours'),
      p99('ours, empty node'),
    ]),
    judge('PSS of each process with 32 clients, MB', 'at most', 25, [
      laneOf(groups, `memory ${MEMORY_AT[1]}`)('ours')?.memory?.pssEachMb,
      1,
    ]),
  ];
}

function judge(
  figure: string,
  bound: Verdict['bound'],
  limit: number,
  [upper, lower]: readonly [number | undefined, number | undefined],
): Verdict {
  const value = upper === undefined || lower === undefined ? undefined : upper / lower;
  const holds = value === undefined ? undefined : bound === 'at most' ? value <= limit : value >= limit;
  return { figure, bound, limit, value, interval: undefined, ofMinima: undefined, holds };
}

function laneOf(groups: readonly GroupFigures[], name: string): (lane: LaneName) => LaneFigures | undefined {
  const group = groups.find((group) => group.name === name);
  return (lane) => group?.lanes.find((figures) => figures.lane === lane);
}

function figuresOf(lane: LaneName, rounds: readonly Round[]): LaneFigures {
  const samples = rounds.flatMap((round) => round.samples);
  const verbs = [...new Set(samples.map(([verb]) => verb))];
  const timed = rounds.flatMap(({ wallMs, daemonCpuMs = 0, samples, failed }) =>
    wallMs === undefined ? [] : [{ wallMs, daemonCpuMs, samples, failed }],
  );
  const pairs = timed.map(pairsOf);
  const cpuMs = timed.reduce((sum, { samples, daemonCpuMs }) => sum + cpuOf(samples) + daemonCpuMs, 0);
  const memory = rounds.flatMap((round) => round.memory ?? []);
  return {
    lane,
    verbs: verbs.map((verb) => verbFigures(verb, samples)),
    failed: rounds.reduce((sum, round) => sum + round.failed, 0),
    said: rounds.find(({ said }) => said !== undefined)?.said,
    pairsPerSecond:
      timed.length === 0
        ? undefined
        : summarise(timed.map(({ wallMs }, i) => (1000 * (pairs[i] ?? 0)) / wallMs)).median,
    cpuMsPerPair: timed.length === 0 ? undefined : cpuMs / pairs.reduce((sum, count) => sum + count, 0),
    memory: memory.length === 0 ? undefined : largestOf(memory),
  };
}

function verbFigures(verb: string, samples: readonly Sample[]): VerbFigures {
  const own = samples.filter(([of]) => of === verb);
  return {
    verb,
    count: own.length,
    ...summarise(own.map(([, wallMs]) => wallMs)),
    cpuMs: own.reduce((sum, [, , cpuMs]) => sum + cpuMs, 0) / own.length,
  };
}

/** Pairs of which both succeeded, at least: two failures may belong to one. */
function pairsOf({ samples, failed }: Pick<Round, 'samples' | 'failed'>): number {
  return Math.max(0, samples.length / 2 - failed);
}

function cpuOf(samples: readonly Sample[]): number {
  return samples.reduce((sum, [, , cpuMs]) => sum + cpuMs, 0);
}

function largestOf(memory: readonly Memory[]): Memory {
  return memory.reduce((best, one) => (one.pssMb > best.pssMb ? one : best));
}

/** The points of an axis that were measured, smallest first. */
export function alongAxis({ groups }: ScaleFigures, axis: Axis): GroupFigures[] {
  return groups.filter((group) => group.axis === axis && group.kind !== 'memory');
}
