// Plans of masquerade chains and the iptables-restore text they become, compared with what the reference makes.
// Run by vitest, project "unit".

import { describe, expect, test } from 'vitest';
import { parseCidr } from '../../../shared/ip/cidr.ts';
import {
  encodeNewChain,
  encodeRemoval,
  encodeRepair,
  encodeUsualRemoval,
  familiesOf,
  findMissing,
  planMasquerade,
} from '../../../shared/iptables/masquerade-plan.ts';
import { parseSave } from '../../../shared/iptables/save-format.ts';

const CHAIN = 'CNI-7be53730afe4dc6eb2178d03';
const COMMENT = '-m comment --comment "name: \\"n1\\" id: \\"c1\\""';

function plan(...addresses: string[]) {
  return planMasquerade({ network: 'n1', containerId: 'c1', addresses: addresses.map(parseCidr) });
}

function saved(...rules: string[]) {
  return parseSave([`:POSTROUTING ACCEPT [0:0]`, `:${CHAIN} - [0:0]`, ...rules].join('\n'));
}

function commandsOf(text: string | undefined): string[] | undefined {
  if (text === undefined) return undefined;
  const lines = text.split('\n');
  expect([lines[0], ...lines.slice(-2)]).toEqual(['*nat', 'COMMIT', '']);
  return lines.slice(1, -2);
}

const JUMP = `-A POSTROUTING -s 10.22.0.2/32 ${COMMENT} -j ${CHAIN}`;
const ACCEPT = `-A ${CHAIN} -d 10.22.0.0/24 ${COMMENT} -j ACCEPT`;
const MASQUERADE = `-A ${CHAIN} ! -d 224.0.0.0/4 ${COMMENT} -j MASQUERADE`;
const SECOND_JUMP = `-A POSTROUTING -s 10.23.0.9/32 ${COMMENT} -j ${CHAIN}`;
const SECOND_ACCEPT = `-A ${CHAIN} -d 10.23.0.0/24 ${COMMENT} -j ACCEPT`;

describe('a new chain', () => {
  test('holds the rules the reference makes, for IPv4', () => {
    expect(commandsOf(encodeNewChain(plan('10.22.0.2/24', 'fd00:22::2/64'), 4))).toEqual([
      `-N ${CHAIN}`,
      ACCEPT,
      MASQUERADE,
      JUMP,
    ]);
  });

  test('holds the rules the reference makes, for IPv6', () => {
    expect(commandsOf(encodeNewChain(plan('10.22.0.2/24', 'fd00:22::2/64'), 6))).toEqual([
      `-N ${CHAIN}`,
      `-A ${CHAIN} -d fd00:22::/64 ${COMMENT} -j ACCEPT`,
      `-A ${CHAIN} ! -d ff00::/8 ${COMMENT} -j MASQUERADE`,
      `-A POSTROUTING -s fd00:22::2/128 ${COMMENT} -j ${CHAIN}`,
    ]);
  });

  test('has every exception before the masquerade, and one for addresses of the same subnet', () => {
    expect(commandsOf(encodeNewChain(plan('10.22.0.2/24', '10.22.0.3/24', '10.23.0.9/24'), 4))).toEqual([
      `-N ${CHAIN}`,
      ACCEPT,
      SECOND_ACCEPT,
      MASQUERADE,
      JUMP,
      `-A POSTROUTING -s 10.22.0.3/32 ${COMMENT} -j ${CHAIN}`,
      SECOND_JUMP,
    ]);
  });

  test('is made for the families there are addresses of', () => {
    expect(familiesOf(plan('fd00:22::2/64'))).toEqual([6]);
    expect(familiesOf(plan('fd00:22::2/64', '10.22.0.2/24'))).toEqual([4, 6]);
    expect(familiesOf(plan())).toEqual([]);
  });

  test('is refused to names that could write rules of their own', () => {
    expect(() => planMasquerade({ network: 'n1"\n-F', containerId: 'c1', addresses: [] })).toThrow(
      'Cannot write network name "n1\\"\\n-F" into a rule',
    );
  });
});

describe('the repair of a chain that exists', () => {
  test('is nothing when all is there', () => {
    expect(encodeRepair(plan('10.22.0.2/24'), 4, saved(JUMP, ACCEPT, MASQUERADE))).toBeUndefined();
  });

  test('adds what a second attachment needs before the masquerade, and leaves the first alone', () => {
    expect(commandsOf(encodeRepair(plan('10.23.0.9/24'), 4, saved(JUMP, ACCEPT, MASQUERADE)))).toEqual([
      `-I ${CHAIN} -d 10.23.0.0/24 ${COMMENT} -j ACCEPT`,
      SECOND_JUMP,
    ]);
  });

  test('moves an exception that the reference put behind the masquerade', () => {
    const listing = saved(JUMP, SECOND_JUMP, ACCEPT, MASQUERADE, SECOND_ACCEPT);
    expect(commandsOf(encodeRepair(plan('10.23.0.9/24'), 4, listing))).toEqual([
      `-D ${CHAIN} -d 10.23.0.0/24 ${COMMENT} -j ACCEPT`,
      `-I ${CHAIN} -d 10.23.0.0/24 ${COMMENT} -j ACCEPT`,
    ]);
  });

  test('fills a chain that was flushed', () => {
    expect(commandsOf(encodeRepair(plan('10.22.0.2/24'), 4, saved(JUMP)))).toEqual([
      `-I ${CHAIN} -d 10.22.0.0/24 ${COMMENT} -j ACCEPT`,
      MASQUERADE,
    ]);
  });
});

describe('what CHECK misses', () => {
  test('is nothing when all is there', () => {
    expect(findMissing(plan('10.22.0.2/24'), 4, saved(JUMP, ACCEPT, MASQUERADE))).toBeUndefined();
  });

  test('is named, one by one', () => {
    const wanted = plan('10.22.0.2/24');
    expect(findMissing(wanted, 4, parseSave(''))).toBe(`chain "${CHAIN}"`);
    expect(findMissing(wanted, 4, saved(JUMP, ACCEPT))).toContain('masquerade rule');
    expect(findMissing(wanted, 4, saved(ACCEPT, MASQUERADE))).toContain('jump of address "10.22.0.2"');
    expect(findMissing(wanted, 4, saved(JUMP, MASQUERADE))).toContain('exception of subnet "10.22.0.0/24"');
  });
});

describe('a removal', () => {
  test('takes the jumps and then the chain', () => {
    expect(commandsOf(encodeRemoval(CHAIN, saved(JUMP, ACCEPT, MASQUERADE), {}))).toEqual([
      JUMP.replace('-A', '-D'),
      `-F ${CHAIN}`,
      `-X ${CHAIN}`,
    ]);
  });

  test('of the usual chain needs no listing', () => {
    expect(commandsOf(encodeUsualRemoval(plan('10.22.0.2/24', 'fd00:22::2/64'), 4))).toEqual([
      JUMP.replace('-A', '-D'),
      `-F ${CHAIN}`,
      `-X ${CHAIN}`,
    ]);
  });

  test('knows the historic spelling of the source, with the prefix of the subnet', () => {
    const historic = `-A POSTROUTING -s 10.22.0.0/24 ${COMMENT} -j ${CHAIN}`;
    const scope = { addresses: [parseCidr('10.22.0.2/24')] };
    expect(commandsOf(encodeRemoval(CHAIN, saved(historic, ACCEPT), scope))).toEqual([
      historic.replace('-A', '-D'),
      `-F ${CHAIN}`,
      `-X ${CHAIN}`,
    ]);
  });

  test('of one attachment leaves the other its jump, its exception and the chain', () => {
    const listing = saved(JUMP, SECOND_JUMP, ACCEPT, SECOND_ACCEPT, MASQUERADE);
    const scope = { addresses: [parseCidr('10.22.0.2/24')] };
    expect(commandsOf(encodeRemoval(CHAIN, listing, scope))).toEqual([
      JUMP.replace('-A', '-D'),
      ACCEPT.replace('-A', '-D'),
    ]);
  });

  test('of one attachment leaves an exception that the other shares', () => {
    const neighbour = JUMP.replace('10.22.0.2', '10.22.0.7');
    const scope = { addresses: [parseCidr('10.22.0.2/24')] };
    expect(commandsOf(encodeRemoval(CHAIN, saved(JUMP, neighbour, ACCEPT, MASQUERADE), scope))).toEqual([
      JUMP.replace('-A', '-D'),
    ]);
  });

  test('without addresses leaves what the caller knows to be in use', () => {
    const listing = saved(JUMP, SECOND_JUMP, ACCEPT, SECOND_ACCEPT, MASQUERADE);
    expect(commandsOf(encodeRemoval(CHAIN, listing, { keep: [parseCidr('10.23.0.9/24')] }))).toEqual([
      JUMP.replace('-A', '-D'),
      ACCEPT.replace('-A', '-D'),
    ]);
  });

  test('takes a chain that nothing jumps to, whatever the addresses', () => {
    const scope = { addresses: [parseCidr('10.22.0.2/24')] };
    expect(commandsOf(encodeRemoval(CHAIN, saved(), scope))).toEqual([`-F ${CHAIN}`, `-X ${CHAIN}`]);
  });

  test('is nothing when there is nothing, or only what belongs to another attachment', () => {
    expect(encodeRemoval(CHAIN, parseSave(':POSTROUTING ACCEPT [0:0]'), {})).toBeUndefined();
    const scope = { addresses: [parseCidr('10.22.0.2/24')] };
    expect(encodeRemoval(CHAIN, saved(SECOND_JUMP, SECOND_ACCEPT, MASQUERADE), scope)).toBeUndefined();
  });
});
