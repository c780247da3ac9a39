// What we write, as the real tool sees it: the same text as for nft's own words, loadable again.
import { describe, expect, test } from 'vitest';
import { type Nftables, openNftables } from '../../shared/nftables/nftables.ts';
import {
  add,
  type Command,
  chain,
  create,
  delete_,
  element,
  flush,
  map,
  remove,
  rule,
  table,
} from '../../shared/nftables/objects.ts';
import { accept, drop, jump, return_ } from '../../shared/nftables/statements.ts';
import { BRIDGE_RULES, bridgeCommands, bridgeScript } from '../fixtures/nftables/bridge-rules.ts';
import * as ruleset from '../fixtures/nftables/rules.ts';
import { openTestNetns, type TestNetns } from '../support/sandbox.ts';

const { MASQUERADE4, OTHER, POSTROUTING, SUBNET, TABLE } = ruleset;

/** A namespace in which something was committed. */
function committed(...batches: readonly (readonly Command[])[]): TestNetns {
  const host = openTestNetns();
  try {
    using nft = openNftables(host);
    for (const commands of batches) nft.commit(commands);
    return host;
  } catch (error) {
    host[Symbol.dispose]();
    throw error;
  }
}

const list = (host: TestNetns) => host.run('nft', 'list', 'ruleset');

/** `nft -j` without the numbers the kernel gives. */
function listJson(host: TestNetns): unknown {
  const text = host.run('nft', '-j', 'list', 'ruleset');
  return JSON.parse(text, (key, value) => (key === 'handle' ? undefined : value));
}

describe('a table with every statement', () => {
  test('is listed by nft as if nft had written it', () => {
    using ours = committed(ruleset.rulesetCommands());
    using theirs = openTestNetns();
    theirs.feed(ruleset.rulesetScript(), 'nft', '-f', '-');
    expect(list(ours).split('\n')).toEqual(list(theirs).split('\n'));
    expect(listJson(ours)).toEqual(listJson(theirs));
  });

  test('survives being listed, and loaded into an empty namespace', () => {
    using ours = committed(ruleset.rulesetCommands());
    using again = openTestNetns();
    again.feed(list(ours), 'nft', '-f', '-');
    expect(list(again)).toBe(list(ours));
    expect(listJson(again)).toEqual(listJson(ours));
  });

  test('has every rule in nft’s own words', () => {
    using ours = committed(ruleset.rulesetCommands());
    // protocols as numbers: their names come from /etc/protocols, which a small system lacks
    const text = ours.run('nft', '--numeric-protocol', 'list', 'ruleset');
    const lines = text.split('\n').map((line) => line.trim());
    for (const { nft, comment } of ruleset.RULES) {
      const numeric = nft.replace(
        /(l4proto (?:!= )?)(tcp|udp)/,
        (_all, before, name) => before + PROTOCOLS[name],
      );
      expect(lines).toContain(comment === undefined ? numeric : `${numeric} comment "${comment}"`);
    }
  });
});

const PROTOCOLS: Readonly<Record<string, number>> = { tcp: 6, udp: 17 };

test('a table of a bridge is listed as if nft had written it, and survives being listed and loaded', () => {
  using ours = committed(bridgeCommands());
  using theirs = openTestNetns();
  theirs.feed(bridgeScript(), 'nft', '-f', '-');
  expect(list(ours).split('\n')).toEqual(list(theirs).split('\n'));
  const lines = list(ours)
    .split('\n')
    .map((line) => line.trim());
  expect(lines).toEqual(expect.arrayContaining(BRIDGE_RULES.map(({ nft }) => nft)));
  using again = openTestNetns();
  again.feed(list(ours), 'nft', '-f', '-');
  expect(programs(again)).toBe(programs(ours)); // the text alone would hide how nft asks for the protocol
});

const programs = (host: TestNetns) => host.run('nft', '--debug=netlink', 'list', 'ruleset');

test('a rule for one protocol can stand in a table of that family', () => {
  const ip4 = table({ family: 'ip', name: 'four' });
  const bridge = table({ family: 'bridge', name: 'b' });
  const in4 = chain({ table: ip4, name: 'c' });
  const inBridge = chain({ table: bridge, name: 'c', type: 'filter', hook: 'prerouting', priority: -300 });
  const [match] = ruleset.RULES[0]?.statements ?? [];
  if (match === undefined) throw new Error('No statement');
  using ours = committed([
    ...[ip4, bridge, in4, inBridge].map(add),
    ...[in4, inBridge].map((to) => add(rule({ chain: to, statements: [match, drop()] }))),
  ]);
  const text = list(ours);
  expect(text.match(/ip daddr 10\.22\.0\.0\/24 drop/g)).toHaveLength(2);
  using again = openTestNetns();
  again.feed(text, 'nft', '-f', '-');
  expect(list(again)).toBe(text);
});

test('the longest comment survives listing and loading', () => {
  const comment = `owner ${'é'.repeat(20)}, net: n1 #;{}$@!'${'x'.repeat(63)}`;
  expect(Buffer.byteLength(comment)).toBe(127);
  const commented = table({ family: 'inet', name: 't', comment });
  const inside = chain({ table: commented, name: 'c', comment });
  const held = map({ table: commented, name: 'm', key: ['ipv4_addr'], data: 'verdict', comment });
  using ours = committed([
    ...[commented, inside, held].map(add),
    add(rule({ chain: inside, statements: [accept()], comment })),
    add(element({ map: held, key: [ruleset.address('10.0.0.1')], data: drop(), comment })),
  ]);
  const text = list(ours);
  expect(text.split(comment)).toHaveLength(6);
  using again = openTestNetns();
  again.feed(text, 'nft', '-f', '-');
  expect(list(again)).toBe(text);
});

describe('verbs', () => {
  const own = element({
    map: MASQUERADE4,
    key: [ruleset.address('10.22.0.9')],
    data: jump(SUBNET),
    comment: 'mine',
  });
  const base = [TABLE, MASQUERADE4, SUBNET, OTHER, POSTROUTING].map(add);

  function attempt(nft: Nftables, ...commands: Command[]): string {
    try {
      nft.commit(commands);
      return 'done';
    } catch (error) {
      return (error as { code: string }).code;
    }
  }

  test('add takes what is there already, create does not', () => {
    using host = committed(base);
    using nft = openNftables(host);
    for (const node of [TABLE, MASQUERADE4, SUBNET, POSTROUTING]) {
      expect(attempt(nft, add(node)), node.kind).toBe('done');
      expect(attempt(nft, create(node)), node.kind).toBe('EEXIST');
    }
    expect(attempt(nft, create(own))).toBe('done');
    expect(attempt(nft, add(own))).toBe('done');
    expect(attempt(nft, create(own))).toBe('EEXIST');
  });

  test('add of an element with other data fails; deleting and adding it in one batch replaces it', () => {
    using host = committed([...base, add(own)]);
    using nft = openNftables(host);
    const other = element({
      map: MASQUERADE4,
      key: [ruleset.address('10.22.0.9')],
      data: return_(),
      comment: 'new',
    });
    expect(attempt(nft, add(other))).toBe('EEXIST');
    nft.commit([delete_(own), add(other)]);
    expect(nft.listElements(MASQUERADE4)).toMatchObject([{ comment: 'new', data: { code: 'return' } }]);
  });

  test('add does not change a comment, deleting and adding in one batch does', () => {
    using host = committed(base);
    using nft = openNftables(host);
    const renamed = chain({ table: TABLE, name: SUBNET.name, comment: 'version 2' });
    nft.commit([add(renamed)]);
    expect(nft.findChain(SUBNET)?.comment).toBe('chain comment');
    nft.commit([delete_(SUBNET), add(renamed)]);
    expect(nft.findChain(SUBNET)?.comment).toBe('version 2');
  });

  test('delete takes what was listed: rules by handle, elements by key', () => {
    using host = committed(ruleset.rulesetCommands());
    using nft = openNftables(host);
    const rules = nft.listRules({ table: TABLE, chain: 'forward' });
    nft.commit(rules.slice(1).map(delete_));
    expect(nft.listRules({ table: TABLE, chain: 'forward' }).map(({ handle }) => handle)).toEqual([
      rules[0]?.handle,
    ]);
    for (const { node } of ruleset.SETS) {
      nft.commit(nft.listElements(node).map(delete_));
      expect(nft.listElements(node), node.name).toEqual([]);
    }
    nft.commit([flush(TABLE), delete_(POSTROUTING), delete_(MASQUERADE4)]);
    expect(nft.findChain(POSTROUTING)).toBeUndefined();
    nft.commit([delete_(TABLE)]);
    expect(list(host)).toBe('');
  });

  test('delete of what is not there fails, remove does not mind', () => {
    using host = openTestNetns();
    using nft = openNftables(host);
    expect(attempt(nft, delete_(TABLE))).toBe('ENOENT');
    nft.commit([remove(TABLE)]);
    nft.commit(base);
    expect(attempt(nft, delete_(own))).toBe('ENOENT');
    nft.commit([add(rule({ chain: OTHER, statements: [accept()] }))]);
    for (const node of [OTHER, MASQUERADE4]) {
      nft.commit([remove(node)]);
      expect(list(host)).not.toContain(node.name);
      nft.commit([remove(node)]);
    }
    nft.commit([remove(TABLE)]);
    expect(list(host)).toBe('');
  });

  test('flush empties a chain, a table, a map', () => {
    using host = committed(ruleset.rulesetCommands());
    using nft = openNftables(host);
    nft.commit([flush(POSTROUTING)]);
    expect(nft.listRules({ table: TABLE, chain: 'postrouting' })).toEqual([]);
    expect(nft.listRules({ table: TABLE, chain: 'forward' })).not.toEqual([]);
    nft.commit([flush(MASQUERADE4), flush(ruleset.LINKS)]);
    expect(nft.listElements(MASQUERADE4)).toEqual([]);
    expect(nft.listElements(ruleset.LINKS)).toEqual([]);
    nft.commit([flush(TABLE)]);
    expect(nft.listRules({ table: TABLE })).toEqual([]);
  });
});
