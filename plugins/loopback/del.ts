// The loopback plugin's DEL. Called by dispatch, several times over and often without a sandbox.
import type { DelCall } from '../../shared/cni/plugin.ts';
import { findNetns } from '../../shared/linux/netns.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { LOOPBACK } from './add.ts';

/**
 * Sets `lo` down; a sandbox that is gone, or of which the runtime says nothing, is success (CNI SPEC 1.1.0, section 2,
 * "DEL"). Equivalent to: `ip -n sandbox link set lo down`
 */
export function del(call: DelCall<undefined>): void {
  using netns = findNetns(call.netns);
  if (netns === undefined) return;
  using inside = openRtnetlink({ netns });
  const link = inside.link.get({ name: LOOPBACK });
  if (link.isUp) inside.link.set(link.index, { up: false });
}
