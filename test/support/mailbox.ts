// UDP sockets of this process in other namespaces: what arrives there at all, answered or not.
// Used by the tests of packets under forged sources, to which no answer would come back.
import { closeSync } from 'node:fs';
import { ipToBytes, parseIp } from '../../shared/ip/cidr.ts';
import { bind, MSG_DONTWAIT, recvfrom, setsockopt, socket } from '../../shared/linux/libc.ts';
import { type Netns, withNetns } from '../../shared/linux/netns.ts';

export interface Mailbox extends Disposable {
  /** The texts that came since it was last asked. */
  received(): string[];
}

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;

/** Listens on an address of the namespace, such as "0.0.0.0" or "::". Throws SystemError when the port is taken. */
export function openMailbox(netns: Netns, address: string, port: number): Mailbox {
  const family = address.includes(':') ? AF_INET6 : AF_INET;
  const fd = withNetns(netns, () => socket(family, SOCK_DGRAM, 0));
  if (family === AF_INET6)
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, new Uint8Array(Uint32Array.of(1).buffer));
  bind(fd, socketAddress(family, address, port));
  const buffer = Buffer.alloc(65536);
  return {
    received() {
      const texts: string[] = [];
      for (;;) {
        const length = recvfrom(fd, buffer, MSG_DONTWAIT, new Uint8Array(28));
        if (length === undefined) return texts;
        texts.push(buffer.toString('latin1', 0, length));
      }
    },
    [Symbol.dispose]: () => closeSync(fd),
  };
}

/** `struct sockaddr_in` and `struct sockaddr_in6`; ip(7), ipv6(7). */
function socketAddress(family: number, address: string, port: number): Uint8Array {
  const bytes = Buffer.alloc(family === AF_INET ? 16 : 28);
  bytes.writeUInt16LE(family, 0);
  bytes.writeUInt16BE(port, 2);
  bytes.set(ipToBytes(parseIp(address)), family === AF_INET ? 4 : 8);
  return bytes;
}
