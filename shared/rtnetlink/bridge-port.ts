// A link in its role as a port of a bridge: what `bridge link` shows and changes. Pure.
// link.ts sends and decodes it.
import { type Attributes, AttributeWriter } from '../netlink/attributes.ts';
import type { NetlinkRequest } from '../netlink/message.ts';
import {
  AF_BRIDGE,
  IFLA_BRPORT_ISOLATED,
  IFLA_BRPORT_LEARNING,
  IFLA_BRPORT_MODE,
  IFLA_BRPORT_STATE,
  IFLA_INFO_SLAVE_DATA,
  IFLA_INFO_SLAVE_KIND,
  IFLA_PROTINFO,
  RTM_SETLINK,
} from './constants.ts';
import { encodeLinkHeader } from './link-message.ts';

/** A wish. Absent means unchanged. */
export interface PortChange {
  /** Frames may leave by the port they came in by. */
  readonly hairpin?: boolean;
  /** No frames to and from other isolated ports. */
  readonly isolated?: boolean;
  /** The bridge takes the source of each frame for the way to it. */
  readonly learning?: boolean;
}

/** A port as the kernel reports it. */
export interface BridgePort {
  readonly state: PortState;
  readonly hairpin: boolean;
  readonly isolated: boolean;
  readonly learning: boolean;
}

export type PortState = (typeof PORT_STATES)[number];

export function encodeSetPort(index: number, change: PortChange): NetlinkRequest {
  const writer = new AttributeWriter(encodeLinkHeader({ family: AF_BRIDGE, index }));
  writer.nest(IFLA_PROTINFO, (port) => {
    if (change.hairpin !== undefined) port.u8(IFLA_BRPORT_MODE, change.hairpin ? 1 : 0);
    if (change.learning !== undefined) port.u8(IFLA_BRPORT_LEARNING, change.learning ? 1 : 0);
    if (change.isolated !== undefined) port.u8(IFLA_BRPORT_ISOLATED, change.isolated ? 1 : 0);
  });
  return { type: RTM_SETLINK, flags: 0, body: writer.done() };
}

/** From a link's IFLA_LINKINFO; `undefined` when it is no bridge port. */
export function decodeBridgePort(info: Attributes): BridgePort | undefined {
  if (info.string(IFLA_INFO_SLAVE_KIND) !== 'bridge') return undefined;
  const data = info.nest(IFLA_INFO_SLAVE_DATA);
  return {
    state: PORT_STATES[data?.u8(IFLA_BRPORT_STATE) ?? 0] ?? 'disabled',
    hairpin: data?.u8(IFLA_BRPORT_MODE) === 1,
    isolated: data?.u8(IFLA_BRPORT_ISOLATED) === 1,
    learning: data?.u8(IFLA_BRPORT_LEARNING) === 1,
  };
}

// include/uapi/linux/if_bridge.h, BR_STATE_DISABLED and following
const PORT_STATES = ['disabled', 'listening', 'learning', 'forwarding', 'blocking'] as const;
