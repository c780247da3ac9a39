// The firewall plugin's ADD: lets the container's packets through and gives its bridge the ingress policy, all or none.
// Called by dispatch behind an interface plugin.
import { type Attachment, ownerHash } from '../../shared/cni/attachment.ts';
import { expectChained } from '../../shared/cni/chained.ts';
import { kernelFeatureMissing } from '../../shared/cni/error.ts';
import type { AddCall } from '../../shared/cni/plugin.ts';
import type { Result } from '../../shared/cni/result.ts';
import { Rollback } from '../../shared/cni/rollback.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { commitGuarded } from '../../shared/ruleset/commit.ts';
import { listAdmitted, planAdmittedRemoval, planFirewall } from '../../shared/ruleset/firewall.ts';
import { findRuleset, type RulesetNeed, withRuleset } from '../../shared/ruleset/open.ts';
import type { FirewallConfig } from './config.ts';
import { isolatePort } from './port.ts';
import { findScope } from './scope.ts';

/** What a kernel without nf_tables means for a verb. */
export function need(fail: RulesetNeed['fail']): RulesetNeed {
  return { fail, need: 'The firewall', alternative: '"backend" to "iptables"' };
}

/**
 * Admits the addresses of the prevResult and passes it on unchanged (CNI SPEC 1.1.0, section 2, "ADD"). Throws
 * invalidConfig without a prevResult; undoes what it made.
 */
export function add(call: AddCall<FirewallConfig>): Result {
  const { config, attachment, log } = call;
  const prevResult = expectChained(call.network.prevResult, 'firewall');
  using host = openRtnetlink();
  const scope = findScope(host, attachment, prevResult, config.ingressPolicy);
  if (scope === undefined) {
    return prevResult;
  }
  using rollback = new Rollback(log);
  rollback.add('remove the admitted addresses', () => removeAdmitted(attachment));
  withRuleset(need(kernelFeatureMissing), (nft) => commitGuarded(nft, (nft) => planFirewall(nft, scope)));
  isolatePort(host, scope, rollback);
  rollback.commit();
  return prevResult;
}

/** The undo of ADD. */
function removeAdmitted(attachment: Attachment): void {
  using nft = findRuleset();
  if (nft !== undefined) {
    commitGuarded(nft, (nft) => planAdmittedRemoval(nft, listAdmitted(nft, ownerHash(attachment))));
  }
}
