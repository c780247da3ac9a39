// IP addresses and networks as plain values, from and to text and bytes. Plugins, encoders and decoders use it.
//
// The common spellings are read here; the `ip-address` library is the judge of the unusual ones (IPv4 inside IPv6)
// and says what is wrong with a text that is no address. It is loaded for those alone: at start it builds some sixty
// address objects of its own, 1.2 ms of a process that lives twenty. The tests hold the two against each other.
import { createRequire } from 'node:module';

export type Family = 4 | 6;

/** An address as a number of 32 or 128 bits. */
export interface Ip {
  readonly family: Family;
  readonly value: bigint;
}

/** An address with the length of its network's prefix; host bits are kept, `networkOf` clears them. */
export interface Cidr {
  readonly ip: Ip;
  readonly prefix: number;
}

/**
 * An address from text: dotted decimal without leading zeros, or any RFC 4291 form without a zone. An IPv4-mapped
 * IPv6 address (`::ffff:10.0.0.1`) is the IPv4 address.
 *
 * Throws Error 'Cannot parse IP address "x"'.
 */
export function parseIp(text: string): Ip {
  const ip = text.includes(':') ? parseIpv6(text) : parseIpv4(text);
  if (ip === undefined) throw new Error(`Cannot parse IP address "${text}"`);
  return isMapped(ip) ? { family: 4, value: ip.value & IPV4_MASK } : ip;
}

/**
 * An address with its prefix length, `10.1.2.3/24`. That of an IPv4-mapped address counts from bit 96.
 *
 * Throws Error 'Cannot parse CIDR "x"'.
 */
export function parseCidr(text: string): Cidr {
  const slash = text.lastIndexOf('/');
  const length = text.slice(slash + 1);
  if (slash < 0 || !/^(0|[1-9][0-9]{0,2})$/.test(length)) {
    throw new Error(`Cannot parse CIDR "${text}": an address, "/" and a prefix length are expected`);
  }
  const address = text.slice(0, slash);
  let ip: Ip;
  try {
    ip = parseIp(address);
  } catch (cause) {
    throw new Error(`Cannot parse CIDR "${text}"`, { cause });
  }
  const prefix = Number(length) - (ip.family === 4 && address.includes(':') ? 96 : 0);
  if (prefix < 0 || prefix > widthOf(ip.family)) {
    throw new Error(`Cannot parse CIDR "${text}": no such prefix length in IPv${ip.family}`);
  }
  return { ip, prefix };
}

/** Dotted decimal, or the RFC 5952 form: lower case, the longest run of zero groups cut, the first of equals. */
export function formatIp(ip: Ip): string {
  return ip.family === 4 ? formatIpv4(ip.value) : formatIpv6(ip.value);
}

export function formatCidr(cidr: Cidr): string {
  return `${formatIp(cidr.ip)}/${cidr.prefix}`;
}

/** The network itself: host bits cleared. */
export function networkOf(cidr: Cidr): Cidr {
  const { ip, prefix } = cidr;
  return { ip: { family: ip.family, value: ip.value & ~hostMask(ip.family, prefix) }, prefix };
}

/** The highest address of the network. */
export function lastOf(cidr: Cidr): Ip {
  const { ip, prefix } = cidr;
  return { family: ip.family, value: ip.value | hostMask(ip.family, prefix) };
}

/** The network's broadcast address. IPv6 has none: throws Error. */
export function broadcastOf(cidr: Cidr): Ip {
  if (cidr.ip.family === 6) throw new Error(`Cannot compute a broadcast address of "${formatCidr(cidr)}"`);
  return lastOf(cidr);
}

/** Whether the address lies in the network; never across families. */
export function contains(cidr: Cidr, ip: Ip): boolean {
  if (cidr.ip.family !== ip.family) return false;
  const shift = BigInt(widthOf(ip.family) - cidr.prefix);
  return cidr.ip.value >> shift === ip.value >> shift;
}

/** The address `n` further on (back, if negative). Throws Error past either end of the family. */
export function addToIp(ip: Ip, n: bigint): Ip {
  const value = ip.value + n;
  if (value < 0n || value > hostMask(ip.family, 0)) {
    throw new Error(`Cannot add ${n} to "${formatIp(ip)}": no such address`);
  }
  return { family: ip.family, value };
}

/** Below zero, zero, above zero; IPv4 sorts before IPv6. */
export function compareIp(a: Ip, b: Ip): number {
  if (a.family !== b.family) return a.family - b.family;
  if (a.value === b.value) return 0;
  return a.value < b.value ? -1 : 1;
}

export function ipEquals(a: Ip, b: Ip): boolean {
  return a.family === b.family && a.value === b.value;
}

/** Four or sixteen bytes in network order. */
export function ipToBytes(ip: Ip): Uint8Array {
  const bytes = new Uint8Array(widthOf(ip.family) / 8);
  const view = new DataView(bytes.buffer);
  if (ip.family === 4) {
    view.setUint32(0, Number(ip.value));
  } else {
    view.setBigUint64(0, ip.value >> 64n);
    view.setBigUint64(8, BigInt.asUintN(64, ip.value));
  }
  return bytes;
}

/**
 * The address in four or sixteen bytes, network order. An IPv4-mapped one stays IPv6: the kernel says what it means.
 *
 * Throws Error for any other length.
 */
export function ipFromBytes(bytes: Uint8Array): Ip {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length === 4) return { family: 4, value: BigInt(view.getUint32(0)) };
  if (bytes.length === 16) return { family: 6, value: (view.getBigUint64(0) << 64n) | view.getBigUint64(8) };
  throw new Error(`Cannot read an IP address from ${bytes.length} bytes`);
}

/** `0.0.0.0` or `::`. */
export function isUnspecified(ip: Ip): boolean {
  return ip.value === 0n;
}

/** `224.0.0.0/4` or `ff00::/8`. */
export function isMulticast(ip: Ip): boolean {
  return ip.family === 4 ? ip.value >> 28n === 0xen : ip.value >> 120n === 0xffn;
}

/** `169.254.0.0/16` or `fe80::/10`. */
export function isLinkLocal(ip: Ip): boolean {
  return ip.family === 4 ? ip.value >> 16n === 0xa9fen : ip.value >> 118n === 0x3fan;
}

/** `127.0.0.0/8` or `::1`. */
export function isLoopback(ip: Ip): boolean {
  return ip.family === 4 ? ip.value >> 24n === 127n : ip.value === 1n;
}

/**
 * Whether packets for the address can be sent on from one link to another. A port that led to a loopback address would
 * open the host's own services to the world; a link-local address means something else on each link.
 */
export function isForwarded(ip: Ip): boolean {
  const isOfOneLink = ip.family === 6 && isLinkLocal(ip);
  return !isUnspecified(ip) && !isLoopback(ip) && !isMulticast(ip) && !isOfOneLink;
}

const IPV4_MASK = 0xffffffffn;

function widthOf(family: Family): 32 | 128 {
  return family === 4 ? 32 : 128;
}

/** As many ones as the prefix leaves bits to the host. */
function hostMask(family: Family, prefix: number): bigint {
  return (1n << BigInt(widthOf(family) - prefix)) - 1n;
}

function parseIpv4(text: string): Ip | undefined {
  const parts = text.split('.');
  if (parts.length !== 4) return undefined;
  let value = 0;
  for (const part of parts) {
    // A leading zero means octal to some readers: nobody can tell which address was meant.
    if (!/^(0|[1-9][0-9]{0,2})$/.test(part) || Number(part) > 255) return undefined;
    value = value * 256 + Number(part);
  }
  return { family: 4, value: BigInt(value) };
}

function parseIpv6(text: string): Ip | undefined {
  const value = parseGroups(text);
  return value === undefined ? parseUnusual(text) : { family: 6, value };
}

/** Eight groups of hexadecimal digits, one "::" at most in place of one or more of them. */
function parseGroups(text: string): bigint | undefined {
  if (!/^[0-9a-f:]{2,39}$/i.test(text)) return undefined;
  const halves = text.split('::');
  if (halves.length > 2) return undefined;
  const [head, tail] = halves.map((half) => (half === '' ? [] : half.split(':')));
  if (head === undefined) return undefined;
  const given = head.length + (tail?.length ?? 0);
  if (tail === undefined ? given !== 8 : given > 7) return undefined;
  let value = 0n;
  for (const group of head) value = (value << 16n) | groupValue(group);
  value <<= BigInt((8 - given) * 16);
  for (const group of tail ?? []) value = (value << 16n) | groupValue(group);
  // A bad group made the value negative, and all that follows keeps it so.
  return value < 0n ? undefined : value;
}

function groupValue(group: string): bigint {
  return /^[0-9a-f]{1,4}$/i.test(group) ? BigInt(Number.parseInt(group, 16)) : -1n;
}

/** What the library accepts beyond plain groups. Its own extras, zones and prefixes, are not for us. */
function parseUnusual(text: string): Ip | undefined {
  const dotted = text.slice(text.lastIndexOf(':') + 1);
  if (/[^0-9a-f:.]/i.test(text) || (dotted.includes('.') && parseIpv4(dotted) === undefined))
    return undefined;
  const { Address6 } = loadLibrary();
  try {
    return { family: 6, value: new Address6(text).bigInt() };
  } catch (cause) {
    throw new Error(`Cannot parse IP address "${text}"`, { cause });
  }
}

/** In the bundle esbuild makes a lazy module of the first `require`; as plain ESM Node wants one made. */
function loadLibrary(): typeof import('ip-address') {
  return typeof require === 'function' ? require('ip-address') : createRequire(import.meta.url)('ip-address');
}

/** `::ffff:0:0/96`, RFC 4291 section 2.5.5.2. */
function isMapped(ip: Ip): boolean {
  return ip.family === 6 && ip.value >> 32n === 0xffffn;
}

function formatIpv4(value: bigint): string {
  const number = Number(value);
  return `${number >>> 24}.${(number >>> 16) & 255}.${(number >>> 8) & 255}.${number & 255}`;
}

function formatIpv6(value: bigint): string {
  const groups: number[] = [];
  for (let shift = 112n; shift >= 0n; shift -= 16n) groups.push(Number((value >> shift) & 0xffffn));
  const { start, length } = longestZeroRun(groups);
  const text = (part: readonly number[]) => part.map((group) => group.toString(16)).join(':');
  // RFC 5952 section 4.2.2: a single zero group is written out.
  return length < 2 ? text(groups) : `${text(groups.slice(0, start))}::${text(groups.slice(start + length))}`;
}

function longestZeroRun(groups: readonly number[]): { start: number; length: number } {
  let best = { start: 0, length: 0 };
  let start = 0;
  for (const [index, group] of groups.entries()) {
    if (group !== 0) start = index + 1;
    else if (index + 1 - start > best.length) best = { start, length: index + 1 - start };
  }
  return best;
}
