// The tuning plugin's GC: removes the backups of attachments of this network that are not valid any more.
// Called by dispatch with the attachments to keep, or without a word about them.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { networkHash, ownerHash } from '../../shared/cni/attachment.ts';
import { hasCode } from '../../shared/cni/error.ts';
import { Failures } from '../../shared/cni/failures.ts';
import type { GcCall } from '../../shared/cni/plugin.ts';
import { removeFile } from '../../shared/linux/files.ts';
import { draftOwner, readBackup } from './backup.ts';
import type { TuningTeardown } from './config.ts';

/**
 * With a list (an empty one included) the backups of this network's attachments that are not on it go; what they would
 * restore goes with links and sandboxes. Without a list everything stays, and so does what names no network, the
 * reference's backups (CNI SPEC 1.1.0, section 2, "GC"). Goes on after a failure and throws at the end.
 */
export function gc(call: GcCall<TuningTeardown>): void {
  const { name: network } = call.network;
  const { dataDir } = call.config;
  if (call.validAttachments === undefined) return;
  const kept = new Set(call.validAttachments.map((key) => ownerHash({ network, ...key })));
  const failures = new Failures();
  for (const name of failures.attempt('list the backups', () => listDirectory(dataDir)) ?? []) {
    const path = join(dataDir, name);
    failures.attempt(`collect the backup "${path}"`, () => {
      const owner = ownerOf(path, name);
      if (owner?.network === networkHash(network) && !kept.has(owner.owner)) removeFile(path);
    });
  }
  failures.throwIfAny();
}

function ownerOf(path: string, name: string): ReturnType<typeof draftOwner> {
  if (!name.endsWith('.json')) return draftOwner(name);
  const backup = readBackup(path);
  if (typeof backup === 'string' || backup.origin === undefined) return undefined;
  const { attachment } = backup.origin;
  return { network: networkHash(attachment.network), owner: ownerHash(attachment) };
}

function listDirectory(path: string): readonly string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP'].some((code) => hasCode(error, code))) return [];
    throw error;
  }
}
