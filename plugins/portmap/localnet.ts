// Published ports on 127.0.0.1: the kernel sends a packet from a loopback address out of a link only where it is told
// so. Called by ADD after the rules, whose guard keeps neighbours from using it to reach what listens on 127.0.0.1.
import { findLinkTowards } from '../../shared/host/links.ts';
import { isLoopback } from '../../shared/ip/cidr.ts';
import { ensureSysctl } from '../../shared/linux/sysctl.ts';
import { openRtnetlink, type Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { ensureLoopbackGuard } from '../../shared/ruleset/hostports.ts';
import { findRuleset } from '../../shared/ruleset/open.ts';
import type { PortmapConfig } from './config.ts';
import type { MappingPlan } from './plan.ts';

/**
 * Sets `route_localnet` on the one link that leads to the container, when one of its IPv4 ports is published on a
 * loopback address and comes back from there. A refusal is a line on stderr: all other addresses work without.
 * Equivalent to: `sysctl -w net.ipv4.conf.cni0.route_localnet=1`
 */
export function enableLocalnet(config: PortmapConfig, plan: MappingPlan, log: (line: string) => void): void {
  try {
    using host = openRtnetlink();
    const link = findLocalnetLink(config, host, plan);
    if (link === undefined) {
      return;
    }
    if (config.backend === 'iptables') {
      guardLoopback(log);
    }
    ensureSysctl(localnetSysctl(link), '1');
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log(`Published ports do not answer on 127.0.0.1: ${reason}`);
  }
}

/** The reference's rules have no guard, so it comes from our own table; where there is no nf_tables, the host is told. */
function guardLoopback(log: (line: string) => void): void {
  using nft = findRuleset();
  if (nft === undefined) {
    log(
      'Neighbours may reach services of this host that listen on 127.0.0.1 only: without nf_tables nothing guards them',
    );
    return;
  }
  ensureLoopbackGuard(nft);
}

/** The link that needs `route_localnet`, undefined when none does. */
export function findLocalnetLink(
  config: PortmapConfig,
  host: Rtnetlink,
  plan: MappingPlan,
): string | undefined {
  const isOnLoopback = plan.entries.some(
    ({ family, hostIp }) => family === 4 && (hostIp === undefined || isLoopback(hostIp)),
  );
  if (!config.snat || !isOnLoopback || plan.address4 === undefined) {
    return undefined;
  }
  return findLinkTowards(host, plan.address4.ip)?.name;
}

/** As a path below /proc/sys. */
export function localnetSysctl(link: string): string {
  return `net/ipv4/conf/${link}/route_localnet`;
}
