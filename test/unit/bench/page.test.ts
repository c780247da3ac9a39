// Says what the benchmark's document and pictures hold, on a small made-up run. Called by vitest.
import { describe, expect, test } from 'vitest';
import { type BenchReport, formatPage, mergeReports, picturesOf, ratiosOf } from '../../bench/page.ts';
import { plotRatios, plotTimes } from '../../bench/plot.ts';

const REPORT: BenchReport = {
  machine: { machine: '2 × a | b', system: 'Debian' },
  rounds: 3,
  scenarios: [
    {
      scenario: 'IPv4, ipMasq',
      series: [
        { lane: 'ours', verb: 'ADD', wallMs: [10, 11, 30], cpuMs: [9, 9, 9] },
        { lane: 'reference', verb: 'ADD', wallMs: [22, 22, 22], cpuMs: [5, 5, 5] },
        { lane: 'ours', verb: 'DEL', wallMs: [8, 8, 8], cpuMs: [7, 7, 7] },
      ],
    },
  ],
  footprints: [{ implementation: 'ours', plugin: 'bridge', verb: 'ADD', programs: 1, peakMb: 45.25 }],
  figures: [
    {
      figure: 'ADD ÷ reference',
      bound: 'at most',
      limit: 0.4,
      value: 0.5,
      interval: [0.45, 0.55],
      ofMinima: 0.45,
      holds: false,
    },
    {
      figure: 'never run',
      bound: 'at most',
      limit: 1,
      value: undefined,
      interval: undefined,
      ofMinima: undefined,
      holds: undefined,
    },
  ],
};

describe('The document of a run', () => {
  const page = formatPage(REPORT, picturesOf(REPORT), 'overview');

  test('tells medians of each verb and lane, and the ratio to the lane', () => {
    expect(page).toContain('| ADD | ours | 10.0 | 11.0 |');
    expect(page).toMatch(/\| ADD \| reference \| 22\.0 \| 22\.0 \| 22\.0 \| 5\.0 \| 0\.50 \|/);
  });

  test('shows what misses its limit like what holds, and what was not measured', () => {
    expect(page).toContain('| ADD ÷ reference | 0.50 | 0.45 – 0.55 | at most 0.4 | **missed** |');
    expect(page).toContain('| never run | – |  | at most 1 | not measured |');
  });

  test('escapes what would break a table', () => {
    expect(page).toContain('| machine | 2 × a \\| b |');
  });

  test('refers to every picture that is drawn', () => {
    for (const { name } of picturesOf(REPORT)) expect(page).toContain(`(benchmarks/${name}.svg)`);
    expect(page).toContain('(benchmarks/overview.svg)');
  });
});

describe('A run in pieces', () => {
  test('has of each scenario what was measured last, and judges its figures anew', () => {
    const series = [
      { lane: 'ours', verb: 'ADD', wallMs: [5], cpuMs: [5] },
      { lane: 'reference', verb: 'ADD', wallMs: [10], cpuMs: [5] },
    ] as const;
    const again = { ...REPORT, scenarios: [{ scenario: 'IPv4, ipMasq', series }], footprints: [] };
    const other = { ...REPORT, scenarios: [{ scenario: 'dual stack', series }] };
    const merged = mergeReports([REPORT, other, again]);
    expect(merged.scenarios.map(({ scenario }) => scenario)).toEqual(['dual stack', 'IPv4, ipMasq']);
    expect(merged.footprints).toEqual(REPORT.footprints);
    const add = merged.figures.find(({ figure }) => figure === 'bridge ADD, IPv4, ipMasq ÷ reference');
    expect(add?.value).toBe(0.5);
  });

  test('on two machines is none', () => {
    const elsewhere = { ...REPORT, machine: { ...REPORT.machine, machine: 'other' } };
    expect(() => mergeReports([REPORT, elsewhere])).toThrow(
      'Cannot merge reports of "2 × a | b" and "other"',
    );
    expect(() => mergeReports([])).toThrow('no report');
  });
});

describe('The pictures of a run', () => {
  test('show a bar for each verb and lane', () => {
    const [picture] = picturesOf(REPORT);
    expect(picture?.name).toBe('ipv4-ipmasq');
    const svg = plotTimes(picture?.title ?? '', picture?.series ?? []);
    expect(svg).toMatch(/^<svg /);
    for (const text of ['IPv4, ipMasq', 'ADD', 'DEL', 'ours', 'reference', '11', '22'])
      expect(svg).toContain(`>${text}<`);
  });

  test('compare only what both have', () => {
    expect(ratiosOf(REPORT)).toEqual([{ label: 'IPv4, ipMasq: ADD', value: 0.5 }]);
    expect(plotRatios('ratios', ratiosOf(REPORT))).toContain('>0.5<');
  });
});
