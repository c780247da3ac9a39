// The portmap plugin's ADD: publishes the container's ports, all or none. Called by dispatch behind an interface plugin.
import type { Attachment, Owner } from '../../shared/cni/attachment.ts';
import { expectChained } from '../../shared/cni/chained.ts';
import { kernelFeatureMissing } from '../../shared/cni/error.ts';
import type { AddCall } from '../../shared/cni/plugin.ts';
import type { Result } from '../../shared/cni/result.ts';
import { Rollback } from '../../shared/cni/rollback.ts';
import { findHostLink, isAlive } from '../../shared/host/links.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { findRuleset, type RulesetNeed, withRuleset } from '../../shared/ruleset/open.ts';
import type { PortmapConfig } from './config.ts';
import { addressesIn, removePorts } from './del.ts';
import { forgetFlows, forgetRemoved } from './flows.ts';
import { addIptablesPorts, removeIptablesPorts } from './iptables.ts';
import { enableLocalnet } from './localnet.ts';
import { type MappingPlan, planMappings } from './plan.ts';
import { type Moved, publishByIptables, publishNatively, withdrawPorts } from './publish.ts';
import { planWish } from './wish.ts';

/** What a kernel without nf_tables means for a verb. */
export function need(fail: RulesetNeed['fail']): RulesetNeed {
  return { fail, need: 'Publishing ports', alternative: '"backend" to "iptables"' };
}

/**
 * Publishes the ports of `runtimeConfig.portMappings` and passes the result on unchanged (CNI SPEC 1.1.0, section 2,
 * "ADD"). What an earlier ADD of the attachment published goes, also when there is nothing to publish now. Throws
 * portConflict naming the holder of a port, invalidConfig without a prevResult; undoes what it made.
 */
export function add(call: AddCall<PortmapConfig>): Result {
  const { config, attachment, log } = call;
  const prevResult = expectChained(call.network.prevResult, 'portmap');
  if (config.mappings.length === 0) {
    withdraw(call, prevResult);
    return prevResult;
  }
  const plan = planMappings(config, prevResult, attachment);
  for (const line of [...plan.skipped, ...plan.warnings]) {
    log(line);
  }
  if (plan.entries.length === 0) {
    withdraw(call, prevResult);
    return prevResult;
  }
  using rollback = new Rollback(log);
  publish(call, plan, prevResult, rollback);
  rollback.commit();
  return prevResult;
}

/** Takes back what an earlier ADD of the attachment published. Starts no program unless iptables holds some of it. */
function withdraw({ attachment, log }: AddCall<PortmapConfig>, prevResult: Result): void {
  using nft = findRuleset();
  if (nft !== undefined) {
    withdrawPorts(nft, attachment, addressesIn(prevResult) ?? [], (removed) => forgetRemoved(removed, log));
  }
}

function publish(
  call: AddCall<PortmapConfig>,
  plan: MappingPlan,
  prevResult: Result,
  rollback: Rollback,
): void {
  const { config, attachment } = call;
  const wish = planWish(config, attachment, hostLinkOf(attachment, prevResult), plan);
  if (config.backend === 'iptables') {
    rollback.add('remove the iptables rules', () => {
      using nft = findRuleset();
      removeIptablesPorts(nft, attachment);
    });
    finish(
      call,
      plan,
      publishByIptables(wish, isAliveNow, () => addIptablesPorts(config, attachment, plan)),
    );
    return;
  }
  rollback.add('remove the published ports', () => removePorts(attachment));
  withRuleset(need(kernelFeatureMissing), (nft) =>
    publishNatively(nft, wish, isAliveNow, (moved) => finish(call, plan, moved)),
  );
}

function hostLinkOf(attachment: Attachment, prevResult: Result): ReturnType<typeof findHostLink> {
  using host = openRtnetlink();
  return findHostLink(host, attachment, prevResult);
}

/** Asked where somebody else holds a port, and rarely more than once. */
function isAliveNow(owner: Owner): boolean {
  using host = openRtnetlink();
  return isAlive(host, owner);
}

/** What comes behind the rules: 127.0.0.1, whose guard is one of them, and flows that would go on past them. */
function finish({ config, log }: AddCall<PortmapConfig>, plan: MappingPlan, { lines, removed }: Moved): void {
  for (const line of lines) {
    log(line);
  }
  enableLocalnet(config, plan, log);
  forgetFlows({ ports: plan.entries, replySource: undefined }, log);
  forgetRemoved(removed, log);
}
