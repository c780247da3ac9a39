// The figures this project promises to keep, and whether a run of the benchmark kept them. Called by report.ts.

import type { Footprint } from './footprint.ts';
import type { Measured } from './measure.ts';
import { NAMES } from './scenarios.ts';
import { type Ratio, ratioOfMedians } from './statistics.ts';

export interface Verdict {
  readonly figure: string;
  readonly limit: number;
  /** Undefined when the run did not measure it: it was not asked for, or something was missing. */
  readonly value: number | undefined;
  readonly interval: readonly [number, number] | undefined;
  /** The same from the best times. */
  readonly ofMinima: number | undefined;
  readonly holds: boolean | undefined;
}

/** What is measured for one figure: a ratio of two lanes' medians of one verb. */
interface RatioLimit {
  readonly figure: string;
  readonly limit: number;
  readonly scenario: string;
  readonly verb: string;
  readonly lanes: readonly [upper: string, lower: string];
}

const VERSUS = ['ours', 'reference'] as const;

const RATIOS: readonly RatioLimit[] = [
  {
    figure: 'VERSION ÷ empty packaged program',
    limit: 1.2,
    scenario: NAMES.version,
    verb: 'VERSION',
    lanes: ['ours', 'empty program'],
  },
  {
    figure: 'bridge ADD, IPv4, ipMasq ÷ reference',
    limit: 1.0,
    scenario: NAMES.masq4,
    verb: 'ADD',
    lanes: VERSUS,
  },
  {
    figure: 'bridge ADD, dual stack, ipMasq ÷ reference',
    limit: 0.6,
    scenario: NAMES.masq46,
    verb: 'ADD',
    lanes: VERSUS,
  },
  {
    figure: 'bridge DEL, IPv4, ipMasq ÷ reference',
    limit: 0.5,
    scenario: NAMES.masq4,
    verb: 'DEL',
    lanes: VERSUS,
  },
  {
    figure: 'bridge DEL, dual stack, ipMasq ÷ reference',
    limit: 0.3,
    scenario: NAMES.masq46,
    verb: 'DEL',
    lanes: VERSUS,
  },
  {
    figure: 'ADD at 1,000 attachments ÷ ADD on an empty node',
    limit: 1.2,
    scenario: NAMES.crowd,
    verb: 'ADD',
    lanes: ['ours', 'ours, empty node'],
  },
  ...['ADD', 'DEL', 'DEL unknown'].map((verb) => ({
    figure: `host-local ${verb} at 20,000 stored addresses ÷ empty store`,
    limit: 1.5,
    scenario: NAMES.hostLocalFull,
    verb,
    lanes: ['ours', 'ours, empty node'] as const,
  })),
];

const PROGRAMS_A_VERB = 1;
const PEAK_MB = 60;

/** All figures, in the order they are promised. */
export function judge(measured: readonly Measured[], footprints: readonly Footprint[]): Verdict[] {
  const ours = footprints.filter((footprint) => footprint.implementation === 'ours');
  return [
    ...RATIOS.map((limit) => judgeRatio(limit, measured)),
    ...(['ADD', 'DEL'] as const).map((verb) => {
      const programs = ours.find((footprint) => footprint.verb === verb)?.programs;
      return judgeValue(`programs started by bridge ${verb}, own host-local`, PROGRAMS_A_VERB, programs);
    }),
    judgeValue('peak resident memory, MB', PEAK_MB, maxOf(ours.map((footprint) => footprint.peakMb))),
  ];
}

/** The ratio of two lanes, undefined when the run lacks one of them. */
export function ratioOf(
  measured: Measured | undefined,
  verb: string,
  [upper, lower]: readonly [string, string],
): Ratio | undefined {
  const [above, below] = [upper, lower].map(
    (lane) => measured?.series.find((series) => series.lane === lane && series.verb === verb)?.wallMs,
  );
  return above === undefined || below === undefined ? undefined : ratioOfMedians(above, below);
}

function judgeRatio(
  { figure, limit, scenario, verb, lanes }: RatioLimit,
  measured: readonly Measured[],
): Verdict {
  const ratio = ratioOf(
    measured.find((candidate) => candidate.scenario === scenario),
    verb,
    lanes,
  );
  const verdict = judgeValue(figure, limit, ratio?.value);
  return ratio === undefined
    ? verdict
    : { ...verdict, interval: [ratio.low, ratio.high], ofMinima: ratio.ofMinima };
}

function judgeValue(figure: string, limit: number, value: number | undefined): Verdict {
  const holds = value === undefined ? undefined : value <= limit;
  return { figure, limit, value, interval: undefined, ofMinima: undefined, holds };
}

function maxOf(values: readonly number[]): number | undefined {
  return values.length === 0 ? undefined : Math.max(...values);
}
