// What a checked bridge port lets through, frame by frame: forged by hand in one sandbox, looked for in another.
// Run by vitest, project "kernel", as root.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hostLinkName } from '../../shared/cni/attachment.ts';
import { parseIp } from '../../shared/ip/cidr.ts';
import type { Netns } from '../../shared/linux/netns.ts';
import { type Nftables, openNftables } from '../../shared/nftables/nftables.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import {
  expectSpoofCheck,
  planSpoofCheck,
  planSpoofRemoval,
  planStaleSpoofRemoval,
  type SpoofCheck,
} from '../../shared/ruleset/spoof-check.ts';
import {
  arp,
  arrives,
  type EthernetFields,
  ethernet,
  icmp,
  icmpv6,
  ipv4,
  ipv6,
  marker,
  neighbour,
  openTap,
  padding,
  type Tap,
  udp,
} from '../support/frames.ts';
import { openTestNetns, type TestNetns } from '../support/sandbox.ts';

const OWNER = { network: 'n1', containerId: 'c1', ifname: 'eth0' };
const MAC = '02:00:00:00:00:01';
const OTHER_MAC = '02:00:00:00:00:02';
const OWN4 = '10.22.0.2';
const OTHER4 = '10.22.0.3';
const OWN6 = 'fd00:22::2';
const OTHER6 = 'fd00:22::3';
const OWN_LINK_LOCAL = 'fe80::ff:fe00:1';
const OTHER_LINK_LOCAL = 'fe80::ff:fe00:2';
const ALL_NODES = 'ff02::1';

const FOR_MAC: SpoofCheck = { mac: MAC, ips: undefined };
const FOR_IPS: SpoofCheck = { mac: MAC, ips: [parseIp(OWN4), parseIp(OWN6)] };

let host: TestNetns;
let attacker: TestNetns;
let victim: TestNetns;
let from: Tap;
let to: Tap;

beforeAll(() => {
  host = openTestNetns();
  attacker = openTestNetns();
  victim = openTestNetns();
  const { netns } = host;
  using rtnetlink = openRtnetlink({ netns });
  rtnetlink.link.add({ kind: 'bridge', name: 'cni0', up: true });
  const master = rtnetlink.link.get({ name: 'cni0' }).index;
  addPort(hostLinkName(OWNER), MAC, attacker.netns);
  addPort('veth-victim', OTHER_MAC, victim.netns);
  from = openTap(attacker.netns, 'eth0');
  to = openTap(victim.netns, 'eth0');

  function addPort(name: string, mac: string, sandbox: Netns): void {
    rtnetlink.link.add({ kind: 'veth', name, master, up: true, peer: { name: 'eth0', mac, netns: sandbox } });
    using inside = openRtnetlink({ netns: sandbox });
    inside.link.set(inside.link.get({ name: 'eth0' }).index, { up: true });
  }
});

afterAll(() => {
  for (const opened of [to, from, victim, attacker, host]) opened?.[Symbol.dispose]();
});

function onHost<T>(use: (nft: Nftables) => T): T {
  using nft = openNftables({ netns: host.netns });
  return use(nft);
}

function check(wanted: SpoofCheck | undefined): void {
  onHost((nft) => {
    nft.commit(wanted === undefined ? planSpoofRemoval(nft, OWNER) : planSpoofCheck(nft, OWNER, wanted));
  });
}

/** Whether the frame reaches the neighbour; an address request of the attacker for his own proves that frames pass. */
function passes(frame: Buffer): boolean {
  return arrives(from, to, frame, ethernet({ src: MAC, type: 0x0806 }, arp(1, MAC, OWN4, OWN4)));
}

const ip4 = (payload: Buffer, more: Partial<EthernetFields> = {}) =>
  ethernet({ src: MAC, type: 0x0800, ...more }, payload);
const ip6 = (payload: Buffer, more: Partial<EthernetFields> = {}) =>
  ethernet({ src: MAC, type: 0x86dd, ...more }, payload);
const arps = (payload: Buffer, more: Partial<EthernetFields> = {}) =>
  ethernet({ src: MAC, type: 0x0806, ...more }, payload);
const datagram4 = (src: string, sport = 7, dport = 7) => ipv4(src, OTHER4, 17, udp(sport, dport));
const datagram6 = (src: string, sport = 7, dport = 7) => ipv6(src, OTHER6, 17, udp(sport, dport));
const message6 = (type: number, src = OWN_LINK_LOCAL, body = marker()) => icmpv6(src, ALL_NODES, type, body);
const advertisement = (target: string, mac = MAC, src = OWN6) =>
  ip6(message6(136, src, neighbour(target, { type: 2, mac })));
const solicitation = (target: string, src: string, mac = MAC) =>
  ip6(message6(135, src, src === '::' ? neighbour(target) : neighbour(target, { type: 1, mac })));

/** [what, the frame]: all pass on a port that is not checked. */
const ROGUE: readonly (readonly [string, () => Buffer])[] = [
  ['a router advertisement', () => ip6(message6(134))],
  [
    'a router advertisement behind options',
    () => ip6(ipv6(OWN_LINK_LOCAL, ALL_NODES, 0, padding(58, message6(134).subarray(40)))),
  ],
  ['a router advertisement behind a VLAN tag', () => ip6(message6(134), { tags: [0] })],
  ['a router advertisement behind two VLAN tags', () => ip6(message6(134), { tags: [0, 0] })],
  ['an IPv6 redirect', () => ip6(message6(137))],
  ['an IPv4 redirect', () => ip4(ipv4(OWN4, OTHER4, 1, icmp(5)))],
  ['an IPv4 router advertisement', () => ip4(ipv4(OWN4, OTHER4, 1, icmp(9)))],
  ['a DHCP offer', () => ip4(datagram4(OWN4, 67, 68))],
  ['a DHCP offer from another port', () => ip4(datagram4(OWN4, 6767, 68))],
  ['a DHCP answer to a relay', () => ip4(datagram4(OWN4, 67, 67))],
  ['a DHCPv6 reply', () => ip6(datagram6(OWN6, 547, 546))],
];

const FORGED_MAC: readonly (readonly [string, () => Buffer])[] = [
  ['IPv4 under another MAC', () => ip4(datagram4(OWN4), { src: OTHER_MAC })],
  ['IPv6 under another MAC', () => ip6(datagram6(OWN6), { src: OTHER_MAC })],
  ['IPv4 under another MAC behind a VLAN tag', () => ip4(datagram4(OWN4), { src: OTHER_MAC, tags: [7] })],
  ['ARP under another MAC', () => arps(arp(2, MAC, OWN4, OTHER4), { src: OTHER_MAC })],
  ['anything else under another MAC', () => ethernet({ src: OTHER_MAC, type: 0x88b5 }, marker())],
];

const FORGED_IP: readonly (readonly [string, () => Buffer])[] = [
  ['IPv4 from another address', () => ip4(datagram4(OTHER4))],
  ['IPv4 from no address', () => ip4(datagram4('0.0.0.0'))],
  ['IPv4 from another address behind a VLAN tag', () => ip4(datagram4(OTHER4), { tags: [0] })],
  ['IPv6 from another address', () => ip6(datagram6(OTHER6))],
  ['IPv6 from another link-local address', () => ip6(datagram6(OTHER_LINK_LOCAL))],
  ['IPv6 from no address', () => ip6(datagram6('::'))],
  ['an ARP answer for another address', () => arps(arp(2, MAC, OTHER4, OTHER4))],
  ['an ARP question from another address', () => arps(arp(1, MAC, OTHER4, OWN4))],
  ['an ARP answer that names another MAC', () => arps(arp(2, OTHER_MAC, OWN4, OTHER4))],
  [
    'an ARP answer for another address behind a VLAN tag',
    () => arps(arp(2, MAC, OTHER4, OTHER4), { tags: [0] }),
  ],
  ['an ARP probe for another address', () => arps(arp(1, MAC, '0.0.0.0', OTHER4))],
  ['a neighbour advertisement for another address', () => advertisement(OTHER6)],
  [
    'a neighbour advertisement for another address without a MAC',
    () => ip6(message6(136, OWN6, neighbour(OTHER6))),
  ],
  ['a neighbour advertisement that names another MAC', () => advertisement(OWN6, OTHER_MAC)],
  ['a neighbour advertisement from another address', () => advertisement(OWN6, MAC, OTHER6)],
  ['a neighbour solicitation from another address', () => solicitation(OWN6, OTHER6)],
  ['a neighbour solicitation that names another MAC', () => solicitation(OTHER6, OWN6, OTHER_MAC)],
  ['the question whether anybody has another address', () => solicitation(OTHER6, '::')],
  [
    'a neighbour advertisement for another address behind options',
    () =>
      ip6(
        ipv6(
          OWN6,
          ALL_NODES,
          60,
          padding(58, message6(136, OWN6, neighbour(OTHER6, { type: 2, mac: MAC })).subarray(40)),
        ),
      ),
  ],
];

const HONEST: readonly (readonly [string, () => Buffer])[] = [
  ['IPv4', () => ip4(datagram4(OWN4))],
  ['IPv4 behind a VLAN tag', () => ip4(datagram4(OWN4), { tags: [7] })],
  ['IPv6', () => ip6(datagram6(OWN6))],
  ['IPv6 from the link-local address', () => ip6(datagram6(OWN_LINK_LOCAL))],
  ['ARP', () => arps(arp(2, MAC, OWN4, OTHER4))],
  ['an ARP probe for the own address', () => arps(arp(1, MAC, '0.0.0.0', OWN4))],
  ['a neighbour advertisement', () => advertisement(OWN6)],
  ['a neighbour advertisement without a MAC', () => ip6(message6(136, OWN6, neighbour(OWN6)))],
  ['a neighbour solicitation', () => solicitation(OTHER6, OWN6)],
  ['the question whether anybody has the own address', () => solicitation(OWN6, '::')],
  ['a router solicitation', () => ip6(message6(133, '::'))],
  ['a multicast listener report', () => ip6(message6(143, '::'))],
  ['an echo request', () => ip6(message6(128, OWN6))],
  ['a DHCP question', () => ip4(datagram4(OWN4, 68, 67))],
  ['what is no IP', () => ethernet({ src: MAC, type: 0x88b5 }, marker())],
];

describe('an unchecked port', () => {
  beforeAll(() => check(undefined));
  test.each([...ROGUE, ...FORGED_MAC, ...FORGED_IP, ...HONEST])('lets %s through', (_what, frame) => {
    expect(passes(frame())).toBe(true);
  });
});

describe('a port checked for its MAC', () => {
  beforeAll(() => check(FOR_MAC));
  test.each([...ROGUE, ...FORGED_MAC])('stops %s', (_what, frame) => {
    expect(passes(frame())).toBe(false);
  });
  test.each([...FORGED_IP, ...HONEST])('lets %s through', (_what, frame) => {
    expect(passes(frame())).toBe(true);
  });
});

describe('a port checked for its addresses', () => {
  beforeAll(() => check(FOR_IPS));
  test.each([...ROGUE, ...FORGED_MAC, ...FORGED_IP])('stops %s', (_what, frame) => {
    expect(passes(frame())).toBe(false);
  });
  test.each(HONEST)('lets %s through', (_what, frame) => {
    expect(passes(frame())).toBe(true);
  });
});

/** Sets list their elements, and a table its chains, in an order of their own. */
const linesOf = (text: string) =>
  text
    .split(/[\n,]/)
    .map((line) => line.replace(/elements = \{|\}/g, '').trim())
    .sort();

describe('the rules', () => {
  const list = () => host.run('nft', 'list', 'table', 'bridge', 'patchbay');

  test('survive being listed and loaded, to the instruction', () => {
    check(FOR_IPS);
    const text = list();
    host.run('nft', 'flush', 'ruleset');
    host.feed(text, 'nft', '-f', '-');
    expect(linesOf(list())).toEqual(linesOf(text));
    onHost((nft) => expectSpoofCheck(nft, OWNER, FOR_IPS)); // compares instructions
  });

  test('are replaced for a new MAC, and removed to the last element', () => {
    check(FOR_IPS);
    check({ mac: OTHER_MAC, ips: [parseIp(OTHER4)] });
    expect(list()).not.toContain(MAC);
    check(undefined);
    expect(list()).not.toContain('elements');
    expect(list()).toContain('iifname vmap @checked');
  });

  test('of an owner with more addresses than a comment holds go as well', () => {
    check({
      mac: MAC,
      ips: Array.from({ length: 9 }, (_, n) => parseIp(`2001:db8:1234:5678:9abc:def0:1234:${n}`)),
    });
    check(undefined);
    expect(list()).not.toContain('elements');
  });

  test('of others are left alone', () => {
    const other = { ...OWNER, containerId: 'c2' };
    onHost((nft) => nft.commit(planSpoofCheck(nft, other, { mac: OTHER_MAC, ips: [parseIp(OTHER4)] })));
    check(FOR_IPS);
    check(undefined);
    onHost((nft) => {
      expectSpoofCheck(nft, other, { mac: OTHER_MAC, ips: [parseIp(OTHER4)] });
      expect(planStaleSpoofRemoval(nft, () => false)).toEqual([]);
      nft.commit(planStaleSpoofRemoval(nft, () => true));
    });
    expect(list()).not.toContain('elements');
  });

  test.each([
    ['delete element bridge patchbay checked { "LINK" }', 'Element "LINK" is not in map "checked"'],
    ['delete element bridge patchbay macs { "LINK" . 02:00:00:00:00:01 }', 'is not in set "macs"'],
    [
      'delete element bridge patchbay ips4 { "LINK" . 02:00:00:00:00:01 . 10.22.0.2 }',
      '. 10.22.0.2 is not in set "ips4"',
    ],
    [
      'insert rule bridge patchbay check-arp accept',
      'Rule 1 of chain "check-arp" of table "bridge patchbay" is',
    ],
    [
      'flush chain bridge patchbay rogue-icmpv6',
      'Rule 1 of chain "rogue-icmpv6" of table "bridge patchbay" is missing',
    ],
  ])('are found wanting after "%s"', (command, difference) => {
    const link = hostLinkName(OWNER);
    host.run('nft', 'flush', 'ruleset');
    check(FOR_IPS);
    onHost((nft) => expectSpoofCheck(nft, OWNER, FOR_IPS));
    host.run('nft', command.replace('LINK', link));
    onHost((nft) => {
      expect(() => expectSpoofCheck(nft, OWNER, FOR_IPS)).toThrow(difference.replace('LINK', link));
    });
  });
});
