// The constant part of the table that judges forwarded packets: established flows, bridges that are closed, and the
// addresses of containers. Used by firewall.ts; written by the first ADD of the firewall plugin.
import type { Family } from '../ip/cidr.ts';
import {
  add,
  type Chain,
  type Command,
  chain,
  flush,
  map,
  type NftMap,
  type NftSet,
  type Rule,
  rule,
  set,
} from '../nftables/objects.ts';
import {
  accept,
  concat,
  ct,
  drop,
  iifname,
  ip,
  ip6,
  jump,
  oifname,
  return_,
} from '../nftables/statements.ts';
import { FORMAT_COMMENT, isOutdated, replaceChain, TABLE } from './table.ts';

/** NF_IP_PRI_FILTER. Any place would do: a drop is final wherever it is said, an accept for its own chain alone. */
const PRIORITY_FILTER = 0;

/** The address of a container and the link of this host that leads to it: what may come and go there. */
export const ADMITTED: Readonly<Record<Family, NftSet>> = {
  4: set({ table: TABLE, name: 'admitted4', key: ['ipv4_addr', 'ifname'] }),
  6: set({ table: TABLE, name: 'admitted6', key: ['ipv6_addr', 'ifname'] }),
};

/** What becomes of packets that leave by the bridge they came in by, for bridges with an ingress policy. */
export const INTRA_BRIDGE: NftMap = map({
  table: TABLE,
  name: 'intra-bridge',
  key: ['ifname', 'ifname'],
  data: 'verdict',
});

/** Bridges with an ingress policy: what comes to them from elsewhere is judged by `ingress`. */
export const CLOSED_BRIDGES: NftSet = set({ table: TABLE, name: 'closed-bridges', key: ['ifname'] });

export const FORWARD: Chain = chain({
  table: TABLE,
  name: 'forward',
  type: 'filter',
  hook: 'forward',
  priority: PRIORITY_FILTER,
  comment: FORMAT_COMMENT,
});

/** What comes to a closed bridge by another link. */
export const INGRESS: Chain = chain({ table: TABLE, name: 'ingress' });

/** Both chains with their rules, in the order in which they are written and checked. */
export function firewallRules(): readonly (readonly [Chain, readonly Rule[]])[] {
  return [
    [INGRESS, rules(INGRESS, ingressStatements())],
    [FORWARD, rules(FORWARD, forwardStatements())],
  ];
}

/**
 * One rule for established flows, two look-ups for closed bridges, and four that let containers through. With the chain's
 * policy of accept the last four change nothing; they are there for hosts whose administrator sets it to drop.
 */
function forwardStatements(): Rule['statements'][] {
  return [
    [ct.state.isAnyOf('established', 'related'), accept()],
    [concat(iifname, oifname).vmap(INTRA_BRIDGE)],
    [oifname.in(CLOSED_BRIDGES), jump(INGRESS)],
    [concat(ip.saddr, iifname).in(ADMITTED[4]), accept()],
    [concat(ip6.saddr, iifname).in(ADMITTED[6]), accept()],
    [ct.status.has('dnat'), concat(ip.daddr, oifname).in(ADMITTED[4]), accept()],
    [ct.status.has('dnat'), concat(ip6.daddr, oifname).in(ADMITTED[6]), accept()],
  ];
}

/**
 * Nothing from another closed bridge, by no way; from anywhere else what was redirected to a container. A packet that is
 * not tracked has no status to ask for, so the last rule asks for none.
 */
function ingressStatements(): Rule['statements'][] {
  return [[iifname.in(CLOSED_BRIDGES), drop()], [ct.status.has('dnat'), return_()], [drop()]];
}

function rules(target: Chain, lists: readonly Rule['statements'][]): Rule[] {
  return lists.map((statements) => rule({ chain: target, statements }));
}

/**
 * The commands that bring this part up to date, none when it is. `found` is the chain `forward` as the kernel has it.
 */
export function planFirewallTable(found: { readonly comment: string | undefined } | undefined): Command[] {
  if (!isOutdated(found)) {
    return [];
  }
  return [
    ...[TABLE, ADMITTED[4], ADMITTED[6], INTRA_BRIDGE, CLOSED_BRIDGES, INGRESS].map(add),
    flush(INGRESS),
    ...replaceChain(FORWARD, found),
    ...firewallRules().flatMap(([, rules]) => rules.map(add)),
  ];
}
