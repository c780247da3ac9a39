// Who may send as whom from a bridge port: map and set elements, keyed on the host link and what it may claim to be.
// Called by the bridge plugin for `macspoofchk` and `ipspoofchk`; the constant rules are in spoof-table.ts.
import {
  type Attachment,
  hostLinkName,
  type Owner,
  ownerComment,
  ownerHashIn,
  ownerIn,
} from '../cni/attachment.ts';
import { formatIp, type Ip, ipToBytes, parseIp } from '../ip/cidr.ts';
import { linkLocalOf, parseMac } from '../ip/mac.ts';
import { formatConcatenation, ifnameBytes } from '../nftables/datatypes.ts';
import type { ElementFact, Nftables } from '../nftables/nftables.ts';
import { add, type Command, delete_, type Element, element } from '../nftables/objects.ts';
import { goto } from '../nftables/statements.ts';
import { expectElement, planOwnedRemoval } from './elements.ts';
import { expectChain, expectRules, viewTable } from './expect-rules.ts';
import {
  ARPS,
  CHECK_IP,
  CHECK_MAC,
  CHECKED,
  IPS4,
  IPS6,
  MACS,
  ND_OPTIONS,
  ND_TARGETS,
  planSpoofTable,
  SPOOF_PREROUTING,
  SPOOF_TABLE,
  spoofChains,
} from './spoof-table.ts';
import { FORMAT, formatIn } from './table.ts';

/** What the sandbox end of an attachment may claim to be. */
export interface SpoofCheck {
  /** Lower case with colons. */
  readonly mac: string;
  /** Undefined when it may send from any address. The link-local one of the MAC is always among them. */
  readonly ips: readonly Ip[] | undefined;
}

/**
 * Commands that let nothing but this out of the host link of an attachment, the constant part of the table included.
 * What an earlier attachment of the same owner left is replaced.
 */
export function planSpoofCheck(nft: Nftables, attachment: Attachment, check: SpoofCheck): Command[] {
  return [
    ...planSpoofTable(nft.findChain(SPOOF_PREROUTING)),
    ...planSpoofRemoval(nft, attachment),
    ...elementsOf(attachment, check).map(add),
  ];
}

/** Has the kernel judge the constant part of the table without keeping it. Throws what it refuses. */
export function trySpoofTable(nft: Nftables): void {
  nft.commit(planSpoofTable(undefined), { dryRun: true });
}

/** Whether anything is checked on behalf of the attachment. */
export function hasSpoofCheck(nft: Nftables, attachment: Attachment): boolean {
  return findChecked(nft, attachment) !== undefined;
}

/**
 * Commands that delete all elements of one owner. His element of `checked` tells what the others are keyed on, so none
 * of the sets, with their thousands of elements, has to be listed, unless he has more addresses than a comment holds.
 */
export function planSpoofRemoval(nft: Nftables, attachment: Attachment): Command[] {
  const checked = findChecked(nft, attachment);
  const owner = ownerIn(checked?.comment ?? '');
  if (checked === undefined || owner === undefined) {
    return [];
  }
  const known = parseStation(owner.station);
  const others =
    known === undefined
      ? SETS.flatMap((set) => nft.listElements(set, { commentPrefix: owner.ownerHash }))
      : claimsOf(attachment, known).flatMap(({ set, key }) => nft.findElement(set, key) ?? []);
  const own = others.filter(({ comment }) => ownerHashIn(comment ?? '') === owner.ownerHash);
  return [checked, ...own].map(delete_);
}

/** Commands that delete the elements of every owner that `isDoomed` picks. */
export function planStaleSpoofRemoval(nft: Nftables, isDoomed: (owner: Owner) => boolean): Command[] {
  return planOwnedRemoval(nft, [CHECKED, ...SETS], isDoomed);
}

/** Throws checkFailed unless exactly this is checked, naming the chain, rule or element that is missing or different. */
export function expectSpoofCheck(nft: Nftables, attachment: Attachment, check: SpoofCheck): void {
  const view = viewTable(nft, SPOOF_TABLE);
  const base = expectChain(view, SPOOF_PREROUTING);
  for (const { chain, rules } of formatIn(base.comment) <= FORMAT ? spoofChains() : []) {
    expectChain(view, chain);
    expectRules(view, chain, rules);
  }
  for (const wanted of elementsOf(attachment, check)) {
    expectElement(nft, wanted, `element ${formatConcatenation(wanted.set.key ?? [], wanted.key)}`);
  }
}

const SETS = [MACS, IPS4, IPS6, ARPS, ND_TARGETS, ND_OPTIONS] as const;

function findChecked(nft: Nftables, attachment: Attachment): ElementFact | undefined {
  const comment = ownerHashIn(ownerComment(attachment));
  const found = nft.findElement(CHECKED, ifnameBytes(hostLinkName(attachment)));
  return ownerHashIn(found?.comment ?? '') === comment ? found : undefined;
}

function elementsOf(attachment: Attachment, check: SpoofCheck): Element[] {
  const comment = ownerComment(attachment, 'own', formatStation(check));
  const data = goto(check.ips === undefined ? CHECK_MAC : CHECK_IP);
  const checked = element({ map: CHECKED, key: [ifnameBytes(hostLinkName(attachment))], data, comment });
  return [checked, ...claimsOf(attachment, check)];
}

function claimsOf(attachment: Attachment, { mac, ips }: SpoofCheck): Element[] {
  const comment = ownerComment(attachment);
  const link = ifnameBytes(hostLinkName(attachment));
  const station = parseMac(mac);
  const macs = element({ set: MACS, key: [link, station], comment });
  if (ips === undefined) {
    return [macs];
  }
  const options = [1, 2].map((type) => {
    return element({ set: ND_OPTIONS, key: [link, Uint8Array.of(type, 1, ...station)], comment });
  });
  return [macs, ...options, ...withLinkLocal(ips, station).flatMap((ip) => addressClaims(ip))];

  function addressClaims(ip: Ip): Element[] {
    const address = ipToBytes(ip);
    return ip.family === 4
      ? [
          element({ set: IPS4, key: [link, station, address], comment }),
          element({ set: ARPS, key: [link, station, address], comment }),
        ]
      : [
          element({ set: IPS6, key: [link, station, address], comment }),
          element({ set: ND_TARGETS, key: [link, address], comment }),
        ];
  }
}

function withLinkLocal(ips: readonly Ip[], mac: Uint8Array): Ip[] {
  const distinct = new Map([...ips, linkLocalOf(mac)].map((ip) => [formatIp(ip), ip]));
  return [...distinct.values()];
}

/** `02:42:0a:16:00:02 any`, or the addresses in place of `any`. */
function formatStation({ mac, ips }: SpoofCheck): string {
  return [mac, ...(ips === undefined ? ['any'] : ips.map(formatIp))].join(' ');
}

/** A comment may come from anybody: what cannot be read is as good as not there. */
function parseStation(text: string | undefined): SpoofCheck | undefined {
  const [mac = '', ...ips] = (text ?? '').split(' ');
  try {
    parseMac(mac);
    return { mac, ips: ips[0] === 'any' ? undefined : ips.map(parseIp) };
  } catch {
    return undefined;
  }
}
