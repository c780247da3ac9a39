// Which VLANs the port of an attachment is in, decided from the config alone. Pure.
// config.ts parses with it, veth.ts carries it out, check.ts compares the kernel with it.
import { invalidConfig } from '../../shared/cni/error.ts';
import type { PortVlans, VlanRange } from '../../shared/rtnetlink/bridge-vlan.ts';

/** The VLANs of a port. */
export interface PlannedVlans {
  /** Frames without a tag are in this one: that of `vlan`, else the native VLAN beside a trunk. */
  readonly access: number;
  /** What `vlan` says. Its gateway is on a link of its own. */
  readonly id: number | undefined;
  /** Frames with a tag, in ascending order, without overlap, and without `access`. */
  readonly trunk: readonly VlanRange[];
  /** The VLAN into which the bridge puts a new port stays. */
  readonly keepsDefault: boolean;
}

/** The fields of a config, ids in range. */
export interface VlanFields {
  readonly vlan?: number | undefined;
  readonly vlanTrunk?: readonly TrunkFields[] | undefined;
  readonly preserveDefaultVlan?: boolean | undefined;
}

/** `id`, or both of the others. */
export interface TrunkFields {
  readonly id?: number | undefined;
  readonly minID?: number | undefined;
  readonly maxID?: number | undefined;
}

/** The VLAN of frames without a tag beside a trunk without `vlan`, as the reference has it. */
const NATIVE_VLAN = 1;

/** Undefined when the port stays as the bridge makes it. Throws invalidConfig naming the part of the trunk. */
export function planVlans({
  vlan,
  vlanTrunk = [],
  preserveDefaultVlan,
}: VlanFields): PlannedVlans | undefined {
  const id = vlan || undefined;
  if (id === undefined && vlanTrunk.length === 0) {
    return undefined;
  }
  const access = id ?? NATIVE_VLAN;
  const trunk = without(merged(vlanTrunk.map(parseTrunk)), access); // frames of a VLAN leave with a tag or without
  return { access, id, trunk, keepsDefault: preserveDefaultVlan ?? false };
}

/** What a port has in the end on a bridge with that default VLAN, 0 for none; in ascending order. */
export function planPortVlans(vlans: PlannedVlans, defaultPvid: number): PortVlans[] {
  const access = { first: vlans.access, last: vlans.access, pvid: true, untagged: true };
  const tagged = vlans.trunk.map((range) => ({ ...range, pvid: false, untagged: false }));
  const isKept = vlans.keepsDefault && defaultPvid !== 0 && defaultPvid !== vlans.access;
  const kept = { first: defaultPvid, last: defaultPvid, pvid: false, untagged: true };
  const others = isKept ? [kept, ...tagged.flatMap((range) => splitAround(range, defaultPvid))] : tagged;
  return [access, ...others].toSorted((a, b) => a.first - b.first);
}

/** The link that holds the gateway of a VLAN, under the reference's name. */
export function vlanGatewayName(bridge: string, vlan: number): string {
  return `${bridge}.${vlan}`;
}

function parseTrunk({ id, minID, maxID }: TrunkFields, index: number): VlanRange {
  const field = `vlanTrunk[${index}]`;
  if (id !== undefined && minID === undefined && maxID === undefined) {
    return { first: id, last: id };
  }
  if (minID === undefined || maxID === undefined || id !== undefined) {
    const shown = JSON.stringify({ id, minID, maxID });
    throw invalidConfig(`Field "${field}" needs "id", or both "minID" and "maxID", and is ${shown}`);
  }
  if (minID > maxID) {
    throw invalidConfig(`Field "${field}" has a "minID" of ${minID}, above its "maxID" of ${maxID}`);
  }
  return { first: minID, last: maxID };
}

function merged(ranges: readonly VlanRange[]): VlanRange[] {
  const result: VlanRange[] = [];
  for (const range of ranges.toSorted((a, b) => a.first - b.first)) {
    const before = result.at(-1);
    if (before !== undefined && range.first <= before.last + 1) {
      result[result.length - 1] = { first: before.first, last: Math.max(before.last, range.last) };
    } else {
      result.push(range);
    }
  }
  return result;
}

function without(ranges: readonly VlanRange[], id: number): VlanRange[] {
  return ranges.flatMap((range) => splitAround(range, id));
}

function splitAround<T extends VlanRange>(range: T, id: number): T[] {
  if (id < range.first || id > range.last) {
    return [range];
  }
  const parts = [
    { ...range, last: id - 1 },
    { ...range, first: id + 1 },
  ];
  return parts.filter(({ first, last }) => first <= last);
}
