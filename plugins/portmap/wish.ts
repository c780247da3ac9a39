// What an attachment publishes, in the words of the ruleset: the plan of its ports joined with the config's options.
// Pure but for the look at the host's links; called by ADD and CHECK.
import { type Attachment, type HostLink, hostLinkName, type Owner } from '../../shared/cni/attachment.ts';
import type { Result } from '../../shared/cni/result.ts';
import type { Family } from '../../shared/ip/cidr.ts';
import { iifname, ip, ip6, type Statement } from '../../shared/nftables/statements.ts';
import type { Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
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

/**
 * The link on this host that lives as long as the attachment: ours by its name, or one that another plugin reported.
 * Without any, the attachment counts as living until its DEL.
 */
export function findHostLink(host: Rtnetlink, attachment: Attachment, prevResult: Result): HostLink {
  if (host.link.find({ name: hostLinkName(attachment) }) !== undefined) {
    return 'own';
  }
  const reported = (prevResult.interfaces ?? []).filter(({ sandbox }) => !sandbox);
  const veth = reported.find(({ name }) => host.link.find({ name })?.kind === 'veth');
  return veth === undefined ? 'unknown' : { name: veth.name };
}

/** Whether the attachment that a comment names is still there, as far as this host's links tell. */
export function isAlive(host: Rtnetlink, { hostLink }: Owner): boolean {
  return hostLink === undefined || host.link.find({ name: hostLink }) !== undefined;
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
