// Chains of others on the forward hook, written by the tools people use, and what we say about a container's packets there.
import { describe, expect, test } from 'vitest';
import { parseIp } from '../../shared/ip/cidr.ts';
import { explainObstacle, findClosedChains, findObstacles } from '../../shared/ruleset/forward-path.ts';
import { insideWithNftables, openTestNetns } from '../support/sandbox.ts';

const PASSAGE = { bridge: 'cni0', addresses: [parseIp('10.22.0.2'), parseIp('fd00:22::2')] };
const GUARD =
  'add table inet guard; add chain inet guard forward { type filter hook forward priority 10; policy drop; }';
const OPEN = 'add chain inet guard forward { policy accept; }';
const rule = (text: string) => `add rule inet guard forward ${text}`;

/** What stands in the way after these scripts, as `family table chain IPv`. */
function obstacles(...scripts: readonly (readonly [program: string, script: string])[]): string[] {
  using host = openTestNetns();
  for (const [program, script] of scripts) {
    if (program === 'nft') host.feed(script.replaceAll('; add', '\nadd'), 'nft', '-f', '-');
    else host.run('bash', '--norc', '-ec', script);
  }
  return insideWithNftables(host, (nft) =>
    findObstacles(nft, PASSAGE).map(
      ({ chain, family }) => `${chain.table.family} ${chain.table.name} ${chain.name} IPv${family}`,
    ),
  );
}

const BOTH = ['inet guard forward IPv4', 'inet guard forward IPv6'];

describe('a chain with policy drop', () => {
  test.each<[string, readonly string[], string[]]>([
    ['without rules is in the way', [], BOTH],
    ['that accepts is not', [OPEN], []],
    [
      'that lets the bridge through both ways is not',
      [rule('iifname "cni0" accept'), rule('oifname "cni0" counter accept')],
      [],
    ],
    [
      'that lets links through whose names begin so is not',
      [rule('iifname "cni*" accept'), rule('oifname "cni*" accept')],
      [],
    ],
    [
      'that knows a set of links is not',
      [rule('iifname { "docker0", "cni0" } accept'), rule('ct status dnat accept')],
      [],
    ],
    [
      'that has a map of verdicts is not',
      [rule('iifname vmap { "cni0" : accept, "eth9" : drop }'), rule('ct status dnat accept')],
      [],
    ],
    [
      'that lets the subnets through is not',
      [
        rule('ip saddr 10.22.0.0/20 accept'),
        rule('ip6 saddr fd00:22::/60 accept'),
        rule('ct state new ct status dnat accept'),
      ],
      [],
    ],
    [
      'that asks another chain is not, when that one accepts',
      [
        'add chain inet guard mine',
        'add rule inet guard mine iifname "cni0" accept',
        'add rule inet guard mine oifname "cni0" accept',
        rule('counter jump mine'),
      ],
      [],
    ],
    [
      'that goes to another chain never comes back from there',
      ['add chain inet guard mine', rule('goto mine'), rule('accept')],
      BOTH,
    ],
    [
      'that another chain returns to goes on',
      ['add chain inet guard mine', 'add rule inet guard mine return', rule('jump mine'), rule('accept')],
      [],
    ],
    ['that lets answers alone through is', [rule('ct state established,related accept')], BOTH],
    ['that lets one port through is', [rule('iifname "cni0" tcp dport 80 accept')], BOTH],
    [
      'that lets another bridge through is',
      [rule('iifname "cni01" accept'), rule('oifname "cni01" accept')],
      BOTH,
    ],
    [
      'that lets the bridge through unless it is marked is',
      [rule('iifname "cni0" meta mark 7 accept')],
      BOTH,
    ],
    [
      'that lets one family through is, for the other',
      [rule('meta nfproto ipv6 accept')],
      ['inet guard forward IPv4'],
    ],
    [
      'that lets out but lets no published port in is',
      [rule('iifname "cni0" accept'), rule('oifname "cni0" ct state established accept')],
      BOTH,
    ],
  ])('%s', (_, lines, expected) => {
    expect(obstacles(['nft', [GUARD, ...lines].join('; ')])).toEqual(expected);
  });
});

describe('a chain with policy accept', () => {
  test.each<[string, readonly string[], string[]]>([
    ['that rejects in its last rule is in the way', [rule('reject with icmpx admin-prohibited')], BOTH],
    [
      'that drops a subnet is, for its family',
      [rule('ip saddr 10.22.0.0/16 counter drop')],
      ['inet guard forward IPv4'],
    ],
    ['that drops what is not valid is not', [rule('ct state invalid drop')], []],
    ['that drops a port is not', [rule('tcp dport 25 drop')], []],
    ['that drops what comes by another link is not', [rule('iifname "eth9" drop')], []],
    [
      'that accepts before it drops is not',
      [rule('iifname "cni0" log accept'), rule('oifname "cni0" accept'), rule('drop')],
      [],
    ],
  ])('%s', (_, lines, expected) => {
    expect(obstacles(['nft', [GUARD, OPEN, ...lines].join('; ')])).toEqual(expected);
  });
});

describe('iptables', () => {
  const drop = 'iptables -P FORWARD DROP';

  test.each<[string, string, string[]]>([
    ['with policy DROP is in the way', drop, ['ip filter FORWARD IPv4']],
    ['with a REJECT at the end is', 'iptables -A FORWARD -j REJECT', ['ip filter FORWARD IPv4']],
    ['of IPv6 is, for IPv6', 'ip6tables -P FORWARD DROP', ['ip6 filter FORWARD IPv6']],
    [
      'with a REJECT of what is no answer is',
      'iptables -A FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j REJECT',
      ['ip filter FORWARD IPv4'],
    ],
    [
      'with a DROP of what is invalid is not',
      'iptables -A FORWARD -m conntrack --ctstate INVALID -j DROP',
      [],
    ],
    [
      'that lets the address through is not',
      `${drop}; iptables -A FORWARD -s 10.22.0.2/32 -m comment --comment own -j ACCEPT
       iptables -A FORWARD -d 10.22.0.2 -m conntrack --ctstate NEW,DNAT -j ACCEPT`,
      [],
    ],
    [
      'that lets another address through is',
      `${drop}; iptables -A FORWARD -s 10.22.0.3/32 -j ACCEPT; iptables -A FORWARD -d 10.22.0.3 -j ACCEPT`,
      ['ip filter FORWARD IPv4'],
    ],
    [
      'that lets the bridge through, but not from a link that any packet may come by, is',
      `${drop}; iptables -A FORWARD -i cni0 -j ACCEPT; iptables -A FORWARD ! -i eth0 -o cni+ -j ACCEPT`,
      ['ip filter FORWARD IPv4'],
    ],
    [
      'that lets the bridge through by whatever other link is not',
      `${drop}; iptables -A FORWARD -i cni0 -j ACCEPT; iptables -A FORWARD -o cni+ -j ACCEPT`,
      [],
    ],
  ])('%s', (_, script, expected) => {
    expect(obstacles(['bash', script])).toEqual(expected);
  });
});

test('a line that helps is one that nft takes, and then nothing is in the way', () => {
  using host = openTestNetns();
  host.feed(GUARD.replaceAll('; add', '\nadd'), 'nft', '-f', '-');
  const [first] = insideWithNftables(host, (nft) => findObstacles(nft, PASSAGE));
  const said = first === undefined ? '' : explainObstacle(first.chain, 'cni0');
  host.run('bash', '--norc', '-ec', said.slice(said.indexOf('nft ')));
  expect(insideWithNftables(host, (nft) => findObstacles(nft, PASSAGE))).toEqual([]);
});

test('a name that a shell could take for more gets no line to copy', () => {
  const chain = { table: { family: 'inet', name: "x'; reboot #" }, name: 'forward' } as const;
  expect(explainObstacle(chain, 'cni0')).not.toContain('nft ');
});

test('before there is a container, a chain counts that lets no link and no address through', () => {
  using host = openTestNetns();
  host.feed(GUARD.replaceAll('; add', '\nadd'), 'nft', '-f', '-');
  const closed = () => insideWithNftables(host, (nft) => findClosedChains(nft).map(({ name }) => name));
  expect(closed()).toEqual(['forward']);
  host.run('nft', 'add', 'rule', 'inet', 'guard', 'forward', 'iifname', 'any0', 'accept');
  expect(closed()).toEqual([]);
});
