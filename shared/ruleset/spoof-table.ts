// The constant part of table `bridge patchbay`: what a frame from a checked bridge port must look like to get further.
// Used by spoof-check.ts; docs/nftables-table.md describes it as the on-kernel file format that it is.
import type { RawField } from '../nftables/datatypes.ts';
import {
  add,
  type Chain,
  type Command,
  chain,
  flush,
  map,
  type Rule,
  rule,
  set,
  type Table,
  table,
} from '../nftables/objects.ts';
import {
  accept,
  concat,
  drop,
  ether,
  goto,
  iifname,
  ip,
  ip6,
  jump,
  l4proto,
  protocol,
  raw,
  type Statement,
  th,
} from '../nftables/statements.ts';
import { FORMAT_COMMENT, isOutdated, replaceChain } from './table.ts';

/** NF_BR_PRI_NAT_DST_BRIDGED of linux/netfilter_bridge.h: before bridge netfilter hands the packet to other tables. */
const PRIORITY_DSTNAT = -300;

/** RFC 826, for Ethernet and IPv4: sha and spa, the sender's addresses, and tpa, the address asked for. */
const ARP_SHA: RawField = '@nh,64,48';
const ARP_SPA: RawField = '@nh,112,32';
const ARP_TPA: RawField = '@nh,192,32';
/** RFC 4443 and 4861: type, the target of a solicitation or advertisement, and the first option behind it. */
const ICMP_TYPE: RawField = '@th,0,8';
const ND_TARGET: RawField = '@th,64,128';
const ND_OPTION: RawField = '@th,192,64';
const ND_OPTION_TYPE: RawField = '@th,192,8';

export const SPOOF_TABLE: Table = table({ family: 'bridge', name: 'patchbay' });
const inTable = <T>(spec: T) => ({ table: SPOOF_TABLE, ...spec });

/** Host link → goto `check-mac` or `check-ip`. Ports that are not in it pay one look-up a frame. */
export const CHECKED = map(inTable({ name: 'checked', key: ['ifname'], data: 'verdict' } as const));
/** Who may send as whom. */
export const MACS = set(inTable({ name: 'macs', key: ['ifname', 'ether_addr'] } as const));
export const IPS4 = set(inTable({ name: 'ips4', key: ['ifname', 'ether_addr', 'ipv4_addr'] } as const));
export const IPS6 = set(inTable({ name: 'ips6', key: ['ifname', 'ether_addr', 'ipv6_addr'] } as const));
/** Who may say in ARP that an address is his. */
export const ARPS = set(inTable({ name: 'arps', key: ['ifname', ARP_SHA, ARP_SPA] } as const));
/** Who may say so in neighbour discovery, and the option with the link-layer address that goes with it. */
export const ND_TARGETS = set(inTable({ name: 'ndtargets', key: ['ifname', ND_TARGET] } as const));
export const ND_OPTIONS = set(inTable({ name: 'ndoptions', key: ['ifname', ND_OPTION] } as const));

const MAPS = [CHECKED, MACS, IPS4, IPS6, ARPS, ND_TARGETS, ND_OPTIONS] as const;

/** The comment tells the format of the whole table. */
export const SPOOF_PREROUTING: Chain = chain(
  inTable({
    name: 'prerouting',
    type: 'filter',
    hook: 'prerouting',
    priority: PRIORITY_DSTNAT,
    comment: FORMAT_COMMENT,
  } as const),
);
export const CHECK_MAC: Chain = chain(inTable({ name: 'check-mac' }));
export const CHECK_IP: Chain = chain(inTable({ name: 'check-ip' }));
const CHECK_ARP: Chain = chain(inTable({ name: 'check-arp' }));
const CHECK_IP4: Chain = chain(inTable({ name: 'check-ip4' }));
const CHECK_IP6: Chain = chain(inTable({ name: 'check-ip6' }));
const CHECK_ND: Chain = chain(inTable({ name: 'check-nd' }));
const UNSPECIFIED: Chain = chain(inTable({ name: 'unspecified' }));
const ROGUE_ICMP: Chain = chain(inTable({ name: 'rogue-icmp' }));
const ROGUE_ICMPV6: Chain = chain(inTable({ name: 'rogue-icmpv6' }));
const ROGUE_DHCP: Chain = chain(inTable({ name: 'rogue-dhcp' }));

/** Each chain with its rules, in order. A rule that needs it has the name of what it is about as its comment. */
export function spoofChains(): { readonly chain: Chain; readonly rules: Rule[] }[] {
  const spoken = (entries: readonly Entry[], chain: Chain) => ({
    chain,
    rules: entries.map(([statements, comment]) => rule({ chain, statements, comment })),
  });
  return [
    spoken([[[iifname.vmap(CHECKED)]]], SPOOF_PREROUTING),
    spoken(checkMac(), CHECK_MAC),
    spoken(checkIp(), CHECK_IP),
    spoken(checkArp(), CHECK_ARP),
    spoken([[[concat(iifname, ether.saddr, ip.saddr).in(IPS4), accept()]], [[drop()]]], CHECK_IP4),
    spoken(checkIp6(), CHECK_IP6),
    spoken(checkNd(), CHECK_ND),
    spoken(unspecified(), UNSPECIFIED),
    spoken(rogueIcmp(), ROGUE_ICMP),
    spoken(rogueIcmpv6(), ROGUE_ICMPV6),
    spoken(rogueDhcp(), ROGUE_DHCP),
  ];
}

/**
 * The commands that bring the constant part up to date, none when it is. `found` is the `prerouting` chain of this
 * table, undefined when there is none.
 */
export function planSpoofTable(found: { readonly comment: string | undefined } | undefined): Command[] {
  if (!isOutdated(found)) {
    return [];
  }
  const chains = spoofChains();
  const [, ...inner] = chains;
  return [
    add(SPOOF_TABLE),
    ...MAPS.map(add),
    ...inner.flatMap(({ chain }) => [add(chain), flush(chain)]),
    ...replaceChain(SPOOF_PREROUTING, found),
    ...chains.flatMap(({ rules }) => rules.map(add)),
  ];
}

type Entry = readonly [statements: readonly Statement[], comment?: string];

// What a frame carries is asked for once, by the rule that leads to a chain: nft 1.0 would write the test of a rule that
// names a protocol in another form when it loads what it listed, one that a VLAN tag hides from.

/** What is behind two tags nothing here can read, and a receiver takes off all that say VLAN 0 (net/core/dev.c). */
function checkMac(): Entry[] {
  return [
    [[concat(iifname, ether.saddr).notIn(MACS), drop()]],
    [[protocol.is('8021q'), drop()], 'tag behind a tag'],
    [[protocol.is('8021ad'), drop()], 'tag behind a tag'],
    [[l4proto.is('icmp'), goto(ROGUE_ICMP)]],
    [[l4proto.is('icmpv6'), goto(ROGUE_ICMPV6)]],
    [[l4proto.is('udp'), goto(ROGUE_DHCP)]],
  ];
}

function checkIp(): Entry[] {
  return [
    [[jump(CHECK_MAC)]],
    [[protocol.is('arp'), goto(CHECK_ARP)]],
    [[protocol.is('ip'), goto(CHECK_IP4)]],
    [[protocol.is('ip6'), goto(CHECK_IP6)]],
  ];
}

/** A probe asks, from nobody, for the address one is about to use (RFC 5227): for one of its own, or others give way. */
function checkArp(): Entry[] {
  const own = concat(iifname, raw(ARP_SHA), raw(ARP_SPA)).in(ARPS);
  const probed = concat(iifname, raw(ARP_SHA), raw(ARP_TPA)).in(ARPS);
  return [[[own, accept()]], [[raw(ARP_SPA).is(0n), probed, accept()], 'probe'], [[drop()]]];
}

function checkIp6(): Entry[] {
  return [
    [[l4proto.is('icmpv6'), jump(CHECK_ND)]],
    [[concat(iifname, ether.saddr, ip6.saddr).in(IPS6), accept()]],
    [[l4proto.is('icmpv6'), ip6.saddr.is(UNSPECIFIED_ADDRESS), goto(UNSPECIFIED)]],
    [[drop()]],
  ];
}

const UNSPECIFIED_ADDRESS = { family: 6, value: 0n } as const;

/** Nobody advertises what is not his, or himself under the link-layer address of another. */
function checkNd(): Entry[] {
  const foreignTarget = concat(iifname, raw(ND_TARGET)).notIn(ND_TARGETS);
  const foreignOption = concat(iifname, raw(ND_OPTION)).notIn(ND_OPTIONS);
  const icmpType = raw(ICMP_TYPE);
  const optionType = raw(ND_OPTION_TYPE);
  return [
    [[icmpType.is(136n), foreignTarget, drop()], 'neighbour advertisement'],
    [[icmpType.is(136n), optionType.is(2n), foreignOption, drop()], 'target link-layer address'],
    [[icmpType.is(135n), optionType.is(1n), foreignOption, drop()], 'source link-layer address'],
  ];
}

/** What a link sends before it has an address: the question whether anybody has it, and what it wants to hear. */
function unspecified(): Entry[] {
  const icmpType = raw(ICMP_TYPE);
  const ownTarget = concat(iifname, raw(ND_TARGET)).in(ND_TARGETS);
  return [
    [[icmpType.is(135n), ownTarget, accept()], 'duplicate address detection'],
    [[icmpType.is(133n), accept()], 'router solicitation'],
    [[icmpType.is(131n), accept()], 'multicast listener report'],
    [[icmpType.is(143n), accept()], 'multicast listener report'],
    [[drop()]],
  ];
}

function rogueIcmp(): Entry[] {
  const icmpType = raw(ICMP_TYPE);
  return [
    [[icmpType.is(5n), drop()], 'redirect'],
    [[icmpType.is(9n), drop()], 'router advertisement'],
  ];
}

function rogueIcmpv6(): Entry[] {
  const icmpType = raw(ICMP_TYPE);
  return [
    [[icmpType.is(134n), drop()], 'router advertisement'],
    [[icmpType.is(137n), drop()], 'redirect'],
  ];
}

/** From a server, or to a client: either way a reply. */
function rogueDhcp(): Entry[] {
  return [
    [[th.sport.is(67), drop()], 'DHCP server'],
    [[th.dport.is(68), drop()], 'DHCP server'],
    [[th.sport.is(547), drop()], 'DHCPv6 server'],
    [[th.dport.is(546), drop()], 'DHCPv6 server'],
  ];
}
