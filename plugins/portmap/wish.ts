// What an attachment publishes, in the words of the ruleset: the plan of its ports joined with the config's options.
// Pure; called by ADD and CHECK.
import type { Attachment, HostLink } from '../../shared/cni/attachment.ts';
import type { Family } from '../../shared/ip/cidr.ts';
import { iifname, ip, ip6, type Statement } from '../../shared/nftables/statements.ts';
import type { PortsWish } from '../../shared/ruleset/hostports.ts';
import type { Condition, ConditionList } from './conditions.ts';
import type { PortmapConfig } from './config.ts';
import type { MappingPlan } from './plan.ts';

/** The plan as map elements and rules; pure. */
export function planWish(
  config: PortmapConfig,
  attachment: Attachment,
  link: HostLink,
  plan: MappingPlan,
): PortsWish {
  const published = new Set(plan.entries.map(({ family }) => family));
  const addresses = [plan.address4, plan.address6].flatMap((address) =>
    address !== undefined && published.has(address.ip.family) ? [address] : [],
  );
  const from = config.masqAll ? 'anywhere' : 'subnet';
  return {
    attachment,
    link,
    ports: plan.entries.map(({ protocol, hostIp, hostPort, target, containerPort }) => ({
      protocol,
      hostIp,
      hostPort,
      target,
      targetPort: containerPort,
    })),
    hairpins: config.snat ? addresses.map((address) => ({ address, from })) : [],
    conditions: { 4: planConditions(config.conditions4, 4), 6: planConditions(config.conditions6, 6) },
  };
}

function planConditions(alternatives: readonly ConditionList[], family: Family): Statement[][] {
  return alternatives.map((list) => list.map((condition) => planCondition(condition, family)));
}

function planCondition(condition: Condition, family: Family): Statement {
  if (condition.kind === 'iifname') {
    return condition.isPrefix
      ? iifname.startsWith(condition.name, { negated: condition.negated })
      : condition.negated
        ? iifname.isNot(condition.name)
        : iifname.is(condition.name);
  }
  const field = (family === 4 ? ip : ip6)[condition.kind];
  return condition.negated ? field.isNot(condition.cidr) : field.is(condition.cidr);
}
