// Says how the last line of a test run comes about: from vitest's report, and from files that did not even load.
// Called by vitest.
import { afterEach, describe, expect, test, vi } from 'vitest';
import { count, report, sumUp } from '../../../build/test.ts';

const REPORT = {
  numPassedTests: 7,
  numFailedTests: 1,
  numPendingTests: 2,
  numTodoTests: 1,
  testResults: [{ status: 'passed', assertionResults: [{}] }],
};

describe('Counting tests', () => {
  test('takes what was skipped and what is still to be written as skipped', () => {
    expect(count(REPORT)).toEqual({ passed: 7, failed: 1, skipped: 3 });
  });

  test('takes a file that did not load as one failure', () => {
    const testResults = [{ status: 'failed', assertionResults: [] }];
    expect(count({ ...REPORT, numFailedTests: 0, testResults }).failed).toBe(1);
  });

  test('does not count a failed test twice', () => {
    const testResults = [{ status: 'failed', assertionResults: [{}] }];
    expect(count({ ...REPORT, testResults }).failed).toBe(1);
  });
});

describe('The last line', () => {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {});

  afterEach(() => log.mockClear());

  test('is the sum of all parts', () => {
    report([
      { passed: 1, failed: 0, skipped: 0 },
      { passed: 2, failed: 0, skipped: 3 },
    ]);
    expect(log).toHaveBeenCalledExactlyOnceWith('3 passed, 0 failed, 3 skipped');
  });

  test.each([
    ['one failure fails the run', { passed: 9, failed: 1, skipped: 0 }, 1],
    ['a run without any test has failed', { passed: 0, failed: 0, skipped: 4 }, 1],
    ['skipped tests do not fail it', { passed: 1, failed: 0, skipped: 4 }, 0],
  ] as const)('%s', (_, counts, exitCode) => {
    expect(report([counts])).toBe(exitCode);
  });
});

test('The figures of the faults tests are added up by name, in the order in which they came', () => {
  const lines = [
    '{"points killed":3,"converged":3}',
    '{"faults":7}',
    '{"points killed":4,"converged":2}',
    '',
  ];
  expect(sumUp(lines.join('\n'))).toBe('7 points killed, 5 converged, 7 faults');
});
