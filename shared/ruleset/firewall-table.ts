// The constant part of the table that judges forwarded packets: established flows, bridges that are kept apart, and the
// addresses of containers. Used by firewall.ts; written by the first ADD of the firewall plugin.
import type { Family } from '../ip/cidr.ts';
import {
  add,
  type Chain,
  type Command,
  chain,
  map,
  type NftMap,
  type NftSet,
  type Rule,
  rule,
  set,
} from '../nftables/objects.ts';
import { accept, concat, ct, drop, iifname, ip, ip6, oifname } from '../nftables/statements.ts';
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

/** Bridges with an ingress policy; none of them lets in anything from another. */
export const CLOSED_BRIDGES: NftSet = set({ table: TABLE, name: 'closed-bridges', key: ['ifname'] });

export const FORWARD: Chain = chain({
  table: TABLE,
  name: 'forward',
  type: 'filter',
  hook: 'forward',
  priority: PRIORITY_FILTER,
  comment: FORMAT_COMMENT,
});

/**
 * The rules of `forward`, in order: one for established flows, two look-ups that keep bridges apart, and four that let
 * containers through. With the chain's policy of accept the last four change nothing; they are there for hosts whose
 * administrator sets it to drop.
 */
export function forwardRules(): Rule[] {
  return [
    [ct.state.isAnyOf('established', 'related'), accept()],
    [concat(iifname, oifname).vmap(INTRA_BRIDGE)],
    [iifname.in(CLOSED_BRIDGES), oifname.in(CLOSED_BRIDGES), drop()],
    [concat(ip.saddr, iifname).in(ADMITTED[4]), accept()],
    [concat(ip6.saddr, iifname).in(ADMITTED[6]), accept()],
    [ct.status.has('dnat'), concat(ip.daddr, oifname).in(ADMITTED[4]), accept()],
    [ct.status.has('dnat'), concat(ip6.daddr, oifname).in(ADMITTED[6]), accept()],
  ].map((statements) => rule({ chain: FORWARD, statements }));
}

/**
 * The commands that bring this part up to date, none when it is. `found` is the chain `forward` as the kernel has it.
 */
export function planFirewallTable(found: { readonly comment: string | undefined } | undefined): Command[] {
  if (!isOutdated(found)) {
    return [];
  }
  return [
    ...[TABLE, ADMITTED[4], ADMITTED[6], INTRA_BRIDGE, CLOSED_BRIDGES].map(add),
    ...replaceChain(FORWARD, found),
    ...forwardRules().map(add),
  ];
}
