// The datatypes a set or map is declared with, as libnftables numbers them (include/datatype.h there): the kernel stores
// the numbers unread, `nft list` needs them to print keys and data. Used by objects.ts, encode.ts and describe.ts.
import { formatIp, ipFromBytes } from '../ip/cidr.ts';
import { formatMac } from '../ip/mac.ts';
import { align, HOST_LITTLE_ENDIAN, viewOf } from '../netlink/bytes.ts';

export type Datatype =
  | 'ipv4_addr'
  | 'ipv6_addr'
  | 'ether_addr'
  | 'inet_proto'
  | 'inet_service'
  | 'mark'
  | 'ifname'
  | RawField;

/** Bits of a packet by their place, as nft names them: `@th,64,128` are 128 bits from bit 64 of the transport header. */
export type RawField = `@${'nh' | 'th'},${number},${number}`;

/** Whether it is bits by their place; a set whose key has such a field must be declared with `typeof`. */
export function isRawField(datatype: Datatype): datatype is RawField {
  return datatype.startsWith('@');
}

/** The three parts of the name: offset and length in bytes. Throws unless both are whole bytes. */
export function rawFieldParts(field: RawField): { header: 'nh' | 'th'; offset: number; length: number } {
  const [, header, offset, length] = /^@(nh|th),(\d+),(\d+)$/.exec(field) ?? [];
  const parts = { header: header as 'nh' | 'th', offset: Number(offset) / 8, length: Number(length) / 8 };
  if (!Number.isInteger(parts.offset) || !Number.isInteger(parts.length) || parts.length === 0) {
    throw new Error(`Cannot use "${field}" as a place in a packet: whole bytes are expected`);
  }
  return parts;
}

export interface DatatypeFacts {
  readonly number: number;
  /** Bytes one value takes in a packet or register, before padding. */
  readonly length: number;
  readonly byteorder: 'big' | 'host';
}

/** Libnftables' number, length in bytes and byte order of one datatype. */
export function datatypeFacts(datatype: Datatype): DatatypeFacts {
  if (!isRawField(datatype)) return FACTS[datatype];
  return { number: INTEGER, length: rawFieldParts(datatype).length, byteorder: 'big' };
}

/** TYPE_INTEGER, which has no length of its own. */
const INTEGER = 4;

const FACTS: Readonly<Record<Exclude<Datatype, RawField>, DatatypeFacts>> = {
  ipv4_addr: { number: 7, length: 4, byteorder: 'big' },
  ipv6_addr: { number: 8, length: 16, byteorder: 'big' },
  ether_addr: { number: 9, length: 6, byteorder: 'big' },
  inet_proto: { number: 12, length: 1, byteorder: 'big' },
  inet_service: { number: 13, length: 2, byteorder: 'big' },
  mark: { number: 19, length: 4, byteorder: 'host' },
  ifname: { number: 41, length: 16, byteorder: 'host' },
};

/**
 * NFTA_SET_KEY_TYPE of a concatenation: six bits a field, the first field highest
 * (libnftables: `concat_subtype_add(type, subtype) = type << TYPE_BITS | subtype`, TYPE_BITS 6).
 */
export function concatenatedType(fields: readonly Datatype[]): number {
  let type = 0;
  for (const field of fields) type = (type << 6) | datatypeFacts(field).number;
  return type;
}

/** Length in bytes of a key or datum; in a concatenation each field fills whole 32-bit registers. */
export function concatenatedLength(fields: readonly Datatype[]): number {
  const [first] = fields;
  if (fields.length === 1 && first !== undefined) return datatypeFacts(first).length;
  let length = 0;
  for (const field of fields) length += align(datatypeFacts(field).length);
  return length;
}

/**
 * Puts the fields of a key or datum side by side as the kernel compares them: a single field as it is, the fields of a
 * concatenation padded with zeros to 32 bits each.
 * Throws an error naming the datatype when the number of fields or the length of one is wrong.
 */
export function concatenate(fields: readonly Datatype[], values: readonly Uint8Array[]): Uint8Array {
  if (values.length !== fields.length) {
    throw new Error(`Cannot use ${values.length} values for type "${fields.join(' . ')}"`);
  }
  const bytes = new Uint8Array(concatenatedLength(fields));
  let offset = 0;
  for (let index = 0; index < fields.length; index++) {
    const field = fields[index] as Datatype; // in range: the loop ends at its length
    const value = values[index] as Uint8Array; // same length, checked above
    if (value.length !== datatypeFacts(field).length) {
      throw new Error(`Cannot use ${value.length} bytes as a value of type "${field}"`);
    }
    bytes.set(value, offset);
    offset += align(value.length);
  }
  return bytes;
}

/** The opposite of `concatenate`; undefined when the bytes cannot be of that type (a map of another making). */
export function splitConcatenation(fields: readonly Datatype[], bytes: Uint8Array): Uint8Array[] | undefined {
  if (bytes.length !== concatenatedLength(fields)) return undefined;
  const values: Uint8Array[] = [];
  let offset = 0;
  for (const field of fields) {
    const { length } = datatypeFacts(field);
    values.push(bytes.subarray(offset, offset + length));
    offset += align(length);
  }
  return values;
}

/** A key or datum as nft writes it (`tcp . 8080`), or in hex when the bytes do not fit the type. For messages only. */
export function formatConcatenation(fields: readonly Datatype[], bytes: Uint8Array): string {
  const values = splitConcatenation(fields, bytes);
  if (values === undefined) return `0x${Buffer.from(bytes).toString('hex')}`;
  return values.map((value, index) => formatValue(fields[index] as Datatype, value)).join(' . ');
}

function formatValue(datatype: Datatype, value: Uint8Array): string {
  const view = viewOf(value);
  if (isRawField(datatype)) return `0x${Buffer.from(value).toString('hex')}`;
  switch (datatype) {
    case 'ipv4_addr':
    case 'ipv6_addr':
      return formatIp(ipFromBytes(value));
    case 'ether_addr':
      return formatMac(value);
    case 'inet_proto':
      return protocolName(view.getUint8(0));
    case 'inet_service':
      return String(view.getUint16(0));
    case 'mark':
      return `0x${view.getUint32(0, HOST_LITTLE_ENDIAN).toString(16).padStart(8, '0')}`;
    case 'ifname':
      return JSON.stringify(Buffer.from(value).toString('latin1').replace(/\0.*$/s, ''));
  }
}

export type Protocol = 'tcp' | 'udp' | 'sctp';

/** What rules also ask for, though it has no ports. */
export type AnyProtocol = Protocol | 'icmp' | 'icmpv6';

const PROTOCOLS: Readonly<Record<AnyProtocol, number>> = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58, sctp: 132 };

function protocolName(number: number): string {
  return protocolOf(number) ?? String(number);
}

/** The protocol of that number, undefined when it is none of those that have ports. */
export function protocolOf(number: number | undefined): Protocol | undefined {
  return (['tcp', 'udp', 'sctp'] as const).find((name) => PROTOCOLS[name] === number);
}

/** The value of an `inet_proto` field: one byte, the number of the Assigned Internet Protocol Numbers registry. */
export function protocolBytes(protocol: AnyProtocol): Uint8Array {
  return Uint8Array.of(PROTOCOLS[protocol]);
}

/** The value of an `inet_service` field: a port from 0 to 65535, big-endian. Throws when it is out of range. */
export function portBytes(port: number): Uint8Array {
  if (!Number.isInteger(port) || port < 0 || port > 0xffff) throw new Error(`Cannot use "${port}" as a port`);
  return Uint8Array.of(port >> 8, port & 0xff);
}

/** The value of a `mark` field: 32 bits in the byte order of this machine. */
export function markBytes(mark: number): Uint8Array {
  if (!Number.isInteger(mark) || mark < 0 || mark > 0xffffffff)
    throw new Error(`Cannot use "${mark}" as a mark`);
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, mark, HOST_LITTLE_ENDIAN);
  return bytes;
}

/** The value of an `ifname` field: 16 bytes, NUL-padded. Throws when the name is empty or longer than 15 bytes. */
export function ifnameBytes(name: string): Uint8Array {
  const text = Buffer.from(name);
  if (text.length === 0 || text.length > 15 || text.includes(0)) {
    throw new Error(`Cannot use "${name}" as a link name`);
  }
  const bytes = new Uint8Array(16);
  bytes.set(text);
  return bytes;
}
