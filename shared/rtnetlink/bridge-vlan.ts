// The VLANs of a bridge's ports: what `bridge vlan` shows and changes.
// rtnetlink.ts offers VlanService as `.vlan` to the plugins; a kernel without VLAN filtering answers EOPNOTSUPP.
import { AttributeWriter, readAttributes } from '../netlink/attributes.ts';
import { HOST_LITTLE_ENDIAN, viewOf } from '../netlink/bytes.ts';
import type { NetlinkConnection } from '../netlink/connection.ts';
import type { NetlinkMessage, NetlinkRequest } from '../netlink/message.ts';
import { decodeReply } from '../netlink/netlink-error.ts';
import {
  AF_BRIDGE,
  BRIDGE_VLAN_INFO_PVID,
  BRIDGE_VLAN_INFO_RANGE_BEGIN,
  BRIDGE_VLAN_INFO_RANGE_END,
  BRIDGE_VLAN_INFO_UNTAGGED,
  BRIDGE_VLANDB_DUMP_FLAGS,
  BRIDGE_VLANDB_ENTRY,
  BRIDGE_VLANDB_ENTRY_INFO,
  BRIDGE_VLANDB_ENTRY_RANGE,
  IFLA_AF_SPEC,
  IFLA_BRIDGE_VLAN_INFO,
  RTM_DELLINK,
  RTM_GETVLAN,
  RTM_NEWVLAN,
  RTM_SETLINK,
} from './constants.ts';
import { encodeLinkHeader } from './link-message.ts';

/** The VLANs `first` to `last`, both included; the ids are 1 to 4094. */
export interface VlanRange {
  readonly first: number;
  readonly last: number;
}

/** VLANs of a port. A range has frames with tags in and out, unless said otherwise. */
export interface PortVlans extends VlanRange {
  /** Frames that come in without a tag belong to it. One VLAN at most, and never a range. */
  readonly pvid: boolean;
  /** Its frames leave without a tag. */
  readonly untagged: boolean;
}

/** VLANs of a port as the kernel reports them. */
export interface PortVlansFact extends PortVlans {
  /** The port, or the bridge itself. */
  readonly index: number;
}

export class VlanService {
  readonly #connection: NetlinkConnection;

  constructor(connection: NetlinkConnection) {
    this.#connection = connection;
  }

  /**
   * Adds VLANs to a port, by one message; those that are there get the flags said here. Throws NetlinkError.
   *
   * Equivalent to: `bridge vlan add vid 100 dev veth0 pvid untagged; bridge vlan add vid 200-210 dev veth0`
   */
  add(index: number, vlans: readonly PortVlans[]): void {
    this.#connection.request(`add VLANs to bridge port ${index}`, encodeAddVlans(index, vlans));
  }

  /** Takes VLANs from a port; those it has not are no error. Throws NetlinkError. Equivalent to: `bridge vlan del vid 1 dev veth0` */
  remove(index: number, vlans: readonly VlanRange[]): void {
    this.#connection.request(`remove VLANs from bridge port ${index}`, encodeRemoveVlans(index, vlans));
  }

  /** Of one port or bridge, or of all. Throws NetlinkError. Equivalent to: `bridge -d vlan show dev veth0` */
  list({ index }: { readonly index?: number } = {}): PortVlansFact[] {
    const found: PortVlansFact[] = [];
    const operation = 'list the VLANs of bridge ports';
    for (const message of this.#connection.list(operation, encodeListVlans(index))) {
      if (message.type !== RTM_NEWVLAN) continue;
      const told = decodeReply(operation, message, decodeVlans);
      found.push(...told.filter((vlans) => index === undefined || vlans.index === index));
    }
    return found;
  }
}

export function encodeAddVlans(index: number, vlans: readonly PortVlans[]): NetlinkRequest {
  return { type: RTM_SETLINK, flags: 0, body: encodeVlans(index, vlans) };
}

export function encodeRemoveVlans(index: number, vlans: readonly VlanRange[]): NetlinkRequest {
  const plain = vlans.map((range) => ({ ...range, pvid: false, untagged: false }));
  return { type: RTM_DELLINK, flags: 0, body: encodeVlans(index, plain) };
}

/** `struct br_vlan_msg { __u8 family, reserved1; __u16 reserved2; __u32 ifindex; };` and what to tell: no statistics. */
export function encodeListVlans(index = 0): NetlinkRequest {
  const view = new DataView(new ArrayBuffer(VLAN_HEADER));
  view.setUint8(0, AF_BRIDGE);
  view.setUint32(4, index, HOST_LITTLE_ENDIAN);
  const writer = new AttributeWriter(new Uint8Array(view.buffer)).u32(BRIDGE_VLANDB_DUMP_FLAGS, 0);
  return { type: RTM_GETVLAN, flags: 0, body: writer.done() };
}

/** One message tells some VLANs of one port; ranges of like ones share an entry. */
export function decodeVlans(message: NetlinkMessage): PortVlansFact[] {
  const entries = readAttributes(message.body, VLAN_HEADER).entries(); // first, for it looks at the length
  const index = viewOf(message.body).getUint32(4, HOST_LITTLE_ENDIAN);
  return entries.flatMap(({ type, value }) => {
    if (type !== BRIDGE_VLANDB_ENTRY) return [];
    const attributes = readAttributes(value);
    const info = attributes.bytes(BRIDGE_VLANDB_ENTRY_INFO);
    if (info === undefined || info.length < 4) return [];
    const flags = viewOf(info).getUint16(0, HOST_LITTLE_ENDIAN);
    const first = viewOf(info).getUint16(2, HOST_LITTLE_ENDIAN);
    const last = attributes.u16(BRIDGE_VLANDB_ENTRY_RANGE) ?? first;
    const pvid = (flags & BRIDGE_VLAN_INFO_PVID) !== 0;
    return [{ index, first, last, pvid, untagged: (flags & BRIDGE_VLAN_INFO_UNTAGGED) !== 0 }];
  });
}

export const VLAN_HEADER = 8;

/** `struct bridge_vlan_info { __u16 flags; __u16 vid; };` A range is told by its two ends. */
function encodeVlans(index: number, vlans: readonly PortVlans[]): Uint8Array {
  const writer = new AttributeWriter(encodeLinkHeader({ family: AF_BRIDGE, index }));
  writer.nest(IFLA_AF_SPEC, (spec) => {
    for (const { first, last, pvid, untagged } of vlans) {
      const flags = (pvid ? BRIDGE_VLAN_INFO_PVID : 0) | (untagged ? BRIDGE_VLAN_INFO_UNTAGGED : 0);
      if (first === last) {
        spec.bytes(IFLA_BRIDGE_VLAN_INFO, vlanInfo(flags, first));
      } else {
        spec.bytes(IFLA_BRIDGE_VLAN_INFO, vlanInfo(flags | BRIDGE_VLAN_INFO_RANGE_BEGIN, first));
        spec.bytes(IFLA_BRIDGE_VLAN_INFO, vlanInfo(flags | BRIDGE_VLAN_INFO_RANGE_END, last));
      }
    }
  });
  return writer.done();
}

function vlanInfo(flags: number, vid: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint16(0, flags, HOST_LITTLE_ENDIAN);
  view.setUint16(2, vid, HOST_LITTLE_ENDIAN);
  return new Uint8Array(view.buffer);
}
