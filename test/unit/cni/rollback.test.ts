// The undos of a failed ADD: newest first, a failing one logged and passed over.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import { Rollback } from '../../../shared/cni/rollback.ts';

describe('Rollback', () => {
  test('undoes newest first when the scope ends early', () => {
    const done: string[] = [];
    expect(() => {
      using rollback = new Rollback(() => {});
      rollback.add('undo one', () => done.push('one'));
      rollback.add('undo two', () => done.push('two'));
      throw new Error('the reason');
    }).toThrow('the reason');
    expect(done).toEqual(['two', 'one']);
  });

  test('undoes nothing after commit', () => {
    const done: string[] = [];
    {
      using rollback = new Rollback(() => {});
      rollback.add('undo one', () => done.push('one'));
      rollback.commit();
    }
    expect(done).toEqual([]);
  });

  test('logs a failing undo, goes on, and lets the first error be the one reported', () => {
    const done: string[] = [];
    const log: string[] = [];
    expect(() => {
      using rollback = new Rollback((line) => log.push(line));
      rollback.add('release the leases', () => done.push('released'));
      rollback.add('delete the link', () => {
        throw new Error('Link is busy');
      });
      rollback.add('remove the rules', () => {
        throw 'no error at all';
      });
      throw new Error('the reason');
    }).toThrow(/^the reason$/);
    expect(done).toEqual(['released']);
    expect(log).toEqual([
      'Cannot remove the rules after a failure: no error at all',
      'Cannot delete the link after a failure: Link is busy',
    ]);
  });

  test('undoes each step once', () => {
    let count = 0;
    const rollback = new Rollback(() => {});
    rollback.add('count', () => count++);
    rollback[Symbol.dispose]();
    rollback[Symbol.dispose]();
    expect(count).toBe(1);
  });
});
