// Per-link sysctls that make an attachment better but must never make it fail: a host may mount /proc/sys read-only
// or be booted without IPv6. Called by the bridge plugin for links of the host and of the sandbox.

import { hasCode, toCniError } from '../../shared/cni/error.ts';
import { ensureSysctl, setSysctl } from '../../shared/linux/sysctl.ts';

type Family = 'ipv4' | 'ipv6';

/**
 * Writes `net.<family>.conf.<link>.<key>` where it differs. A missing key (no IPv6) is silent, any other refusal is
 * one line on stderr.
 */
export function ensureLinkSysctl(
  family: Family,
  link: string,
  key: string,
  value: string,
  log: (line: string) => void,
): void {
  attempt(ensureSysctl, `net/${family}/conf/${link}/${key}`, value, log);
}

/** The same for a link that was just born, whose settings are the kernel's own: saves the look. */
export function setLinkSysctl(
  family: Family,
  link: string,
  key: string,
  value: string,
  log: (line: string) => void,
): void {
  attempt(setSysctl, `net/${family}/conf/${link}/${key}`, value, log);
}

function attempt(
  write: (name: string, value: string) => void,
  name: string,
  value: string,
  log: (line: string) => void,
): void {
  try {
    write(name, value);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) {
      log(describeRefusal(error));
    }
  }
}

/** The line about a sysctl that is not what it should be: which one, its value, and why. */
export function describeRefusal(error: unknown): string {
  const { message } = toCniError(error);
  return error instanceof Error && error.cause instanceof Error
    ? `${message}: ${error.cause.message}`
    : message;
}
