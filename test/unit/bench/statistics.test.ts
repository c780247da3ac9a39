// The benchmark's figures on series whose results are known, and its verdicts on figures that are.
// Run by vitest, project "unit".

import { expect, test } from 'vitest';
import { judge } from '../../bench/limits.ts';
import type { Measured } from '../../bench/measure.ts';
import { NAMES } from '../../bench/scenarios.ts';
import { ratioOfMedians, summarise } from '../../bench/statistics.ts';

test('a summary is independent of the order, and interpolates between neighbours', () => {
  expect(summarise([3, 1, 2])).toEqual({ min: 1, median: 2, p95: 2.9, p99: 2.98 });
  expect(summarise([4, 1, 2, 3]).median).toBe(2.5);
  expect(summarise([7])).toEqual({ min: 7, median: 7, p95: 7, p99: 7 });
});

test('the interval of a ratio holds it, and is narrow for a steady series', () => {
  const noisy = ratioOfMedians([10, 30, 12, 11, 13, 9], [20, 21, 22, 60, 19, 20]);
  expect(noisy.value).toBeCloseTo(11.5 / 20.5);
  expect(noisy.low).toBeLessThanOrEqual(noisy.value);
  expect(noisy.high).toBeGreaterThanOrEqual(noisy.value);
  expect(ratioOfMedians([5, 5, 5], [10, 10, 10])).toEqual({ value: 0.5, ofMinima: 0.5, low: 0.5, high: 0.5 });
});

test('the same samples give the same interval', () => {
  const upper = [1, 5, 2, 8, 3];
  const lower = [2, 2, 9, 1, 4];
  expect(ratioOfMedians(upper, lower)).toEqual(ratioOfMedians(upper, lower));
});

function measured(ours: number, reference: number): Measured {
  const series = (lane: 'ours' | 'reference', ms: number) => ({
    lane,
    verb: 'ADD',
    wallMs: [ms],
    cpuMs: [ms],
  });
  return { scenario: NAMES.masq4, series: [series('ours', ours), series('reference', reference)] };
}

function verdictOn(figure: string, ...run: Parameters<typeof judge>) {
  return judge(...run).find((verdict) => verdict.figure === figure);
}

test('a figure holds at its limit, is missed above, and is open when nothing measured it', () => {
  const add = 'bridge ADD, IPv4, ipMasq ÷ reference';
  expect(verdictOn(add, [measured(20, 20)], [])).toMatchObject({ value: 1, holds: true });
  expect(verdictOn(add, [measured(21, 20)], [])).toMatchObject({ value: 1.05, holds: false });
  expect(verdictOn(add, [], [])).toMatchObject({ value: undefined, holds: undefined });
});

test('programs and memory are judged by ours alone, memory by its largest', () => {
  const footprint = { implementation: 'ours', plugin: 'bridge', programs: 1, peakMb: 50 } as const;
  const footprints = [
    { ...footprint, verb: 'ADD' as const },
    { ...footprint, verb: 'DEL' as const, programs: 2, peakMb: 61 },
    { implementation: 'reference', plugin: 'bridge' as const, verb: 'ADD' as const, programs: 13, peakMb: 7 },
  ];
  expect(verdictOn('programs started by bridge ADD, own host-local', [], footprints)?.holds).toBe(true);
  expect(verdictOn('programs started by bridge DEL, own host-local', [], footprints)?.holds).toBe(false);
  expect(verdictOn('peak resident memory, MB', [], footprints)).toMatchObject({ value: 61, holds: false });
});
