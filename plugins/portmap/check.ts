// The portmap plugin's CHECK: compares hooks, rules and each mapping with what ADD wrote, and names the difference.
// Called by dispatch with a prevResult; reads only, changes nothing.
import { expectChained } from '../../shared/cni/chained.ts';
import { checkFailed, kernelFeatureMissing } from '../../shared/cni/error.ts';
import type { CheckCall } from '../../shared/cni/plugin.ts';
import { readSysctl } from '../../shared/linux/sysctl.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { expectHostports } from '../../shared/ruleset/hostports.ts';
import { withRuleset } from '../../shared/ruleset/open.ts';
import { need } from './add.ts';
import type { PortmapConfig } from './config.ts';
import { expectIptablesPorts, hasReferencePorts } from './iptables.ts';
import { findLocalnetLink, localnetSysctl } from './localnet.ts';
import { planMappings } from './plan.ts';
import { planWish } from './wish.ts';

/**
 * Returns when every port is published as ADD left it, or as the reference plugin does it; throws checkFailed (107)
 * naming what is missing or different (CNI SPEC 1.1.0, section 2, "CHECK").
 */
export function check(call: CheckCall<PortmapConfig>): void {
  const { config, attachment } = call;
  const plan = planMappings(config, expectChained(call.network.prevResult, 'portmap'), attachment);
  if (plan.entries.length === 0) {
    return;
  }
  if (config.backend === 'iptables') {
    expectIptablesPorts(config, attachment, plan);
    return;
  }
  withRuleset(need(kernelFeatureMissing), (nft) => {
    try {
      expectHostports(nft, planWish(config, attachment, 'own', plan));
    } catch (error) {
      if (!hasReferencePorts(nft, config, attachment, plan)) {
        throw error;
      }
    }
  });
  using host = openRtnetlink();
  const link = findLocalnetLink(config, host, plan);
  if (link !== undefined && readSysctl(localnetSysctl(link)) === '0') {
    throw checkFailed(`Sysctl "${localnetSysctl(link)}" is 0, so published ports do not answer on 127.0.0.1`);
  }
}
