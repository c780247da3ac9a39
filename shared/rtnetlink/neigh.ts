// Neighbours: who is known on a link under which hardware address, and a bridge's table of who is behind which port.
// What `ip neigh` and `bridge fdb` show. rtnetlink.ts offers NeighService as `.neigh` to the plugins.
import { type Family, formatIp, type Ip, ipFromBytes, ipToBytes } from '../ip/cidr.ts';
import { formatMac, parseMac } from '../ip/mac.ts';
import { ENODEV, ENOENT } from '../linux/system-error.ts';
import { AttributeWriter, readAttributes } from '../netlink/attributes.ts';
import { HOST_LITTLE_ENDIAN, viewOf } from '../netlink/bytes.ts';
import type { NetlinkConnection } from '../netlink/connection.ts';
import { type NetlinkMessage, type NetlinkRequest, NLM_F_CREATE, NLM_F_EXCL } from '../netlink/message.ts';
import { decodeReply } from '../netlink/netlink-error.ts';
import {
  AF_BRIDGE,
  AF_INET,
  AF_INET6,
  AF_UNSPEC,
  NDA_DST,
  NDA_IFINDEX,
  NDA_LLADDR,
  NDA_MASTER,
  NTF_MASTER,
  NUD_NOARP,
  NUD_REACHABLE,
  NUD_STATES,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from './constants.ts';

export interface NeighKey {
  /** The link the neighbour is on. */
  readonly index: number;
  readonly ip: Ip;
}

/** A neighbour as the kernel reports it. */
export interface Neigh extends NeighKey {
  /** Lower case with colons; `undefined` while it is being asked for, or did not answer. */
  readonly lladdr: string | undefined;
  readonly state: NeighState;
}

export type NeighState = (typeof NUD_STATES)[keyof typeof NUD_STATES] | 'none';

/** A line of a bridge's forwarding table as the kernel reports it. */
export interface FdbEntry {
  /** The port it is behind, or the bridge itself. */
  readonly index: number;
  readonly lladdr: string;
  /** "permanent" for the bridge's and the ports' own addresses, "reachable" and "stale" for learned ones. */
  readonly state: NeighState;
}

/** A line for the table, by port. */
export interface FdbWish {
  readonly index: number;
  readonly lladdr: string;
}

export interface NeighFilter {
  readonly family?: Family;
  readonly index?: number;
}

export class NeighService {
  readonly #connection: NetlinkConnection;

  constructor(connection: NetlinkConnection) {
    this.#connection = connection;
  }

  /** Asks for one neighbour, never for all. Throws NetlinkError. Equivalent to: `ip neigh get 10.22.0.2 dev cni0` */
  find(key: NeighKey): Neigh | undefined {
    const operation = `get neighbour "${formatIp(key.ip)}" of link ${key.index}`;
    const message = this.#find(operation, encodeGetNeigh(key));
    return message && decodeReply(operation, message, decodeNeigh);
  }

  /** Throws NetlinkError. Equivalent to: `ip neigh show dev cni0` */
  list(filter: NeighFilter = {}): Neigh[] {
    const neighs: Neigh[] = [];
    const operation = 'list neighbours';
    for (const message of this.#connection.list(operation, encodeListNeighs(filter))) {
      const neigh = decodeReply(operation, message, decodeNeigh);
      if (neigh !== undefined && (filter.index === undefined || neigh.index === filter.index))
        neighs.push(neigh);
    }
    return neighs;
  }

  /** Behind which port of a bridge a hardware address is. Throws NetlinkError. Equivalent to: `bridge fdb get 02:42:ac:11:00:02 br cni0` */
  findFdb(key: { readonly master: number; readonly lladdr: string }): FdbEntry | undefined {
    const operation = `get "${key.lladdr}" from the forwarding table of link ${key.master}`;
    const message = this.#find(operation, encodeGetFdb(key));
    return message && decodeReply(operation, message, decodeFdbEntry);
  }

  /**
   * Tells the bridge of a port, for all VLANs the port is in, that a hardware address is behind it; the entry goes with
   * the port, and nothing that is heard on another port changes it. Throws NetlinkError, EEXIST when there is one.
   *
   * Equivalent to: `bridge fdb add 02:42:ac:11:00:02 dev veth0 master static`
   */
  addFdb(entry: FdbWish): void {
    const operation = `add "${entry.lladdr}" of link ${entry.index} to its bridge's forwarding table`;
    this.#connection.request(operation, encodeNewFdb(entry));
  }

  #find(operation: string, request: NetlinkRequest): NetlinkMessage | undefined {
    return this.#connection.find(operation, request, [ENOENT, ENODEV]);
  }
}

export function encodeGetNeigh(key: NeighKey): NetlinkRequest {
  const family = key.ip.family === 4 ? AF_INET : AF_INET6;
  const writer = new AttributeWriter(encodeHeader(family, key.index)).bytes(NDA_DST, ipToBytes(key.ip));
  return { type: RTM_GETNEIGH, flags: 0, body: writer.done() };
}

export function encodeListNeighs(filter: NeighFilter): NetlinkRequest {
  const family = filter.family === undefined ? AF_UNSPEC : filter.family === 4 ? AF_INET : AF_INET6;
  const writer = new AttributeWriter(encodeHeader(family, 0));
  if (filter.index !== undefined) writer.u32(NDA_IFINDEX, filter.index);
  return { type: RTM_GETNEIGH, flags: 0, body: writer.done() };
}

export function encodeGetFdb(key: { readonly master: number; readonly lladdr: string }): NetlinkRequest {
  const writer = new AttributeWriter(encodeHeader(AF_BRIDGE, 0))
    .bytes(NDA_LLADDR, parseMac(key.lladdr))
    .u32(NDA_MASTER, key.master);
  return { type: RTM_GETNEIGH, flags: 0, body: writer.done() };
}

export function encodeNewFdb({ index, lladdr }: FdbWish): NetlinkRequest {
  const header = encodeHeader(AF_BRIDGE, index, { state: NUD_REACHABLE | NUD_NOARP, flags: NTF_MASTER });
  const writer = new AttributeWriter(header).bytes(NDA_LLADDR, parseMac(lladdr));
  return { type: RTM_NEWNEIGH, flags: NLM_F_CREATE | NLM_F_EXCL, body: writer.done() };
}

/** `undefined` for neighbours of other families: a dump of all holds a bridge's too. */
export function decodeNeigh(message: NetlinkMessage): Neigh | undefined {
  const attributes = readAttributes(message.body, NEIGH_HEADER);
  const header = viewOf(message.body);
  const family = header.getUint8(0);
  const dst = attributes.bytes(NDA_DST);
  if (dst === undefined || (family !== AF_INET && family !== AF_INET6)) return undefined;
  const lladdr = attributes.bytes(NDA_LLADDR);
  return {
    index: header.getInt32(4, HOST_LITTLE_ENDIAN),
    ip: ipFromBytes(dst),
    lladdr: lladdr === undefined ? undefined : formatMac(lladdr),
    state: decodeState(header.getUint16(8, HOST_LITTLE_ENDIAN)),
  };
}

export function decodeFdbEntry(message: NetlinkMessage): FdbEntry {
  const header = viewOf(message.body);
  const lladdr = readAttributes(message.body, NEIGH_HEADER).bytes(NDA_LLADDR);
  if (lladdr === undefined)
    throw new Error('Malformed netlink message: a forwarding entry without NDA_LLADDR');
  return {
    index: header.getInt32(4, HOST_LITTLE_ENDIAN),
    lladdr: formatMac(lladdr),
    state: decodeState(header.getUint16(8, HOST_LITTLE_ENDIAN)),
  };
}

/** The size of `struct ndmsg`. */
const NEIGH_HEADER = 12;

/** `struct ndmsg { __u8 family, pad1; __u16 pad2; __s32 ifindex; __u16 state; __u8 flags, type; };` */
function encodeHeader(family: number, index: number, { state = 0, flags = 0 } = {}): Uint8Array {
  const view = new DataView(new ArrayBuffer(NEIGH_HEADER));
  view.setUint8(0, family);
  view.setInt32(4, index, HOST_LITTLE_ENDIAN);
  view.setUint16(8, state, HOST_LITTLE_ENDIAN);
  view.setUint8(10, flags);
  return new Uint8Array(view.buffer);
}

function decodeState(state: number): NeighState {
  return state in NUD_STATES ? NUD_STATES[state as keyof typeof NUD_STATES] : 'none'; // `in` does not narrow numbers
}
