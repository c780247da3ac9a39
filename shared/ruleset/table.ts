// The constant part of our nf_tables table: what every host has, however many attachments there are.
// Used by the modules of this folder; docs/nftables-table.md describes it as the on-kernel file format that it is.
import {
  add,
  type Chain,
  type Command,
  chain,
  delete_,
  flush,
  map,
  type Rule,
  rule,
  type Table,
  table,
} from '../nftables/objects.ts';
import { ip, ip6 } from '../nftables/statements.ts';

/**
 * The version of the constant part, kept in a comment. What an older version wrote is brought up to date, what a newer
 * one wrote is left alone: its rules serve our elements too.
 */
export const FORMAT = 3;

/** NF_IP_PRI_NAT_SRC of linux/netfilter_ipv4.h, which nft prints as `srcnat`. */
const PRIORITY_SRCNAT = 100;

/** On the chain that stands for a part of the table. */
export const FORMAT_COMMENT = `patchbay format ${FORMAT}`;

export const TABLE: Table = table({ family: 'inet', name: 'patchbay' });

/** Source address → jump to the chain of its subnet. */
export const MASQUERADE4 = map({ table: TABLE, name: 'masquerade4', key: ['ipv4_addr'], data: 'verdict' });
export const MASQUERADE6 = map({ table: TABLE, name: 'masquerade6', key: ['ipv6_addr'], data: 'verdict' });

/** After whatever translates services, so that their choice stands. The comment tells the format of the whole table. */
export const POSTROUTING: Chain = chain({
  table: TABLE,
  name: 'postrouting',
  type: 'nat',
  hook: 'postrouting',
  priority: PRIORITY_SRCNAT,
  comment: FORMAT_COMMENT,
});

/** The rules of `postrouting`, in order. */
export function postroutingRules(): Rule[] {
  return [
    rule({ chain: POSTROUTING, statements: [ip.saddr.vmap(MASQUERADE4)] }),
    rule({ chain: POSTROUTING, statements: [ip6.saddr.vmap(MASQUERADE6)] }),
  ];
}

/**
 * The commands that bring the constant part up to date, none when it is. `found` is the comment of the `postrouting`
 * chain, undefined when there is no such chain.
 */
export function planTable(found: { readonly comment: string | undefined } | undefined): Command[] {
  if (!isOutdated(found)) {
    return [];
  }
  return [
    add(TABLE),
    add(MASQUERADE4),
    add(MASQUERADE6),
    ...replaceChain(POSTROUTING, found),
    ...postroutingRules().map(add),
  ];
}

/** The kernel keeps the comment a chain was made with, so a new format takes a new chain. */
export function replaceChain(
  chain: Chain,
  found: { readonly comment: string | undefined } | undefined,
): Command[] {
  return found === undefined ? [add(chain)] : [flush(chain), delete_(chain), add(chain)];
}

/** Whether a part of the table is missing, or of an older format, by the chain that stands for it. */
export function isOutdated(found: { readonly comment: string | undefined } | undefined): boolean {
  return found === undefined || formatIn(found.comment) < FORMAT;
}

/** The format a comment tells; 0 for a comment that is not ours: whoever made that chain, its rules are replaced. */
export function formatIn(comment: string | undefined): number {
  const digits = /^patchbay format (\d{1,9})$/.exec(comment ?? '')?.[1];
  return digits === undefined ? 0 : Number(digits);
}
