// The portmap plugin's GC: removes the ports of attachments of this network that are not valid any more.
// Called by dispatch with the attachments to keep, or without a word about them.
import type { Owner } from '../../shared/cni/attachment.ts';
import { Failures } from '../../shared/cni/failures.ts';
import type { GcCall } from '../../shared/cni/plugin.ts';
import { stalenessOf } from '../../shared/host/links.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { commitGuarded } from '../../shared/ruleset/commit.ts';
import { planHostportsRemoval } from '../../shared/ruleset/hostports.ts';
import { findRuleset } from '../../shared/ruleset/open.ts';
import type { PortmapTeardown } from './config.ts';
import { type FlowScope, forgetRemoved } from './flows.ts';
import { removeStaleIptablesPorts } from './iptables.ts';

/**
 * With a list (an empty one included) the ports of every attachment of this network that is not on it go; without one,
 * only those whose host link is gone (CNI SPEC 1.1.0, section 2, "GC"). The rules of the reference's nftables backend name
 * a container and no network, so they are left to DEL. Throws at the end.
 */
export function gc(call: GcCall<PortmapTeardown>): void {
  const { name } = call.network;
  const valid = call.validAttachments;
  const failures = new Failures();
  using nft = failures.attempt('look at the rules', findRuleset);
  using host = openRtnetlink();
  const isStale = stalenessOf(host, call);
  const removed: FlowScope['ports'][number][] = [];
  failures.attempt('remove stale ports', () => {
    if (nft !== undefined) removed.push(...removeStale(nft, isStale));
  });
  failures.attempt('remove stale iptables rules', () => {
    if (valid !== undefined) removed.push(...removeStaleIptablesPorts(nft, name, valid));
  });
  forgetRemoved(removed, call.log);
  failures.throwIfAny();
}

function removeStale(nft: Nftables, isStale: (owner: Owner) => boolean): FlowScope['ports'] {
  let removed: FlowScope['ports'] = [];
  commitGuarded(nft, (nft) => {
    const stale = planHostportsRemoval(nft, isStale);
    removed = stale.removed;
    return stale.commands;
  });
  return removed;
}
