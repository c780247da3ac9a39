// The portmap plugin's STATUS: can ports be published on this host now? Called by dispatch; changes nothing.
import { notAvailable } from '../../shared/cni/error.ts';
import type { StatusCall } from '../../shared/cni/plugin.ts';
import { tryHostportsTable } from '../../shared/ruleset/hostports.ts';
import { withRuleset } from '../../shared/ruleset/open.ts';
import { need } from './add.ts';
import type { PortmapConfig } from './config.ts';
import { expectIptablesUsable } from './iptables.ts';

/**
 * Returns when an ADD can be expected to work. Throws notAvailable (50) naming what is missing: nf_tables itself, NAT in
 * the inet family, or the iptables programs when the config wants those (CNI SPEC 1.1.0, section 2, "STATUS").
 */
export function status({ config }: StatusCall<PortmapConfig>): void {
  if (config.backend === 'iptables') {
    expectIptablesUsable();
    return;
  }
  withRuleset(need(notAvailable), tryHostportsTable);
}
