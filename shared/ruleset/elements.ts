// What all parts of the table do with elements: put one in its place, compare one, find those of an owner.
// Used by the modules of this folder for each of their sets and maps.
import { type Owner, ownerHashIn, ownerIn } from '../cni/attachment.ts';
import { checkFailed } from '../cni/error.ts';
import type { ElementFact, ElementFilter, Nftables } from '../nftables/nftables.ts';
import { add, type Command, delete_, type Element, type SetRef } from '../nftables/objects.ts';

/**
 * Commands that put the element in the place of whatever stands under its key, none when it is there. What is there may
 * belong to a dead owner, or lead elsewhere: only the same is kept.
 */
export function replaceElement(nft: Nftables, wished: Element): Command[] {
  const found = nft.findElement(wished.set, wished.key);
  if (found === undefined) {
    return [add(wished)];
  }
  return isSameElement(found, wished) ? [] : [delete_(found), add(wished)];
}

/** Commands that delete the element, none when it is not there; whoever it belongs to. */
export function removeElement(nft: Nftables, { set, key }: Element): Command[] {
  const found = nft.findElement(set, key);
  return found === undefined ? [] : [delete_(found)];
}

/** Whether the kernel has the element as we would write it: same key, same data, same comment. */
export function isSameElement(found: ElementFact, wished: Element): boolean {
  return (
    found.set.name === wished.set.name &&
    found.comment === wished.comment &&
    Buffer.compare(found.key, wished.key) === 0 &&
    isSameData(found.data, wished.data)
  );
}

/**
 * Throws checkFailed unless the element is there, of the same owner, with the same data. `what` begins the sentence that
 * says what is wrong: `address "10.22.0.2"`.
 */
export function expectElement(nft: Nftables, wished: Element, what: string): void {
  const { set } = wished;
  const where = `in ${set.kind ?? 'set'} "${set.name}" of table "${set.table.family} ${set.table.name}"`;
  const found = nft.findElement(set, wished.key);
  if (found === undefined) {
    throw checkFailed(`${capitalize(what)} is not ${where}`);
  }
  if (ownerHashIn(found.comment ?? '') !== ownerHashIn(wished.comment ?? '')) {
    throw checkFailed(`${capitalize(what)} ${where} belongs to "${found.comment ?? 'nobody'}"`);
  }
  if (!isSameData(found.data, wished.data)) {
    throw checkFailed(`${capitalize(what)} ${where} leads ${describeTarget(found)}`);
  }
}

/** An element with whom it belongs to. */
export interface OwnedElement {
  readonly owner: Owner;
  readonly element: ElementFact;
}

/** The elements that carry the mark of an owner whom `isWanted` picks. */
export function listOwned(
  nft: Nftables,
  sets: readonly SetRef[],
  isWanted: (owner: Owner) => boolean,
  filter: ElementFilter = {},
): OwnedElement[] {
  return sets
    .flatMap((set) => nft.listElements(set, filter))
    .flatMap((element) => {
      const owner = ownerIn(element.comment ?? '');
      return owner !== undefined && isWanted(owner) ? [{ owner, element }] : [];
    });
}

/** Commands that delete the elements of every owner whom `isDoomed` picks. */
export function planOwnedRemoval(
  nft: Nftables,
  sets: readonly SetRef[],
  isDoomed: (owner: Owner) => boolean,
  filter: ElementFilter = {},
): Command[] {
  return listOwned(nft, sets, isDoomed, filter).map(({ element }) => delete_(element));
}

function isSameData(found: ElementFact['data'], wished: Element['data']): boolean {
  if (found instanceof Uint8Array && wished instanceof Uint8Array) {
    return Buffer.compare(found, wished) === 0;
  }
  if (found instanceof Uint8Array || wished instanceof Uint8Array) {
    return false;
  }
  return found?.code === wished?.code && found?.chain === wished?.chain;
}

function describeTarget({ data }: ElementFact): string {
  return data !== undefined && !(data instanceof Uint8Array)
    ? `to "${data.chain ?? data.code}"`
    : 'elsewhere than ADD left it';
}

function capitalize(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}
