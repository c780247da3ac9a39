// The benchmark's results as a table for people. Called by bench.ts, pure.

import type { Footprint } from './footprint.ts';
import { ratioOf, type Verdict } from './limits.ts';
import type { Measured } from './measure.ts';
import { type Summary, summarise } from './statistics.ts';

const COLUMNS = [15, 34, 8, 8, 8, 8] as const;

/** One scenario: a line for each verb and lane, times in milliseconds, and the ratio to what each lane is held against. */
export function formatScenario(measured: Measured): string {
  const verbs = [...new Set(measured.series.map((series) => series.verb))];
  const lines = verbs.flatMap((verb) =>
    measured.series
      .filter((series) => series.verb === verb)
      .map((series, i) =>
        row([
          i === 0 ? verb : '',
          series.lane,
          ...figuresOf(summarise(series.wallMs)),
          summarise(series.cpuMs).median.toFixed(1),
          i === 0 ? '' : versus(measured, verb, series.lane),
        ]),
      ),
  );
  return [measured.scenario, row(['', '', 'min', 'median', 'p95', 'cpu', '']), ...lines, ''].join('\n');
}

/** Programs and memory, a line for each verb and implementation. */
export function formatFootprints(footprints: readonly Footprint[]): string {
  const lines = footprints.map(({ plugin, verb, implementation, programs, peakMb }) =>
    row([`${plugin} ${verb}`, implementation, String(programs), peakMb.toFixed(1)]),
  );
  return ['programs and memory (MB), IPv4, ipMasq', row(['', '', 'programs', 'peak']), ...lines, ''].join(
    '\n',
  );
}

/** The promised figures and whether they hold. */
export function formatVerdicts(verdicts: readonly Verdict[]): string {
  const lines = verdicts.map(({ figure, bound, limit, value, interval, ofMinima, holds }) =>
    [
      figure.padEnd(68),
      formatFigure(value).padStart(6),
      (interval === undefined ? '' : `[${interval.map(formatFigure).join(' – ')}]`).padStart(17),
      (ofMinima === undefined ? '' : formatFigure(ofMinima)).padStart(8),
      `  ${bound.padEnd(8)} ${String(limit).padEnd(5)}`,
      holds === undefined ? 'not measured' : holds ? 'holds' : 'MISSED',
    ].join(''),
  );
  const head = `${'figures promised'.padEnd(68)}${'median'.padStart(6)}${'95 %'.padStart(17)}${'minima'.padStart(8)}`;
  return [head, ...lines, ''].join('\n');
}

function formatFigure(figure: number | undefined): string {
  return figure === undefined ? '–' : figure.toFixed(2);
}

function figuresOf({ min, median, p95 }: Summary): string[] {
  return [min, median, p95].map((figure) => figure.toFixed(1));
}

function versus(measured: Measured, verb: string, lane: string): string {
  const ratio = ratioOf(measured, verb, ['ours', lane]);
  if (ratio === undefined) return '';
  const { value, low, high } = ratio;
  return `ours ÷ ${lane} ${formatFigure(value)} [${formatFigure(low)} – ${formatFigure(high)}]`;
}

function row(cells: readonly string[]): string {
  return cells
    .map((cell, i) => {
      const width = COLUMNS[i];
      if (width === undefined) return `  ${cell}`;
      return i < 2 ? cell.padEnd(width) : cell.padStart(width);
    })
    .join('')
    .trimEnd();
}
