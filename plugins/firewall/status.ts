// The firewall plugin's STATUS: can containers be let through on this host now? Called by dispatch; changes nothing.
import { networkHash } from '../../shared/cni/attachment.ts';
import { notAvailable } from '../../shared/cni/error.ts';
import type { StatusCall } from '../../shared/cni/plugin.ts';
import { expectFirewalld, isFirewalldTable } from '../../shared/firewalld/zone.ts';
import { isWritable } from '../../shared/iptables/forward.ts';
import { expectPrograms } from '../../shared/iptables/masquerade.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import type { ChainRef } from '../../shared/nftables/objects.ts';
import { findAdmitted, tryFirewallTable } from '../../shared/ruleset/firewall.ts';
import { explainObstacle, findClosedChains, findObstacles } from '../../shared/ruleset/forward-path.ts';
import { withRuleset } from '../../shared/ruleset/open.ts';
import { need } from './add.ts';
import type { FirewallConfig } from './config.ts';
import { isIptablesForward } from './elsewhere.ts';

/**
 * Returns when an ADD can be expected to work. Throws notAvailable (50) naming what is missing (CNI SPEC 1.1.0, section 2,
 * "STATUS"). A chain of others that would drop the packets, and that ADD can do nothing about, is a line on stderr, or an
 * error with `strictStatus`.
 */
export function status({ config, network, log }: StatusCall<FirewallConfig>): void {
  if (config.backend === 'iptables') {
    expectPrograms();
    return;
  }
  if (config.backend === 'firewalld') {
    expectFirewalld();
  }
  withRuleset(need(notAvailable), (nft) => {
    tryFirewallTable(nft);
    const warnings = findWarnings(nft, config, network.name);
    if (config.strictStatus && warnings[0] !== undefined) {
      throw notAvailable(warnings[0], { details: warnings.join('; ') });
    }
    for (const line of warnings) {
      log(line);
    }
  });
}

/** Judged by a container of the network where there is one, else by what is known without any. */
function findWarnings(nft: Nftables, config: FirewallConfig, network: string): string[] {
  const hash = networkHash(network);
  const [example] = findAdmitted(nft, (owner) => owner.networkHash === hash, { limit: EXAMPLES });
  const chains =
    example === undefined
      ? findClosedChains(nft)
      : findObstacles(nft, { bridge: example.bridge, addresses: [example.address] }).map(
          ({ chain }) => chain,
        );
  const helpless = chains.filter((chain) => !isHandledByAdd(chain, config));
  return [...new Set(helpless.map((chain) => explainObstacle(chain, example?.bridge)))];
}

/** Elements of this network are looked for among so many of all. */
const EXAMPLES = 64;

function isHandledByAdd(chain: ChainRef, { backend }: FirewallConfig): boolean {
  if (backend === 'auto' && isIptablesForward(chain)) {
    const family = chain.table.family === 'ip6' ? 6 : 4;
    return isWritable({ name: 'filter', family, flavour: 'nft' });
  }
  return isFirewalldTable(chain.table) && (backend === 'firewalld' || (backend === 'auto' && isAnswering()));
}

function isAnswering(): boolean {
  try {
    expectFirewalld();
    return true;
  } catch {
    return false;
  }
}
