// Changes of the ruleset that are made together: what waits, what cannot, what is forgotten, and what follows.
// Run with the unit tests, on a ruleset that only records.
import { describe, expect, test } from 'vitest';
import { SystemError } from '../../../shared/linux/system-error.ts';
import type { Nftables } from '../../../shared/nftables/nftables.ts';
import { add, type Command, table } from '../../../shared/nftables/objects.ts';
import {
  type CommitOptions,
  commitGuarded,
  commitTogether,
  type Together,
} from '../../../shared/ruleset/commit.ts';

const EPERM = 1;
const ERESTART = 85;

/** A ruleset that takes batches, or refuses the first ones with these errors. */
function recorder(...refusals: readonly Error[]) {
  const queue = [...refusals];
  const batches: string[][] = [];
  const fake = {
    generation: () => 1,
    commit(commands: readonly Command[]) {
      const refusal = queue.shift();
      if (refusal !== undefined) throw refusal;
      batches.push(commands.map(nameOf));
    },
  };
  // Nothing else of it is asked for by whoever commits.
  const nft = fake as unknown as Nftables;
  const change = (name: string, options: CommitOptions = {}) =>
    commitGuarded(nft, () => [add(table({ family: 'inet', name }))], options);
  const together = <T>(work: (together: Together) => T) => commitTogether((use) => use(nft), work);
  return { nft, batches, change, together };
}

function nameOf({ node }: Command): string {
  return 'name' in node ? node.name : node.kind;
}

const plainly = <T>(step: () => T) => step();

describe('a change of the ruleset', () => {
  test('is made at once where nobody makes several together', () => {
    const { batches, change } = recorder();
    const told: string[] = [];
    change('one', { afterwards: () => told.push(`after ${batches.length}`) });
    change('two', { when: 'undo' });
    expect(batches).toEqual([['one'], ['two']]);
    expect(told).toEqual(['after 1']);
  });

  test('is decided again when the ruleset was changed meanwhile, and followed up once', () => {
    const { nft, batches } = recorder(new SystemError('commit', ERESTART));
    let looks = 0;
    let follows = 0;
    const plan = () => {
      looks += 1;
      return [add(table({ family: 'inet', name: `look-${looks}` }))];
    };
    commitGuarded(nft, plan, {
      afterwards: () => {
        follows += 1;
      },
    });
    expect(batches).toEqual([['look-2']]);
    expect(follows).toBe(1);
  });

  test('that changes nothing makes no batch, and is followed up', () => {
    const { nft, batches } = recorder();
    const told: string[] = [];
    commitGuarded(nft, () => [], { afterwards: () => told.push('after') });
    expect(batches).toEqual([]);
    expect(told).toEqual(['after']);
  });
});

describe('changes that are made together', () => {
  test('are one batch in their order, made when all work is done, and followed up after it in the same order', () => {
    const { batches, change, together } = recorder();
    const told: string[] = [];
    const result = together(() => {
      change('one', { afterwards: () => told.push(`one after ${batches.length}`) });
      change('two', { afterwards: () => told.push(`two after ${batches.length}`) });
      told.push(`worked before ${batches.length}`);
      return 'result';
    });
    expect(result).toBe('result');
    expect(batches).toEqual([['one', 'two']]);
    expect(told).toEqual(['worked before 0', 'one after 1', 'two after 1']);
  });

  test('do not open the ruleset when there are none', () => {
    const open = () => expect.fail('nobody should open it');
    expect(commitTogether(open, () => 1)).toBe(1);
  });

  test('are made with one that cannot wait, and what comes later is a batch of its own', () => {
    const { batches, change, together } = recorder();
    together(() => {
      change('one');
      change('two', { when: 'now' });
      expect(batches).toEqual([['one', 'two']]);
      change('three');
    });
    expect(batches).toEqual([['one', 'two'], ['three']]);
  });

  test('go on waiting while one is made alone', () => {
    const { batches, change, together } = recorder();
    together(() => {
      change('one');
      change('two', { when: 'alone' });
    });
    expect(batches).toEqual([['two'], ['one']]);
  });

  test('are forgotten when what waits is undone', () => {
    const { batches, change, together } = recorder();
    together(() => {
      change('one');
      change('undo-one', { when: 'undo' });
    });
    expect(batches).toEqual([['undo-one']]);
  });

  test('are forgotten when the work throws, and the next change is made at once', () => {
    const { batches, change, together } = recorder();
    const failing = () =>
      together(() => {
        change('one');
        throw new Error('Cannot go on');
      });
    expect(failing).toThrow('Cannot go on');
    expect(batches).toEqual([]);
    change('two');
    expect(batches).toEqual([['two']]);
  });

  test('are refused as a whole, nothing follows, and who cleans up can ask', () => {
    const { batches, change, together } = recorder(new SystemError('commit', EPERM));
    let followed = 0;
    together(({ isRefused }) => {
      expect(isRefused()).toBe(false);
      change('one', {
        afterwards: () => {
          followed += 1;
        },
      });
      expect(() => change('two', { when: 'now' })).toThrow('EPERM');
      expect(isRefused()).toBe(true);
    });
    expect(batches).toEqual([]);
    expect(followed).toBe(0);
  });

  test('are decided and followed up within the part they come from', () => {
    const { nft, batches, change, together } = recorder();
    const seen: string[] = [];
    const within =
      (name: string) =>
      <T>(step: () => T) => {
        seen.push(name);
        return step();
      };
    together(({ part }) => {
      part(within('a'), () =>
        commitGuarded(nft, () => {
          seen.push('plan of a');
          return [];
        }),
      );
      part(within('b'), () => change('b', { afterwards: () => seen.push('after b') }));
      part(plainly, () => change('c'));
      expect(batches).toEqual([]);
    });
    expect(seen).toEqual(['a', 'b', 'a', 'plan of a', 'b', 'a', 'b', 'after b']);
  });
});
