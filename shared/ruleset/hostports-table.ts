// The constant part of the table that serves published ports: hooks, the order of look-ups, the way back, the guard.
// Used by hostports.ts; written by the first ADD that publishes a port, so that hosts without ports do not pay for it.
import type { Cidr, Family } from '../ip/cidr.ts';
import {
  add,
  type Chain,
  type Command,
  chain,
  flush,
  map,
  type NftMap,
  type Rule,
  rule,
} from '../nftables/objects.ts';
import {
  concat,
  ct,
  dnat,
  drop,
  fib,
  iifname,
  ip,
  ip6,
  jump,
  l4proto,
  masquerade,
  nfproto,
  return_,
  th,
} from '../nftables/statements.ts';
import { FORMAT_COMMENT, isOutdated, replaceChain, TABLE } from './table.ts';

/**
 * Behind NF_IP_PRI_NAT_DST (-100), where services are translated: a published port never takes a service's packets
 * (CVE-2019-9946).
 */
const PRIORITY_AFTER_DSTNAT = -90;
/** Before our masquerading at NF_IP_PRI_NAT_SRC (100): the first to translate a source decides. */
const PRIORITY_BEFORE_SRCNAT = 90;
/** NF_IP_PRI_RAW: before connection tracking, so that a packet is judged as it came in. */
const PRIORITY_RAW = -300;

/** `tcp . 8080` → container address and port, for any local address of the family. */
export const HOSTPORTS: Readonly<Record<Family, NftMap>> = {
  4: map({
    table: TABLE,
    name: 'hostports4',
    key: ['inet_proto', 'inet_service'],
    data: ['ipv4_addr', 'inet_service'],
  }),
  6: map({
    table: TABLE,
    name: 'hostports6',
    key: ['inet_proto', 'inet_service'],
    data: ['ipv6_addr', 'inet_service'],
  }),
};

/** `192.0.2.7 . tcp . 8080` → the same for one local address; looked up first. */
export const HOSTIPPORTS: Readonly<Record<Family, NftMap>> = {
  4: map({
    table: TABLE,
    name: 'hostipports4',
    key: ['ipv4_addr', 'inet_proto', 'inet_service'],
    data: ['ipv4_addr', 'inet_service'],
  }),
  6: map({
    table: TABLE,
    name: 'hostipports6',
    key: ['ipv6_addr', 'inet_proto', 'inet_service'],
    data: ['ipv6_addr', 'inet_service'],
  }),
};

/** Container address → jump to the chain that says whose redirected packets are masqueraded on the way to it. */
export const HAIRPIN: Readonly<Record<Family, NftMap>> = {
  4: map({ table: TABLE, name: 'hairpin4', key: ['ipv4_addr'], data: 'verdict' }),
  6: map({ table: TABLE, name: 'hairpin6', key: ['ipv6_addr'], data: 'verdict' }),
};

export const PREROUTING: Chain = chain({
  table: TABLE,
  name: 'prerouting',
  type: 'nat',
  hook: 'prerouting',
  priority: PRIORITY_AFTER_DSTNAT,
  comment: FORMAT_COMMENT,
});
export const OUTPUT: Chain = chain({
  table: TABLE,
  name: 'output',
  type: 'nat',
  hook: 'output',
  priority: PRIORITY_AFTER_DSTNAT,
});
/** The order of look-ups: rules with conditions, one local address, any local address, fallbacks. */
export const HOSTPORTS_CHAIN: Chain = chain({ table: TABLE, name: 'hostports' });
/** One rule per mapping of an attachment with conditions. */
export const CONDITIONAL: Chain = chain({ table: TABLE, name: 'conditional' });
/** One rule per port that a container publishes on one network and has in the maps by another already. */
export const FALLBACK: Chain = chain({ table: TABLE, name: 'fallback' });
/** The chains whose rules belong to attachments; all others are constant. */
export const DYNAMIC: readonly Chain[] = [CONDITIONAL, FALLBACK];
export const HAIRPIN_CHAIN: Chain = chain({
  table: TABLE,
  name: 'hairpin',
  type: 'nat',
  hook: 'postrouting',
  priority: PRIORITY_BEFORE_SRCNAT,
});
export const GUARD: Chain = chain({
  table: TABLE,
  name: 'guard',
  type: 'filter',
  hook: 'prerouting',
  priority: PRIORITY_RAW,
});

const LOOPBACK4: Cidr = { ip: { family: 4, value: 127n << 24n }, prefix: 8 };
const LOOPBACK6: Cidr = { ip: { family: 6, value: 1n }, prefix: 128 };

/** All constant chains with their rules, in the order in which they are written and checked. */
export function hostportsRules(): readonly (readonly [Chain, readonly Rule[]])[] {
  const local = fib.daddrType.is('local');
  const port = concat(l4proto, th.dport);
  return [
    [CONDITIONAL, []],
    [FALLBACK, []],
    [
      HOSTPORTS_CHAIN,
      rules(HOSTPORTS_CHAIN, [
        // Nothing comes back from a container to ::1: refused at once is better than a connection that hangs.
        [ip6.daddr.is(LOOPBACK6), return_()],
        [jump(CONDITIONAL)],
        [dnat('ip', concat(ip.daddr, l4proto, th.dport).map(HOSTIPPORTS[4]))],
        [dnat('ip6', concat(ip6.daddr, l4proto, th.dport).map(HOSTIPPORTS[6]))],
        [nfproto.is('ipv4'), dnat('ip', port.map(HOSTPORTS[4]))],
        [nfproto.is('ipv6'), dnat('ip6', port.map(HOSTPORTS[6]))],
        [jump(FALLBACK)],
      ]),
    ],
    [PREROUTING, rules(PREROUTING, [[local, jump(HOSTPORTS_CHAIN)]])],
    [OUTPUT, rules(OUTPUT, [[local, jump(HOSTPORTS_CHAIN)]])],
    [
      HAIRPIN_CHAIN,
      // Only redirected flows: bridge netfilter shows us plain traffic between containers as well.
      rules(HAIRPIN_CHAIN, [
        [ct.status.has('dnat'), ip.daddr.vmap(HAIRPIN[4])],
        [ct.status.has('dnat'), ip6.daddr.vmap(HAIRPIN[6])],
      ]),
    ],
    [GUARD, guardRules()],
  ];
}

/**
 * The commands that bring this part up to date, none when it is. `found` is the chain `prerouting` as the kernel has
 * it. Rules that belong to attachments stay.
 */
export function planHostportsTable(found: { readonly comment: string | undefined } | undefined): Command[] {
  if (!isOutdated(found)) {
    return [];
  }
  const chains = hostportsRules();
  return [
    add(TABLE),
    ...[HOSTPORTS, HOSTIPPORTS, HAIRPIN].flatMap((maps) => [add(maps[4]), add(maps[6])]),
    ...chains.flatMap(([chain]) => (chain === PREROUTING ? replaceChain(PREROUTING, found) : [add(chain)])),
    ...chains.filter(([chain]) => !DYNAMIC.includes(chain)).map(([chain]) => flush(chain)),
    ...chains.flatMap(([, rules]) => rules.map(add)),
  ];
}

/**
 * With route_localnet a neighbour could otherwise reach what listens on 127.0.0.1 only (CVE-2020-8558), and pass for this
 * host itself: of the sources in 127.0.0.0/8 the kernel then refuses its own addresses alone, in all 127.0.0.1.
 */
function guardRules(): Rule[] {
  return rules(GUARD, [
    [iifname.isNot('lo'), ip.daddr.is(LOOPBACK4), drop()],
    [iifname.isNot('lo'), ip.saddr.is(LOOPBACK4), drop()],
  ]);
}

/** The guard alone, for a table without the rest. */
export function planGuard(): Command[] {
  return [add(TABLE), add(GUARD), flush(GUARD), ...guardRules().map(add)];
}

/** The chain that masquerades redirected packets from the subnet itself and, for IPv4, from this host's loopback. */
export function hairpinChain(
  subnet: Cidr,
  name: string,
): { readonly chain: Chain; readonly rules: readonly Rule[] } {
  const target = chain({ table: TABLE, name });
  const saddr = subnet.ip.family === 4 ? ip.saddr : ip6.saddr;
  const loopback = subnet.ip.family === 4 ? [[ip.saddr.is(LOOPBACK4), masquerade()]] : [];
  return { chain: target, rules: rules(target, [[saddr.is(subnet), masquerade()], ...loopback]) };
}

/** The chain that masquerades all redirected packets, for `masqAll`. */
export function hairpinAllChain(): { readonly chain: Chain; readonly rules: readonly Rule[] } {
  const target = chain({ table: TABLE, name: 'hairpin-all' });
  return { chain: target, rules: rules(target, [[masquerade()]]) };
}

function rules(target: Chain, lists: readonly Rule['statements'][]): Rule[] {
  return lists.map((statements) => rule({ chain: target, statements }));
}
