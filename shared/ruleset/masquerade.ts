// Masquerading as map elements: one per address, leading to the constant chain of its subnet.
// Called by the plugins that give containers the host's address towards the outside.
import { type Attachment, type Owner, ownerComment, ownerHashIn, ownerIn } from '../cni/attachment.ts';
import { checkFailed } from '../cni/error.ts';
import { type Cidr, type Family, formatCidr, formatIp, ipToBytes, networkOf } from '../ip/cidr.ts';
import type { ElementFact, Nftables } from '../nftables/nftables.ts';
import {
  add,
  type Chain,
  type Command,
  chain,
  delete_,
  type Element,
  element,
  type Rule,
  rule,
} from '../nftables/objects.ts';
import { ip, ip6, jump, masquerade, return_ } from '../nftables/statements.ts';
import { commitGuarded } from './commit.ts';
import { expectChain, expectRules, viewTable } from './expect-rules.ts';
import {
  FORMAT,
  formatIn,
  MASQUERADE4,
  MASQUERADE6,
  POSTROUTING,
  planTable,
  postroutingRules,
  TABLE,
} from './table.ts';

const MULTICAST: Readonly<Record<Family, Cidr>> = {
  4: { ip: { family: 4, value: 0xe0n << 24n }, prefix: 4 },
  6: { ip: { family: 6, value: 0xffn << 120n }, prefix: 8 },
};

/**
 * Masquerades what comes from the addresses and leaves their own subnet. Each address was just leased to this
 * attachment, so an element that somebody else left for it is replaced. One atomic batch for both families.
 */
export function addMasquerade(nft: Nftables, attachment: Attachment, addresses: readonly Cidr[]): void {
  commitGuarded(nft, () => planMasqueradeAddition(nft, attachment, addresses));
}

/** The commands of `addMasquerade`, none when all is there; to be committed under the generation read before. */
export function planMasqueradeAddition(
  nft: Nftables,
  attachment: Attachment,
  addresses: readonly Cidr[],
): Command[] {
  const comment = ownerComment(attachment);
  const subnets = distinctSubnets(addresses);
  return [
    ...planTable(nft.findChain(POSTROUTING)),
    ...subnets.filter((subnet) => nft.findChain(subnetChain(subnet)) === undefined).flatMap(addSubnetChain),
    ...addresses.flatMap((address) => replaceElement(nft, masqueradeElement(address, comment))),
  ];
}

/** Has the kernel judge the constant part of the table without keeping it. Throws what it refuses. */
export function tryMasquerade(nft: Nftables): void {
  nft.commit(planTable(undefined), { dryRun: true });
}

/** Commands that delete all elements of one owner, given by hash. */
export function planOwnerRemoval(nft: Nftables, ownerHash: string): Command[] {
  return listElements(nft, { commentPrefix: ownerHash }).map(delete_);
}

/** Commands that delete the elements of every owner that `isDoomed` picks. */
export function planRemoval(nft: Nftables, isDoomed: (owner: Owner) => boolean): Command[] {
  return listElements(nft, {})
    .filter(({ comment }) => {
      const owner = ownerIn(comment ?? '');
      return owner !== undefined && isDoomed(owner);
    })
    .map(delete_);
}

function listElements(nft: Nftables, options: { readonly commentPrefix?: string }): ElementFact[] {
  return [MASQUERADE4, MASQUERADE6].flatMap((map) => nft.listElements(map, options));
}

/**
 * Throws checkFailed unless every address is masqueraded on behalf of the attachment, naming what is missing or
 * different: base chain, subnet chain, a rule, the element, its target, or its owner.
 */
export function expectMasquerade(nft: Nftables, attachment: Attachment, addresses: readonly Cidr[]): void {
  const view = viewTable(nft, TABLE);
  const base = expectChain(view, POSTROUTING);
  if (formatIn(base.comment) <= FORMAT) {
    expectRules(view, POSTROUTING, postroutingRules());
  }
  for (const subnet of distinctSubnets(addresses)) {
    expectChain(view, subnetChain(subnet));
    expectRules(view, subnetChain(subnet), subnetRules(subnet));
  }
  const comment = ownerComment(attachment);
  for (const address of addresses) {
    expectElement(nft, masqueradeElement(address, comment), `"${formatIp(address.ip)}"`);
  }
}

function expectElement(nft: Nftables, wanted: Element, address: string): void {
  const found = nft.findElement(wanted.set, wanted.key);
  if (found === undefined) {
    throw checkFailed(`Address ${address} is not in map "${wanted.set.name}" of table "inet patchbay"`);
  }
  if (ownerHashIn(found.comment ?? '') !== ownerHashIn(wanted.comment ?? '')) {
    throw checkFailed(
      `Address ${address} in map "${wanted.set.name}" belongs to "${found.comment ?? 'nobody'}"`,
    );
  }
  if (targetOf(found.data) !== targetOf(wanted.data)) {
    const target = targetOf(found.data) ?? 'nowhere';
    throw checkFailed(`Address ${address} in map "${wanted.set.name}" leads to "${target}"`);
  }
}

function targetOf(data: Element['data']): string | undefined {
  return data !== undefined && 'kind' in data ? data.chain : undefined;
}

/** What is there may say the same, belong to a dead owner, or lead elsewhere: only the same is kept. */
function replaceElement(nft: Nftables, wanted: Element): Command[] {
  const found = nft.findElement(wanted.set, wanted.key);
  if (found === undefined) {
    return [add(wanted)];
  }
  const isSame = found.comment === wanted.comment && targetOf(found.data) === targetOf(wanted.data);
  return isSame ? [] : [delete_({ kind: 'element', set: wanted.set, key: wanted.key }), add(wanted)];
}

function masqueradeElement(address: Cidr, comment: string): Element {
  const map = address.ip.family === 4 ? MASQUERADE4 : MASQUERADE6;
  return element({ map, key: [ipToBytes(address.ip)], data: jump(subnetChain(networkOf(address))), comment });
}

/** nft takes no `:` in a name; an IPv6 address holds no `-` of its own, so the name stays unambiguous. */
function subnetChain(subnet: Cidr): Chain {
  const name = `masquerade${subnet.ip.family}-${formatCidr(subnet).replaceAll(':', '-')}`;
  return chain({ table: TABLE, name });
}

function addSubnetChain(subnet: Cidr): Command[] {
  return [add(subnetChain(subnet)), ...subnetRules(subnet).map(add)];
}

/** Neighbours see each other's own addresses, and multicast is never translated (RFC 5135). */
function subnetRules(subnet: Cidr): Rule[] {
  const daddr = subnet.ip.family === 4 ? ip.daddr : ip6.daddr;
  const chain = subnetChain(subnet);
  return [
    rule({ chain, statements: [daddr.is(subnet), return_()] }),
    rule({ chain, statements: [daddr.is(MULTICAST[subnet.ip.family]), return_()] }),
    rule({ chain, statements: [masquerade()] }),
  ];
}

function distinctSubnets(addresses: readonly Cidr[]): Cidr[] {
  const bySubnet = new Map(addresses.map((address) => [formatCidr(networkOf(address)), networkOf(address)]));
  return [...bySubnet.values()];
}
