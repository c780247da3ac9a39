// The names under which the reference plugins keep an attachment's masquerade and published ports: iptables chains with
// their comments, and the tag of a native nftables rule. Called by the plans, look-ups and clean-ups beside this file.

import type { Attachment } from '../cni/attachment.ts';
import { sha512 } from './sha512.ts';

/** Whose a chain is. The iptables format knows no ifname: all attachments of a container share one chain. */
export interface ChainOwner {
  readonly network: string;
  readonly containerId: string;
}

// The grammar of container ids and network names (CNI spec, "Parameters"). With it, a name can't hold a quote,
// a space or a line break, so it can't end an argument of a rule or start a line of its own.
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

// XT_EXTENSION_MAXNAMELEN of linux/netfilter/x_tables.h is 29, the last of them NUL.
const CHAIN_LENGTH = 28;

// struct xt_comment_info { char comment[XT_MAX_COMMENT_LEN]; } with 256 bytes, the last of them NUL.
const COMMENT_BYTES = 255;

/**
 * The chain that masquerades a container on a network, 28 characters. There is no separator between the two names, so
 * "n1" with "c" and "n" with "1c" meet in one chain: the format is the reference's, shared with it on one host.
 * Throws Error when a name breaks the grammar.
 */
export function masqueradeChain(owner: ChainOwner): string {
  return chainWithPrefix('CNI-', owner);
}

/** Whether a chain could be one of `masqueradeChain`'s. */
export function isMasqueradeChain(name: string): boolean {
  return /^CNI-[0-9a-f]{24}$/.test(name);
}

/**
 * The comment of each of the chain's rules: `name: "n1" id: "c1"`, cut so that the kernel takes it.
 * Throws Error when a name breaks the grammar.
 */
export function masqueradeComment(owner: ChainOwner): string {
  expectNames(owner);
  const comment = `name: "${owner.network}" id: "${owner.containerId}"`;
  return comment.length <= COMMENT_BYTES ? comment : `${comment.slice(0, COMMENT_BYTES - 3)}...`;
}

/** The owner a comment names, undefined when it isn't of this format or was cut. */
export function ownerInComment(comment: string): ChainOwner | undefined {
  return ownerIn(/^name: "([^"]+)" id: "([^"]+)"$/.exec(comment));
}

/**
 * The chain of a container's published ports on a network, 28 characters. Names meet in it as in `masqueradeChain`.
 * Throws Error when a name breaks the grammar.
 */
export function hostportsChain(owner: ChainOwner): string {
  return chainWithPrefix('CNI-DN-', owner);
}

/** The chain that early releases of the reference made beside `hostportsChain`, to translate sources. */
export function hostportsSourceChain(owner: ChainOwner): string {
  return chainWithPrefix('CNI-SN-', owner);
}

/** Whether a chain could be one of `hostportsChain`'s or `hostportsSourceChain`'s. */
export function isHostportsChain(name: string): boolean {
  return /^CNI-[DS]N-[0-9a-f]{21}$/.test(name);
}

/**
 * The comment of each jump to `hostportsChain`: `dnat name: "n1" id: "c1"`. The reference cuts it to 253 bytes and adds
 * three dots, of which the kernel keeps two; this is what the kernel keeps. Throws Error when a name breaks the grammar.
 */
export function hostportsComment(owner: ChainOwner): string {
  expectNames(owner);
  const comment = `dnat name: "${owner.network}" id: "${owner.containerId}"`;
  return comment.length <= COMMENT_BYTES ? comment : `${comment.slice(0, COMMENT_BYTES - 2)}..`;
}

/** The owner of published ports a comment names, undefined when it isn't of this format or was cut. */
export function ownerInHostportsComment(comment: string): ChainOwner | undefined {
  return ownerIn(/^[ds]nat name: "([^"]+)" id: "([^"]+)"$/.exec(comment));
}

/** The start of the comment of every native nftables rule the reference made for a network, 17 characters. */
export function networkTag(network: string): string {
  return `${sha512(network).slice(0, 16)}-`;
}

/** The start of the comment of each native nftables rule the reference made for an attachment, 33 characters. */
export function attachmentTag(attachment: Attachment): string {
  const instance = sha512(`${attachment.ifname}:${attachment.containerId}`).slice(0, 16);
  return networkTag(attachment.network) + instance;
}

function chainWithPrefix(prefix: string, owner: ChainOwner): string {
  expectNames(owner);
  return prefix + sha512(owner.network + owner.containerId).slice(0, CHAIN_LENGTH - prefix.length);
}

function ownerIn(match: RegExpExecArray | null): ChainOwner | undefined {
  const [, network, containerId] = match ?? [];
  if (network === undefined || containerId === undefined) return undefined;
  return NAME.test(network) && NAME.test(containerId) ? { network, containerId } : undefined;
}

function expectNames({ network, containerId }: ChainOwner): void {
  if (!NAME.test(network))
    throw new Error(`Cannot write network name ${JSON.stringify(network)} into a rule`);
  if (!NAME.test(containerId)) {
    throw new Error(`Cannot write container id ${JSON.stringify(containerId)} into a rule`);
  }
}
