// The firewall plugin's STATUS: can containers be let through on this host now? Called by dispatch; changes nothing.
import { notAvailable } from '../../shared/cni/error.ts';
import type { StatusCall } from '../../shared/cni/plugin.ts';
import { tryFirewallTable } from '../../shared/ruleset/firewall.ts';
import { withRuleset } from '../../shared/ruleset/open.ts';
import { need } from './add.ts';
import type { FirewallConfig } from './config.ts';

/**
 * Returns when an ADD can be expected to work. Throws notAvailable (50) naming what is missing (CNI SPEC 1.1.0, section 2,
 * "STATUS").
 */
export function status(_call: StatusCall<FirewallConfig>): void {
  withRuleset(need(notAvailable), tryFirewallTable);
}
