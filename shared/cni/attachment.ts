// The identity of an attachment, and every name and comment derived from it.
// Used by plugins and the ruleset to mark what they create, and to find it again without any state file.
import { sha256 } from '@noble/hashes/sha2.js';

/** One interface of one container on one network: all three decide, none alone does. */
export interface Attachment {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string;
}

/** Who a comment says it belongs to. */
export interface Owner {
  readonly ownerHash: string;
  readonly networkHash: string;
  /** The host link that lives as long as the attachment, undefined when nothing is known of one. */
  readonly hostLink: string | undefined;
  /** What else its elements are keyed on, as `ownerComment` was given it; undefined when it was not, or did not fit. */
  readonly station: string | undefined;
}

/** The host end of an attachment: ours by its name, another plugin's by the name it has, or not known. */
export type HostLink = 'own' | 'unknown' | { readonly name: string };

/** 32 hex digits that stand for the attachment: SHA-256 over network, container id and ifname with NUL between. */
export function ownerHash(attachment: Attachment): string {
  const { network, containerId, ifname } = attachment;
  return hexHash(`${network}\0${containerId}\0${ifname}`).slice(0, OWNER_DIGITS);
}

/** 16 hex digits that stand for the network, so that a cut comment still tells which one it is. */
export function networkHash(network: string): string {
  return hexHash(network).slice(0, NETWORK_DIGITS);
}

/** The name of the host's end of the veth pair: exactly 15 bytes, IFNAMSIZ less the NUL (linux/if.h). */
export function hostLinkName(attachment: Attachment): string {
  return hostLinkNameOf(ownerHash(attachment));
}

/** As `hostLinkName`, for an owner known by hash alone. */
export function hostLinkNameOf(ownerHash: string): string {
  return `veth${ownerHash.slice(0, 11)}`;
}

/**
 * `<owner> <network hash>, net: n1, if: eth0, id: c1`: the hashes decide, the words are for people. At most
 * 127 bytes, as NFTNL_UDATA_COMMENT_MAXLEN is 128 with the NUL; printable ASCII without `"` and `\`, because
 * nft prints a comment as it is and can't read such a one back. Where the host link is not one of ours, ` via <link>`
 * stands behind the hashes. A `station`, addresses with blanks between, stands there as ` is <station>`, whole or not
 * at all.
 */
export function ownerComment(attachment: Attachment, link: HostLink = 'own', station?: string): string {
  const { network, containerId, ifname } = attachment;
  const hashes = `${ownerHash(attachment)} ${networkHash(network)}${describeLink(link)}`;
  const fits = station !== undefined && `${hashes} is ${station}${NETWORK}`.length <= COMMENT_LIMIT;
  const text = `${hashes}${fits ? ` is ${station}` : ''}${NETWORK}${network}, if: ${ifname}, id: ${containerId}`;
  return text.replace(/[^ -~]|["\\]/gu, '?').slice(0, COMMENT_LIMIT);
}

/** The owner a comment of ours names; undefined for any other text. */
export function ownerIn(comment: string): Owner | undefined {
  const match = /^([0-9a-f]{32}) ([0-9a-f]{16})(?: via ([^ ,]+))?(?: is ([^,]+))?, net: /.exec(comment);
  const [, owner, network, via, station] = match ?? [];
  if (owner === undefined || network === undefined) return undefined;
  const hostLink = via === undefined ? hostLinkNameOf(owner) : via === UNKNOWN_LINK ? undefined : via;
  return { ownerHash: owner, networkHash: network, hostLink, station };
}

/** The owner's 32 hex digits in a comment of ours; undefined for any other text. */
export function ownerHashIn(comment: string): string | undefined {
  return ownerIn(comment)?.ownerHash;
}

/** The network's name in a comment of ours; undefined when it was cut, or the text is not ours. */
export function networkOf(comment: string): string | undefined {
  if (ownerIn(comment) === undefined) return undefined;
  // A network name has no comma (network-config.ts), so the first one after it is ours.
  return /^[^,]*, net: ([^,]*), if: /.exec(comment)?.[1];
}

/**
 * Whether a comment of ours names this container, on whatever network. False where a long network name left too little
 * of the id to tell.
 */
export function isOfContainer(comment: string, containerId: string): boolean {
  if (ownerIn(comment) === undefined) return false;
  const named = /, if: [^,]*, id: (.*)$/.exec(comment)?.[1] ?? '';
  const isCut = comment.length === COMMENT_LIMIT;
  return named === containerId || (isCut && named.length >= TELLING_DIGITS && containerId.startsWith(named));
}

// A name that would break the grammar of the comment is as good as unknown.
function describeLink(link: HostLink): string {
  if (link === 'own') return '';
  const isPlain = link !== 'unknown' && /^[!-+\--[\]-~]{1,15}$/.test(link.name) && !link.name.includes('"');
  return ` via ${isPlain ? link.name : UNKNOWN_LINK}`;
}

const UNKNOWN_LINK = '-';
const NETWORK = ', net: ';
const OWNER_DIGITS = 32;
const NETWORK_DIGITS = 16;
const COMMENT_LIMIT = 127;
// Of an id that a runtime chose at random, behind a prefix such as nerdctl's.
const TELLING_DIGITS = 20;

// One call hashes the same few texts again and again: for the link, for each comment.
const hashes = new Map<string, string>();

// Not node:crypto: loading that one takes longer than everything else a call does in JavaScript.
function hexHash(text: string): string {
  const known = hashes.get(text);
  if (known !== undefined) return known;
  const hash = Buffer.from(sha256(Buffer.from(text, 'utf8'))).toString('hex');
  hashes.set(text, hash);
  return hash;
}
