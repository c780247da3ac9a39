// The tuning plugin's CHECK: compares the sandbox with the config and names the difference.
// Called by dispatch with a prevResult; reads only, changes nothing.
import { expectChained } from '../../shared/cni/chained.ts';
import { checkFailed } from '../../shared/cni/error.ts';
import type { CheckCall } from '../../shared/cni/plugin.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { openSandbox } from '../../shared/sandbox/open.ts';
import type { TuningConfig } from './config.ts';
import { isEmpty, planTuning } from './plan.ts';
import { expectPlan } from './sandbox.ts';
import { listSettings } from './settings.ts';

/**
 * Returns when every sysctl and every property of the link is what the config says; throws checkFailed (107) naming what
 * is not, and its value (CNI SPEC 1.1.0, section 2, "CHECK").
 */
export function check(call: CheckCall<TuningConfig>): void {
  const { config, attachment } = call;
  expectChained(call.network.prevResult, 'tuning');
  const plan = planTuning(config, attachment.ifname);
  if (isEmpty(plan)) return;
  using netns = openSandbox(call.netns);
  using inside = openRtnetlink({ netns });
  const link = inside.link.find({ name: attachment.ifname });
  if (link === undefined && listSettings(plan.link).length > 0) {
    throw checkFailed(`Link "${attachment.ifname}" does not exist in sandbox "${call.netns}"`);
  }
  expectPlan({ netns, inside, link }, plan);
}
