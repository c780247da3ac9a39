// What a refused system call looks like in this program, and the names of Linux error numbers.
// libc.ts throws it; netlink/netlink-error.ts uses the names; cni/error.ts walks causes for `code`.
import { getSystemErrorMessage } from 'node:util';

/** A system call that failed: which one, and the kernel's reason as number and name ("EPERM"). */
export class SystemError extends Error {
  override readonly name = 'SystemError';
  readonly syscall: string;
  readonly code: string;
  readonly errno: number;

  constructor(syscall: string, errno: number, subject?: string) {
    super(`Cannot ${syscall}${subject === undefined ? '' : ` "${subject}"`}: ${describeErrno(errno)}`);
    this.syscall = syscall;
    this.code = errnoName(errno);
    this.errno = errno;
  }
}

/**
 * The name of a positive error number, such as "EEXIST" for 17; "E4711" for a number Linux does not have.
 *
 * Source: include/uapi/asm-generic/errno-base.h and errno.h. Node's own table lacks the higher ones
 * (ERESTART from nf_tables among them), and libuv renames a few.
 */
export function errnoName(errno: number): string {
  names ??= ERRNO_NAMES.trim().split(/\s+/);
  const name = names[errno - 1];
  return name === undefined || name === '-' ? `E${errno}` : name;
}

/** The positive error number behind a name; 0 when Linux has no such name. */
export function errnoOf(name: string): number {
  names ??= ERRNO_NAMES.trim().split(/\s+/);
  return names.indexOf(name) + 1;
}

/** Words for people: "file already exists (EEXIST)". */
export function describeErrno(errno: number): string {
  const name = errnoName(errno);
  const words = WORDS[name] ?? getSystemErrorMessage(-errno);
  return words === undefined || words.startsWith('Unknown system error') ? name : `${words} (${name})`;
}

export const ENOENT = 2;
export const EINTR = 4;
export const EAGAIN = 11;
export const ENODATA = 61;
export const EBADMSG = 74;
export const EMSGSIZE = 90;
export const EOPNOTSUPP = 95;
export const ENOBUFS = 105;
export const ENOPROTOOPT = 92;
export const ETIMEDOUT = 110;
export const ENODEV = 19;
export const EINVAL = 22;
export const ENOTTY = 25;

// Where libuv's words mislead about netlink, or are missing.
const WORDS: Readonly<Record<string, string>> = {
  EAGAIN: 'try again',
  EBADMSG: 'malformed message',
  EEXIST: 'already exists',
  ENODATA: 'no such data',
  ENODEV: 'no such device',
  ENOTTY: 'not supported by this kind of file',
  ESRCH: 'no such object',
  ERESTART: 'changed meanwhile, try again',
  ENOENT: 'no such object',
  EUCLEAN: 'inconsistent data',
};

let names: readonly string[] | undefined;

// One word a number, from 1 on; "-" where Linux has a gap.
const ERRNO_NAMES = `
  EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD
  EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV ENODEV ENOTDIR
  EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS
  EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP
  - ENOMSG EIDRM ECHRNG EL2NSYNC EL3HLT EL3RST ELNRNG EUNATCH ENOCSI
  EL2HLT EBADE EBADR EXFULL ENOANO EBADRQC EBADSLT - EBFONT ENOSTR
  ENODATA ETIME ENOSR ENONET ENOPKG EREMOTE ENOLINK EADV ESRMNT ECOMM
  EPROTO EMULTIHOP EDOTDOT EBADMSG EOVERFLOW ENOTUNIQ EBADFD EREMCHG ELIBACC ELIBBAD
  ELIBSCN ELIBMAX ELIBEXEC EILSEQ ERESTART ESTRPIPE EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE
  EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE
  EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN
  ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EUCLEAN ENOTNAM
  ENAVAIL EISNAM EREMOTEIO EDQUOT ENOMEDIUM EMEDIUMTYPE ECANCELED ENOKEY EKEYEXPIRED EKEYREVOKED
  EKEYREJECTED EOWNERDEAD ENOTRECOVERABLE ERFKILL EHWPOISON`;
