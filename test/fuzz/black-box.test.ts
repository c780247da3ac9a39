// The short run against the packaged executables, and that a call which leaves something on a host is found among others.
import { describe, expect, test } from 'vitest';
import { report, SEED } from '../support/fault-scale.ts';
import { bisect, runBlackBox } from './black-box.ts';
import type { Finding } from './driver.ts';
import { openFuzzHost } from './fuzz-host.ts';
import { PLUGIN_DIRECTORY } from './inputs/calls.ts';

const CASES = 300;

test('whatever they are called with, the executables end well and a failure leaves the host as it was', async () => {
  const findings: Finding[] = [];
  const outcomes = new Set<string>();
  let cases = 0;
  await runBlackBox({
    seed: SEED,
    cases: CASES,
    firstBatch: 0,
    onBatch(batch) {
      cases += batch.cases;
      for (const outcome of Object.keys(batch.outcomes)) outcomes.add(outcome);
      if (batch.finding !== undefined) findings.push(batch.finding);
      return true;
    },
  });
  expect(findings).toEqual([]);
  expect(cases).toBe(CASES);
  for (const verb of ['ADD', 'CHECK', 'DEL', 'STATUS', 'GC', 'VERSION'])
    expect(outcomes).toContain(`${verb} ok`);
  report('Fuzzing the executables', { 'fuzz cases of the executables': cases });
});

test('a config of 8 MiB, full of the costliest there is, takes less memory than a gigabyte', async () => {
  const start = '{"cniVersion":"1.1.0","name":"fuzz","x":[';
  const end = '1.5]}'; // a number that is no integer makes the decoder look at all of them
  const filling = '[],'.repeat(Math.floor((8 * 1024 * 1024 - start.length - end.length) / 3));
  const env = { CNI_COMMAND: 'STATUS', CNI_PATH: PLUGIN_DIRECTORY };
  await using host = await openFuzzHost();
  const [outcome] = await host.run([{ plugin: 'bridge', env, stdin: Buffer.from(start + filling + end) }]);
  expect(outcome).toMatchObject({ exitCode: 0, signal: null, stdout: '' });
});

describe('Among many calls', () => {
  const calls = Array.from({ length: 100 }, (_, index) => index);
  const isBad = (changes: readonly string[]): boolean => changes.length > 0;
  const hostThatMinds =
    (...guilty: readonly number[]) =>
    async (made: readonly number[]) =>
      guilty.every((index) => made.includes(index)) ? ['+ file /run/left'] : [];

  test.each([0, 42, 99])('the one that changes a host is found, were it number %i', async (guilty) => {
    const found = await bisect(calls, hostThatMinds(guilty), isBad);
    expect(found?.index).toBe(guilty);
    expect(String(found?.error)).toContain('/run/left');
  });

  test('two that do it together are told by the first of the range that holds both', async () => {
    expect((await bisect(calls, hostThatMinds(30, 40), isBad))?.index).toBe(25);
  });

  test('none is accused where none did it', async () => {
    expect(await bisect(calls, async () => [], isBad)).toBeUndefined();
  });
});
