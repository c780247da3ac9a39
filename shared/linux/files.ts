// Reading and writing single files of state without trusting what lies there: links are not followed, FIFOs don't hold
// us, and no file is read beyond what a record can be. host-local's store and tuning's backups are kept with it.
import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  renameSync,
  statfsSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { again } from './again.ts';

/** A file's text, or that there is none: it is not there, or it is nothing such a file can be. */
export type Content = { readonly text: string } | 'absent' | 'foreign';

/** What stands under an address's name: nothing, a file without a byte, or anything else. */
export type Occupancy = 'free' | 'empty' | 'taken';

/**
 * The whole file; `foreign` for whatever is no regular file or longer than `limit` bytes, by default what a record can
 * have. Throws on other refusals. Two calls of Node, for opening, reading and closing by hand are three more, and a scan does them for every address.
 */
export function readContent(path: string, limit = LONGEST_RECORD): Content {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return 'absent';
  if (!stat.isFile() || stat.size > limit) return 'foreign';
  try {
    return { text: readFileSync(path, { encoding: 'utf8', flag: READ_NOTHING_ELSE }) };
  } catch (error) {
    if (isRefusedWith(error, 'ENOENT')) return 'absent';
    throw error;
  }
}

/** What stands under the name, by one look at the inode. */
export function occupancyOf(path: string): Occupancy {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return 'free';
  return stat.isFile() && stat.size === 0 ? 'empty' : 'taken';
}

/**
 * Makes the directory and its parents where they are missing. Node's own `recursive` does not serve: on a file system
 * mounted read-only it says ENOENT instead of EROFS.
 */
export function ensureDirectory(path: string, mode: number): void {
  try {
    makeDirectory(path, mode);
  } catch (error) {
    if (!isRefusedWith(error, 'ENOENT')) throw error;
    ensureDirectory(dirname(path), mode);
    makeDirectory(path, mode);
  }
}

/** Whether something other than a directory stands there, a link to one included. */
export function isObstructed(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.isDirectory() === false;
}

/**
 * A directory of ours may be a link to another disk, if root says so: somebody else's would lead us to where that one cannot
 * write. Throws Error for such a one.
 */
export function expectTrustedLink(directory: string): void {
  const stat = lstatSync(directory, { throwIfNoEntry: false });
  if (stat?.isSymbolicLink() !== true || isTrustedOwner(stat.uid)) return;
  throw new Error(`"${directory}" is a symbolic link that user ${stat.uid} made; remove it`);
}

/**
 * Root, and whoever runs us where that is another. In a user namespace the machine's own root has no number, and its files seem to
 * belong to nobody.
 */
export function isTrustedOwner(uid: number): boolean {
  if (uid === 0 || uid === statSync('/proc/self').uid) return true;
  return uid === OVERFLOW_UID && !isEveryUserMapped(readFileSync('/proc/self/uid_map', 'utf8'));
}

/** DEFAULT_OVERFLOWUID, include/linux/highuid.h */
const OVERFLOW_UID = 65534;

/** user_namespaces(7): first id inside, first id outside, how many. */
function isEveryUserMapped(map: string): boolean {
  return /^\s*0\s+0\s+4294967295\s*$/.test(map);
}

/** Makes a new file, 0600 before umask, and writes all of it; a file that could not be written is removed again. */
export function createFile(path: string, bytes: Uint8Array): void {
  const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
  const fd = again(() => openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600));
  try {
    writeAndClose(fd, bytes);
  } catch (error) {
    unlinkSync(path);
    throw error;
  }
}

/**
 * Writes a file in place, as the reference does; for directories where nothing can be made to rename. A file that has another
 * name is refused before a byte of it is lost: the name here may have been put there to lead us to it.
 */
export function overwriteFile(path: string, bytes: Uint8Array): void {
  const { O_WRONLY, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
  const fd = again(() => openSync(path, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600));
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error(`"${path}" is no regular file`);
    if (stat.nlink !== 1) throw new Error(`"${path}" has ${stat.nlink} names; remove this one`);
    again(() => ftruncateSync(fd));
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  writeAndClose(fd, bytes);
}

/** Gives the file a second name; false when something has that name already. */
export function linkFile(path: string, newPath: string): boolean {
  try {
    again(() => linkSync(path, newPath));
    return true;
  } catch (error) {
    if (isRefusedWith(error, 'EEXIST')) return false;
    throw error;
  }
}

/** Gives the file another name, in place of whatever file had it. */
export function renameFile(path: string, newPath: string): void {
  again(() => renameSync(path, newPath));
}

/** Removes the file; a file that is not there is success. */
export function removeFile(path: string): void {
  try {
    again(() => unlinkSync(path));
  } catch (error) {
    if (!isRefusedWith(error, 'ENOENT')) throw error;
  }
}

/** The text a symbolic link holds; undefined when there is none. */
export function readNote(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch (error) {
    if (isRefusedWith(error, 'ENOENT') || isRefusedWith(error, 'EINVAL')) return undefined;
    throw error;
  }
}

/**
 * Keeps a short text as the target of a symbolic link that leads nowhere: one system call makes it, whole or not at
 * all, and it takes no data block. What had the name before is replaced.
 */
export function writeNote(path: string, text: string): void {
  removeFile(path);
  again(() => symlinkSync(text, path));
}

/**
 * Whether the directory is on a disk or in the memory of this machine alone: no other machine writes to it or caches
 * its times. False where that is not known.
 */
export function isOnLocalFileSystem(directory: string): boolean {
  try {
    return LOCAL_FILE_SYSTEMS.has(statfsSync(directory).type >>> 0);
  } catch {
    return false;
  }
}

// ext2 to ext4, xfs, btrfs, tmpfs, overlayfs, f2fs (linux/magic.h), zfs, bcachefs (their own sources).
const LOCAL_FILE_SYSTEMS: ReadonlySet<number> = new Set([
  0xef53, 0x58465342, 0x9123683e, 0x01021994, 0x794c7630, 0xf2f52010, 0x2fc12fc1, 0xca451a4e,
]);

// Node's errors carry the name of the errno themselves; there are no causes to walk.
function isRefusedWith(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

function makeDirectory(path: string, mode: number): void {
  try {
    again(() => mkdirSync(path, { mode }));
  } catch (error) {
    if (!isRefusedWith(error, 'EEXIST')) throw error;
  }
}

// Neither a link nor a FIFO that came into the place of the file since we looked at it.
const READ_NOTHING_ELSE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

// What is recorded of a container is little longer than its id, and that comes from the environment, where one string
// has at most 128 KiB (MAX_ARG_STRLEN, linux/binfmts.h).
const LONGEST_RECORD = 128 * 1024 + 32;

function writeAndClose(fd: number, bytes: Uint8Array): void {
  try {
    let written = 0;
    while (written < bytes.length) written += again(() => writeSync(fd, bytes, written));
  } finally {
    closeSync(fd);
  }
}
