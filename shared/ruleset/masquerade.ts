// Masquerading as map elements: one per address, leading to the constant chain of its subnet.
// Called by the plugins that give containers the host's address towards the outside.
import { type Attachment, ownerComment, ownerIn } from '../cni/attachment.ts';
import { checkFailed } from '../cni/error.ts';
import { type Cidr, formatCidr, formatIp, ipToBytes, networkOf, parseCidr } from '../ip/cidr.ts';
import type { ElementFact, Nftables } from '../nftables/nftables.ts';
import {
  add,
  type Chain,
  type Command,
  chain,
  delete_,
  type Element,
  element,
  type NftMap,
  type Rule,
  rule,
} from '../nftables/objects.ts';
import { ip, ip6, jump, masquerade, return_ } from '../nftables/statements.ts';
import { commitGuarded } from './commit.ts';
import { MASQUERADE4, MASQUERADE6, planTable, POSTROUTING, TABLE } from './table.ts';

const MULTICAST = { 4: parseCidr('224.0.0.0/4'), 6: parseCidr('ff00::/8') } as const;

/**
 * Masquerades what comes from the addresses and leaves their own subnet. Each address was just leased to this
 * attachment, so an element that somebody else left for it is replaced. One atomic batch for both families.
 */
export function addMasquerade(nft: Nftables, attachment: Attachment, addresses: readonly Cidr[]): void {
  const comment = ownerComment(attachment);
  const subnets = distinctSubnets(addresses);
  commitGuarded(nft, () => [
    ...planTable(nft.findChain(POSTROUTING)),
    ...subnets.filter((subnet) => nft.findChain(subnetChain(subnet)) === undefined).flatMap(addSubnetChain),
    ...addresses.flatMap((address) => replaceElement(nft, masqueradeElement(address, comment))),
  ]);
}

/**
 * The elements whose comment names an owner that `isDoomed` picks, as commands to delete them. Reads both maps.
 */
export function planRemoval(nft: Nftables, isDoomed: (owner: OwnerHashes) => boolean): Command[] {
  return [MASQUERADE4, MASQUERADE6].flatMap((map) =>
    nft
      .listElements(map)
      .filter(({ comment }) => {
        const owner = comment === undefined ? undefined : ownerIn(comment);
        return owner !== undefined && isDoomed(owner);
      })
      .map((found) => delete_({ kind: 'element', set: map, key: found.key })),
  );
}

type OwnerHashes = NonNullable<ReturnType<typeof ownerIn>>;

/**
 * Throws checkFailed unless every address is masqueraded on behalf of the attachment, naming what is missing: base
 * chain, subnet chain, element, or the owner found instead.
 */
export function expectMasquerade(nft: Nftables, attachment: Attachment, addresses: readonly Cidr[]): void {
}
