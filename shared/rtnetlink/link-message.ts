// The header and the common attributes of link messages, which a veth's peer carries a second time inside. Pure.
// link.ts, link-kinds.ts and bridge-port.ts write with it.
import { parseMac } from '../ip/mac.ts';
import type { Netns } from '../linux/netns.ts';
import type { AttributeWriter } from '../netlink/attributes.ts';
import { HOST_LITTLE_ENDIAN } from '../netlink/bytes.ts';
import {
  AF_UNSPEC,
  IFF_ALLMULTI,
  IFF_PROMISC,
  IFF_UP,
  IFLA_ADDRESS,
  IFLA_IFNAME,
  IFLA_MASTER,
  IFLA_MTU,
  IFLA_NET_NS_FD,
} from './constants.ts';

/** What every link may be born with. Absent means the kernel's choice. */
export interface LinkWish {
  readonly name: string;
  readonly mtu?: number;
  /** As text, lower case with colons. */
  readonly mac?: string;
  readonly up?: boolean;
  /** The bridge to be a port of, by index. */
  readonly master?: number;
  /** Born there instead of in the socket's namespace. */
  readonly netns?: Netns;
}

/** Flags to switch; those absent stay as they are. */
export interface FlagChange {
  readonly up?: boolean | undefined;
  readonly promiscuous?: boolean | undefined;
  readonly allmulti?: boolean | undefined;
}

/** The size of `struct ifinfomsg`. */
export const LINK_HEADER = 16;

/**
 * `struct ifinfomsg { unsigned char family, pad; unsigned short type; int index; unsigned flags, change; };`
 *
 * `change` is the mask of flags that are meant.
 */
export function encodeLinkHeader(change: FlagChange & { family?: number; index?: number }): Uint8Array {
  const { flags, mask } = flagBits(change);
  const view = new DataView(new ArrayBuffer(LINK_HEADER));
  view.setUint8(0, change.family ?? AF_UNSPEC);
  view.setInt32(4, change.index ?? 0, HOST_LITTLE_ENDIAN);
  view.setUint32(8, flags, HOST_LITTLE_ENDIAN);
  view.setUint32(12, mask, HOST_LITTLE_ENDIAN);
  return new Uint8Array(view.buffer);
}

/** In the order iproute2 sends them. */
export function writeLinkWish(writer: AttributeWriter, wish: LinkWish): void {
  if (wish.mtu !== undefined) writer.u32(IFLA_MTU, wish.mtu);
  if (wish.mac !== undefined) writer.bytes(IFLA_ADDRESS, parseMac(wish.mac));
  if (wish.master !== undefined) writer.u32(IFLA_MASTER, wish.master);
  if (wish.netns !== undefined) writer.u32(IFLA_NET_NS_FD, wish.netns.fd);
  writer.string(IFLA_IFNAME, wish.name);
}

function flagBits(change: FlagChange): { flags: number; mask: number } {
  let flags = 0;
  let mask = 0;
  const set = (wanted: boolean | undefined, bit: number) => {
    if (wanted === undefined) return;
    mask |= bit;
    if (wanted) flags |= bit;
  };
  set(change.up, IFF_UP);
  set(change.promiscuous, IFF_PROMISC);
  set(change.allmulti, IFF_ALLMULTI);
  return { flags, mask };
}
