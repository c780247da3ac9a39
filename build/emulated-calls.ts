// The system calls that qemu's user emulation refuses, answered in its place, so that programs of another machine can be
// warmed up as far as those of this one. Used by warm-up.ts.

/** The first descriptor that is lent; the others follow. */
export const FIRST_LENT = 3;

/** More than the warm-up opens: a socket that was closed is not lent again. */
export const LENT = 400;

type Syscall = (number: bigint, ...values: readonly (bigint | Uint8Array)[]) => bigint;

/** As much of node:ffi as shared/linux/libc.ts uses. */
interface Ffi {
  readonly DynamicLibrary: new (path: null) => { getFunction(name: string, signature: object): Syscall };
}

// Numbers of include/uapi/asm-generic/unistd.h, which arm64 has, and what they are asked for.
const SOCKET = 198n;
const IOCTL = 29n;
const OPENAT = 56n;
const OPENAT2 = 437n;
const AF_NETLINK = 16n;
const NETLINK_NETFILTER = 12n;
const NS_GET_NSTYPE = 0xb703n;
const CLONE_NEWNET = 0x40000000n;

/** A `require` whose node:ffi makes sockets for nf_tables of those that are lent, and calls every file a namespace. */
export function requireUnderEmulation(require: NodeJS.Require): NodeJS.Require {
  const ffi = require('node:ffi') as Ffi;
  let lent = FIRST_LENT;
  const answering =
    (syscall: Syscall): Syscall =>
    (number, ...values) => {
      if (number === SOCKET && values[0] === AF_NETLINK && values[2] === NETLINK_NETFILTER) {
        if (lent === FIRST_LENT + LENT) throw new Error('The warm-up opens more sockets than it is lent');
        return BigInt(lent++);
      }
      // As openat(2), which looks less closely at the path.
      if (number === OPENAT2)
        return syscall(OPENAT, values[0] ?? 0n, values[1] ?? 0n, flagsIn(values[2]), 0n, 0n, 0n);
      if (number === IOCTL && values[1] === NS_GET_NSTYPE) return CLONE_NEWNET;
      return syscall(number, ...values);
    };
  class DynamicLibrary extends ffi.DynamicLibrary {
    override getFunction(name: string, signature: object): Syscall {
      const native = super.getFunction(name, signature);
      return name === 'syscall' ? answering(native) : native;
    }
  }
  const emulated = new Proxy(ffi, {
    get: (target, key) => (key === 'DynamicLibrary' ? DynamicLibrary : Reflect.get(target, key)),
  });
  return Object.assign(
    (id: string): unknown => (id === 'node:ffi' ? emulated : require(id)),
    require,
  ) as NodeJS.Require;
}

/** The first field of a struct open_how. */
function flagsIn(how: bigint | Uint8Array | undefined): bigint {
  if (!(how instanceof Uint8Array)) throw new Error('openat2 is called without a struct open_how');
  return new DataView(how.buffer, how.byteOffset).getBigUint64(0, true);
}
