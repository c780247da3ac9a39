// The native nftables masquerade that the reference plugins leave: found for CHECK, and removed by DEL and GC in the
// caller's own batch. Called by plugins; it only ever lists one chain, whose table most hosts don't have.

import type { Attachment } from '../cni/attachment.ts';
import { type Cidr, ipToBytes } from '../ip/cidr.ts';
import { decodeExprs } from '../nftables/decode.ts';
import type { Nftables, RuleFact } from '../nftables/nftables.ts';
import { type Command, delete_, type TableRef } from '../nftables/objects.ts';
import { attachmentTag, networkTag } from './names.ts';

const TABLE: TableRef = { family: 'inet', name: 'cni_plugins_masquerade' };
const CHAIN = 'masq_checks';

/** Which attachments of a network are to stay. */
export interface ValidAttachments {
  readonly network: string;
  readonly attachments: readonly Pick<Attachment, 'containerId' | 'ifname'>[];
}

/**
 * Commands that delete the rules the reference made for an attachment, to be committed under the generation that was
 * read before. They are known by the hash their comment begins with.
 *
 * Equivalent to: `nft delete rule inet cni_plugins_masquerade masq_checks handle …`
 */
export function planReferenceCleanup(nft: Nftables, attachment: Attachment): Command[] {
  return rulesOf(nft, attachment).map(delete_);
}

/** The same for every attachment of a network but the valid ones, for GC. */
export function planReferenceGc(nft: Nftables, valid: ValidAttachments): Command[] {
  const rules = listRules(nft);
  if (rules.length === 0) return [];
  const { network } = valid;
  const tags = valid.attachments.map(({ containerId, ifname }) =>
    attachmentTag({ network, containerId, ifname }),
  );
  const ofNetwork = networkTag(network);
  return rules
    .filter((rule) => rule.comment?.startsWith(ofNetwork))
    .filter((rule) => !tags.some((tag) => rule.comment?.startsWith(tag)))
    .map(delete_);
}

/** Whether the reference's rules masquerade every one of these addresses for the attachment. */
export function hasReferenceMasquerade(
  nft: Nftables,
  attachment: Attachment,
  addresses: readonly Cidr[],
): boolean {
  const rules = rulesOf(nft, attachment);
  return addresses.every((address) => rules.some((rule) => masquerades(rule, address)));
}

function rulesOf(nft: Nftables, attachment: Attachment): RuleFact[] {
  const rules = listRules(nft);
  if (rules.length === 0) return []; // the usual case, which need not pay for a hash
  const tag = attachmentTag(attachment);
  return rules.filter((rule) => rule.comment?.startsWith(tag));
}

function listRules(nft: Nftables): RuleFact[] {
  return nft.listRules({ table: TABLE, chain: CHAIN });
}

// `ip saddr 10.22.0.2 ip daddr != 10.22.0.0/24 masquerade`: the first comparison with as many bytes as an address has
// is that of the source.
function masquerades(rule: RuleFact, address: Cidr): boolean {
  const exprs = decodeExprs(rule.program);
  const source = Buffer.from(ipToBytes(address.ip));
  const compared = exprs.find((expr) => expr.kind === 'cmp' && expr.data.length === source.length);
  return (
    compared?.kind === 'cmp' && source.equals(compared.data) && exprs.some((expr) => expr.kind === 'masq')
  );
}
