// What this process may do: it gives up what its work does not need, before it reads anything. Called by plugins/main.ts.
import { capget, capset, prctl } from './libc.ts';

/** What a plugin does that takes more than the network's administration and the files of its state. */
export interface Needs {
  /** `enter`: it works in the sandbox's namespace, which it has to enter. */
  readonly sandbox: 'enter' | 'none';
  /** `run`: it may start programs (iptables, an IPAM plugin), which then may do what they always could. */
  readonly programs: 'run' | 'none';
}

/**
 * Leaves this thread, which is the one that does the work, with the capabilities named here out of those it has: to
 * administer networks, to use files of state whoever owns them, and, for a sandbox, to enter its namespace and to find it
 * behind the /proc of a process with other capabilities. Where no program is run the process can gain none by running one, be it
 * set-user-ID. What cannot be given up is kept: no verb fails for that.
 *
 * Source: capabilities(7), capset(2), PR_SET_NO_NEW_PRIVS in prctl(2).
 * Equivalent to: `setpriv --bounding-set -all,+net_admin,… --no-new-privs`, but for the bounding set, which programs start from.
 */
export function dropPrivileges({ sandbox, programs }: Needs): void {
  const kept = sandbox === 'enter' ? FOR_NETWORK | FOR_SANDBOX : FOR_NETWORK;
  const had = capget();
  if (had !== undefined) {
    capset({ ...had, effective: had.effective & kept, permitted: had.permitted & kept });
  }
  if (programs === 'none') prctl(PR_SET_NO_NEW_PRIVS, 1);
}

// include/uapi/linux/capability.h; all that we name are among the first 32.
const CAP_DAC_OVERRIDE = 1 << 1;
const CAP_FOWNER = 1 << 3;
const CAP_NET_ADMIN = 1 << 12;
const CAP_SYS_PTRACE = 1 << 19;
const CAP_SYS_ADMIN = 1 << 21;

const FOR_NETWORK = CAP_NET_ADMIN | CAP_DAC_OVERRIDE | CAP_FOWNER;
const FOR_SANDBOX = CAP_SYS_ADMIN | CAP_SYS_PTRACE;

/** include/uapi/linux/prctl.h */
const PR_SET_NO_NEW_PRIVS = 38;
