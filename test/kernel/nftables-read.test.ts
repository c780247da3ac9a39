// What we read of a ruleset nft wrote, by name, by key and by listing, also while others change it.
import { spawn } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { decodeExprs } from '../../shared/nftables/decode.ts';
import { lowerStatements } from '../../shared/nftables/lower.ts';
import { formatExprs } from '../../shared/nftables/mnemonic.ts';
import { openNftables } from '../../shared/nftables/nftables.ts';
import { add, element, set, table } from '../../shared/nftables/objects.ts';
import { jump } from '../../shared/nftables/statements.ts';
import * as ruleset from '../fixtures/nftables/rules.ts';
import { openTestNetns, type TestNetns } from '../support/sandbox.ts';

const { MASQUERADE4, OTHER, SUBNET, TABLE } = ruleset;

function writtenByNft(script = ruleset.rulesetScript()): TestNetns {
  const host = openTestNetns();
  host.feed(script, 'nft', '-f', '-');
  return host;
}

describe('a ruleset nft wrote', () => {
  test('is found by name', () => {
    using host = writtenByNft();
    using nft = openNftables(host);
    expect(nft.findTable(TABLE)).toMatchObject({
      family: 'inet',
      name: 'patchbay',
      comment: 'table comment',
    });
    expect(nft.findChain(SUBNET)).toMatchObject({
      name: 'subnet',
      comment: 'chain comment',
      base: undefined,
    });
    expect(nft.findChain(ruleset.POSTROUTING)).toMatchObject({
      comment: 'base chain comment',
      base: { type: 'nat', hook: 4, priority: 100, policy: 'accept' },
    });
    expect(nft.findChain(ruleset.FORWARD)?.base?.policy).toBe('drop');
    expect(nft.findTable(table({ family: 'ip', name: 'patchbay' }))).toBeUndefined();
    expect(nft.findChain({ table: TABLE, name: 'nowhere' })).toBeUndefined();
    expect(nft.findChain({ table: { family: 'inet', name: 'nowhere' }, name: 'subnet' })).toBeUndefined();
  });

  test('has the rules we would write, in their order', () => {
    using host = writtenByNft();
    using nft = openNftables(host);
    for (const { node } of ruleset.CHAINS) {
      const found = nft.listRules({ table: TABLE, chain: node.name });
      const wanted = ruleset.RULES.filter(({ chain }) => chain === node);
      expect(found.map(({ program }) => formatExprs(decodeExprs(program)))).toEqual(
        wanted.map(({ statements }) => formatExprs(lowerStatements(statements, 'inet'))),
      );
      expect(found.map(({ comment }) => comment)).toEqual(wanted.map(({ comment }) => comment));
    }
    expect(nft.listRules({ table: TABLE })).toHaveLength(ruleset.RULES.length);
  });

  test('has the elements we would write, listed and asked for by key', () => {
    using host = writtenByNft();
    using nft = openNftables(host);
    for (const { node } of ruleset.ELEMENTS) {
      expect(nft.findElement(node.set, node.key)).toEqual(node);
      expect(nft.listElements(node.set)).toContainEqual(node);
    }
    expect(nft.findElement(MASQUERADE4, ruleset.address('10.22.0.3'))).toBeUndefined();
    expect(nft.listElements(MASQUERADE4, { commentPrefix: 'owner 1' })).toHaveLength(1);
    expect(nft.listElements(MASQUERADE4, { commentPrefix: 'owner 2' })).toEqual([]);
  });

  test('has its chains listed without those of other tables', () => {
    using host = writtenByNft(
      `${ruleset.rulesetScript()}add table inet other\nadd chain inet other stranger\n`,
    );
    using nft = openNftables(host);
    expect(nft.listChains(TABLE).map(({ name }) => name)).toEqual(
      ruleset.CHAINS.map(({ node }) => node.name),
    );
    expect(nft.listChains({ family: 'ip', name: 'patchbay' })).toEqual([]);
  });

  test('of kinds we do not know is read as far as we know it', () => {
    using host = writtenByNft(`
      table ip6 strange {
        set ranges { type ipv6_addr; flags interval; elements = { fd00::1-fd00::7, fd00:1::/32 } }
        set timed {
          type ipv6_addr . inet_service; flags timeout, dynamic; timeout 1h
          elements = { fd00::1 . 5 comment "mine" }
        }
        chain c {
          type filter hook input priority 5; policy accept;
          counter limit rate 10/second log prefix "x" comment "known comment"
          ct state established,related counter accept
          tcp option maxseg size set 1300
          meta l4proto { tcp, udp } th dport 1-7 drop
          update @timed { ip6 saddr . tcp dport }
          ip6 saddr @ranges jump d
        }
        chain d {
        }
      }`);
    using nft = openNftables(host);
    const strange = { family: 'ip6', name: 'strange' } as const;
    const rules = nft.listRules({ table: strange, chain: 'c' });
    expect(rules).toHaveLength(6);
    expect(rules[0]?.comment).toBe('known comment');
    expect(formatExprs(decodeExprs(rules[0]?.program ?? new Uint8Array()))).toEqual([
      '[ counter ? ]',
      '[ limit ? ]',
      '[ log ? ]',
    ]);
    expect(nft.listElements(set({ table: TABLE, name: 'ranges', key: ['ipv6_addr'] }))).toEqual([]);
    expect(nft.listElements({ table: strange, name: 'ranges' }).length).toBeGreaterThanOrEqual(4);
    expect(nft.listElements({ table: strange, name: 'timed' })).toMatchObject([{ comment: 'mine' }]);
  });
});

test('an empty namespace holds nothing, and asking is no error', () => {
  using host = openTestNetns();
  using nft = openNftables(host);
  expect(nft.generation()).toBeGreaterThan(0);
  expect(nft.findTable(TABLE)).toBeUndefined();
  expect(nft.listChains(TABLE)).toEqual([]);
  expect(nft.listRules({ table: TABLE })).toEqual([]);
  expect(nft.listRules({ table: TABLE, chain: 'c' })).toEqual([]);
  expect(nft.listElements(MASQUERADE4)).toEqual([]);
  expect(nft.findElement(MASQUERADE4, ruleset.address('1.2.3.4'))).toBeUndefined();
});

test('a key of another length than the map’s is an error that names the key', () => {
  using host = writtenByNft();
  using nft = openNftables(host);
  expect(() => nft.findElement(MASQUERADE4, Uint8Array.of(1, 2, 3, 4, 5, 6))).toThrow(
    'find element 0x010203040506 of map "masquerade4"',
  );
});

/** How often another program changes the ruleset meanwhile. */
const CHANGES = 100;

test('a large map is listed whole while another program keeps changing the ruleset', async () => {
  const count = 5000;
  using host = writtenByNft();
  using nft = openNftables(host);
  const key = (index: number) => [Uint8Array.of(10, 99, index >> 8, index & 0xff)];
  nft.commit(
    Array.from({ length: count }, (_none, index) =>
      add(element({ map: MASQUERADE4, key: key(index), data: jump(OTHER), comment: `number ${index}` })),
    ),
  );
  const changes = `i=0; while [ $i -lt ${CHANGES} ]; do nft "add table ip x; delete table ip x"; i=$((i+1)); done`;
  const other = spawn('nsenter', [`--net=${host.path}`, 'sh', '-c', changes], { stdio: 'ignore' });
  const before = nft.generation();
  const deadline = Date.now() + 60_000;
  let rounds = 0;
  // A list that was read is not read again before something changes, so what counts is how often something did.
  while (nft.generation() < before + CHANGES / 2) {
    const keys = new Set(nft.listElements(MASQUERADE4).map((found) => found.key.join('.')));
    expect(keys.size).toBe(count + 1);
    expect(nft.listElements(MASQUERADE4, { commentPrefix: `number ${rounds}` }).length).toBeGreaterThan(0);
    expect(Date.now()).toBeLessThan(deadline);
    rounds++;
  }
  other.kill();
  await new Promise((resolve) => other.once('close', resolve));
  expect(rounds).toBeGreaterThan(5);
});
