// Commits on a real kernel: all or nothing, refused when the ruleset changed, errors that name the object, any size.
import { describe, expect, test } from 'vitest';
import { isNfTablesMissing, type Nftables, openNftables } from '../../shared/nftables/nftables.ts';
import {
  add,
  type Command,
  chain,
  delete_,
  element,
  remove,
  rule,
  table,
} from '../../shared/nftables/objects.ts';
import { accept, jump } from '../../shared/nftables/statements.ts';
import * as ruleset from '../fixtures/nftables/rules.ts';
import { openTestNetns, type TestNetns } from '../support/sandbox.ts';

const { MASQUERADE4, OTHER, POSTROUTING, SUBNET, TABLE } = ruleset;
const BASE = [TABLE, MASQUERADE4, SUBNET, OTHER, POSTROUTING].map(add);

const owned = (index: number, target = OTHER) =>
  element({
    map: MASQUERADE4,
    key: [Uint8Array.of(10, index >> 16, (index >> 8) & 0xff, index & 0xff)],
    data: jump(target),
    comment: `${index.toString(16).padStart(32, '0')} of ${'x'.repeat(80)}`,
  });

const list = (host: TestNetns) => host.run('nft', '-a', 'list', 'ruleset');

function refused(nft: Nftables, commands: readonly Command[], generation?: number) {
  try {
    nft.commit(commands, { generation });
  } catch (error) {
    return error as { code: string; operation: string; message: string };
  }
  throw new Error('The kernel took it');
}

describe('the generation', () => {
  test('changes with every commit, whoever made it, and with nothing else', () => {
    using host = openTestNetns();
    using nft = openNftables(host);
    const first = nft.generation();
    nft.listRules({ table: TABLE });
    expect(nft.generation()).toBe(first);
    nft.commit([add(TABLE)]);
    const second = nft.generation();
    expect(second).not.toBe(first);
    host.run('nft', 'add', 'table', 'ip', 'other');
    expect(nft.generation()).not.toBe(second);
  });

  test('guards a commit: it holds only over the ruleset that was read', () => {
    using host = openTestNetns();
    using nft = openNftables(host);
    nft.commit(BASE);
    const generation = nft.generation();
    nft.commit([add(owned(1))], { generation });
    const before = list(host);
    const error = refused(nft, [add(owned(2)), add(owned(3))], generation);
    expect(error.code).toBe('ERESTART');
    expect(list(host)).toBe(before);
    nft.commit([add(owned(2))], { generation: nft.generation() });
    expect(nft.findElement(MASQUERADE4, owned(2).key)).toBeDefined();
  });
});

describe('a batch that fails', () => {
  const nowhere = chain({ table: TABLE, name: 'nowhere' });
  test.each<[string, Command[], string, string]>([
    [
      'at its end',
      [add(owned(1)), add(rule({ chain: OTHER, statements: [accept()] })), delete_(owned(99))],
      'delete element 10.0.0.99 from map "masquerade4" of table "inet patchbay"',
      'ENOENT',
    ],
    [
      'at its beginning',
      [delete_(nowhere), add(owned(1))],
      'delete chain "nowhere" of table "inet patchbay"',
      'ENOENT',
    ],
    [
      'at an element among others',
      [add(owned(1)), add(owned(2)), add(owned(3, nowhere)), add(owned(4))],
      'add element 10.0.0.3 to map "masquerade4" of table "inet patchbay"',
      'ENOENT',
    ],
    [
      'at a rule in the middle',
      [
        add(owned(1)),
        add(rule({ chain: nowhere, statements: [accept()], comment: 'lost' })),
        add(chain({ table: TABLE, name: 'later' })),
      ],
      'add rule "lost" to chain "nowhere" of table "inet patchbay"',
      'ENOENT',
    ],
    [
      'twice, by what comes first',
      [delete_({ kind: 'rule', chain: OTHER, handle: 4711n }), delete_(nowhere)],
      'delete rule 4711 from chain "other" of table "inet patchbay"',
      'ENOENT',
    ],
    [
      'because something is in use',
      [add(owned(1)), delete_(OTHER)],
      'delete chain "other" of table "inet patchbay"',
      'EBUSY',
    ],
    [
      'for want of a table',
      [add(chain({ table: table({ family: 'ip', name: 'gone' }), name: 'c' }))],
      'add chain "c" of table "ip gone"',
      'ENOENT',
    ],
  ])('%s changes nothing and names the object', (_where, commands, operation, code) => {
    using host = openTestNetns();
    using nft = openNftables(host);
    nft.commit(BASE);
    const before = list(host);
    const error = refused(nft, commands);
    expect(error).toMatchObject({ operation, code });
    expect(error.message).toContain(`Cannot ${operation}`);
    expect(list(host)).toBe(before);
    nft.commit([add(owned(1))]); // the socket is as good as before
    expect(nft.listElements(MASQUERADE4)).toHaveLength(1);
  });
});

test('a kind of chain the kernel does not have is a missing feature, not a missing object', () => {
  using host = openTestNetns();
  using nft = openNftables(host);
  const bridge = table({ family: 'bridge', name: 'b' });
  const nat = chain({ table: bridge, name: 'c', type: 'nat', hook: 'prerouting', priority: 0 });
  const error = refused(nft, [add(bridge), add(nat)]);
  expect(isNfTablesMissing(error)).toBe(true);
  expect(error.message).toContain('the kernel has no nat chains in tables of family "bridge"');
  expect(list(host)).toBe('');
});

describe('thousands of elements', () => {
  const count = 5000;
  const many = Array.from({ length: count }, (_none, index) => owned(index));

  test('are one batch, listed whole, found by key and by comment, and deleted in one batch', () => {
    using host = openTestNetns();
    using nft = openNftables(host);
    nft.commit([...BASE, ...many.map(add)]);
    const found = nft.listElements(MASQUERADE4);
    expect(found).toHaveLength(count);
    const sorted = found.toSorted((a, b) => Buffer.compare(a.key, b.key));
    expect(sorted).toEqual(many);
    const wanted = many[4321];
    expect(nft.findElement(MASQUERADE4, wanted?.key ?? new Uint8Array())).toEqual(wanted);
    expect(nft.listElements(MASQUERADE4, { commentPrefix: (4321).toString(16).padStart(32, '0') })).toEqual([
      wanted,
    ]);
    expect(
      host.run('nft', 'list', 'map', 'inet', 'patchbay', 'masquerade4').match(/jump other/g),
    ).toHaveLength(count);
    nft.commit(found.map(delete_));
    expect(nft.listElements(MASQUERADE4)).toEqual([]);
  });

  test('are listed whole also while the kernel still resizes the set they made grow', () => {
    using host = openTestNetns();
    using nft = openNftables(host);
    // Read once, 6 in 100 such lists lacked up to a quarter of the elements and had others twice.
    for (let round = 0; round < 20; round++) {
      nft.commit([...BASE, ...many.map(add)]);
      expect(new Set(nft.listElements(MASQUERADE4).map(({ key }) => key.join('.'))).size).toBe(count);
      nft.commit([remove(MASQUERADE4)]);
    }
  });

  test('fail together, naming the one at fault', () => {
    using host = openTestNetns();
    using nft = openNftables(host);
    nft.commit([...BASE, add(owned(3333, SUBNET))]);
    const error = refused(nft, many.map(add));
    expect(error.operation).toBe('add element 10.0.13.5 to map "masquerade4" of table "inet patchbay"');
    expect(error.code).toBe('EEXIST');
    expect(nft.listElements(MASQUERADE4)).toHaveLength(1);
  });

  test('that are all refused are refused once', () => {
    using host = openTestNetns();
    using nft = openNftables(host);
    nft.commit(BASE);
    const error = refused(nft, many.map(delete_));
    expect(error).toMatchObject({
      operation: 'delete element 10.0.0.0 from map "masquerade4" of table "inet patchbay"',
    });
  });

  test('of many maps, each its own message, are refused as well', () => {
    using host = openTestNetns();
    using nft = openNftables(host);
    nft.commit(BASE);
    // neighbours that differ share no message: 5,000 refusals are queued
    const chains = many.map((_element, index) => delete_({ kind: 'chain', table: TABLE, name: `c${index}` }));
    expect(refused(nft, chains)).toMatchObject({
      operation: 'delete chain "c0" of table "inet patchbay"',
      code: 'ENOENT',
    });
    nft.commit([add(owned(1))]);
    expect(nft.listElements(MASQUERADE4)).toHaveLength(1);
  });
});
