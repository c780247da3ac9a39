// Network namespaces by path: opened, recognised, compared, entered for the length of one function.
// Plugins open the attachment's namespace with it; netlink-socket.ts is born inside one, sysctls are written inside.
import { closeSync, constants, fstatSync, openSync, readFileSync, statSync } from 'node:fs';
import { pause } from './clock.ts';
import {
  AF_NETLINK,
  CLONE_NEWNET,
  fileSystemOf,
  getsockopt,
  namespaceType,
  SO_NETNS_COOKIE,
  SOCK_RAW,
  SOL_SOCKET,
  setns,
  socket,
} from './libc.ts';
import { EINVAL, SystemError } from './system-error.ts';

/** An open network namespace. While it is open the namespace lives, even if its path is removed meanwhile. */
export interface Netns extends Disposable {
  readonly path: string;
  readonly fd: number;
  /** Device and inode tell whether two paths mean the same namespace. */
  readonly device: bigint;
  readonly inode: bigint;
}

// Linux 6 uapi/linux/magic.h
const NSFS_MAGIC = 0x6e736673;
const PROC_SUPER_MAGIC = 0x9fa0;

const OWN_NETNS = '/proc/thread-self/ns/net';

/**
 * Opens the network namespace at `path`.
 *
 * Symlinks are followed: `/var/run/netns/x` goes through one on every Debian, and `/proc/<pid>/ns/net` *is* one (a
 * magic link, which only following leads to the namespace). Instead of forbidding them we look at what was opened:
 * it must lie on nsfs or procfs, and the kernel must call it a network namespace. A path to a FIFO or a device is
 * never opened for reading, because that could wait for ever or move hardware.
 *
 * Throws Error with the reason as its cause: SystemError or Node's own error (`code` "ENOENT" …) when the path cannot
 * be opened; SystemError EINVAL when it is no network namespace.
 */
export function openNetns(path: string): Netns {
  try {
    return open(path);
  } catch (cause) {
    throw new Error(`Cannot open network namespace "${path}"`, { cause });
  }
}

/**
 * The network namespace at `path`; `undefined` when the path is empty, missing, or no network namespace: for DEL all
 * three mean that the sandbox is gone. Throws Error when it may well exist but cannot be opened (EACCES, EMFILE …).
 */
export function findNetns(path: string | undefined): Netns | undefined {
  if (path === undefined || path === '') return undefined;
  try {
    return open(path);
  } catch (cause) {
    if (isGone(cause)) return undefined;
    throw new Error(`Cannot open network namespace "${path}"`, { cause });
  }
}

/** Whether it is the namespace this process lives in. */
export function isOwnNetns(netns: Netns): boolean {
  const own = statSync(OWN_NETNS, { bigint: true });
  return own.dev === netns.device && own.ino === netns.inode;
}

/**
 * Runs `fn` with this thread inside `netns`, and comes back.
 *
 * `fn` must be synchronous, and the type says so: work that is still pending when we leave would run in the wrong
 * namespace. When the way back fails nothing further may touch the host, so that error wins over `fn`'s own, and
 * no socket is opened and no other namespace entered any more. Only where we are stuck we can still undo what we did.
 */
export function withNetns<T>(netns: Netns, fn: () => T extends PromiseLike<unknown> ? never : T): T {
  if (lost !== undefined && stuckIn === netns.inode) return fn();
  expectHome();
  const home = openSync(OWN_NETNS, constants.O_RDONLY);
  try {
    setns(netns.fd);
    try {
      return fn();
    } finally {
      goHome(home, netns);
    }
  } finally {
    closeSync(home);
  }
}

/**
 * A text that stands for this namespace and for none that comes later at the same path, for notes that outlive a process:
 * the boot and the kernel's cookie of the namespace. Its inode number takes the place of the cookie before Linux 5.14;
 * that one the kernel gives to the next namespace once it is free. Throws SystemError.
 * Source: include/net/net_namespace.h, net_cookie.
 */
export function identityOf(netns: Netns): string {
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  const fd = withNetns(netns, () => socket(AF_NETLINK, SOCK_RAW, 0));
  try {
    const cookie = new BigUint64Array(1);
    const result = getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, new Uint8Array(cookie.buffer));
    return result < 0 ? `${boot} inode ${netns.inode}` : `${boot} cookie ${cookie[0]}`;
  } finally {
    closeSync(fd);
  }
}

/** Throws if an earlier `withNetns` could not come back: what is meant for the host must not happen elsewhere. */
export function expectHome(): void {
  if (lost !== undefined) throw lost;
}

let lost: Error | undefined;
let stuckIn: bigint | undefined;

const PAUSES_BEFORE_HOME_MS: readonly number[] = [1, 10];

/** What was done so far can be undone from home only, so a way back that is barred is tried again, whatever bars it. */
function goHome(home: number, { inode }: Netns): void {
  for (const pauseMs of PAUSES_BEFORE_HOME_MS) {
    try {
      setns(home);
      return;
    } catch {
      pause(pauseMs);
    }
  }
  try {
    setns(home);
  } catch (cause) {
    stuckIn = inode;
    lost = new Error('Cannot return to the network namespace of the host', { cause });
    throw lost; // in place of whatever fn threw: it matters more
  }
}

/** A path that means one namespace, or one error, as long as this lives. */
export interface HeldNetns extends Disposable {
  /** Undefined when the path does not lead to a network namespace. */
  readonly netns: Netns | undefined;
}

/**
 * Opens the namespace at `path` for the length of a verb. Whoever opens the same path meanwhile is given this very
 * namespace, or the very error that opening it met, whatever has become of the path since: what was found out about it, for
 * instance that it is not our own, stays true. Only one path is held at a time. Never throws.
 */
export function holdNetns(path: string): HeldNetns {
  let netns: Netns | undefined;
  try {
    netns = openAt(path);
    const lasting = netns;
    held = { path, open: () => new BorrowedNetns(lasting) };
  } catch (error) {
    const failure = error;
    held = {
      path,
      open: () => {
        throw failure;
      },
    };
  }
  return {
    netns,
    [Symbol.dispose]() {
      held = undefined;
      netns?.[Symbol.dispose]();
    },
  };
}

let held: { readonly path: string; readonly open: () => Netns } | undefined;

function open(path: string): Netns {
  return held?.path === path ? held.open() : openAt(path);
}

function openAt(path: string): Netns {
  if (path.includes('\0')) throw new SystemError('open', EINVAL);
  // Namespaces look like regular files. Asked before opening, so that nothing else is ever opened; O_NONBLOCK is for
  // a path that is exchanged for a FIFO in between.
  if (!statSync(path).isFile()) throw new SystemError('use as a network namespace', EINVAL);
  const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    expectNetns(fd);
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return new OpenNetns(path, fd, dev, ino);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

/** Before the ioctl, which other files may understand differently, the file system's magic. */
function expectNetns(fd: number): void {
  const type = fileSystemOf(fd);
  const isNetns = (type === NSFS_MAGIC || type === PROC_SUPER_MAGIC) && namespaceType(fd) === CLONE_NEWNET;
  if (!isNetns) throw new SystemError('use as a network namespace', EINVAL);
}

const GONE: readonly string[] = ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG', 'ENXIO', 'ESRCH', 'EINVAL'];

function isGone(error: unknown): boolean {
  return error instanceof Error && 'code' in error && GONE.includes(String(error.code));
}

class OpenNetns implements Netns {
  readonly path: string;
  readonly fd: number;
  readonly device: bigint;
  readonly inode: bigint;
  #open = true;

  constructor(path: string, fd: number, device: bigint, inode: bigint) {
    this.path = path;
    this.fd = fd;
    this.device = device;
    this.inode = inode;
  }

  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.fd);
  }
}

/** Closed by whoever holds it. */
class BorrowedNetns implements Netns {
  readonly path: string;
  readonly fd: number;
  readonly device: bigint;
  readonly inode: bigint;

  constructor({ path, fd, device, inode }: Netns) {
    this.path = path;
    this.fd = fd;
    this.device = device;
    this.inode = inode;
  }

  [Symbol.dispose](): void {}
}
