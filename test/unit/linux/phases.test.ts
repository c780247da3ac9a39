// Time by phase, with a clock that the test moves.
import { expect, test } from 'vitest';
import { inPhase, measurePhases, phaseTimes } from '../../../shared/linux/phases.ts';

let ms = 0;
const spend = (milliseconds: number) => {
  ms += milliseconds;
};

test('each millisecond counts for the innermost phase, and all of them add up', () => {
  ms = 14;
  measurePhases(() => ms);
  spend(1);
  const answer = inPhase('ipam', () => {
    spend(2);
    inPhase('locks', () => spend(4));
    inPhase('links', () => spend(8));
    spend(16);
    return 'kept';
  });
  inPhase('links', () => spend(32));
  spend(64);
  expect(answer).toBe('kept');
  expect(phaseTimes()).toEqual({ start: 14, ipam: 18, links: 40, locks: 4, rest: 65 });
  expect(Object.values(phaseTimes() ?? {}).reduce((sum, part) => sum + part)).toBe(ms);
});

test('a step that throws has ended its phase', () => {
  ms = 0;
  measurePhases(() => ms);
  const step = () => {
    spend(3);
    throw new Error('no');
  };
  expect(() => inPhase('rules', step)).toThrow('no');
  spend(5);
  expect(phaseTimes()).toEqual({ start: 0, rules: 3, rest: 5 });
});
