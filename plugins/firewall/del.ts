// The firewall plugin's DEL: finds what the attachment was admitted with by its owner, whatever the config says by now.
// Called by dispatch, often without netns and prevResult.
import { ownerHash } from '../../shared/cni/attachment.ts';
import { Failures } from '../../shared/cni/failures.ts';
import type { DelCall } from '../../shared/cni/plugin.ts';
import { commitGuarded } from '../../shared/ruleset/commit.ts';
import { listAdmitted, planAdmittedRemoval } from '../../shared/ruleset/firewall.ts';
import { findRuleset } from '../../shared/ruleset/open.ts';
import type { FirewallTeardown } from './config.ts';

/**
 * Removes the addresses of the attachment, and the policy of its bridge when nobody else is on it (CNI SPEC 1.1.0,
 * section 2, "DEL"). Throws the first failure after trying everything.
 */
export function del({ attachment }: DelCall<FirewallTeardown>): void {
  const failures = new Failures();
  using nft = failures.attempt('look at the rules', findRuleset);
  if (nft !== undefined) {
    failures.attempt('remove the admitted addresses', () =>
      commitGuarded(nft, (nft) => planAdmittedRemoval(nft, listAdmitted(nft, ownerHash(attachment)))),
    );
  }
  failures.throwIfAny();
}
