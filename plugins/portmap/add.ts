// The portmap plugin's ADD: publishes the container's ports, all or none. Called by dispatch behind an interface plugin.
import { expectChained } from '../../shared/cni/chained.ts';
import { kernelFeatureMissing } from '../../shared/cni/error.ts';
import type { AddCall } from '../../shared/cni/plugin.ts';
import type { Result } from '../../shared/cni/result.ts';
import { Rollback } from '../../shared/cni/rollback.ts';
import { findHostLink, isAlive } from '../../shared/host/links.ts';
import { openRtnetlink, type Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { addHostports, expectNoConflict, type PortsWish } from '../../shared/ruleset/hostports.ts';
import { findRuleset, type RulesetNeed, withRuleset } from '../../shared/ruleset/open.ts';
import type { PortmapConfig } from './config.ts';
import { removePorts } from './del.ts';
import { forgetFlows } from './flows.ts';
import { addIptablesPorts, removeIptablesPorts } from './iptables.ts';
import { enableLocalnet } from './localnet.ts';
import { type MappingPlan, planMappings } from './plan.ts';
import { planWish } from './wish.ts';

/** What a kernel without nf_tables means for a verb. */
export function need(fail: RulesetNeed['fail']): RulesetNeed {
  return { fail, need: 'Publishing ports', alternative: '"backend" to "iptables"' };
}

/**
 * Publishes the ports of `runtimeConfig.portMappings` and passes the result on unchanged (CNI SPEC 1.1.0, section 2,
 * "ADD"). Throws portConflict naming the holder of a port, invalidConfig without a prevResult; undoes what it made.
 */
export function add(call: AddCall<PortmapConfig>): Result {
  const { config, attachment, log } = call;
  const prevResult = expectChained(call.network.prevResult, 'portmap');
  if (config.mappings.length === 0) {
    return prevResult;
  }
  const plan = planMappings(config, prevResult, attachment);
  for (const line of [...plan.skipped, ...plan.warnings]) {
    log(line);
  }
  if (plan.entries.length > 0) {
    using host = openRtnetlink();
    using rollback = new Rollback(log);
    publish(call, host, plan, prevResult, rollback);
    rollback.commit();
  }
  return prevResult;
}

function publish(
  call: AddCall<PortmapConfig>,
  host: Rtnetlink,
  plan: MappingPlan,
  prevResult: Result,
  rollback: Rollback,
): void {
  const { config, attachment, log } = call;
  const wish = planWish(config, attachment, findHostLink(host, attachment, prevResult), plan);
  if (config.backend === 'iptables') {
    refuseNativeConflicts(wish, host);
    rollback.add('remove the iptables rules', () => {
      using nft = findRuleset();
      removeIptablesPorts(nft, attachment);
    });
    addIptablesPorts(config, attachment, plan);
  } else {
    rollback.add('remove the published ports', () => removePorts(attachment));
    addPorts(wish, host, log);
  }
  enableLocalnet(config, host, plan, log);
  forgetFlows(host, { ports: plan.entries, replySource: undefined }, log);
}

/** The format's own holders are not looked for: what is a conflict there, the reference decides by order. */
function refuseNativeConflicts(wish: PortsWish, host: Rtnetlink): void {
  using nft = findRuleset();
  if (nft !== undefined) {
    expectNoConflict(nft, wish, (owner) => isAlive(host, owner));
  }
}

function addPorts(wish: PortsWish, host: Rtnetlink, log: (line: string) => void): void {
  const replaced = withRuleset(need(kernelFeatureMissing), (nft) =>
    addHostports(nft, wish, (owner) => isAlive(host, owner)),
  );
  for (const line of replaced) {
    log(line);
  }
}
