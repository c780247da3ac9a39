// Containers that the forward hook lets through, and bridges that are kept apart: one element per address, and two per
// bridge with an ingress policy. Called by the firewall plugin; all of it is planned here and committed by the caller.
import { type Attachment, type HostLink, type Owner, ownerComment, ownerHash } from '../cni/attachment.ts';
import { checkFailed } from '../cni/error.ts';
import { type Family, formatIp, type Ip, ipEquals, ipFromBytes, ipToBytes } from '../ip/cidr.ts';
import { ifnameBytes, splitConcatenation } from '../nftables/datatypes.ts';
import type { ElementFact, ElementFilter, Nftables } from '../nftables/nftables.ts';
import { type Command, delete_, type Element, element } from '../nftables/objects.ts';
import { accept, drop } from '../nftables/statements.ts';
import { expectElement, listOwned, removeElement, replaceElement } from './elements.ts';
import { expectChain, expectRules, viewTable } from './expect-rules.ts';
import {
  ADMITTED,
  CLOSED_BRIDGES,
  FORWARD,
  firewallRules,
  INTRA_BRIDGE,
  planFirewallTable,
} from './firewall-table.ts';
import { FORMAT, formatIn } from './table.ts';

/**
 * What may open a flow to the containers of a bridge, beside this host and published ports: anything; each other; nobody.
 */
export type IngressPolicy = 'open' | 'same-bridge' | 'isolated';

/** All that an attachment wants of the forward hook. */
export interface FirewallWish {
  readonly attachment: Attachment;
  readonly link: HostLink;
  /** The link of this host that leads to the container, for most a bridge. */
  readonly bridge: string;
  /** Of the bridge, for all of its containers. */
  readonly policy: IngressPolicy;
  readonly addresses: readonly Ip[];
}

/** An address as the kernel has it, with what deletes it. */
export interface Admitted {
  readonly address: Ip;
  readonly bridge: string;
  readonly owner: Owner;
  readonly element: ElementFact;
}

/**
 * Commands that admit the addresses and give the bridge its policy, whatever it had before. Other addresses of the same
 * owner go; whatever stands under an address that this attachment was just leased is replaced. `held` is what the owner is
 * admitted with by now, for those who have read it already.
 */
export function planFirewall(
  nft: Nftables,
  wish: FirewallWish,
  held: readonly Admitted[] = listAdmitted(nft, ownerHash(wish.attachment)),
): Command[] {
  const base = nft.findChain(FORWARD);
  const wished = admittedElements(wish);
  const stale = held.filter(({ element }) => !wished.some((other) => isSameKey(other, element)));
  return [
    ...planFirewallTable(base),
    ...planAdmittedRemoval(nft, stale, { except: wish.bridge }),
    ...wished.flatMap((element) => replaceElement(nft, element)),
    ...planPolicy(nft, wish.bridge, wish.policy),
  ];
}

/** What one owner, given by hash, is admitted with. Reads two sets, and decodes the owner's elements alone. */
export function listAdmitted(nft: Nftables, ownerHash: string): Admitted[] {
  return findAdmitted(nft, (owner) => owner.ownerHash === ownerHash, { commentPrefix: ownerHash });
}

/** What all owners are admitted with whom `isWanted` picks. Reads two sets. */
export function findAdmitted(
  nft: Nftables,
  isWanted: (owner: Owner) => boolean,
  filter: ElementFilter = {},
): Admitted[] {
  return ([4, 6] as const).flatMap((family) => admittedIn(nft, family, isWanted, filter));
}

function admittedIn(
  nft: Nftables,
  family: Family,
  isWanted: (owner: Owner) => boolean,
  filter: ElementFilter,
): Admitted[] {
  return listOwned(nft, [ADMITTED[family]], isWanted, filter).flatMap(
    ({ owner, element }) => decodeAdmitted(element, owner, family) ?? [],
  );
}

/** Who is admitted under an address, behind whatever link. Reads one set. */
export function findHolders(nft: Nftables, address: Ip): Admitted[] {
  const filter = { containing: [ipToBytes(address)] };
  return admittedIn(nft, address.family, () => true, filter).filter((admitted) =>
    ipEquals(admitted.address, address),
  );
}

/**
 * Commands that delete these elements, and the policies of the bridges that nobody is left on. `except` names a bridge
 * whose policy stays.
 */
export function planAdmittedRemoval(
  nft: Nftables,
  doomed: readonly Admitted[],
  { except }: { readonly except?: string } = {},
): Command[] {
  const bridges = new Set(doomed.map(({ bridge }) => bridge));
  const left = [...bridges].filter((bridge) => bridge !== except && !hasHeirs(nft, bridge, doomed));
  return [
    ...doomed.map(({ element }) => delete_(element)),
    ...left.flatMap((bridge) => planPolicy(nft, bridge, 'open')),
  ];
}

/**
 * Throws checkFailed unless the chain, each address and the policy of the bridge are as ADD left them, naming the first
 * that is missing or different.
 */
export function expectFirewall(nft: Nftables, wish: FirewallWish): void {
  const view = viewTable(nft, FORWARD.table);
  const base = expectChain(view, FORWARD);
  if (formatIn(base.comment) <= FORMAT) {
    for (const [chain, rules] of firewallRules()) {
      expectRules(view, chain, rules);
    }
  }
  for (const [index, element] of admittedElements(wish).entries()) {
    expectElement(nft, element, `address "${formatIp(wish.addresses[index] as Ip)}" by "${wish.bridge}"`);
  }
  expectPolicy(nft, wish.bridge, wish.policy);
}

/** Has the kernel judge the constant part without keeping it. Throws what it refuses. */
export function tryFirewallTable(nft: Nftables): void {
  nft.commit(planFirewallTable(undefined), { dryRun: true });
}

function admittedElements({ attachment, link, bridge, addresses }: FirewallWish): Element[] {
  const comment = ownerComment(attachment, link);
  return addresses.map((address) => {
    const key = [ipToBytes(address), ifnameBytes(bridge)];
    return element({ set: ADMITTED[address.family], key, comment });
  });
}

function isSameKey(one: Element, other: ElementFact): boolean {
  return one.set.name === other.set.name && Buffer.compare(one.key, other.key) === 0;
}

/** Undefined for an element that cannot be ours: another length. */
function decodeAdmitted(element: ElementFact, owner: Owner, family: Family): Admitted | undefined {
  const [address, name] = splitConcatenation(ADMITTED[family].key, element.key) ?? [];
  if (address === undefined || name === undefined) {
    return undefined;
  }
  const bridge = Buffer.from(name).toString('utf8').replace(/\0.*$/s, '');
  return { address: ipFromBytes(address), bridge, owner, element };
}

/**
 * The policy of a bridge as elements: whether it is among those kept apart, and what its containers may do to each other.
 * The comments are for people.
 */
function policyElements(bridge: string, policy: Exclude<IngressPolicy, 'open'>): Element[] {
  const name = ifnameBytes(bridge);
  const comment = `ingressPolicy ${policy}`;
  const data = policy === 'isolated' ? drop() : accept();
  return [
    element({ set: CLOSED_BRIDGES, key: [name], comment }),
    element({ map: INTRA_BRIDGE, key: [name, name], data, comment }),
  ];
}

function planPolicy(nft: Nftables, bridge: string, policy: IngressPolicy): Command[] {
  return policy === 'open'
    ? policyElements(bridge, 'same-bridge').flatMap((element) => removeElement(nft, element))
    : policyElements(bridge, policy).flatMap((element) => replaceElement(nft, element));
}

function expectPolicy(nft: Nftables, bridge: string, policy: IngressPolicy): void {
  if (policy !== 'open') {
    for (const element of policyElements(bridge, policy)) {
      expectElement(nft, element, `ingress policy "${policy}" of "${bridge}"`);
    }
    return;
  }
  for (const { set, key } of policyElements(bridge, 'same-bridge')) {
    const found = nft.findElement(set, key);
    if (found !== undefined) {
      const policy = found.comment ?? 'an element without comment';
      throw checkFailed(
        `Ingress policy "open" of "${bridge}" is not what ${set.kind ?? 'set'} "${set.name}" of table "inet patchbay" holds: ${policy}`,
      );
    }
  }
}

/** Whether the policy of the bridge has to stay for others than the doomed. */
function hasHeirs(nft: Nftables, bridge: string, doomed: readonly Admitted[]): boolean {
  const hasPolicy = policyElements(bridge, 'same-bridge').some(
    ({ set, key }) => nft.findElement(set, key) !== undefined,
  );
  return !hasPolicy || isUsedByOthers(nft, bridge, doomed); // without one nothing hangs on the answer
}

/**
 * Whether anything but the doomed is admitted on the bridge. No more elements are decoded than it takes to tell: a
 * bridge may have a thousand.
 */
export function isUsedByOthers(nft: Nftables, bridge: string, doomed: readonly Admitted[]): boolean {
  const containing = [ifnameBytes(bridge)];
  return ([4, 6] as const).some((family) => {
    const set = ADMITTED[family];
    const keys = new Set(doomed.map(({ element }) => hexOf(element)));
    const isOther = (found: ElementFact) =>
      !keys.has(hexOf(found)) &&
      Buffer.compare(splitConcatenation(set.key, found.key)?.[1] ?? NONE, containing[0] ?? NONE) === 0;
    const limit = keys.size + 1;
    const some = nft.listElements(set, { containing, limit });
    return (
      some.some(isOther) || (some.length === limit && nft.listElements(set, { containing }).some(isOther))
    );
  });
}

const NONE = new Uint8Array(0);

function hexOf({ set, key }: ElementFact): string {
  return `${set.name} ${Buffer.from(key).toString('hex')}`;
}
