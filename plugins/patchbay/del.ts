// The patchbay plugin's DEL: the DELs of a whole list, last plugin first, in one process and with one change of the
// ruleset. Called by dispatch, and by ADD to undo; each plugin runs as it would in a list.
import { notAvailable } from '../../shared/cni/error.ts';
import { Failures } from '../../shared/cni/failures.ts';
import type { DelCall, IpamDelegate, Unread } from '../../shared/cni/plugin.ts';
import { commitTogether } from '../../shared/ruleset/commit.ts';
import { keepRuleset, withRuleset } from '../../shared/ruleset/open.ts';
import type { PatchbayTeardown, Stage } from './config.ts';
import { inStage, pluginOf } from './stage.ts';

/**
 * Removes what any of the plugins made for the attachment, in this process or in a list (CNI SPEC 1.1.0, section 2,
 * "DEL"). Throws the first failure after trying everything.
 */
export function del(call: DelCall<PatchbayTeardown>): void {
  delStages(call, call.config.stages);
}

/**
 * As `del` for some of the plugins, first one first. bridge comes last and takes the rules of all with its own, before the
 * link and the addresses go. A list stops at a DEL that fails; here the link goes all the same, but no address is free
 * while a rule may still lead to it.
 */
export function delStages(call: Unread<DelCall<unknown>>, stages: readonly Stage[]): void {
  using _ruleset = keepRuleset();
  const failures = new Failures();
  const need = { fail: notAvailable, need: 'DEL', alternative: '"backend" to "iptables"' };
  failures.attempt('remove the rules', () =>
    commitTogether(
      (use) => withRuleset(need, use),
      (together) => {
        const isClean = () => failures.isEmpty && !together.isRefused();
        const ipam = releasingIf(isClean, call);
        for (const { name, source } of stages.toReversed()) {
          const own = { ...call, network: source.network, ipam };
          failures.attempt(`undo "${name}"`, () =>
            together.part(
              (step) => inStage(name, step),
              () => pluginOf(call, name).del(source, own),
            ),
          );
        }
      },
    ),
  );
  failures.throwIfAny();
}

function releasingIf(isClean: () => boolean, { ipam, log }: Unread<DelCall<unknown>>): IpamDelegate {
  const del = (type: string) => {
    if (isClean()) ipam.del(type);
    else log('Keeping the addresses: something of what leads to them could not be removed; repeat the DEL');
  };
  return { ...ipam, del };
}
