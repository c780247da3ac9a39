// The program: finds the plugin it is called as, runs the call, prints, exits. The executables in dist/bin are this file and
// what it imports.
import { type DispatchIo, dispatch, type Outcome } from '../shared/cni/dispatch.ts';
import { encodeError } from '../shared/cni/encode.ts';
import type { AnyPlugin } from '../shared/cni/plugin.ts';
import { runTool } from '../shared/cni/tool.ts';
import { NEWEST_VERSION } from '../shared/cni/versions.ts';
import { exitAtOnce } from '../shared/linux/libc.ts';
import { dropPrivileges } from '../shared/linux/privileges.ts';
import { enableTrace } from '../shared/netlink/trace.ts';
import {
  environment,
  exit,
  getOwnPlugin,
  isOwnProcess,
  isRoot,
  listArguments,
  log,
  pid,
  print,
  readStdin,
  uptime,
} from './process.ts';
import { findPlugin } from './registry.ts';

// Stamped in by the build; there is nothing to stamp when the sources run as they stand.
declare const PATCHBAY_VERSION: string | undefined;
declare const PATCHBAY_REVISION: string | undefined;

const exitCode = main();
if (isOwnProcess()) exitAtOnce(exitCode);
exit(exitCode);

function main(): number {
  let outcome: Outcome;
  try {
    const env = environment();
    if (env['PATCHBAY_TRACE'] === 'netlink') enableTrace(log);
    const plugin = getOwnPlugin();
    const command = env['CNI_COMMAND'];
    const isForRuntimes = Boolean(command);
    if (isForRuntimes && command !== 'VERSION') dropWhatIsNotNeeded(plugin);
    const args = listArguments();
    if (!isForRuntimes && args.length > 0 && plugin.tools.length > 0) {
      outcome = runTool(plugin, args, makeIo());
    } else {
      outcome = dispatch(plugin, makeIo());
      if (!isForRuntimes) log(`Patchbay ${version()}, revision ${revision()}`);
    }
  } catch (error) {
    // What happens outside of a call: dispatch reports everything else itself, in the call's own version.
    outcome = { stdout: encodeError(error, NEWEST_VERSION), exitCode: 1 };
  }
  const isPrinted = print(outcome.stdout);
  // The runtime takes this for a failed ADD, and a failed ADD leaves nothing behind.
  if (!isPrinted) outcome.undo?.();
  outcome.writeLog?.(isPrinted ? 'printed' : 'lost');
  return isPrinted ? outcome.exitCode : 1;
}

// Whoever runs it as another user than root has chosen its capabilities, and inheritance works in other ways then. The build,
// which runs this program in its own process, keeps its own.
function dropWhatIsNotNeeded({ needs }: AnyPlugin): void {
  if (isOwnProcess() && isRoot()) dropPrivileges(needs);
}

function makeIo(): DispatchIo {
  return {
    env: environment(),
    readStdin,
    log,
    registry: findPlugin,
    // Leads to our own inode even when the path no longer does.
    ownExecutable: '/proc/self/exe',
    version: version(),
    pid: pid(),
    uptime,
  };
}

function version(): string {
  return typeof PATCHBAY_VERSION === 'string' ? PATCHBAY_VERSION : '0.0.0';
}

function revision(): string {
  return typeof PATCHBAY_REVISION === 'string' ? PATCHBAY_REVISION : 'unknown';
}
