// The tuning plugin's ADD: all or nothing. Called by dispatch behind an interface plugin.
import type { Attachment } from '../../shared/cni/attachment.ts';
import { expectChained } from '../../shared/cni/chained.ts';
import { invalidConfig, ioFailure } from '../../shared/cni/error.ts';
import type { AddCall } from '../../shared/cni/plugin.ts';
import type { Result } from '../../shared/cni/result.ts';
import { Rollback } from '../../shared/cni/rollback.ts';
import { identityOf } from '../../shared/linux/netns.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { openSandbox } from '../../shared/sandbox/open.ts';
import { expectAllowed } from './allow-list.ts';
import {
  type Backup,
  type BackupFiles,
  backupFiles,
  mergeBackups,
  type Origin,
  readBackup,
  removeBackup,
  writeBackup,
} from './backup.ts';
import type { TuningConfig } from './config.ts';
import { isEmpty, planTuning, type TuningPlan, tunedResult } from './plan.ts';
import { applyPlan, readState, restoreState, type Sandbox } from './sandbox.ts';
import { listSettings } from './settings.ts';

/**
 * Sets sysctls of the sandbox and properties of its link, after it has noted down what they were, and passes the result
 * on with the new MAC address (CNI SPEC 1.1.0, section 2, "ADD"). Throws the first error met, with everything as it was.
 */
export function add(call: AddCall<TuningConfig>): Result {
  const { config, attachment, log } = call;
  const prevResult = expectChained(call.network.prevResult, 'tuning');
  const plan = planTuning(config, attachment.ifname);
  if (isEmpty(plan)) return prevResult;
  expectAllowed(config.sysctls.map(({ key }) => key));

  using netns = openSandbox(call.netns);
  using inside = openRtnetlink({ netns });
  const sandbox = { netns, inside, link: inside.link.find({ name: attachment.ifname }) };
  refuseMissingLink(sandbox, plan, attachment);

  using rollback = new Rollback(log);
  tune(sandbox, plan, { attachment, files: backupFiles(config.dataDir, attachment) }, rollback);
  rollback.commit();
  return tunedResult(plan, prevResult, attachment.ifname);
}

interface Record {
  readonly attachment: Attachment;
  readonly files: BackupFiles;
}

function tune(sandbox: Sandbox, plan: TuningPlan, record: Record, rollback: Rollback): void {
  const { files, attachment } = record;
  const before = readState(sandbox, plan);
  const origin = { attachment, netns: identityOf(sandbox.netns), link: sandbox.link?.index };
  const earlier = findEarlier(files, origin);
  rollback.add('restore what was before', () => {
    const [refusal] = restoreState(sandbox, before);
    if (refusal !== undefined) throw refusal; // the backup stays for DEL
    if (earlier === undefined) removeBackup(files);
    else writeBackup(files, earlier);
  });
  writeBackup(
    files,
    earlier === undefined ? { ...before, origin } : mergeBackups({ ...before, origin }, earlier),
  );
  applyPlan(sandbox, plan, before);
}

function refuseMissingLink({ netns, link }: Sandbox, plan: TuningPlan, { ifname }: Attachment): void {
  if (link !== undefined || listSettings(plan.link).length === 0) return;
  const next = 'an interface plugin before this one has to make it';
  throw invalidConfig(`Link "${ifname}" does not exist in sandbox "${netns.path}"; ${next}`);
}

/**
 * What is noted down of this very link already, by an ADD that was cut off or by another tuning of the list. A backup of
 * an earlier link or sandbox of that name is worth nothing any more. Throws ioFailure (5) for the one of another attachment.
 */
function findEarlier({ path }: BackupFiles, origin: Origin): Backup | undefined {
  const found = readBackup(path);
  if (found === 'foreign') {
    throw ioFailure(`Cannot keep a backup at "${path}": what is there is no file; remove it`);
  }
  if (typeof found === 'string' || found.origin === undefined) return undefined;
  const { attachment, netns, link } = found.origin;
  const isOfSameName =
    attachment.containerId === origin.attachment.containerId &&
    attachment.ifname === origin.attachment.ifname;
  if (!isOfSameName) {
    const whose = `link "${attachment.ifname}" of container "${attachment.containerId}"`;
    throw ioFailure(`Cannot keep a backup at "${path}": it is the one of ${whose}; run DEL for that first`);
  }
  const isSameLink =
    attachment.network === origin.attachment.network && netns === origin.netns && link === origin.link;
  return isSameLink ? found : undefined;
}
