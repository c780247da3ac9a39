// The names under which the reference plugins keep an attachment's masquerade: the iptables chain with its comment,
// and the tag of a native nftables rule. Called by the plan, the look-up and the clean-up beside this file.

import type { Attachment } from '../cni/attachment.ts';
import { sha512 } from './sha512.ts';

/** Whose masquerade it is. The iptables format knows no ifname: all attachments of a container share one chain. */
export interface ChainOwner {
  readonly network: string;
  readonly containerId: string;
}

// The grammar of container ids and network names (CNI spec, "Parameters"). With it, a name can't hold a quote,
// a space or a line break, so it can't end an argument of a rule or start a line of its own.
const NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/;

// struct xt_comment_info { char comment[XT_MAX_COMMENT_LEN]; } with 256 bytes, the last of them NUL.
const COMMENT_BYTES = 255;

/**
 * The chain that masquerades a container on a network, 28 characters. There is no separator between the two names, so
 * "n1" with "c" and "n" with "1c" meet in one chain: the format is the reference's, shared with it on one host.
 * Throws Error when a name breaks the grammar.
 */
export function masqueradeChain(owner: ChainOwner): string {
  expectNames(owner);
  return `CNI-${sha512(owner.network + owner.containerId).slice(0, 24)}`;
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
  const [, network, containerId] = /^name: "([^"]+)" id: "([^"]+)"$/.exec(comment) ?? [];
  if (network === undefined || containerId === undefined) return undefined;
  return NAME.test(network) && NAME.test(containerId) ? { network, containerId } : undefined;
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

function expectNames({ network, containerId }: ChainOwner): void {
  if (!NAME.test(network))
    throw new Error(`Cannot write network name ${JSON.stringify(network)} into a rule`);
  if (!NAME.test(containerId)) {
    throw new Error(`Cannot write container id ${JSON.stringify(containerId)} into a rule`);
  }
}
