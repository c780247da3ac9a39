// The rules of the reference's `macspoofchk`: found for CHECK after an upgrade in place, and removed by DEL and GC in the
// caller's own batch. Called by the bridge plugin; most hosts don't have their table, which takes one question to learn.
import type { Attachment } from '../cni/attachment.ts';
import { parseMac } from '../ip/mac.ts';
import { decodeExprs } from '../nftables/decode.ts';
import type { Expr } from '../nftables/exprs/expr.ts';
import type { Nftables, RuleFact } from '../nftables/nftables.ts';
import { type ChainRef, type Command, delete_, type TableRef } from '../nftables/objects.ts';

const TABLE: TableRef = { family: 'bridge', name: 'nat' };
const PREROUTING = 'PREROUTING';
const COMMENT_PREFIX = 'macspoofchk-';

/**
 * Commands that delete the rule and the two chains the reference made for an attachment, to be committed under the
 * generation that was read before. Their names hold container id and ifname, and not the network.
 *
 * Equivalent to: `nft delete rule bridge nat PREROUTING handle …; nft delete chain bridge nat cni-br-iface-c1-eth0 …`
 */
export function planReferenceMacSpoofCleanup(nft: Nftables, attachment: Attachment): Command[] {
  const id = idOf(attachment);
  const rules = listPrerouting(nft);
  if (rules.length === 0 && nft.findTable(TABLE) === undefined) return [];
  return planRemoval(nft, rules, id);
}

/**
 * The same, for GC, for every attachment whose host link is gone. The network is in no name of theirs, so a list of
 * valid attachments of one network says nothing about them; a link that is there may be anybody's.
 */
export function planReferenceMacSpoofGc(nft: Nftables, isThere: (link: string) => boolean): Command[] {
  const rules = listPrerouting(nft);
  const stale = rules.filter((rule) => {
    const link = iifnameIn(decodeExprs(rule.program));
    return link !== undefined && rule.comment?.startsWith(COMMENT_PREFIX) && !isThere(link);
  });
  const ids = new Set(stale.map(({ comment }) => comment?.slice(COMMENT_PREFIX.length) ?? ''));
  const living = rules.filter((rule) => !stale.includes(rule));
  return [...ids].flatMap((id) => {
    const isShared = living.some(({ comment }) => comment === COMMENT_PREFIX + id);
    return isShared ? [] : planRemoval(nft, stale, id);
  });
}

/** Whether the reference's rules let nothing but frames from `mac` out of the host link of the attachment. */
export function hasReferenceMacSpoof(
  nft: Nftables,
  attachment: Attachment,
  { link, mac }: { readonly link: string; readonly mac: string },
): boolean {
  const id = idOf(attachment);
  const leads = listPrerouting(nft).some(
    ({ comment, program }) =>
      comment === COMMENT_PREFIX + id &&
      iifnameIn(decodeExprs(program)) === link &&
      verdictIn(program) === 'jump',
  );
  const [allowing, closing, ...others] = nft.listRules({ table: TABLE, chain: macChain(id) });
  if (!leads || allowing === undefined || closing === undefined || others.length > 0) return false;
  const compared = decodeExprs(allowing.program).find((expr) => expr.kind === 'cmp');
  const isOwn = compared?.kind === 'cmp' && Buffer.compare(compared.data, parseMac(mac)) === 0;
  return isOwn && verdictIn(allowing.program) === 'return' && verdictIn(closing.program) === 'drop';
}

function planRemoval(nft: Nftables, prerouting: readonly RuleFact[], id: string): Command[] {
  const rules = prerouting.filter(({ comment }) => comment === COMMENT_PREFIX + id);
  const chains = [ifaceChain(id), macChain(id)].map((name): ChainRef => ({ table: TABLE, name }));
  const present = chains.filter((chain) => nft.findChain(chain) !== undefined);
  // The kernel deletes a chain with its rules, so the first no longer leads to the second when its turn comes.
  return [...rules.map(delete_), ...present.map((chain) => delete_({ kind: 'chain', ...chain }))];
}

function listPrerouting(nft: Nftables): RuleFact[] {
  return nft.listRules({ table: TABLE, chain: PREROUTING });
}

function idOf({ containerId, ifname }: Attachment): string {
  return `${containerId}-${ifname}`;
}

function ifaceChain(id: string): string {
  return `cni-br-iface-${id}`;
}

function macChain(id: string): string {
  return `cni-br-iface-${id}-mac`;
}

/** `iifname "veth1358372f"` is the one comparison of such a rule. */
function iifnameIn(exprs: readonly Expr[]): string | undefined {
  const compared = exprs.find((expr) => expr.kind === 'cmp');
  return compared?.kind === 'cmp'
    ? Buffer.from(compared.data).toString('utf8').replace(/\0.*$/s, '')
    : undefined;
}

function verdictIn(program: Uint8Array): string | undefined {
  const last = decodeExprs(program).findLast((expr) => expr.kind === 'immediate');
  return last?.kind === 'immediate' && 'kind' in last.data ? last.data.code : undefined;
}
