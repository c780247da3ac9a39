// Links: what `ip link` shows and changes. rtnetlink.ts offers LinkService as `.link` to the plugins.
import { formatMac, parseMac } from '../ip/mac.ts';
import type { Netns } from '../linux/netns.ts';
import { ENODEV } from '../linux/system-error.ts';
import { type Attributes, AttributeWriter, readAttributes } from '../netlink/attributes.ts';
import { HOST_LITTLE_ENDIAN, viewOf } from '../netlink/bytes.ts';
import type { NetlinkConnection } from '../netlink/connection.ts';
import { type NetlinkMessage, type NetlinkRequest, NLM_F_CREATE, NLM_F_EXCL } from '../netlink/message.ts';
import { decodeReply, NetlinkError } from '../netlink/netlink-error.ts';
import { type BridgePort, decodeBridgePort, encodeSetPort, type PortChange } from './bridge-port.ts';
import {
  IFF_ALLMULTI,
  IFF_PROMISC,
  IFF_UP,
  IFLA_ADDRESS,
  IFLA_ALT_IFNAME,
  IFLA_BR_VLAN_DEFAULT_PVID,
  IFLA_BR_VLAN_FILTERING,
  IFLA_CARRIER,
  IFLA_EXT_MASK,
  IFLA_IFALIAS,
  IFLA_IFNAME,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_LINK,
  IFLA_LINK_NETNSID,
  IFLA_LINKINFO,
  IFLA_MASTER,
  IFLA_MTU,
  IFLA_NET_NS_FD,
  IFLA_OPERSTATE,
  IFLA_PROMISCUITY,
  IFLA_TXQLEN,
  LINK_NAME_LIMIT,
  RTEXT_FILTER_SKIP_STATS,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
} from './constants.ts';
import { type LinkSpec, writeLinkInfo } from './link-kinds.ts';
import { encodeLinkHeader, type FlagChange, LINK_HEADER, writeLinkWish } from './link-message.ts';

/** A wish about a link that exists. Absent means unchanged. */
export interface LinkChange extends FlagChange {
  readonly name?: string;
  readonly mtu?: number;
  readonly mac?: string;
  /** The bridge to be a port of, by index; 0 to be none any more. */
  readonly master?: number;
  /** At most 255 bytes. The message that creates a link cannot carry it: the kernel ignores it there. */
  readonly alias?: string;
  /** Packets that wait at most, where the queueing discipline asks the link for it. */
  readonly txQueueLength?: number;
  /** Where to move it. */
  readonly netns?: Netns;
}

/** By name (an alternative name counts) or by index. */
export type LinkKey = { readonly name: string } | { readonly index: number };

/** RFC 2863's operational state, as `ip link` names it. */
export type Operstate = (typeof OPERSTATES)[number];

/** A link as the kernel reports it. */
export interface Link {
  readonly index: number;
  readonly name: string;
  /** Lower case with colons; empty for a link without. */
  readonly mac: string;
  readonly mtu: number;
  readonly flags: number;
  readonly isUp: boolean;
  readonly isPromiscuous: boolean;
  readonly isAllmulti: boolean;
  readonly operstate: Operstate;
  readonly carrier: boolean;
  /** "bridge", "veth" …; `undefined` for hardware and loopback. */
  readonly kind: string | undefined;
  /** The bridge it is a port of, by index. */
  readonly master: number | undefined;
  /** A veth's other end by index, counted in that end's namespace. */
  readonly peerIndex: number | undefined;
  /** This namespace's number for the one of the other end; `undefined` when that is this one. */
  readonly peerNetnsId: number | undefined;
  readonly alias: string | undefined;
  /** How many want to see all frames: sniffers, bridges, and the flag behind `isPromiscuous`. */
  readonly promiscuity: number;
  readonly txQueueLength: number;
  /** How the bridge treats it, if it is a port of one. */
  readonly port: BridgePort | undefined;
  /** What is said of a bridge's VLANs, if it is one, and the kernel filters VLANs. */
  readonly vlans: BridgeVlans | undefined;
}

export interface BridgeVlans {
  readonly filtering: boolean;
  /** The VLAN in which a new port is, without tags; 0 for none. */
  readonly defaultPvid: number;
}

export class LinkService {
  readonly #connection: NetlinkConnection;

  constructor(connection: NetlinkConnection) {
    this.#connection = connection;
  }

  /**
   * Creates a link, with all that is wished for, by one message: it is there entirely or not at all.
   *
   * Throws NetlinkError: EEXIST when a name is taken (a veth peer's too), EXFULL when the master is full.
   * Equivalent to: `ip link add veth0 address … mtu … master cni0 up type veth peer name eth0 netns x mtu …`
   */
  add(spec: LinkSpec): void {
    this.#connection.request(`add ${spec.kind} "${spec.name}"`, encodeNewLink(spec));
  }

  /**
   * Changes a link, by one message. Throws NetlinkError, ENODEV when it is gone.
   *
   * Equivalent to: `ip link set dev cni0 up promisc on mtu … address … master … alias … txqueuelen … name … netns …`
   */
  set(index: number, change: LinkChange): void {
    this.#connection.request(`set link ${index}`, encodeSetLink(index, change));
  }

  /**
   * Changes how a bridge treats one of its ports. Throws NetlinkError.
   *
   * Equivalent to: `bridge link set dev veth0 hairpin on learning off isolated on`
   */
  setPort(index: number, change: PortChange): void {
    this.#connection.request(`set bridge port ${index}`, encodeSetPort(index, change));
  }

  /** Asks for one link by its key, never for all. Equivalent to: `ip link show dev veth0` */
  find(key: LinkKey): Link | undefined {
    const operation = `get link ${nameOf(key)}`;
    const answer = this.#connection.find(operation, encodeGetLink(key), [ENODEV]);
    return answer && decodeReply(operation, answer, decodeLink);
  }

  /** The same, but throws NetlinkError ENODEV naming the link when it does not exist. Equivalent to: `ip link show dev veth0` */
  get(key: LinkKey): Link {
    const operation = `get link ${nameOf(key)}`;
    return decodeReply(operation, this.#connection.get(operation, encodeGetLink(key)), decodeLink);
  }

  /** The kernel filters; we look again, since one that does not know the kind filters nothing. Equivalent to: `ip link show type veth master cni0` */
  list(filter: LinkFilter = {}): Link[] {
    const links: Link[] = [];
    const operation = 'list links';
    for (const message of this.#connection.list(operation, encodeListLinks(filter))) {
      const link = decodeReply(operation, message, decodeLink);
      if (filter.kind !== undefined && link.kind !== filter.kind) continue;
      if (filter.master !== undefined && link.master !== filter.master) continue;
      links.push(link);
    }
    return links;
  }

  /** The link must exist. Throws NetlinkError. Equivalent to: `ip link delete dev veth0` */
  delete(key: LinkKey): void {
    this.#connection.request(`delete link ${nameOf(key)}`, encodeDeleteLink(key));
  }

  /** Deletes the link unless it is gone already. Throws NetlinkError. Equivalent to: `ip link delete dev veth0` */
  remove(key: LinkKey): void {
    try {
      this.delete(key);
    } catch (error) {
      if (!(error instanceof NetlinkError && error.code === 'ENODEV')) throw error;
    }
  }
}

export interface LinkFilter {
  readonly kind?: string;
  readonly master?: number;
}

export function encodeNewLink(spec: LinkSpec): NetlinkRequest {
  const writer = new AttributeWriter(encodeLinkHeader({ up: spec.up }));
  writeLinkWish(writer, spec);
  writeLinkInfo(writer, spec);
  return { type: RTM_NEWLINK, flags: NLM_F_CREATE | NLM_F_EXCL, body: writer.done() };
}

export function encodeSetLink(index: number, change: LinkChange): NetlinkRequest {
  const { up, promiscuous, allmulti } = change;
  const writer = new AttributeWriter(encodeLinkHeader({ index, up, promiscuous, allmulti }));
  if (change.mtu !== undefined) writer.u32(IFLA_MTU, change.mtu);
  if (change.mac !== undefined) writer.bytes(IFLA_ADDRESS, parseMac(change.mac));
  if (change.master !== undefined) writer.u32(IFLA_MASTER, change.master);
  // Without a closing NUL, as `ip` sends it: the kernel keeps exactly these bytes.
  if (change.alias !== undefined) writer.text(IFLA_IFALIAS, change.alias);
  if (change.txQueueLength !== undefined) writer.u32(IFLA_TXQLEN, change.txQueueLength);
  if (change.netns !== undefined) writer.u32(IFLA_NET_NS_FD, change.netns.fd);
  if (change.name !== undefined) writer.string(IFLA_IFNAME, change.name);
  return { type: RTM_NEWLINK, flags: 0, body: writer.done() };
}

export function encodeGetLink(key: LinkKey): NetlinkRequest {
  const writer = new AttributeWriter(encodeLinkHeader('index' in key ? { index: key.index } : {}));
  writer.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  if ('name' in key) writeName(writer, key.name);
  return { type: RTM_GETLINK, flags: 0, body: writer.done() };
}

export function encodeListLinks(filter: LinkFilter): NetlinkRequest {
  const writer = new AttributeWriter(encodeLinkHeader({}));
  writer.u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  if (filter.master !== undefined) writer.u32(IFLA_MASTER, filter.master);
  if (filter.kind !== undefined) {
    const { kind } = filter;
    writer.nest(IFLA_LINKINFO, (info) => info.text(IFLA_INFO_KIND, kind));
  }
  return { type: RTM_GETLINK, flags: 0, body: writer.done() };
}

export function encodeDeleteLink(key: LinkKey): NetlinkRequest {
  const writer = new AttributeWriter(encodeLinkHeader('index' in key ? { index: key.index } : {}));
  if ('name' in key) writeName(writer, key.name);
  return { type: RTM_DELLINK, flags: 0, body: writer.done() };
}

export function decodeLink(message: NetlinkMessage): Link {
  const attributes = readAttributes(message.body, LINK_HEADER);
  const header = viewOf(message.body);
  const flags = header.getUint32(8, HOST_LITTLE_ENDIAN);
  const info = attributes.nest(IFLA_LINKINFO);
  const mac = attributes.bytes(IFLA_ADDRESS);
  const kind = info?.string(IFLA_INFO_KIND);
  return {
    index: header.getInt32(4, HOST_LITTLE_ENDIAN),
    name: attributes.string(IFLA_IFNAME) ?? '',
    mac: mac === undefined ? '' : formatMac(mac),
    mtu: attributes.u32(IFLA_MTU) ?? 0,
    flags,
    isUp: (flags & IFF_UP) !== 0,
    isPromiscuous: (flags & IFF_PROMISC) !== 0,
    isAllmulti: (flags & IFF_ALLMULTI) !== 0,
    operstate: OPERSTATES[attributes.u8(IFLA_OPERSTATE) ?? 0] ?? 'unknown',
    carrier: attributes.u8(IFLA_CARRIER) === 1,
    kind,
    master: attributes.u32(IFLA_MASTER),
    peerIndex: kind === 'veth' ? peerIndex(attributes) : undefined,
    peerNetnsId: kind === 'veth' ? attributes.i32(IFLA_LINK_NETNSID) : undefined,
    alias: attributes.string(IFLA_IFALIAS),
    promiscuity: attributes.u32(IFLA_PROMISCUITY) ?? 0,
    txQueueLength: attributes.u32(IFLA_TXQLEN) ?? 0,
    port: info === undefined ? undefined : decodeBridgePort(info),
    vlans: kind === 'bridge' ? decodeBridgeVlans(info?.nest(IFLA_INFO_DATA)) : undefined,
  };
}

function decodeBridgeVlans(data: Attributes | undefined): BridgeVlans | undefined {
  const defaultPvid = data?.u16(IFLA_BR_VLAN_DEFAULT_PVID);
  if (defaultPvid === undefined) return undefined;
  return { filtering: data?.u8(IFLA_BR_VLAN_FILTERING) === 1, defaultPvid };
}

/** The kernel says 0 while the other end is being destroyed. */
function peerIndex(attributes: Attributes): number | undefined {
  return attributes.u32(IFLA_LINK) || undefined;
}

function writeName(writer: AttributeWriter, name: string): void {
  const type = Buffer.byteLength(name) > LINK_NAME_LIMIT ? IFLA_ALT_IFNAME : IFLA_IFNAME;
  writer.string(type, name);
}

function nameOf(key: LinkKey): string {
  return 'name' in key ? `"${key.name}"` : String(key.index);
}

// include/uapi/linux/if.h, IF_OPER_UNKNOWN and following
const OPERSTATES = ['unknown', 'notpresent', 'down', 'lowerlayerdown', 'testing', 'dormant', 'up'] as const;
