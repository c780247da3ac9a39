// The VLANs of one port of the bridge, on the kernel: put there, and compared. Called for the host end of an attachment by
// ADD and CHECK, and for the far end of a VLAN's gateway.
import { existsSync } from 'node:fs';
import { checkFailed, hasCode, kernelFeatureMissing } from '../../shared/cni/error.ts';
import type { PortVlans } from '../../shared/rtnetlink/bridge-vlan.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import type { Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { type PlannedVlans, planPortVlans } from './vlan-plan.ts';

/**
 * Puts a new port into its VLANs; it must be down still. Throws kernelFeatureMissing when the kernel filters no VLANs.
 * Equivalent to: `bridge vlan del vid 1 dev vethX; bridge vlan add vid 100 dev vethX pvid untagged`
 */
export function joinVlans(host: Rtnetlink, port: Link, bridge: Link, vlans: PlannedVlans): void {
  const defaultPvid = bridge.vlans?.defaultPvid ?? 0;
  try {
    if (defaultPvid !== 0 && !vlans.keepsDefault) {
      host.vlan.remove(port.index, [{ first: defaultPvid, last: defaultPvid }]);
    }
    host.vlan.add(port.index, planPortVlans(vlans, defaultPvid));
  } catch (error) {
    throw explainMissingVlans(error);
  }
}

/** Throws checkFailed unless the port is in its VLANs and in no other, each with its flags. */
export function expectVlans(host: Rtnetlink, port: Link, bridge: Link, vlans: PlannedVlans): void {
  const wanted = planPortVlans(vlans, bridge.vlans?.defaultPvid ?? 0);
  const found = host.vlan.list({ index: port.index });
  if (describe(found) !== describe(wanted)) {
    throw checkFailed(
      `Bridge port "${port.name}" is in VLANs ${describe(found)} instead of ${describe(wanted)}`,
    );
  }
}

/** False when the kernel is known to filter no VLANs; one that has not loaded the bridge module yet tells nothing. */
export function canFilterVlans(host: Rtnetlink): boolean {
  try {
    host.vlan.list({ index: 1 });
    return true;
  } catch (error) {
    return !hasCode(error, 'EOPNOTSUPP') || !existsSync('/sys/module/bridge');
  }
}

/** What to do about a kernel without them. */
export const VLAN_NEED =
  'VLAN filtering of bridges, which this kernel does not offer; use one with CONFIG_BRIDGE_VLAN_FILTERING, or remove "vlan" and "vlanTrunk"';

/** kernelFeatureMissing for what such a kernel answers, any other error as it is. */
export function explainMissingVlans(error: unknown): unknown {
  return hasCode(error, 'EOPNOTSUPP')
    ? kernelFeatureMissing(`Field "vlan" or "vlanTrunk" needs ${VLAN_NEED}`, { cause: error })
    : error;
}

/** `100 pvid untagged, 200-210`; neighbouring VLANs with the same flags count as one range, however they are told. */
function describe(vlans: readonly PortVlans[]): string {
  const parts = new Map<number, string>();
  for (const { first, last, pvid, untagged } of vlans) {
    for (let id = first; id <= last; id++) {
      parts.set(id, `${pvid ? ' pvid' : ''}${untagged ? ' untagged' : ''}`);
    }
  }
  const ranges: { first: number; last: number; flags: string }[] = [];
  for (const [id, flags] of [...parts].toSorted(([a], [b]) => a - b)) {
    const before = ranges.at(-1);
    if (before !== undefined && before.last === id - 1 && before.flags === flags) before.last = id;
    else ranges.push({ first: id, last: id, flags });
  }
  const text = ranges.map(
    ({ first, last, flags }) => `${first === last ? first : `${first}-${last}`}${flags}`,
  );
  return `"${text.join(', ') || 'none'}"`;
}
