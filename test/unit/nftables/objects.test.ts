// Nodes and verbs: frozen data, names nft can read, elements that fit their declaration.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import {
  add,
  chain,
  delete_,
  element,
  flush,
  map,
  remove,
  rule,
  set,
  table,
} from '../../../shared/nftables/objects.ts';
import { drop, jump } from '../../../shared/nftables/statements.ts';

const TABLE = table({ family: 'inet', name: 't' });
const VERDICTS = map({ table: TABLE, name: 'v', key: ['ipv4_addr'], data: 'verdict' });
const PORTS = map({ table: TABLE, name: 'p', key: ['inet_service'], data: ['ipv4_addr'] });
const ADDRESS = Uint8Array.of(10, 0, 0, 2);

describe('a node', () => {
  test('is frozen', () => {
    const nodes = [
      TABLE,
      VERDICTS,
      chain({ table: TABLE, name: 'c', type: 'nat', hook: 'prerouting', priority: 0 }),
      rule({ chain: { table: TABLE, name: 'c' }, statements: [drop()] }),
      set({ table: TABLE, name: 's', key: ['ipv4_addr'] }),
      element({ map: VERDICTS, key: [ADDRESS], data: jump({ name: 'c' }) }),
    ];
    for (const node of nodes) expect(Object.isFrozen(node), node.kind).toBe(true);
  });

  test.each(['1st', '-x', 'a b', 'a"', 'a;b', '', 'é', 'x'.repeat(256)])('cannot be called %j', (name) => {
    expect(() => table({ family: 'inet', name })).toThrow(`Cannot use "${name}" as a name in nftables`);
    expect(() => chain({ table: TABLE, name })).toThrow('as a name in nftables');
    expect(() => map({ table: TABLE, name, key: ['mark'], data: 'verdict' })).toThrow(
      'as a name in nftables',
    );
    expect(() => set({ table: TABLE, name, key: ['mark'] })).toThrow('as a name in nftables');
  });

  test.each(['masq_10.22.0.0-24', 'masq-fd00/64', '.hidden', '_x', 'CNI-abc'])('can be called %j', (name) => {
    expect(chain({ table: TABLE, name }).name).toBe(name);
  });
});

describe('a base chain', () => {
  test('accepts by default', () => {
    const made = chain({ table: TABLE, name: 'c', type: 'nat', hook: 'postrouting', priority: 100 });
    expect(made.base).toEqual({ type: 'nat', hook: 'postrouting', priority: 100, policy: 'accept' });
  });

  test('needs a hook to be one', () => {
    expect(chain({ table: TABLE, name: 'c' }).base).toBeUndefined();
  });
});

describe('an element', () => {
  test('of a verdict map holds a verdict, of another map a value', () => {
    expect(element({ map: VERDICTS, key: [ADDRESS], data: drop() }).data).toEqual(drop());
    expect(element({ map: PORTS, key: [Uint8Array.of(0, 80)], data: [ADDRESS] }).data).toEqual(ADDRESS);
    expect(() => element({ map: VERDICTS, key: [ADDRESS], data: [ADDRESS] })).toThrow(
      'Cannot use a value as data of map "v"',
    );
    expect(() => element({ map: PORTS, key: [Uint8Array.of(0, 80)], data: drop() })).toThrow(
      'Cannot use a verdict as data of map "p"',
    );
  });

  test('has the key its set is declared with', () => {
    expect(() => element({ map: VERDICTS, key: [Uint8Array.of(1)], data: drop() })).toThrow(
      'Cannot use 1 bytes as a value of type "ipv4_addr"',
    );
  });
});

test('a verb makes a command and nothing else', () => {
  expect(add(TABLE)).toEqual({ verb: 'add', node: TABLE });
  expect(remove(TABLE)).toEqual({ verb: 'remove', node: TABLE });
  expect(flush(VERDICTS)).toEqual({ verb: 'flush', node: VERDICTS });
  expect([VERDICTS, PORTS].map(delete_)).toEqual([
    { verb: 'delete', node: VERDICTS },
    { verb: 'delete', node: PORTS },
  ]);
});
