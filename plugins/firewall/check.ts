// The firewall plugin's CHECK: compares rules, addresses and policy with what ADD wrote, and names the difference.
// Called by dispatch with a prevResult; reads only, changes nothing.
import { expectChained } from '../../shared/cni/chained.ts';
import { kernelFeatureMissing } from '../../shared/cni/error.ts';
import type { CheckCall } from '../../shared/cni/plugin.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { expectFirewall } from '../../shared/ruleset/firewall.ts';
import { withRuleset } from '../../shared/ruleset/open.ts';
import { need } from './add.ts';
import type { FirewallConfig } from './config.ts';
import { expectIsolatedPort } from './port.ts';
import { findScope } from './scope.ts';

/**
 * Returns when everything is as ADD left it; throws checkFailed (107) naming what is missing or different (CNI SPEC
 * 1.1.0, section 2, "CHECK").
 */
export function check(call: CheckCall<FirewallConfig>): void {
  const { config, attachment } = call;
  using host = openRtnetlink();
  const prevResult = expectChained(call.network.prevResult, 'firewall');
  const scope = findScope(host, attachment, prevResult, config.ingressPolicy);
  if (scope === undefined) {
    return;
  }
  withRuleset(need(kernelFeatureMissing), (nft) => expectFirewall(nft, scope));
  expectIsolatedPort(host, scope);
}
