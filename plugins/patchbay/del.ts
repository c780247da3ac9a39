// The patchbay plugin's DEL: the DELs of a whole list, last plugin first, in one process and with one change of the
// ruleset. Called by dispatch; each plugin runs as it would in a list.
import { notAvailable } from '../../shared/cni/error.ts';
import { Failures } from '../../shared/cni/failures.ts';
import type { DelCall } from '../../shared/cni/plugin.ts';
import { commitTogether } from '../../shared/ruleset/commit.ts';
import { keepRuleset, withRuleset } from '../../shared/ruleset/open.ts';
import type { PatchbayTeardown } from './config.ts';
import { inStage, pluginOf } from './stage.ts';

/**
 * Removes what any of the plugins made for the attachment, in this process or in a list (CNI SPEC 1.1.0, section 2,
 * "DEL"). bridge comes last and takes the rules of all with its own, before the link and the addresses go. Throws the
 * first failure after trying everything.
 */
export function del(call: DelCall<PatchbayTeardown>): void {
  using _ruleset = keepRuleset();
  const failures = new Failures();
  const need = { fail: notAvailable, need: 'DEL', alternative: '"backend" to "iptables"' };
  failures.attempt('remove the rules', () =>
    commitTogether(
      (use) => withRuleset(need, use),
      () => {
        for (const { name, source } of call.config.stages.toReversed()) {
          failures.attempt(`undo "${name}"`, () =>
            inStage(name, () => pluginOf(call, name).del(source, { ...call, network: source.network })),
          );
        }
      },
    ),
  );
  failures.throwIfAny();
}
