// The firewall plugin's DEL: finds what the attachment was admitted with by its owner, whatever the config says by now.
// Called by dispatch, often without netns and prevResult.
import { ownerHash } from '../../shared/cni/attachment.ts';
import { Failures } from '../../shared/cni/failures.ts';
import type { DelCall } from '../../shared/cni/plugin.ts';
import { readableAddresses } from '../../shared/host/addresses.ts';
import { listAdmitted } from '../../shared/ruleset/firewall.ts';
import { findRuleset } from '../../shared/ruleset/open.ts';
import type { FirewallTeardown } from './config.ts';
import { removeAdmissions } from './remove.ts';

/**
 * Removes the addresses of the attachment from our table and from others, made by us or by the reference plugin, and the
 * policy of its bridge when nobody else is on it (CNI SPEC 1.1.0, section 2, "DEL"). Throws the first failure after trying
 * everything.
 */
export function del({ config, attachment, network, log }: DelCall<FirewallTeardown>): void {
  const failures = new Failures();
  using nft = failures.attempt('look at the rules', findRuleset);
  const own = ownerHash(attachment);
  const reported = readableAddresses(network.prevResult).map(({ ip }) => ip);
  removeAdmissions(
    { nft, find: (open) => listAdmitted(open, own), reported, zone: config.zone, log },
    failures,
  );
  failures.throwIfAny();
}
