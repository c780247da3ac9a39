// Masquerading as map elements: one per address, leading to the constant chain of its subnet.
// Called by the plugins that give containers the host's address towards the outside.
import { type Attachment, type Owner, ownerComment } from '../cni/attachment.ts';
import { type Cidr, type Family, formatCidr, formatIp, ipToBytes, networkOf } from '../ip/cidr.ts';
import type { Nftables } from '../nftables/nftables.ts';
import {
  add,
  type Chain,
  type Command,
  chain,
  type Element,
  element,
  type Rule,
  rule,
} from '../nftables/objects.ts';
import { ip, ip6, jump, masquerade, return_ } from '../nftables/statements.ts';
import { expectElement, planOwnedRemoval, replaceElement } from './elements.ts';
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

const MAPS = [MASQUERADE4, MASQUERADE6];

const MULTICAST: Readonly<Record<Family, Cidr>> = {
  4: { ip: { family: 4, value: 0xe0n << 24n }, prefix: 4 },
  6: { ip: { family: 6, value: 0xffn << 120n }, prefix: 8 },
};

/**
 * Commands that masquerade what comes from the addresses and leaves their own subnet, none when all is there; to be
 * committed under the generation read before. Each address was just leased to this attachment, so an element that
 * somebody else left for it is replaced.
 */
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
  const filter = { commentPrefix: ownerHash };
  return planOwnedRemoval(nft, MAPS, (owner) => owner.ownerHash === ownerHash, filter);
}

/** Commands that delete the elements of every owner that `isDoomed` picks. */
export function planRemoval(nft: Nftables, isDoomed: (owner: Owner) => boolean): Command[] {
  return planOwnedRemoval(nft, MAPS, isDoomed);
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
    expectElement(nft, masqueradeElement(address, comment), `address "${formatIp(address.ip)}"`);
  }
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
