// What a link and a sandbox were like before they were tuned, in a file for each attachment: the reference's format, with
// a part of our own that it ignores. Written by ADD before it changes anything, read by DEL, collected by GC.
import { dirname, join } from 'node:path';
import * as v from 'valibot';
import { type Attachment, networkHash, ownerHash } from '../../shared/cni/attachment.ts';
import { configObject, parseJson } from '../../shared/cni/decode.ts';
import { hasCode, ioFailure } from '../../shared/cni/error.ts';
import { parseMac } from '../../shared/ip/mac.ts';
import {
  createFile,
  ensureDirectory,
  expectTrustedLink,
  readContent,
  removeFile,
  renameFile,
} from '../../shared/linux/files.ts';
import type { LinkSettings } from './settings.ts';

/** What was before. */
export interface Backup {
  readonly link: LinkSettings;
  /** By name below /proc/sys, in the order in which they were set. */
  readonly sysctls: ReadonlyMap<string, string>;
  /** Undefined in a file of the reference plugin. */
  readonly origin: Origin | undefined;
}

/** Whose it is, and of what: names come again, a namespace and a link do not. */
export interface Origin {
  readonly attachment: Attachment;
  /** See `identityOf`. */
  readonly netns: string;
  /** The link's index; undefined when there was no link of that name. */
  readonly link: number | undefined;
}

/** The places of an attachment's backup: where it is, and where it is written before it is there. */
export interface BackupFiles {
  readonly directory: string;
  readonly path: string;
  readonly draft: string;
}

/** A config of a megabyte is none, and neither is the backup for it. */
const LONGEST_BACKUP = 1024 * 1024;

/**
 * The reference's name tells neither the network nor, with underscores in it, where the container id ends. The draft's
 * tells both by hash: what a killed ADD leaves of it may be empty.
 */
export function backupFiles(directory: string, attachment: Attachment): BackupFiles {
  const { network, containerId, ifname } = attachment;
  return {
    directory,
    path: join(directory, `${containerId}_${ifname}.json`),
    draft: join(directory, `.${networkHash(network)}-${ownerHash(attachment)}.new`),
  };
}

/** The owner's hashes in the name of a draft; undefined for any other file. */
export function draftOwner(name: string): { readonly network: string; readonly owner: string } | undefined {
  const [, network, owner] = /^\.([0-9a-f]{16})-([0-9a-f]{32})\.new$/.exec(name) ?? [];
  return network === undefined || owner === undefined ? undefined : { network, owner };
}

/**
 * The backup in the file; `absent` without one, `unreadable` for a file that holds none, `foreign` for what is no file.
 * Throws ioFailure (5) when it may be there and cannot be read.
 */
export function readBackup(path: string): Backup | 'absent' | 'unreadable' | 'foreign' {
  try {
    expectTrustedLink(dirname(path));
    const content = readContent(path, LONGEST_BACKUP);
    return typeof content === 'string' ? content : decodeBackup(content.text);
  } catch (cause) {
    if (isImpossible(cause)) return 'absent';
    throw ioFailure(`Cannot read the backup "${path}"`, { cause });
  }
}

/** Puts the backup in the place of the one that may be there, in one step. Throws ioFailure (5). */
export function writeBackup({ directory, path, draft }: BackupFiles, backup: Backup): void {
  const bytes = Buffer.from(encodeBackup(backup));
  try {
    if (bytes.length > LONGEST_BACKUP) throw new Error(`It would have more than ${LONGEST_BACKUP} bytes`);
    ensureDirectory(directory, 0o700);
    try {
      removeFile(draft); // of an ADD that was killed, or somebody's link
      createFile(draft, bytes);
      renameFile(draft, path);
    } catch (error) {
      removeFile(draft);
      throw error;
    }
  } catch (cause) {
    throw ioFailure(`Cannot keep what was before in "${path}", so nothing was tuned`, { cause });
  }
}

/** Removes the backup; none there is success. Throws ioFailure (5). */
export function removeBackup({ path }: BackupFiles): void {
  try {
    removeFile(path);
  } catch (cause) {
    throw ioFailure(`Cannot remove the backup "${path}"`, { cause });
  }
}

/** Removes what an ADD that was killed left of a draft. Throws ioFailure (5). */
export function removeDraft({ draft }: BackupFiles): void {
  try {
    removeFile(draft);
  } catch (cause) {
    if (!isImpossible(cause)) throw ioFailure(`Cannot remove "${draft}"`, { cause });
  }
}

/** No file can be, nor ever was, at a path that leads through a file or in circles, or whose name is too long. */
function isImpossible(error: unknown): boolean {
  return ['ENOTDIR', 'ELOOP', 'ENAMETOOLONG'].some((code) => hasCode(error, code));
}

/**
 * `earlier` where it is about the same things, `now` for the rest: when ADD comes again, or a second tuning of the same
 * list, what is now is not what was before.
 */
export function mergeBackups(now: Backup, earlier: Backup): Backup {
  return {
    ...now,
    link: { ...now.link, ...earlier.link },
    sysctls: new Map([
      ...earlier.sysctls,
      ...[...now.sysctls].filter(([name]) => !earlier.sysctls.has(name)),
    ]),
  };
}

/** Indented by one space, without a newline at the end, as the reference writes it. */
export function encodeBackup({ link, sysctls, origin }: Backup): string {
  const own = origin && {
    network: origin.attachment.network,
    containerID: origin.attachment.containerId,
    ifname: origin.attachment.ifname,
    netns: origin.netns,
    link: origin.link,
    sysctl: Object.fromEntries(sysctls),
  };
  return JSON.stringify({ ...link, patchbay: own }, null, 1);
}

/** What can be understood of the text; whatever else stands there is passed over, for nobody vouches for it. */
export function decodeBackup(text: string): Backup | 'unreadable' {
  const decoded = v.safeParse(backupSchema(), tryParse(text));
  if (!decoded.success) return 'unreadable';
  const { patchbay, ...settings } = decoded.output;
  const link = Object.fromEntries(Object.entries(settings).filter(([, value]) => value !== undefined));
  if (patchbay === undefined) return { link, sysctls: new Map(), origin: undefined };
  const { network, containerID, ifname, netns } = patchbay;
  const attachment = { network, containerId: containerID, ifname };
  return {
    link,
    sysctls: new Map(Object.entries(patchbay.sysctl).filter(([name]) => isNetSetting(name))),
    origin: { attachment, netns, link: patchbay.link },
  };
}

function tryParse(text: string): unknown {
  try {
    return parseJson(Buffer.from(text), 'a backup');
  } catch {
    return undefined;
  }
}

function backupSchema() {
  const flag = () => v.fallback(v.optional(v.boolean()), undefined);
  return configObject({
    mac: () => v.fallback(v.optional(v.pipe(v.string(), v.check(isMac))), undefined),
    promisc: flag,
    mtu: count,
    allmulti: flag,
    txQLen: count,
    patchbay: () => v.fallback(v.optional(originSchema()), undefined),
  });
}

/** Of backups that we made: without one of these it is none of ours. */
function originSchema() {
  const required = { network: v.string, containerID: v.string, ifname: v.string, netns: v.string };
  return configObject({ link: count }, { ...required, sysctl: () => v.record(v.string(), v.string()) });
}

function count() {
  return v.fallback(v.optional(v.pipe(v.number(), v.integer(), v.minValue(0))), undefined);
}

function isMac(text: string): boolean {
  try {
    return parseMac(text).length === 6;
  } catch {
    return false;
  }
}

// No file of ours names another; who else writes here must not make us write elsewhere.
function isNetSetting(name: string): boolean {
  return /^net(\/[^/\0]+)+$/.test(name) && !name.split('/').some((step) => step === '.' || step === '..');
}
