// The benchmark's results as a document: tables, and which picture belongs where. Called by bench-report.ts, pure.
import type { Footprint } from './footprint.ts';
import { judge, ratioOf, type Verdict } from './limits.ts';
import { formatTable } from './markdown.ts';
import type { Measured } from './measure.ts';
import type { Bar, BarSeries } from './plot.ts';
import { formatScaleChapters, type ScalePicture } from './scale/scale-page.ts';
import type { ScaleFigures } from './scale/summary.ts';
import { summarise } from './statistics.ts';

/** What a run of the benchmark leaves in its JSON file. */
export interface BenchReport {
  readonly machine: Readonly<Record<string, string>>;
  readonly rounds: number;
  readonly scenarios: readonly Measured[];
  readonly footprints: readonly Footprint[];
  readonly figures: readonly Verdict[];
}

/** A picture of a scenario, by the name of its file without the ending. */
export interface Picture {
  readonly name: string;
  readonly title: string;
  readonly series: readonly BarSeries[];
}

/**
 * One report of several: what a later one measured takes the place of what an earlier one did, and the figures are judged
 * anew. Throws Error when they are of different machines.
 */
export function mergeReports(reports: readonly BenchReport[]): BenchReport {
  const [first, ...later] = reports;
  if (first === undefined) throw new Error('There is no report to take figures from');
  return later.reduce((merged, report) => {
    for (const what of ['machine', 'system'] as const) {
      if (merged.machine[what] === report.machine[what]) continue;
      throw new Error(`Cannot merge reports of "${merged.machine[what]}" and "${report.machine[what]}"`);
    }
    const again = new Set(report.scenarios.map(({ scenario }) => scenario));
    const kept = merged.scenarios.filter(({ scenario }) => !again.has(scenario));
    const scenarios = [...kept, ...report.scenarios];
    const measured = new Set(report.footprints.map(({ plugin }) => plugin));
    const footprints = [
      ...merged.footprints.filter(({ plugin }) => !measured.has(plugin)),
      ...report.footprints,
    ];
    return { ...report, scenarios, footprints, figures: judge(scenarios, footprints) };
  }, first);
}

/** The other benchmark's figures, and the pictures of them. */
export interface AtScale {
  readonly figures: ScaleFigures;
  readonly pictures: readonly ScalePicture[];
}

/** The whole document. `pictures` are those of `picturesOf`; `overview` is the name of the one with all ratios. */
export function formatPage(
  report: BenchReport,
  pictures: readonly Picture[],
  overview: string,
  atScale?: AtScale,
): string {
  return [
    '# Benchmark figures',
    'Whole processes, ours and the reference plugins in turns on one machine, losing figures like winning ones. Written by ' +
      '`npm run bench:report`; [benchmark-method.md](benchmark-method.md) tells how they are made, and ' +
      '[benchmarks/figures.json](benchmarks/figures.json) holds every single time.',
    formatTable(['', ''], Object.entries({ ...report.machine, rounds: String(report.rounds) })),
    `![ours ÷ reference for every verb](benchmarks/${overview}.svg)`,
    '## Promised figures',
    formatTable(
      ['figure', 'measured', '95 %', 'limit', ''],
      [...report.figures, ...(atScale?.figures.verdicts ?? [])].map(
        ({ figure, value, interval, bound, limit, holds }) => [
          figure,
          formatFigure(value),
          interval === undefined ? '' : interval.map(formatFigure).join(' – '),
          `${bound} ${limit}`,
          holds === undefined ? 'not measured' : holds ? 'holds' : '**missed**',
        ],
      ),
    ),
    ...report.scenarios.flatMap((measured) => formatScenario(measured, pictures)),
    '## Programs and memory',
    formatTable(
      ['verb', 'implementation', 'programs', 'peak, MB'],
      report.footprints.map(({ plugin, verb, implementation, programs, peakMb }) => [
        `${plugin} ${verb}`,
        implementation,
        String(programs),
        peakMb.toFixed(1),
      ]),
    ),
    ...(atScale === undefined ? [] : formatScaleChapters(atScale.figures, atScale.pictures)),
  ]
    .join('\n\n')
    .concat('\n');
}

/** A picture for each scenario: medians by verb and lane. */
export function picturesOf({ scenarios }: BenchReport): Picture[] {
  return scenarios.map(({ scenario, series }) => {
    const lanes = [...new Set(series.map(({ lane }) => lane))];
    return {
      name: fileName(scenario),
      title: scenario,
      series: lanes.map((lane) => ({
        name: lane,
        bars: series
          .filter((one) => one.lane === lane)
          .map(({ verb, wallMs }): Bar => ({ label: verb, value: summarise(wallMs).median })),
      })),
    };
  });
}

/** Ours ÷ reference of every verb that both have. */
export function ratiosOf({ scenarios }: BenchReport): Bar[] {
  return scenarios.flatMap((measured) =>
    verbsOf(measured).flatMap((verb) => {
      const ratio = ratioOf(measured, verb, ['ours', 'reference']);
      return ratio === undefined ? [] : [{ label: `${measured.scenario}: ${verb}`, value: ratio.value }];
    }),
  );
}

function formatScenario(measured: Measured, pictures: readonly Picture[]): string[] {
  const picture = pictures.find(({ title }) => title === measured.scenario);
  const rows = measured.series.map(({ lane, verb, wallMs, cpuMs }) => {
    const { min, median, p95 } = summarise(wallMs);
    const ratio = lane === 'ours' ? undefined : ratioOf(measured, verb, ['ours', lane]);
    return [
      verb,
      lane,
      ...[min, median, p95, summarise(cpuMs).median].map((figure) => figure.toFixed(1)),
      ratio === undefined ? '' : formatFigure(ratio.value),
    ];
  });
  return [
    `## ${measured.scenario}`,
    formatTable(['verb', '', 'min, ms', 'median', 'p95', 'cpu', 'ours ÷ this'], rows),
    ...(picture === undefined ? [] : [`![${picture.title}](benchmarks/${picture.name}.svg)`]),
  ];
}

function verbsOf({ series }: Measured): string[] {
  return [...new Set(series.map(({ verb }) => verb))];
}

/** Letters, digits and hyphens. */
function fileName(scenario: string): string {
  return scenario
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-|-$/g, '');
}

function formatFigure(figure: number | undefined): string {
  return figure === undefined ? '–' : figure.toFixed(2);
}
