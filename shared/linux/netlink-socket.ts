// A netlink socket: datagrams to and from the kernel, blocking, in the namespace it was born in.
// netlink/connection.ts and rtnetlink/monitor.ts speak through it; tests replace it by a fake kernel.
import { closeSync } from 'node:fs';
import { closeLater } from './close-later.ts';
import {
  AF_NETLINK,
  bind,
  MSG_DONTWAIT,
  MSG_TRUNC,
  recvfrom,
  SO_RCVBUF,
  SO_RCVBUFFORCE,
  SO_RCVTIMEO,
  SO_SNDBUF,
  SO_SNDBUFFORCE,
  SOCK_RAW,
  SOL_NETLINK,
  SOL_SOCKET,
  send,
  setsockopt,
  socket,
} from './libc.ts';
import { expectHome, type Netns, withNetns } from './netns.ts';
import { EBADMSG, EMSGSIZE, ENOPROTOOPT, ETIMEDOUT, SystemError } from './system-error.ts';

export const NETLINK_ROUTE = 0;
export const NETLINK_NETFILTER = 12;

const NETLINK_ADD_MEMBERSHIP = 1;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;

// No dump or acknowledgement takes that long unless the kernel is stuck; a CNI caller must not be stuck with it.
const RECEIVE_TIMEOUT_MS = 10_000;
// A dump is cut into datagrams of at most 32 KiB (kernel: NETLINK's skb size for a reader this large).
const BUFFER_SIZE = 65_536;
// Answers to a batch of thousands of refused objects wait in the socket until drained.
const SOCKET_BUFFER_SIZE = 1_048_576;

export interface NetlinkSocketOptions {
  /** Born there; the calling thread is back in its own namespace before this returns. */
  readonly netns?: Netns | undefined;
  /** Multicast groups to listen to (`RTNLGRP_…`). */
  readonly groups?: readonly number[] | undefined;
}

/** Datagrams, one at a time. */
export interface NetlinkSocket extends Disposable {
  send(datagram: Uint8Array): void;
  /** Waits for the next datagram. Throws SystemError ETIMEDOUT, ENOBUFS when the kernel dropped some. */
  receive(): Uint8Array;
  /** The next datagram if one is queued already. Throws SystemError ENOBUFS. */
  receiveIfReady(): Uint8Array | undefined;
  /** The next datagram, waited for at most `milliseconds`. Throws SystemError ENOBUFS. */
  receiveWithin(milliseconds: number): Uint8Array | undefined;
}

/**
 * Opens a netlink socket that asks for extended acknowledgements without the request echoed, and, for rtnetlink, for
 * strict checking, so that a filter the kernel does not know is refused instead of ignored.
 *
 * Throws SystemError, EPROTONOSUPPORT among others when the kernel has no such protocol. Source: netlink(7).
 */
export function openNetlinkSocket(protocol: number, options: NetlinkSocketOptions = {}): NetlinkSocket {
  const { netns, groups } = options;
  expectHome();
  const open = () => socket(AF_NETLINK, SOCK_RAW, protocol);
  const fd = netns === undefined ? open() : withNetns(netns, open);
  try {
    setUp(fd, protocol, groups ?? []);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return new KernelSocket(fd, protocol === NETLINK_NETFILTER ? closeLater : closeSync);
}

function setUp(fd: number, protocol: number, groups: readonly number[]): void {
  setNetlinkOption(fd, NETLINK_EXT_ACK);
  setNetlinkOption(fd, NETLINK_CAP_ACK);
  if (protocol === NETLINK_ROUTE) setNetlinkOption(fd, NETLINK_GET_STRICT_CHK);
  if (protocol === NETLINK_NETFILTER || groups.length > 0) enlargeReceiveBuffer(fd);
  setReceiveTimeout(fd, RECEIVE_TIMEOUT_MS);
  // A socket without a port is skipped by multicasts. One that asks gets its port with the first send.
  if (groups.length > 0) bind(fd, ANY_PORT);
  for (const group of groups) {
    const result = setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, u32(group));
    if (result < 0) throw new SystemError('join a netlink group', -result, String(group));
  }
}

/** Kernels before 4.20 lack strict checking, before 4.12 extended acks: tolerated, the answers are then just poorer. */
function setNetlinkOption(fd: number, option: number): void {
  const result = setsockopt(fd, SOL_NETLINK, option, u32(1));
  if (result < 0 && result !== -ENOPROTOOPT) throw new SystemError('set a netlink socket option', -result);
}

/** Beyond the host's limit where we may (root); what this does not reach is still met by ENOBUFS being an error. */
function enlargeReceiveBuffer(fd: number): void {
  const forced = setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, u32(SOCKET_BUFFER_SIZE));
  if (forced < 0) setsockopt(fd, SOL_SOCKET, SO_RCVBUF, u32(SOCKET_BUFFER_SIZE));
}

/**
 * For a batch of thousands of objects: the kernel refuses a datagram longer than the send buffer less 32 bytes, by
 * default 208 KiB. It doubles the number it is given.
 */
function enlargeSendBuffer(fd: number, length: number): void {
  const forced = setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, u32(length));
  if (forced < 0) setsockopt(fd, SOL_SOCKET, SO_SNDBUF, u32(length));
}

/** `struct timeval { long tv_sec; long tv_usec; }` on 64 bits. Zero would mean for ever. */
function setReceiveTimeout(fd: number, milliseconds: number): void {
  const value = new DataView(new ArrayBuffer(16));
  value.setBigInt64(0, BigInt(Math.floor(milliseconds / 1000)), true);
  value.setBigInt64(8, BigInt(Math.floor(milliseconds % 1000) * 1000), true);
  const result = setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, new Uint8Array(value.buffer));
  if (result < 0) throw new SystemError('set a receive timeout', -result);
}

function u32(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer);
}

// struct sockaddr_nl { sa_family_t nl_family; unsigned short pad; __u32 nl_pid; __u32 nl_groups; };
const ANY_PORT = Uint8Array.of(AF_NETLINK, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

class KernelSocket implements NetlinkSocket {
  #fd: number;
  readonly #sender = new Uint8Array(12);
  readonly #close: (fd: number) => void;
  #timeout = RECEIVE_TIMEOUT_MS;

  constructor(fd: number, close: (fd: number) => void) {
    this.#fd = fd;
    this.#close = close;
  }

  send(datagram: Uint8Array): void {
    try {
      send(this.#fd, datagram);
    } catch (error) {
      if (!(error instanceof SystemError) || error.errno !== EMSGSIZE) throw error;
      enlargeSendBuffer(this.#fd, datagram.length);
      send(this.#fd, datagram);
    }
  }

  receive(): Uint8Array {
    const datagram = this.receiveWithin(RECEIVE_TIMEOUT_MS);
    if (datagram === undefined) throw new SystemError('receive', ETIMEDOUT);
    return datagram;
  }

  receiveIfReady(): Uint8Array | undefined {
    return this.#receive(MSG_DONTWAIT);
  }

  receiveWithin(milliseconds: number): Uint8Array | undefined {
    const timeout = Math.max(1, Math.ceil(milliseconds));
    if (timeout !== this.#timeout) {
      setReceiveTimeout(this.#fd, timeout);
      this.#timeout = timeout;
    }
    return this.#receive(0);
  }

  [Symbol.dispose](): void {
    if (this.#fd < 0) return;
    this.#close(this.#fd);
    this.#fd = -1;
  }

  /** Datagrams that did not come from the kernel (port 0) are dropped unread: any process may send us one. */
  #receive(flags: number): Uint8Array | undefined {
    buffer ??= new Uint8Array(BUFFER_SIZE);
    for (;;) {
      const length = recvfrom(this.#fd, buffer, flags | MSG_TRUNC, this.#sender);
      if (length === undefined) return undefined;
      if (this.#sender[4] !== 0 || this.#sender[5] !== 0 || this.#sender[6] !== 0 || this.#sender[7] !== 0)
        continue;
      if (length > BUFFER_SIZE) throw new SystemError(`receive a datagram of ${length} bytes`, EBADMSG);
      return buffer.slice(0, length);
    }
  }
}

// One for the process: each datagram is copied out at its true size before the next is received.
let buffer: Uint8Array | undefined;
