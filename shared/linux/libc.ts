// The only door to native code: Linux system calls through libc's `syscall`, by way of node:ffi.
// The other files of this folder call it; nothing above them does. Every call blocks and nothing is asynchronous.
import { createRequire } from 'node:module';
import { arch } from 'node:process';
import { again } from './again.ts';
import { EAGAIN, EINTR, ENODATA, EOPNOTSUPP, SystemError } from './system-error.ts';

type Ffi = typeof import('node:ffi');
type Argument = bigint | Uint8Array;
type Syscall = (...values: [bigint, Argument, Argument, Argument, Argument, Argument, Argument]) => bigint;

/**
 * The numbers of the calls we make. Source: arch/x86/entry/syscalls/syscall_64.tbl and, for ARM64 and RISC-V,
 * include/uapi/asm-generic/unistd.h.
 *
 * Why by number: each libc function that is bound costs about 0.1 ms (a trampoline is made for its signature), and
 * its first call again up to 0.1 ms. One `syscall` bound once serves all: the ten calls of an ADD cost 0.3 ms
 * instead of 0.95 (medians of fresh processes).
 */
const X64 = {
  ioctl: 16,
  socket: 41,
  sendto: 44,
  recvfrom: 45,
  sendmsg: 46,
  bind: 49,
  socketpair: 53,
  setsockopt: 54,
  getsockopt: 55,
  flock: 73,
  capget: 125,
  capset: 126,
  prctl: 157,
  fstatfs: 138,
  lsetxattr: 189,
  fsetxattr: 190,
  lgetxattr: 192,
  fgetxattr: 193,
  setns: 308,
  openat2: 437,
  exit_group: 231,
} as const;
const GENERIC = {
  ioctl: 29,
  socket: 198,
  sendto: 206,
  recvfrom: 207,
  sendmsg: 211,
  bind: 200,
  socketpair: 199,
  setsockopt: 208,
  getsockopt: 209,
  flock: 32,
  capget: 90,
  capset: 91,
  prctl: 167,
  fstatfs: 44,
  lsetxattr: 6,
  fsetxattr: 7,
  lgetxattr: 9,
  fgetxattr: 10,
  setns: 268,
  openat2: 437,
  exit_group: 94,
} as const satisfies Record<keyof typeof X64, number>;
const NUMBERS: Readonly<Record<string, Readonly<Record<SyscallName, number>>>> = {
  x64: X64,
  arm64: GENERIC,
  riscv64: GENERIC,
};

type SyscallName = keyof typeof X64;

// The same on all of the architectures above.
export const AF_UNIX = 1;
export const AF_NETLINK = 16;
export const SOCK_DGRAM = 2;
export const SOCK_RAW = 3;
export const SOCK_CLOEXEC = 0o2000000;
export const SOL_SOCKET = 1;
export const SO_SNDBUF = 7;
export const SO_RCVBUF = 8;
export const SO_RCVTIMEO = 20;
export const SO_SNDBUFFORCE = 32;
export const SO_RCVBUFFORCE = 33;
export const SO_NETNS_COOKIE = 71;
export const SOL_NETLINK = 270;
export const MSG_TRUNC = 0x20;
export const MSG_DONTWAIT = 0x40;
export const CLONE_NEWNET = 0x40000000;
export const RESOLVE_NO_XDEV = 0x01;
export const RESOLVE_NO_SYMLINKS = 0x04;
export const RESOLVE_BENEATH = 0x08;

const O_CLOEXEC = 0o2000000;
const LOCK_EX = 2;
const LOCK_NB = 4;
const NS_GET_NSTYPE = 0xb703; // _IO(0xb7, 0x3), include/uapi/linux/nsfs.h

/** socket(2). The descriptor is close-on-exec: SOCK_CLOEXEC is added here. Throws SystemError. */
export function socket(domain: number, type: number, protocol: number): number {
  return insist('socket', 'socket', domain, type | SOCK_CLOEXEC, protocol);
}

/** bind(2). Throws SystemError. */
export function bind(fd: number, address: Uint8Array): void {
  check('bind', call('bind', fd, address, address.length));
}

/** setsockopt(2). Gives 0, or the negative error number: callers tolerate what an older kernel lacks. */
export function setsockopt(fd: number, level: number, option: number, value: Uint8Array): number {
  return call('setsockopt', fd, level, option, value, value.length);
}

/** getsockopt(2) into `value`, all of it. Gives 0, or the negative error number: callers do without on an older kernel. */
export function getsockopt(fd: number, level: number, option: number, value: Uint8Array): number {
  const length = new Uint8Array(Uint32Array.of(value.length).buffer);
  return call('getsockopt', fd, level, option, value, length);
}

/** send(2) of a whole datagram. Throws SystemError. */
export function send(fd: number, bytes: Uint8Array): void {
  insist('send', 'sendto', fd, bytes, bytes.length, 0);
}

/** sendto(2) of a whole datagram to the `address`. Throws SystemError: with MSG_DONTWAIT also EAGAIN, when nobody reads. */
export function sendTo(fd: number, bytes: Uint8Array, flags: number, address: Uint8Array): void {
  check('send', call('sendto', fd, bytes, bytes.length, flags, address, address.length));
}

/**
 * recvfrom(2) into `buffer`, the sender into `address`. Gives the datagram's length, which with MSG_TRUNC may exceed
 * the buffer's, or `undefined` when there is none yet (MSG_DONTWAIT, or the socket's SO_RCVTIMEO ran out).
 * Throws SystemError.
 */
export function recvfrom(
  fd: number,
  buffer: Uint8Array,
  flags: number,
  address: Uint8Array,
): number | undefined {
  const addressLength = new Uint8Array(Uint32Array.of(address.length).buffer);
  const result = call('recvfrom', fd, buffer, buffer.length, flags, address, addressLength);
  return result === -EAGAIN ? undefined : check('receive', result);
}

/** socketpair(2), close-on-exec. Throws SystemError. */
export function socketpair(domain: number, type: number): [number, number] {
  const pair = new Int32Array(2);
  check('socketpair', call('socketpair', domain, type | SOCK_CLOEXEC, 0, new Uint8Array(pair.buffer)));
  return [pair[0] ?? -1, pair[1] ?? -1];
}

/**
 * sendmsg(2) of one byte with descriptors beside it (SCM_RIGHTS, unix(7)): they are in flight until somebody receives
 * them. Throws SystemError.
 *
 *     struct msghdr  { void *name; u32 namelen; iovec *iov; size_t iovlen; void *control; size_t controllen; int flags; };
 *     struct iovec   { void *base; size_t len; };
 *     struct cmsghdr { size_t len; int level; int type; };  followed by the descriptors
 */
export function sendDescriptors(fd: number, descriptors: readonly number[]): void {
  native ??= openNative();
  const memory = new DataView(new ArrayBuffer(CONTROL + CMSG_HEADER + 4 * descriptors.length));
  const address = native.getRawPointer(memory.buffer);
  const controlLength = BigInt(CMSG_HEADER + 4 * descriptors.length);
  const words = { 16: address + BigInt(IOVEC), 24: 1n, 32: address + BigInt(CONTROL), 40: controlLength };
  for (const [offset, word] of Object.entries(words)) memory.setBigUint64(Number(offset), word, true);
  memory.setBigUint64(IOVEC, address + BigInt(BYTE), true);
  memory.setBigUint64(IOVEC + 8, 1n, true);
  memory.setBigUint64(CONTROL, controlLength, true);
  memory.setInt32(CONTROL + 8, SOL_SOCKET, true);
  memory.setInt32(CONTROL + 12, SCM_RIGHTS, true);
  descriptors.forEach((descriptor, index) => {
    memory.setInt32(CONTROL + CMSG_HEADER + 4 * index, descriptor, true);
  });
  check('sendmsg', call('sendmsg', fd, new Uint8Array(memory.buffer), 0));
}

// One piece of memory: the message header at 0, then the vector, the byte, the control message.
const IOVEC = 56;
const BYTE = 72;
const CONTROL = 80;
const CMSG_HEADER = 16;
const SCM_RIGHTS = 1;

/** setns(2) of this thread into a network namespace. Throws SystemError: EINVAL if `fd` is another kind of thing. */
export function setns(fd: number): void {
  insist('setns', 'setns', fd, CLONE_NEWNET);
}

/** The CLONE_NEW… value of the namespace behind `fd`, ioctl_ns(2); 0 when it is no namespace. */
export function namespaceType(fd: number): number {
  return Math.max(0, call('ioctl', fd, NS_GET_NSTYPE));
}

/** flock(2), exclusive and not waiting: true when the lock is ours now. Throws SystemError. */
export function tryFlock(fd: number): boolean {
  const result = call('flock', fd, LOCK_EX | LOCK_NB);
  if (result === -EAGAIN) return false;
  check('flock', result);
  return true;
}

/** The magic number of the file system that the open file lies on (linux/magic.h), fstatfs(2). Throws SystemError. */
export function fileSystemOf(fd: number): number {
  const stat = new DataView(new ArrayBuffer(120)); // struct statfs: f_type, a word, is its first field
  check('fstatfs', call('fstatfs', fd, new Uint8Array(stat.buffer)));
  return Number(stat.getBigUint64(0, true));
}

/**
 * openat2(2) below a directory; close-on-exec. `resolve` says what the path may not lead through. Throws SystemError:
 * ENOSYS before Linux 5.6, EXDEV and ELOOP for a path that `resolve` forbids.
 *
 *     struct open_how { u64 flags; u64 mode; u64 resolve; };
 */
export function openBelow(directory: number, path: string, flags: number, resolve: number): number {
  const how = BigUint64Array.of(BigInt(flags | O_CLOEXEC), 0n, BigInt(resolve));
  const bytes = new Uint8Array(how.buffer);
  return again(() => check('open', call('openat2', directory, cString(path), bytes, bytes.length), path));
}

/** Bits by capability number; those from 32 on are not among them, and are given up with `capset`. */
export interface Capabilities {
  readonly effective: number;
  readonly permitted: number;
  readonly inheritable: number;
}

/** capget(2) of this thread; undefined where that is refused. */
export function capget(): Capabilities | undefined {
  const sets = new Uint32Array(CAPABILITY_WORDS);
  if (call('capget', capabilityHeader(), new Uint8Array(sets.buffer)) < 0) return undefined;
  const [effective = 0, permitted = 0, inheritable = 0] = sets;
  return { effective, permitted, inheritable };
}

/** capset(2) of this thread. Gives 0, or the negative error number: callers go on with what they have. */
export function capset({ effective, permitted, inheritable }: Capabilities): number {
  const sets = new Uint32Array(CAPABILITY_WORDS);
  sets.set([effective, permitted, inheritable]);
  return call('capset', capabilityHeader(), new Uint8Array(sets.buffer));
}

// struct __user_cap_header_struct { u32 version; int pid; }; two of struct { u32 effective, permitted, inheritable; }
const CAPABILITY_WORDS = 6;
const LINUX_CAPABILITY_VERSION_3 = 0x20080522;

function capabilityHeader(): Uint8Array {
  return new Uint8Array(Uint32Array.of(LINUX_CAPABILITY_VERSION_3, 0).buffer);
}

/** prctl(2) with one argument. Gives its result, or the negative error number. */
export function prctl(option: number, argument: number): number {
  return call('prctl', option, argument);
}

/** fsetxattr(2) on a descriptor or lsetxattr(2) on a path. Throws SystemError. */
export function setxattr(target: number | string, name: string, value: Uint8Array): void {
  const result =
    typeof target === 'number'
      ? call('fsetxattr', target, cString(name), value, value.length, 0)
      : call('lsetxattr', cString(target), cString(name), value, value.length, 0);
  check('setxattr', result, name);
}

/**
 * fgetxattr(2) on a descriptor or lgetxattr(2) on a path; `undefined` when there is no such attribute or the
 * file system has none at all. Throws SystemError.
 */
export function getxattr(target: number | string, name: string): Uint8Array | undefined {
  const value = new Uint8Array(256);
  const result =
    typeof target === 'number'
      ? call('fgetxattr', target, cString(name), value, value.length)
      : call('lgetxattr', cString(target), cString(name), value, value.length);
  if (result === -ENODATA || result === -EOPNOTSUPP) return undefined;
  return value.subarray(0, check('getxattr', result, name));
}

/**
 * exit_group(2): ends the process at once, without taking Node apart first (1 to 2 ms, for memory that goes anyway).
 * Does nothing when no system call was made before: loading node:ffi for it would cost more than it saves.
 */
export function exitAtOnce(exitCode: number): void {
  if (native !== undefined) call('exit_group', exitCode);
}

/** For calls to which EAGAIN is no answer but a mishap. Throws SystemError. */
function insist(what: string, name: SyscallName, ...values: readonly (number | Uint8Array)[]): number {
  return again(() => check(what, call(name, ...values)));
}

function check(what: string, result: number, subject?: string): number {
  if (result < 0) throw new SystemError(what, -result, subject);
  return result;
}

/** A system call with up to six arguments: its result, or the negative error number. EINTR is tried again. */
function call(name: SyscallName, ...values: readonly (number | Uint8Array)[]): number {
  native ??= openNative();
  const [a = NONE, b = NONE, c = NONE, d = NONE, e = NONE, f = NONE] = values.map(argument);
  for (;;) {
    const result = native.syscall(BigInt(native.numbers[name]), a, b, c, d, e, f);
    if (result >= 0n) return Number(result);
    // node:ffi tells no errno. It lies in this thread's memory, and nothing ran in between.
    const errno = native.getInt32(native.errno);
    if (errno !== EINTR) return -errno;
  }
}

// All arguments are declared as pointers, which may be given as bigint or as memory: one signature fits every call.
function argument(value: number | Uint8Array): Argument {
  return typeof value === 'number' ? BigInt(value) : value;
}

const NONE = 0n;
let native: Native | undefined;

interface Native {
  readonly syscall: Syscall;
  readonly numbers: Readonly<Record<SyscallName, number>>;
  readonly getInt32: Ffi['getInt32'];
  readonly getRawPointer: Ffi['getRawPointer'];
  readonly errno: bigint;
}

function openNative(): Native {
  const numbers = NUMBERS[arch];
  if (numbers === undefined) throw new Error(`Cannot make system calls on architecture "${arch}"`);
  const ffi = loadFfi();
  const library = new ffi.DynamicLibrary(null); // null: the process itself
  const pointer = 'pointer';
  return {
    syscall: library.getFunction('syscall', {
      arguments: ['i64', pointer, pointer, pointer, pointer, pointer, pointer],
      return: 'i64',
    }),
    numbers,
    getInt32: ffi.getInt32,
    getRawPointer: ffi.getRawPointer,
    errno: library.getFunction('__errno_location', { arguments: [], return: pointer })(),
  };
}

/**
 * node:ffi, loaded on the first call: VERSION, and a config that is refused, never need it (0.4 ms).
 * In the bundle `require` exists and costs least; as plain ESM Node wants one made (1.1 ms, development only).
 */
function loadFfi(): Ffi {
  return typeof require === 'function' ? require('node:ffi') : createRequire(import.meta.url)('node:ffi');
}

function cString(text: string): Uint8Array {
  if (text.includes('\0'))
    throw new Error(`Cannot pass "${text.replaceAll('\0', '\\0')}" to the kernel: it holds a NUL`);
  return Buffer.from(`${text}\0`);
}
