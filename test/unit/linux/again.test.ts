// Steps that are tried again, and how often. Part of `npm run test:unit`.
import { expect, test } from 'vitest';
import { again } from '../../../shared/linux/again.ts';

function failing(times: number, code: string): { readonly step: () => string; readonly calls: () => number } {
  let calls = 0;
  return {
    step: () => {
      calls += 1;
      if (calls <= times) throw Object.assign(new Error(code), { code });
      return 'done';
    },
    calls: () => calls,
  };
}

test.each(['EINTR', 'EAGAIN'])('a step that fails with %s is tried again', (code) => {
  const { step, calls } = failing(3, code);
  expect(again(step)).toBe('done');
  expect(calls()).toBe(4);
});

test('a step that fails with anything else is not', () => {
  const { step, calls } = failing(1, 'EPERM');
  expect(() => again(step)).toThrow('EPERM');
  expect(calls()).toBe(1);
});

test('there is an end to it', () => {
  const { step, calls } = failing(1000, 'EAGAIN');
  expect(() => again(step)).toThrow('EAGAIN');
  expect(calls()).toBe(9);
});
