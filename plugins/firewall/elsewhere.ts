// What a container needs in tables that are not ours: rules in the chain FORWARD of iptables, a zone of firewalld, or the
// administrator's own hand. Planned from a look over netlink; ADD carries it out, CHECK compares with it.
import { ownerComment } from '../../shared/cni/attachment.ts';
import { checkFailed } from '../../shared/cni/error.ts';
import { addSource, expectFirewalld, isFirewalldTable, querySource } from '../../shared/firewalld/zone.ts';
import { formatIp, type Ip } from '../../shared/ip/cidr.ts';
import {
  addForward,
  defaultTables,
  expectForward,
  type ForwardWish,
  findLegacyDrops,
  isWritable,
} from '../../shared/iptables/forward.ts';
import type { IptablesTable } from '../../shared/iptables/programs.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import type { ChainRef } from '../../shared/nftables/objects.ts';
import type { FirewallWish } from '../../shared/ruleset/firewall.ts';
import { explainObstacle, findObstacles, type Obstacle } from '../../shared/ruleset/forward-path.ts';
import type { FirewallConfig } from './config.ts';

/** What has to be done outside of our table for one attachment. */
export interface Elsewhere {
  /** What iptables has to say, and the tables in which. */
  readonly forward: ForwardWish;
  readonly tables: readonly IptablesTable[];
  /** Addresses for the zone of firewalld. */
  readonly sources: readonly Ip[];
  /** A line for each chain that drops the packets and that nothing is done about. */
  readonly warnings: readonly string[];
}

/**
 * Decides by the backend of the config and by what drops the container's packets on this host. Starts a program only
 * where firewalld's table or a legacy one of iptables is there.
 */
export function planElsewhere(
  nft: Nftables | undefined,
  config: FirewallConfig,
  scope: FirewallWish,
): Elsewhere {
  const obstacles = nft === undefined ? [] : findObstacles(nft, scope);
  const plan = config.backend === 'auto' ? planAround(obstacles, scope, config) : planAsTold(scope, config);
  const isHandled = ({ chain, family }: Obstacle) =>
    (isIptablesForward(chain) && plan.tables.some((table) => table.family === family)) ||
    (isFirewalldTable(chain.table) && plan.sources.some((ip) => ip.family === family));
  const left = obstacles.filter((obstacle) => !isHandled(obstacle)).map(({ chain }) => chain);
  const warnings = new Set(left.map((chain) => explainObstacle(chain, scope.bridge)));
  return { ...plan, warnings: [...warnings] };
}

/** Whether the plan has anything to do. */
export function isElsewhere({ tables, sources }: Elsewhere): boolean {
  return tables.length > 0 || sources.length > 0;
}

/** Carries the plan out. Throws what iptables or firewalld refuse. */
export function goElsewhere(nft: Nftables | undefined, plan: Elsewhere, zone: string): void {
  addForward(nft, plan.forward, plan.tables);
  for (const ip of plan.sources) {
    addSource(zone, ip);
  }
}

/** Throws checkFailed naming what is missing of the plan. After an ADD that no backend was told there is no plan left. */
export function expectElsewhere(config: FirewallConfig, plan: Elsewhere): void {
  expectForward(plan.forward, plan.tables);
  const hidden = config.backend === 'auto' ? plan.tables.find(({ flavour }) => flavour === 'nft') : undefined;
  if (hidden !== undefined) {
    throw checkFailed(
      `Chain "FORWARD" of table filter of IPv${hidden.family} drops the packets before "CNI-FORWARD" accepts them; DEL and ADD again, or look for a rule above the jump there`,
    );
  }
  for (const ip of plan.sources) {
    if (!querySource(config.zone, ip)) {
      throw checkFailed(`Address "${formatIp(ip)}" is not in zone "${config.zone}" of firewalld`);
    }
  }
}

/** Whether a chain is iptables' own on the forward hook. */
export function isIptablesForward({ table, name }: ChainRef): boolean {
  return (table.family === 'ip' || table.family === 'ip6') && table.name === 'filter' && name === 'FORWARD';
}

type Plan = Omit<Elsewhere, 'warnings'>;

/** Nothing but what is in the way, and only what can be done: the rest is for the administrator. */
function planAround(obstacles: readonly Obstacle[], scope: FirewallWish, config: FirewallConfig): Plan {
  const { addresses, attachment, link } = scope;
  const inNftables = obstacles
    .filter(({ chain }) => isIptablesForward(chain))
    .map(({ family }): IptablesTable => ({ name: 'filter', family, flavour: 'nft' }));
  const zoned = obstacles.filter(({ chain }) => isFirewalldTable(chain.table)).map(({ family }) => family);
  const isReachable = zoned.length > 0 && answers(expectFirewalld);
  return {
    forward: {
      addresses,
      adminChain: config.adminChain,
      publishedComment: ownerComment(attachment, link),
    },
    tables: [...inNftables, ...findLegacyDrops(addresses)].filter(isWritable),
    sources: isReachable ? addresses.filter(({ family }) => zoned.includes(family)) : [],
  };
}

/** As the reference does it, byte for byte. */
function planAsTold(
  { addresses, bridge, policy }: FirewallWish,
  { backend, adminChain }: FirewallConfig,
): Plan {
  const forward = { addresses, adminChain, ingress: { bridge, policy } };
  return {
    forward,
    tables: backend === 'iptables' ? defaultTables(forward) : [],
    sources: backend === 'firewalld' ? addresses : [],
  };
}

function answers(question: () => void): boolean {
  try {
    question();
    return true;
  } catch {
    return false;
  }
}
