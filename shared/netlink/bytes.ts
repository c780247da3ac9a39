// Integers and strings as netlink lays them out in memory: host byte order unless the name says otherwise.
// attributes.ts and message.ts use it, and the rtnetlink and nftables files for their fixed headers.

/** True on x86-64 and ARM: `DataView` wants to be told the host's byte order with every access. */
export const HOST_LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/**
 * A length rounded up to netlink's four-byte grid.
 *
 * `#define NLMSG_ALIGN(len) (((len) + NLMSG_ALIGNTO - 1) & ~(NLMSG_ALIGNTO - 1))`, the same for `NLA_ALIGN`.
 */
export function align(length: number): number {
  return (length + 3) & ~3;
}

/** A view for typed reads of the same memory, whatever part of its buffer the bytes are. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** UTF-8 text up to the first NUL. Bytes that are no UTF-8 become U+FFFD: the kernel lets anybody name a link. */
export function decodeText(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Buffer.from(bytes.buffer, bytes.byteOffset, end < 0 ? bytes.byteLength : end).toString('utf8');
}
