// Failures that are gathered and thrown once, as DEL and GC do.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import { kernelRefused, storeFailure } from '../../../shared/cni/error.ts';
import { Failures } from '../../../shared/cni/failures.ts';

function fail(error: unknown): () => never {
  return () => {
    throw error;
  };
}

describe('Failures', () => {
  test('throws nothing when every step succeeds', () => {
    const failures = new Failures();
    let count = 0;
    failures.attempt('count', () => count++);
    failures.attempt('count again', () => count++);
    failures.throwIfAny();
    expect(count).toBe(2);
  });

  test('throws a single error as it is, after all steps', () => {
    const failures = new Failures();
    const error = new Error('Link is busy');
    let reached = false;
    failures.attempt('delete the link', fail(error));
    failures.attempt('release the address', () => {
      reached = true;
    });
    expect(reached).toBe(true);
    expect(() => failures.throwIfAny()).toThrow(error);
  });

  test('takes code and message of the first of several, and tells all in the details', () => {
    const failures = new Failures();
    failures.attempt('delete the link', fail(kernelRefused('Link is busy', { details: 'EBUSY' })));
    failures.attempt('release the address', fail(storeFailure('Store is locked')));
    expect(() => failures.throwIfAny()).toThrow(
      expect.objectContaining({
        code: 105,
        message: 'Link is busy (and 1 more failure)',
        details: 'Cannot delete the link: Link is busy: EBUSY; Cannot release the address: Store is locked',
      }),
    );
  });

  test('counts the others', () => {
    const failures = new Failures();
    for (const name of ['one', 'two', 'three']) failures.attempt(`do ${name}`, fail(new Error(name)));
    expect(() => failures.throwIfAny()).toThrow('one (and 2 more failures)');
  });
});
