// Netlink attributes, the type-length-value records after every message's fixed header: writer and reader.
// The rtnetlink and nftables encoders write with it; their decoders, and ack.ts, read with it. No I/O.
import { align, decodeText, HOST_LITTLE_ENDIAN, viewOf } from './bytes.ts';

const HEADER = 4; // struct nlattr { __u16 nla_len; __u16 nla_type; };
const NLA_F_NESTED = 0x8000;
const NLA_TYPE_MASK = 0x3fff;

/**
 * Writes attributes one after the other; nesting in the code looks like nesting on the wire:
 *
 *     new AttributeWriter().string(IFLA_IFNAME, 'veth0').nest(IFLA_LINKINFO, (w) => w.string(IFLA_INFO_KIND, 'veth'))
 *
 * Integers are in host order unless the method's name ends in `be`. A nest is written into the same memory as its
 * parent, so nothing is copied on the way out. Source: include/uapi/linux/netlink.h, struct nlattr.
 */
export class AttributeWriter {
  #bytes = new Uint8Array(512);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  /** `header` is the family's fixed header (`struct ifinfomsg` …) that `done()` shall begin with. */
  constructor(header?: Uint8Array) {
    if (header === undefined) return;
    this.#reserve(align(header.length));
    this.#bytes.set(header);
    this.#length = align(header.length);
  }

  u8(type: number, value: number): this {
    const at = this.#open(type, 1);
    this.#view.setUint8(at, value);
    return this;
  }

  u16(type: number, value: number): this {
    const at = this.#open(type, 2);
    this.#view.setUint16(at, value, HOST_LITTLE_ENDIAN);
    return this;
  }

  u16be(type: number, value: number): this {
    const at = this.#open(type, 2);
    this.#view.setUint16(at, value);
    return this;
  }

  u32(type: number, value: number): this {
    const at = this.#open(type, 4);
    this.#view.setUint32(at, value, HOST_LITTLE_ENDIAN);
    return this;
  }

  u32be(type: number, value: number): this {
    const at = this.#open(type, 4);
    this.#view.setUint32(at, value);
    return this;
  }

  u64(type: number, value: bigint): this {
    const at = this.#open(type, 8);
    this.#view.setBigUint64(at, value, HOST_LITTLE_ENDIAN);
    return this;
  }

  u64be(type: number, value: bigint): this {
    const at = this.#open(type, 8);
    this.#view.setBigUint64(at, value);
    return this;
  }

  /** Text with its closing NUL, as the kernel's NLA_NUL_STRING asks for. A NUL inside would cut it: refused. */
  string(type: number, text: string): this {
    return this.#text(type, text, 1);
  }

  /** Text without NUL (`IFLA_INFO_KIND` from iproute2, for instance). */
  text(type: number, text: string): this {
    return this.#text(type, text, 0);
  }

  bytes(type: number, value: Uint8Array): this {
    const at = this.#open(type, value.length);
    this.#bytes.set(value, at);
    return this;
  }

  /** An attribute whose presence is its whole meaning. */
  flag(type: number): this {
    this.#open(type, 0);
    return this;
  }

  /** An attribute made of attributes, marked NLA_F_NESTED. */
  nest(type: number, write: (writer: this) => void): this {
    return this.#nest(type | NLA_F_NESTED, 0, write);
  }

  /** A nest that begins with a fixed header of its own (VETH_INFO_PEER holds a `struct ifinfomsg` first). */
  nestWithHeader(type: number, header: Uint8Array, write: (writer: this) => void): this {
    return this.#nest(type | NLA_F_NESTED, align(header.length), (writer) => {
      this.#bytes.set(header, this.#length - align(header.length));
      write(writer);
    });
  }

  /** A nest without the NLA_F_NESTED mark, for the few attributes that strict old parsers want so. */
  nestUnmarked(type: number, write: (writer: this) => void): this {
    return this.#nest(type, 0, write);
  }

  /** What was written so far: a view, valid until the next write. */
  done(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #nest(type: number, header: number, write: (writer: this) => void): this {
    const start = this.#length;
    this.#open(type, header);
    write(this);
    this.#close(start);
    return this;
  }

  #close(start: number): void {
    const length = this.#length - start;
    if (length > 0xffff)
      throw new Error(`Cannot write a netlink attribute of ${length} bytes, 65535 at most`);
    this.#view.setUint16(start, length, HOST_LITTLE_ENDIAN);
  }

  #text(type: number, text: string, closing: 0 | 1): this {
    if (text.includes('\0'))
      throw new Error(`Cannot write "${text.replaceAll('\0', '\\0')}": it holds a NUL`);
    const length = Buffer.byteLength(text);
    const offset = this.#open(type, length + closing);
    Buffer.from(this.#bytes.buffer, offset, length).write(text);
    return this;
  }

  /**
   * Writes the attribute's header and makes room for its payload, padding zeroed; gives the payload's offset. It may
   * replace the memory, so nobody may take hold of `#bytes` or `#view` in the same expression before it returned.
   */
  #open(type: number, length: number): number {
    const total = HEADER + length;
    if (total > 0xffff) throw new Error(`Cannot write a netlink attribute of ${total} bytes, 65535 at most`);
    const start = this.#length;
    this.#reserve(align(total));
    this.#view.setUint16(start, total, HOST_LITTLE_ENDIAN);
    this.#view.setUint16(start + 2, type, HOST_LITTLE_ENDIAN);
    this.#length = start + align(total);
    return start + HEADER;
  }

  /** Doubling, so a long batch is copied a constant number of times. Fresh memory is zero: so is all padding. */
  #reserve(extra: number): void {
    const needed = this.#length + extra;
    if (needed <= this.#bytes.length) return;
    const larger = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
    this.#view = new DataView(larger.buffer);
  }
}

/**
 * The attributes found in `bytes` from `offset` (the length of the family's fixed header) on.
 *
 * Throws when a record's length does not fit: then nothing of the message can be believed. Unknown types are
 * kept and never looked at; of several with one type the last wins, as in the kernel's `nla_parse`.
 */
export function readAttributes(bytes: Uint8Array, offset = 0): Attributes {
  if (offset > bytes.length)
    throw new Error(`Malformed netlink message: ${bytes.length} bytes, ${offset} expected`);
  return new Attributes(viewOf(bytes), offset, bytes.length);
}

/** Typed, length-checked reads by attribute type; `undefined` where the attribute is absent. */
export class Attributes {
  readonly #view: DataView;
  readonly #types: number[] = [];
  readonly #starts: number[] = []; // of the payload
  readonly #ends: number[] = [];

  constructor(view: DataView, start: number, end: number) {
    this.#view = view;
    let at = start;
    while (end - at >= HEADER) {
      const length = view.getUint16(at, HOST_LITTLE_ENDIAN);
      if (length < HEADER || length > end - at) {
        throw new Error(`Malformed netlink attribute: length ${length} with ${end - at} bytes left`);
      }
      this.#types.push(view.getUint16(at + 2, HOST_LITTLE_ENDIAN) & NLA_TYPE_MASK);
      this.#starts.push(at + HEADER);
      this.#ends.push(at + length);
      at += align(length);
    }
  }

  has(type: number): boolean {
    return this.#types.includes(type);
  }

  u8(type: number): number | undefined {
    const at = this.#find(type, 1);
    return at < 0 ? undefined : this.#view.getUint8(at);
  }

  u16(type: number): number | undefined {
    const at = this.#find(type, 2);
    return at < 0 ? undefined : this.#view.getUint16(at, HOST_LITTLE_ENDIAN);
  }

  u16be(type: number): number | undefined {
    const at = this.#find(type, 2);
    return at < 0 ? undefined : this.#view.getUint16(at);
  }

  u32(type: number): number | undefined {
    const at = this.#find(type, 4);
    return at < 0 ? undefined : this.#view.getUint32(at, HOST_LITTLE_ENDIAN);
  }

  u32be(type: number): number | undefined {
    const at = this.#find(type, 4);
    return at < 0 ? undefined : this.#view.getUint32(at);
  }

  i32(type: number): number | undefined {
    const at = this.#find(type, 4);
    return at < 0 ? undefined : this.#view.getInt32(at, HOST_LITTLE_ENDIAN);
  }

  u64(type: number): bigint | undefined {
    const at = this.#find(type, 8);
    return at < 0 ? undefined : this.#view.getBigUint64(at, HOST_LITTLE_ENDIAN);
  }

  u64be(type: number): bigint | undefined {
    const at = this.#find(type, 8);
    return at < 0 ? undefined : this.#view.getBigUint64(at);
  }

  /** Text up to the first NUL, or up to the end where the sender left the NUL out. */
  string(type: number): string | undefined {
    const value = this.bytes(type);
    return value === undefined ? undefined : decodeText(value);
  }

  /** The payload as a view of the message's own memory. */
  bytes(type: number): Uint8Array | undefined {
    const index = this.#types.lastIndexOf(type);
    return index < 0 ? undefined : this.#payload(index);
  }

  /** The attributes inside an attribute. */
  nest(type: number): Attributes | undefined {
    const index = this.#types.lastIndexOf(type);
    return index < 0 ? undefined : this.#nested(index);
  }

  /** A nested list: the attributes of each member of the nest, whatever type the members carry. */
  list(type: number): Attributes[] {
    return this.nest(type)?.members() ?? [];
  }

  /** Each record here, read as a nest. */
  members(): Attributes[] {
    return this.#types.map((_type, index) => this.#nested(index));
  }

  /** Each record here in wire order, payloads as views: for lists of plain values and for traces. */
  entries(): { type: number; value: Uint8Array }[] {
    return this.#types.map((type, index) => ({ type, value: this.#payload(index) }));
  }

  #nested(index: number): Attributes {
    return new Attributes(this.#view, this.#starts[index] ?? 0, this.#ends[index] ?? 0);
  }

  #payload(index: number): Uint8Array {
    const start = this.#starts[index] ?? 0;
    return new Uint8Array(
      this.#view.buffer as ArrayBuffer, // never shared memory: it came from viewOf
      this.#view.byteOffset + start,
      (this.#ends[index] ?? 0) - start,
    );
  }

  /** The payload's offset, or -1. A value of another size than asked for is an error, never a partial read. */
  #find(type: number, size: number): number {
    const index = this.#types.lastIndexOf(type);
    if (index < 0) return -1;
    const start = this.#starts[index] ?? 0;
    const length = (this.#ends[index] ?? 0) - start;
    if (length !== size)
      throw new Error(`Malformed netlink attribute ${type}: ${length} bytes, ${size} expected`);
    return start;
  }
}
