// The firewall plugin's CHECK: compares rules, addresses and policy with what ADD wrote, and names the difference.
// Called by dispatch with a prevResult; reads only, changes nothing.
import { expectChained } from '../../shared/cni/chained.ts';
import { kernelFeatureMissing } from '../../shared/cni/error.ts';
import type { CheckCall } from '../../shared/cni/plugin.ts';
import { isNamedByFirewalld, querySource } from '../../shared/firewalld/zone.ts';
import { hasForward } from '../../shared/iptables/forward.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { expectFirewall, type FirewallWish } from '../../shared/ruleset/firewall.ts';
import { findRuleset, withRuleset } from '../../shared/ruleset/open.ts';
import { need } from './add.ts';
import type { FirewallConfig } from './config.ts';
import { expectElsewhere, planElsewhere } from './elsewhere.ts';
import { expectIsolatedPort } from './port.ts';
import { findScope } from './scope.ts';

/**
 * Returns when everything is as ADD left it, or as the reference plugin does it; throws checkFailed (107) naming what is
 * missing or different (CNI SPEC 1.1.0, section 2, "CHECK").
 */
export function check(call: CheckCall<FirewallConfig>): void {
  const { config, attachment } = call;
  using host = openRtnetlink();
  const prevResult = expectChained(call.network.prevResult, 'firewall');
  const scope = findScope(host, attachment, prevResult, config.ingressPolicy);
  if (scope === undefined) {
    return;
  }
  if (config.backend === 'iptables') {
    using nft = findRuleset();
    expectElsewhere(config, planElsewhere(nft, config, scope));
    return;
  }
  withRuleset(need(kernelFeatureMissing), (nft) => {
    try {
      expectFirewall(nft, scope);
      expectIsolatedPort(host, scope);
    } catch (error) {
      if (isMadeByReference(nft, config, scope)) {
        return;
      }
      throw error;
    }
    expectElsewhere(config, planElsewhere(nft, config, scope));
  });
}

/** Whether an attachment from before an upgrade is let through by the reference's rules, or by firewalld. */
function isMadeByReference(
  nft: Nftables,
  { adminChain, zone }: FirewallConfig,
  scope: FirewallWish,
): boolean {
  const { addresses } = scope;
  return (
    hasForward(nft, { addresses, adminChain }) ||
    addresses.every((ip) => isNamedByFirewalld(nft, ip) && querySource(zone, ip))
  );
}
