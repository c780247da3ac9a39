// What an attachment publishes, in the words of the ruleset: the plan of its ports joined with the config's options.
// Pure; called by ADD and CHECK.
import type { Attachment, HostLink } from '../../shared/cni/attachment.ts';
import type { PortsWish } from '../../shared/ruleset/hostports.ts';
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
    ports: plan.entries.map(({ family, protocol, hostIp, hostPort, target, containerPort }) => ({
      family,
      protocol,
      hostIp,
      hostPort,
      target,
      targetPort: containerPort,
    })),
    hairpins: config.snat ? addresses.map((address) => ({ address, from })) : [],
    conditions: { 4: config.conditions4, 6: config.conditions6 },
  };
}
