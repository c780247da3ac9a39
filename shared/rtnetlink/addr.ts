// Addresses on links: what `ip addr` shows and changes. rtnetlink.ts offers AddrService as `.addr` to the plugins.
import { type Cidr, type Family, formatCidr, type Ip, ipFromBytes, ipToBytes } from '../ip/cidr.ts';
import { AttributeWriter, readAttributes } from '../netlink/attributes.ts';
import { HOST_LITTLE_ENDIAN, viewOf } from '../netlink/bytes.ts';
import type { NetlinkConnection } from '../netlink/connection.ts';
import { type NetlinkMessage, type NetlinkRequest, NLM_F_CREATE, NLM_F_EXCL } from '../netlink/message.ts';
import { decodeReply, NetlinkError } from '../netlink/netlink-error.ts';
import {
  AF_INET,
  AF_INET6,
  AF_UNSPEC,
  IFA_ADDRESS,
  IFA_BROADCAST,
  IFA_F_DADFAILED,
  IFA_F_NODAD,
  IFA_F_TENTATIVE,
  IFA_FLAGS,
  IFA_LABEL,
  IFA_LOCAL,
  RTM_DELADDR,
  RTM_GETADDR,
  RTM_NEWADDR,
} from './constants.ts';

/** Which address on which link. */
export interface AddrKey {
  readonly index: number;
  readonly address: Cidr;
}

/** A wish. Absent means the kernel's choice. */
export interface AddrSpec extends AddrKey {
  readonly broadcast?: Ip;
  /** RT_SCOPE_…: 0 universe, 253 link, 254 host. */
  readonly scope?: number;
  /** IPv6: usable at once, without asking the neighbours whether somebody has it. */
  readonly noDad?: boolean;
}

/** An address as the kernel reports it. */
export interface Addr extends AddrKey {
  readonly broadcast: Ip | undefined;
  readonly scope: number;
  readonly flags: number;
  /** Duplicate address detection goes on. */
  readonly isTentative: boolean;
  /** It found somebody. */
  readonly isDadFailed: boolean;
  readonly label: string | undefined;
}

export interface AddrFilter {
  readonly index?: number;
  readonly family?: Family;
}

export class AddrService {
  readonly #connection: NetlinkConnection;

  constructor(connection: NetlinkConnection) {
    this.#connection = connection;
  }

  /**
   * The address must be new to the link. Throws NetlinkError: EEXIST; EACCES or EOPNOTSUPP where IPv6 is off.
   *
   * Equivalent to: `ip addr add 10.22.0.2/24 broadcast 10.22.0.255 dev eth0 nodad`
   */
  add(spec: AddrSpec): void {
    this.#connection.request(
      `add address "${formatCidr(spec.address)}" to link ${spec.index}`,
      encodeNewAddr(spec),
    );
  }

  /** The address must exist. Throws NetlinkError EADDRNOTAVAIL. Equivalent to: `ip addr del 10.22.0.2/24 dev eth0` */
  delete(key: AddrKey): void {
    const operation = `delete address "${formatCidr(key.address)}" from link ${key.index}`;
    this.#connection.request(operation, encodeDeleteAddr(key));
  }

  /** Deletes the address unless it, or its link, is gone. Throws NetlinkError. Equivalent to: `ip addr del 10.22.0.2/24 dev eth0` */
  remove(key: AddrKey): void {
    try {
      this.delete(key);
    } catch (error) {
      const gone =
        error instanceof NetlinkError && (error.code === 'EADDRNOTAVAIL' || error.code === 'ENODEV');
      if (!gone) throw error;
    }
  }

  /** In the kernel's order: link scope before global, then oldest first. Throws NetlinkError. Equivalent to: `ip -4 addr show dev eth0` */
  list(filter: AddrFilter = {}): Addr[] {
    const addrs: Addr[] = [];
    for (const message of this.#listMessages(filter)) {
      const addr = decodeReply(LISTING, message, decodeAddr);
      if (filter.index !== undefined && addr.index !== filter.index) continue;
      // A kernel without IPv6 answers a question for it with everything else.
      if (filter.family === undefined || addr.address.ip.family === filter.family) addrs.push(addr);
    }
    return addrs;
  }

  /** A link that does not exist has no addresses. */
  #listMessages(filter: AddrFilter): NetlinkMessage[] {
    try {
      return this.#connection.list(LISTING, encodeListAddrs(filter));
    } catch (error) {
      if (error instanceof NetlinkError && error.code === 'ENODEV') return [];
      throw error;
    }
  }
}

const LISTING = 'list addresses';

export function encodeNewAddr(spec: AddrSpec): NetlinkRequest {
  const writer = new AttributeWriter(encodeHeader(spec, spec));
  const bytes = ipToBytes(spec.address.ip);
  writer.bytes(IFA_LOCAL, bytes);
  if (spec.broadcast !== undefined) writer.bytes(IFA_BROADCAST, ipToBytes(spec.broadcast));
  writer.bytes(IFA_ADDRESS, bytes); // the same: the link is no point-to-point link
  return { type: RTM_NEWADDR, flags: NLM_F_CREATE | NLM_F_EXCL, body: writer.done() };
}

export function encodeDeleteAddr(key: AddrKey): NetlinkRequest {
  const writer = new AttributeWriter(encodeHeader(key, {}));
  const bytes = ipToBytes(key.address.ip);
  writer.bytes(IFA_LOCAL, bytes).bytes(IFA_ADDRESS, bytes);
  return { type: RTM_DELADDR, flags: 0, body: writer.done() };
}

export function encodeListAddrs(filter: AddrFilter): NetlinkRequest {
  const header = new DataView(new ArrayBuffer(ADDR_HEADER));
  header.setUint8(0, filter.family === undefined ? AF_UNSPEC : addressFamily(filter.family));
  header.setUint32(4, filter.index ?? 0, HOST_LITTLE_ENDIAN);
  return { type: RTM_GETADDR, flags: 0, body: new Uint8Array(header.buffer) };
}

export function decodeAddr(message: NetlinkMessage): Addr {
  const attributes = readAttributes(message.body, ADDR_HEADER);
  const header = viewOf(message.body);
  // On a point-to-point link IFA_ADDRESS is the other side's.
  const bytes = attributes.bytes(IFA_LOCAL) ?? attributes.bytes(IFA_ADDRESS);
  if (bytes === undefined) throw new Error('Malformed netlink message: an address without IFA_ADDRESS');
  const broadcast = attributes.bytes(IFA_BROADCAST);
  const flags = attributes.u32(IFA_FLAGS) ?? header.getUint8(2);
  return {
    index: header.getUint32(4, HOST_LITTLE_ENDIAN),
    address: { ip: ipFromBytes(bytes), prefix: header.getUint8(1) },
    broadcast: broadcast === undefined ? undefined : ipFromBytes(broadcast),
    scope: header.getUint8(3),
    flags,
    isTentative: (flags & IFA_F_TENTATIVE) !== 0,
    isDadFailed: (flags & IFA_F_DADFAILED) !== 0,
    label: attributes.string(IFA_LABEL),
  };
}

/** The size of `struct ifaddrmsg`. */
const ADDR_HEADER = 8;

/** `struct ifaddrmsg { __u8 family, prefixlen, flags, scope; __u32 index; };` */
function encodeHeader(key: AddrKey, wish: { scope?: number; noDad?: boolean }): Uint8Array {
  const view = new DataView(new ArrayBuffer(ADDR_HEADER));
  view.setUint8(0, addressFamily(key.address.ip.family));
  view.setUint8(1, key.address.prefix);
  view.setUint8(2, wish.noDad === true ? IFA_F_NODAD : 0);
  view.setUint8(3, wish.scope ?? 0);
  view.setUint32(4, key.index, HOST_LITTLE_ENDIAN);
  return new Uint8Array(view.buffer);
}

function addressFamily(family: Family): number {
  return family === 4 ? AF_INET : AF_INET6;
}
