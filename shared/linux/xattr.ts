// Extended attributes of files: what a shared on-disk format has no room for. host-local marks its records with them.
import { getxattr, setxattr } from './libc.ts';

/**
 * Sets an extended attribute ("user.…") of an open file, or of the file at a path, symlinks not followed.
 *
 * Throws SystemError: EOPNOTSUPP when the file system has none. Source: setxattr(2).
 * Equivalent to: `setfattr -h -n name -v value path`
 */
export function setXattr(target: number | string, name: string, value: string): void {
  setxattr(target, name, Buffer.from(value));
}

/**
 * Reads one; `undefined` when it is not set or the file system has none. At most 256 bytes.
 *
 * Throws SystemError. Source: getxattr(2). Equivalent to: `getfattr -h -n name --only-values path`
 */
export function getXattr(target: number | string, name: string): string | undefined {
  const value = getxattr(target, name);
  return value === undefined ? undefined : Buffer.from(value).toString('utf8');
}
