// The tuning plugin's DEL: restores what the backup says and removes it. Called by dispatch, often without a sandbox.
import { type Attachment, ownerHash } from '../../shared/cni/attachment.ts';
import { hasCode, toCniError } from '../../shared/cni/error.ts';
import { Failures } from '../../shared/cni/failures.ts';
import type { DelCall } from '../../shared/cni/plugin.ts';
import { findNetns, identityOf, type Netns } from '../../shared/linux/netns.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { type Backup, backupFiles, readBackup, removeBackup, removeDraft } from './backup.ts';
import type { TuningTeardown } from './config.ts';
import { restoreState } from './sandbox.ts';

/**
 * Makes link and sandbox again what they were before ADD, ours or the reference's, whatever the config says by now (CNI
 * SPEC 1.1.0, section 2, "DEL"). What the kernel will not have is a line on stderr and goes with the sandbox: an error
 * would keep a runtime from calling the plugins before this one. Throws when the same call can succeed later: for want
 * of memory or descriptors, or when the backup cannot be read or removed.
 */
export function del(call: DelCall<TuningTeardown>): void {
  const { attachment, config, log } = call;
  const files = backupFiles(config.dataDir, attachment);
  const failures = new Failures();
  failures.attempt('remove the draft of a backup', () => removeDraft(files));
  const backup = failures.attempt('read the backup', () => readBackup(files.path));
  if (backup === 'unreadable')
    log(`Cannot understand the backup "${files.path}": nothing is restored from it`);
  // What is no file was made by no tuning, and a backup that names another attachment is that one's.
  const isOurs = typeof backup === 'object' ? isAbout(backup, attachment) : backup === 'unreadable';
  if (isOurs) {
    const isRestored = failures.attempt('restore what was before', () => {
      if (typeof backup === 'object') restore(call, backup);
      return true;
    });
    if (isRestored) failures.attempt('remove the backup', () => removeBackup(files));
  }
  failures.throwIfAny();
}

/** The reference's backup tells by its name alone whose it is. */
function isAbout({ origin }: Backup, attachment: Attachment): boolean {
  return origin === undefined || ownerHash(origin.attachment) === ownerHash(attachment);
}

/** A path or a name may lead to somebody else's sandbox or link by now, and those stay as they are. */
function restore({ attachment, netns: path, log }: DelCall<TuningTeardown>, backup: Backup): void {
  const { origin } = backup;
  using netns = findNetns(path);
  if (netns === undefined || isAnother(netns, backup)) return;
  using inside = openRtnetlink({ netns });
  const found = inside.link.find({ name: attachment.ifname });
  const isSameLink = origin === undefined || origin.link === found?.index;
  const isOfLink = (name: string) => name.split('/').includes(attachment.ifname);
  const sysctls = [...backup.sysctls].filter(([name]) => isSameLink || !isOfLink(name));
  const refusals = restoreState(
    { netns, inside, link: isSameLink ? found : undefined },
    { link: backup.link, sysctls: new Map(sysctls) },
  );
  const passing = refusals.find(isShortage);
  if (passing !== undefined) throw passing;
  for (const error of refusals) {
    const { message, details } = toCniError(error);
    log(`${message}, as it was before: ${details ?? 'refused'}`);
  }
}

function isAnother(netns: Netns, { origin }: Backup): boolean {
  return origin !== undefined && origin.netns !== identityOf(netns);
}

function isShortage(error: unknown): boolean {
  return ['ENOMEM', 'ENOBUFS', 'EMFILE', 'ENFILE', 'EAGAIN', 'EINTR'].some((code) => hasCode(error, code));
}
