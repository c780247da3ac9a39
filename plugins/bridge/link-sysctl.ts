// Per-link sysctls that make an attachment better but must never make it fail: a host may mount /proc/sys read-only
// or be booted without IPv6. Called by the bridge plugin for links of the host and of the sandbox.

import { hasCode } from '../../shared/cni/error.ts';
import { ensureSysctl } from '../../shared/linux/sysctl.ts';

/**
 * Writes `net.<family>.conf.<link>.<key>` where it differs. A missing key (no IPv6) is silent, any other refusal is
 * one line on stderr.
 */
export function ensureLinkSysctl(
  family: 'ipv4' | 'ipv6',
  link: string,
  key: string,
  value: string,
  log: (line: string) => void,
): void {
  const name = `net/${family}/conf/${link}/${key}`;
  try {
    ensureSysctl(name, value);
  } catch (error) {
    if (!hasCode(error, 'ENOENT')) {
      log(
        `Cannot set sysctl "${name}" to ${value}: ${error instanceof Error ? error.message : String(error)}`,
      );
    }
  }
}
