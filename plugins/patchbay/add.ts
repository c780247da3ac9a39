// The patchbay plugin's ADD: the ADDs of a whole list in one process and with one change of the ruleset.
// Called by dispatch; each plugin runs as it would in a list.
import { kernelFeatureMissing } from '../../shared/cni/error.ts';
import type { AddCall } from '../../shared/cni/plugin.ts';
import type { Result } from '../../shared/cni/result.ts';
import { Rollback } from '../../shared/cni/rollback.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import { commitTogether } from '../../shared/ruleset/commit.ts';
import { keepRuleset, withRuleset } from '../../shared/ruleset/open.ts';
import { behind, type PatchbayConfig, type Stage } from './config.ts';
import { inStage, pluginOf } from './stage.ts';

/**
 * Runs the plugins one behind the other and returns what a list of them would have returned (CNI SPEC 1.1.0, section 3).
 * All of them read their configs before the first acts. Throws the first error met, after undoing every plugin's work.
 */
export function add(call: AddCall<PatchbayConfig>): Result {
  const { stages } = call.config;
  for (const { name, source } of stages) {
    inStage(name, () => pluginOf(call, name).validate(source));
  }
  using _ruleset = keepRuleset();
  using rollback = new Rollback(call.log); // outside, so that what it undoes is undone at once
  const result = commitTogether(withRules, () => addStages(call, rollback));
  rollback.commit();
  return result;
}

function addStages(call: AddCall<PatchbayConfig>, rollback: Rollback): Result {
  let result: Result | undefined;
  for (const stage of call.config.stages) {
    const prevResult = result;
    result = inStage(stage.name, () => addStage(call, stage, prevResult));
    rollback.add(`undo "${stage.name}"`, () => undo(call, stage, prevResult));
  }
  return result ?? {};
}

function addStage(call: AddCall<PatchbayConfig>, stage: Stage, prevResult: Result | undefined): Result {
  const source = behind(stage, prevResult);
  return pluginOf(call, stage.name).add(source, { ...call, network: source.network });
}

function undo(call: AddCall<PatchbayConfig>, stage: Stage, prevResult: Result | undefined): void {
  const source = { ...behind(stage, prevResult), command: 'DEL' as const };
  pluginOf(call, stage.name).del(source, { ...call, network: source.network });
}

function withRules(use: (nft: Nftables) => void): void {
  const alternative = '"ipMasqBackend" and "backend" to "iptables"';
  withRuleset({ fail: kernelFeatureMissing, need: 'This network', alternative }, use);
}
