// Ethernet frames by hand: built byte by byte, sent from one namespace and looked for in another.
// Used by the tests of what a bridge lets through, for frames that no well-behaved program would send.
import { closeSync } from 'node:fs';
import { ipToBytes, parseIp } from '../../shared/ip/cidr.ts';
import { parseMac } from '../../shared/ip/mac.ts';
import { bind, MSG_DONTWAIT, recvfrom, SOCK_RAW, send, socket } from '../../shared/linux/libc.ts';
import { type Netns, withNetns } from '../../shared/linux/netns.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';

export const BROADCAST = 'ff:ff:ff:ff:ff:ff';

/** A link seen from below: whole frames, whoever they are for. */
export interface Tap extends Disposable {
  send(frame: Uint8Array): void;
  /** The frames that came since it was last asked. */
  received(): Buffer[];
}

/** packet(7). Throws when there is no such link in the namespace. */
export function openTap(netns: Netns, link: string): Tap {
  using rtnetlink = openRtnetlink({ netns });
  const { index } = rtnetlink.link.get({ name: link });
  const fd = withNetns(netns, () => socket(AF_PACKET, SOCK_RAW, 0)); // deaf until bound
  bind(fd, linkAddress(index));
  const buffer = Buffer.alloc(65536);
  return {
    send: (frame) => send(fd, frame),
    received() {
      const frames: Buffer[] = [];
      for (;;) {
        const length = recvfrom(fd, buffer, MSG_DONTWAIT, new Uint8Array(20));
        if (length === undefined) return frames;
        frames.push(Buffer.from(buffer.subarray(0, length)));
      }
    },
    [Symbol.dispose]: () => closeSync(fd),
  };
}

const AF_PACKET = 17;
const ETH_P_ALL = 3;

/** `struct sockaddr_ll { u16 family; be16 protocol; int ifindex; u16 hatype; u8 pkttype, halen, addr[8]; };` */
function linkAddress(index: number): Uint8Array {
  const address = Buffer.alloc(20);
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeUInt16BE(ETH_P_ALL, 2);
  address.writeInt32LE(index, 4);
  return address;
}

/**
 * Whether a frame sent by one tap comes out at the other. Frames do not overtake each other on a bridge, so what has not
 * come when a later one has is not coming. Throws when that one does not come within a second either.
 */
export function arrives(from: Tap, to: Tap, frame: Buffer, proof: Buffer): boolean {
  to.received();
  from.send(frame);
  from.send(proof);
  const seen: Buffer[] = [];
  for (const deadline = Date.now() + 1000; Date.now() < deadline; ) {
    seen.push(...to.received());
    if (seen.some((candidate) => candidate.includes(proof.subarray(14)))) {
      return seen.some((candidate) => candidate.includes(payloadOf(frame)));
    }
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
  }
  throw new Error('Not even a good frame arrived');
}

/** Without addresses, tags and type: a tag is taken off on the way, and told beside the frame. */
function payloadOf(frame: Buffer): Buffer {
  let at = 12;
  while ([0x8100, 0x88a8].includes(frame.readUInt16BE(at))) at += 4;
  return frame.subarray(at + 2);
}

export interface EthernetFields {
  readonly src: string;
  readonly dst?: string;
  readonly type: number;
  /** The ids of VLAN tags, outermost first. */
  readonly tags?: readonly number[];
}

export function ethernet({ src, dst = BROADCAST, type, tags = [] }: EthernetFields, payload: Buffer): Buffer {
  const head = tags.flatMap((tag) => [0x8100, tag]).concat(type);
  return Buffer.concat([parseMac(dst), parseMac(src), ...head.map(u16), payload]);
}

export function ipv4(src: string, dst: string, protocol: number, payload: Buffer): Buffer {
  const head = Buffer.from([0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0]);
  head.writeUInt16BE(20 + payload.length, 2);
  const packet = Buffer.concat([head, address(src), address(dst), payload]);
  packet.writeUInt16BE(checksum(packet.subarray(0, 20)), 10);
  return packet;
}

export function ipv6(src: string, dst: string, next: number, payload: Buffer): Buffer {
  const head = Buffer.from([0x60, 0, 0, 0, 0, 0, next, 255]);
  head.writeUInt16BE(payload.length, 4);
  return Buffer.concat([head, address(src), address(dst), payload]);
}

/** A hop-by-hop or destination options header of eight bytes that only pads, before what has the number `next`. */
export function padding(next: number, payload: Buffer): Buffer {
  return Buffer.concat([Buffer.from([next, 0, 1, 4, 0, 0, 0, 0]), payload]);
}

export function udp(sport: number, dport: number, data = marker()): Buffer {
  return Buffer.concat([u16(sport), u16(dport), u16(8 + data.length), u16(0), data]);
}

/** A whole packet: over IPv6 there is no datagram without a checksum. */
export function udp6(src: string, dst: string, sport: number, dport: number, data = marker()): Buffer {
  const datagram = udp(sport, dport, data);
  datagram.writeUInt16BE(upperChecksum(src, dst, 17, datagram) || 0xffff, 6);
  return ipv6(src, dst, 17, datagram);
}

/** The checksum is right, so that a kernel takes the message for true. */
export function icmpv6(src: string, dst: string, type: number, body: Buffer): Buffer {
  const message = Buffer.concat([Buffer.from([type, 0, 0, 0]), body]);
  message.writeUInt16BE(upperChecksum(src, dst, 58, message), 2);
  return ipv6(src, dst, 58, message);
}

/** RFC 8200, section 8.1. */
function upperChecksum(src: string, dst: string, next: number, payload: Buffer): number {
  const pseudo = [address(src), address(dst), Buffer.from([0, 0, 0, payload.length, 0, 0, 0, next])];
  return checksum(Buffer.concat([...pseudo, payload, Buffer.alloc(payload.length % 2)]));
}

export function icmp(type: number): Buffer {
  return Buffer.concat([Buffer.from([type, 1, 0, 0]), marker()]);
}

/** RFC 826: 1 asks, 2 answers. */
export function arp(operation: 1 | 2, sha: string, spa: string, tpa: string): Buffer {
  const head = Buffer.from([0, 1, 8, 0, 6, 4, 0, operation]);
  return Buffer.concat([head, parseMac(sha), address(spa), Buffer.alloc(6), address(tpa), marker()]);
}

/** The body of a neighbour solicitation or advertisement; `option` 1 is the source's MAC, 2 the target's. */
export function neighbour(
  target: string,
  option?: { readonly type: 1 | 2 | 14; readonly mac: string },
): Buffer {
  const flags = Buffer.from([0x20, 0, 0, 0]); // override, in an advertisement
  const tail = option === undefined ? [] : [Buffer.from([option.type, 1]), parseMac(option.mac)];
  return Buffer.concat([flags, address(target), ...tail]);
}

/** The body of a router advertisement that wants to be the default router for half an hour; RFC 4861, section 4.2. */
export function routerAdvertisement(): Buffer {
  const body = Buffer.alloc(12);
  body.writeUInt8(64, 0); // hop limit
  body.writeUInt16BE(1800, 2); // lifetime
  return body;
}

let count = 0;

/** Bytes that no other frame of this process has. */
export function marker(): Buffer {
  count += 1;
  return Buffer.from(`frame ${process.pid} ${String(count).padStart(6, '0')} `);
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

function address(text: string): Uint8Array {
  return ipToBytes(parseIp(text));
}

/** RFC 1071. */
function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += (bytes[at] ?? 0) * 256 + (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}
