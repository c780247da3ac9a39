// What a link needs beyond the common attributes, kind by kind: the content of IFLA_LINKINFO. Pure.
// link.ts puts it into the message that creates a link.
import type { AttributeWriter } from '../netlink/attributes.ts';
import {
  IFLA_BR_GROUP_FWD_MASK,
  IFLA_BR_VLAN_FILTERING,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_LINKINFO,
  VETH_INFO_PEER,
} from './constants.ts';
import { encodeLinkHeader, type LinkWish, writeLinkWish } from './link-message.ts';

/** A bridge. What is absent gets the kernel's default. */
export interface BridgeSpec extends LinkWish {
  readonly kind: 'bridge';
  /** Which link-local groups (01:80:c2:00:00:0X) to forward, one bit each. */
  readonly groupForwardMask?: number;
  /** Frames stay inside the VLANs of their ports. A kernel built without refuses the link with EOPNOTSUPP. */
  readonly vlanFiltering?: boolean;
}

/**
 * A veth pair. Both ends are made by one message, each in its namespace under its final name. The peer cannot be
 * born up: the kernel opens it before it knows its other end, and refuses with ENOTCONN.
 */
export interface VethSpec extends LinkWish {
  readonly kind: 'veth';
  readonly peer: Omit<LinkWish, 'master' | 'up'>;
}

export type LinkSpec = BridgeSpec | VethSpec;

/** IFLA_LINKINFO: the kind and its own attributes. */
export function writeLinkInfo(writer: AttributeWriter, spec: LinkSpec): void {
  writer.nest(IFLA_LINKINFO, (info) => {
    info.text(IFLA_INFO_KIND, spec.kind);
    if (spec.kind === 'bridge') writeBridge(info, spec);
    if (spec.kind === 'veth') writeVeth(info, spec);
  });
}

function writeBridge(info: AttributeWriter, spec: BridgeSpec): void {
  const { groupForwardMask, vlanFiltering } = spec;
  if (groupForwardMask === undefined && vlanFiltering === undefined) return;
  info.nest(IFLA_INFO_DATA, (data) => {
    if (vlanFiltering !== undefined) data.u8(IFLA_BR_VLAN_FILTERING, vlanFiltering ? 1 : 0);
    if (groupForwardMask !== undefined) data.u16(IFLA_BR_GROUP_FWD_MASK, groupForwardMask);
  });
}

/** The peer is a whole link message of its own: header, then attributes (drivers/net/veth.c, veth_newlink). */
function writeVeth(info: AttributeWriter, spec: VethSpec): void {
  info.nest(IFLA_INFO_DATA, (data) => {
    data.nestWithHeader(VETH_INFO_PEER, encodeLinkHeader({}), (peer) => {
      writeLinkWish(peer, spec.peer);
    });
  });
}
