// Ethernet addresses as text and as six bytes. The rtnetlink encoders and the plugins' configs use it.

import { type Ip, ipFromBytes } from './cidr.ts';

/** What every link kind we make carries; the kernel knows longer ones, for InfiniBand. */
const MAC_LENGTH = 6;

/**
 * Six bytes from `02:42:ac:11:00:02`, `02-42-ac-11-00-02` or `0242.ac11.0002`, upper or lower case.
 *
 * Throws Error 'Cannot parse MAC address "x"'.
 */
export function parseMac(text: string): Uint8Array {
  const isMac =
    /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text) ||
    /^[0-9a-f]{2}(-[0-9a-f]{2}){5}$/i.test(text) ||
    /^[0-9a-f]{4}(\.[0-9a-f]{4}){2}$/i.test(text);
  if (!isMac)
    throw new Error(`Cannot parse MAC address "${text}": ${MAC_LENGTH} bytes in hexadecimal are expected`);
  const digits = text.replaceAll(/[:.-]/g, '');
  return Uint8Array.from({ length: MAC_LENGTH }, (_, index) =>
    Number.parseInt(digits.slice(index * 2, index * 2 + 2), 16),
  );
}

/** Lower case, with colons; any length, as the kernel reports it. */
export function formatMac(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += `${text === '' ? '' : ':'}${byte < 16 ? '0' : ''}${byte.toString(16)}`;
  return text;
}

/**
 * The link-local address that the kernel derives from a MAC address (RFC 4291, appendix A; `addr_gen_mode` 0).
 */
export function linkLocalOf(mac: Uint8Array): Ip {
  const [first = 0, ...rest] = mac;
  const id = [first ^ 0x02, ...rest.slice(0, 2), 0xff, 0xfe, ...rest.slice(2)];
  return ipFromBytes(Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, ...id));
}

/**
 * A unicast address from the locally administered range, as text.
 *
 * It only has to differ from its 2^46 neighbours, so Math.random will do: it is seeded by the system for each
 * process, and loading a cryptographic source would cost more than making the link.
 */
export function randomMac(): string {
  const bytes = Uint8Array.from({ length: MAC_LENGTH }, () => Math.floor(Math.random() * 256));
  bytes[0] = ((bytes[0] ?? 0) & 0xfc) | 0x02;
  return formatMac(bytes);
}
