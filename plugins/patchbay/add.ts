// The patchbay plugin's ADD: the ADDs of a whole list in one process and with one change of the ruleset.
// Called by dispatch; each plugin runs as it would in a list.
import { kernelFeatureMissing } from '../../shared/cni/error.ts';
import type { AddCall } from '../../shared/cni/plugin.ts';
import type { Result } from '../../shared/cni/result.ts';
import { Rollback } from '../../shared/cni/rollback.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import { commitTogether, type Together } from '../../shared/ruleset/commit.ts';
import { keepRuleset, withRuleset } from '../../shared/ruleset/open.ts';
import { behind, type PatchbayConfig, type Stage } from './config.ts';
import { delStages } from './del.ts';
import { inStage, type ReadStage, readStages } from './stage.ts';

/**
 * Runs the plugins one behind the other and returns what a list of them would have returned (CNI SPEC 1.1.0, section 3).
 * All of them read their configs before the first acts. Throws the first error met, after undoing every plugin's work.
 */
export function add(call: AddCall<PatchbayConfig>): Result {
  const stages = readStages(call, call.config.stages);
  using _ruleset = keepRuleset();
  using rollback = new Rollback(call.log); // outside: an undo waits for no other change
  const result = commitTogether(withRules, (together) => addStages(call, stages, together, rollback));
  rollback.commit();
  return result;
}

/** A stage that fails undoes itself; those before it are undone by their DELs. */
function addStages(
  call: AddCall<PatchbayConfig>,
  stages: readonly ReadStage[],
  together: Together,
  rollback: Rollback,
): Result {
  let result: Result | undefined;
  const done: Stage[] = [];
  rollback.add('undo the attachment', () => {
    delStages(
      call,
      done.map((stage) => asDel(stage, result)),
    );
  });
  for (const stage of stages) {
    const { network } = behind(stage, result);
    result = together.part(
      (step) => inStage(stage.name, step),
      () => stage.plugin.add({ ...call, network }),
    );
    done.push(stage);
  }
  return result ?? {};
}

function asDel(stage: Stage, result: Result | undefined): Stage {
  return { ...stage, source: { ...behind(stage, result), command: 'DEL' } };
}

function withRules(use: (nft: Nftables) => void): void {
  const alternative = '"ipMasqBackend" and "backend" to "iptables"';
  withRuleset({ fail: kernelFeatureMissing, need: 'This network', alternative }, use);
}
