// The firewall plugin's GC: removes what attachments of this network were admitted with that are not valid any more.
// Called by dispatch with the attachments to keep, or without a word about them.
import { Failures } from '../../shared/cni/failures.ts';
import type { GcCall } from '../../shared/cni/plugin.ts';
import { stalenessOf } from '../../shared/host/links.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { findAdmitted } from '../../shared/ruleset/firewall.ts';
import { findRuleset } from '../../shared/ruleset/open.ts';
import type { FirewallTeardown } from './config.ts';
import { removeAdmissions } from './remove.ts';

/**
 * With a list (an empty one included) the addresses of every attachment of this network that is not on it go; without
 * one, only those whose host link is gone (CNI SPEC 1.1.0, section 2, "GC"). Throws at the end.
 */
export function gc(call: GcCall<FirewallTeardown>): void {
  const { config, log } = call;
  const failures = new Failures();
  using nft = failures.attempt('look at the rules', findRuleset);
  using host = openRtnetlink();
  const isStale = stalenessOf(host, call);
  removeAdmissions(
    { nft, find: (open) => findAdmitted(open, isStale), reported: [], zone: config.zone, log },
    failures,
  );
  failures.throwIfAny();
}
