// The figures this project promises to keep, and whether a run of the benchmark kept them. Called by report.ts.

import type { Footprint } from './footprint.ts';
import type { Measured } from './measure.ts';
import { NAMES } from './scenarios.ts';
import { type Ratio, ratioOfMedians } from './statistics.ts';

export interface Verdict {
  readonly figure: string;
  readonly bound: 'at most' | 'at least';
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
  /** At most, unless said otherwise. */
  readonly bound?: Verdict['bound'];
  readonly limit: number;
  readonly scenario: string;
  readonly verb: string;
  readonly lanes: readonly [upper: string, lower: string];
}

const VERSUS = ['ours', 'reference'] as const;
const TOGETHER = ['ours, one process', 'reference'] as const;

/** Through cnitool, whose own start is a part of both. */
const ONE_PROCESS = {
  4: { ADD: 0.33, CHECK: 0.7, DEL: 0.24 },
  46: { ADD: 0.22, CHECK: 0.5, DEL: 0.16 },
} as const;

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
  ...duels('chain of four plugins', NAMES.chain4, 'IPv4 ÷ reference', { ADD: 1.1, CHECK: 2.1, DEL: 0.6 }),
  ...duels('chain of four plugins', NAMES.chain46, 'dual stack ÷ reference', {
    ADD: 1.1,
    CHECK: 2.1,
    DEL: 0.6,
  }),
  ...duels('chain as one patchbay process', NAMES.chain4, 'IPv4 ÷ reference', ONE_PROCESS[4], TOGETHER),
  ...duels(
    'chain as one patchbay process',
    NAMES.chain46,
    'dual stack ÷ reference',
    ONE_PROCESS[46],
    TOGETHER,
  ),
  {
    figure: 'whole patchbay ADD ÷ empty packaged program',
    limit: 1.6,
    scenario: NAMES.patchbay4,
    verb: 'ADD',
    lanes: ['ours', 'empty program'],
  },
  ...duels('portmap', NAMES.portmap4, 'IPv4 ÷ reference', { ADD: 0.5, CHECK: 1.05, DEL: 0.3 }),
  ...duels('portmap', NAMES.portmap46, 'dual stack ÷ reference', { ADD: 0.35, CHECK: 0.65, DEL: 0.2 }),
  ...duels('portmap', NAMES.portmap4Nft, 'IPv4 ÷ reference on nftables', { ADD: 0.7, CHECK: 0.95, DEL: 0.5 }),
  {
    figure: 'portmap ADD of 100 ports ÷ ADD of 1 port',
    limit: 1.3,
    scenario: NAMES.portmapPorts,
    verb: 'ADD',
    lanes: ['ours, 100 ports', 'ours, 1 port'],
  },
  {
    figure: 'portmap ADD of 1,000 ports ÷ ADD of 1 port',
    limit: 3,
    scenario: NAMES.portmapPorts,
    verb: 'ADD',
    lanes: ['ours', 'ours, 1 port'],
  },
  ...(
    [
      ['ADD', 1.2],
      ['DEL', 1.3],
    ] as const
  ).map(([verb, limit]) => ({
    figure: `portmap ${verb} at 1,000 attachments with ports ÷ on an empty node`,
    limit,
    scenario: NAMES.portmapCrowd,
    verb,
    lanes: ['ours', 'ours, empty node'] as const,
  })),
  {
    figure: 'portmap ADD with 20,000 foreign iptables rules ÷ without',
    limit: 1.1,
    scenario: NAMES.portmapForeign,
    verb: 'ADD',
    lanes: ['ours', 'ours, empty node'],
  },
  {
    // Connections per second: the fewer milliseconds, the more of them.
    figure: 'new connections per second at 2,000 mappings ÷ at 1',
    bound: 'at least',
    limit: 0.9,
    scenario: NAMES.connections,
    verb: 'connect',
    lanes: ['ours, 1 mapping', 'ours'],
  },
];

const PROGRAMS_A_VERB = 1;
const PEAK_MB = 60;

/** All figures, in the order they are promised. */
export function judge(measured: readonly Measured[], footprints: readonly Footprint[]): Verdict[] {
  const ours = footprints.filter((footprint) => footprint.implementation === 'ours');
  const programsOf = (plugin: Footprint['plugin'], verb: Footprint['verb']) =>
    ours.find((footprint) => footprint.plugin === plugin && footprint.verb === verb)?.programs;
  return [
    ...RATIOS.map((limit) => judgeRatio(limit, measured)),
    ...(['ADD', 'DEL'] as const).map((verb) => {
      const figure = `programs started by bridge ${verb}, own host-local`;
      return judgeValue(figure, PROGRAMS_A_VERB, programsOf('bridge', verb));
    }),
    ...(['ADD', 'CHECK', 'DEL'] as const).map((verb) =>
      judgeValue(`programs started by portmap ${verb}`, PROGRAMS_A_VERB, programsOf('portmap', verb)),
    ),
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

function duels(
  who: string,
  scenario: string,
  what: string,
  limits: Readonly<Record<'ADD' | 'CHECK' | 'DEL', number>>,
  lanes: RatioLimit['lanes'] = VERSUS,
): RatioLimit[] {
  return (['ADD', 'CHECK', 'DEL'] as const).map((verb) => ({
    figure: `${who} ${verb}, ${what}`,
    limit: limits[verb],
    scenario,
    verb,
    lanes,
  }));
}

function judgeRatio(
  { figure, bound = 'at most', limit, scenario, verb, lanes }: RatioLimit,
  measured: readonly Measured[],
): Verdict {
  const ratio = ratioOf(
    measured.find((candidate) => candidate.scenario === scenario),
    verb,
    lanes,
  );
  const verdict = judgeValue(figure, limit, ratio?.value, bound);
  return ratio === undefined
    ? verdict
    : { ...verdict, interval: [ratio.low, ratio.high], ofMinima: ratio.ofMinima };
}

function judgeValue(
  figure: string,
  limit: number,
  value: number | undefined,
  bound: Verdict['bound'] = 'at most',
): Verdict {
  const holds = value === undefined ? undefined : bound === 'at most' ? value <= limit : value >= limit;
  return { figure, bound, limit, value, interval: undefined, ofMinima: undefined, holds };
}

function maxOf(values: readonly number[]): number | undefined {
  return values.length === 0 ? undefined : Math.max(...values);
}
