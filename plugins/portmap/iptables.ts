// The portmap plugin's view of the reference's iptables format: what the config asks for, in that format's words.
// Called by every verb; DEL and GC clean up after it whatever the config says by then.
import type { Attachment } from '../../shared/cni/attachment.ts';
import type { AttachmentKey } from '../../shared/cni/network-config.ts';
import * as format from '../../shared/iptables/hostports.ts';
import { type HostportsPlan, planHostports, type SavedPort } from '../../shared/iptables/hostports-plan.ts';
import { expectPrograms } from '../../shared/iptables/masquerade.ts';
import { hasReferenceHostports } from '../../shared/iptables/reference-hostports.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import type { PortmapConfig } from './config.ts';
import type { MappingPlan, PlannedPort } from './plan.ts';
import type { PortMapping } from './port-mapping.ts';

/** Publishes the ports by one iptables-restore a family. */
export function addIptablesPorts(config: PortmapConfig, attachment: Attachment, plan: MappingPlan): void {
  format.addHostports(planFormat(config, attachment, plan));
}

/** Throws checkFailed naming what is missing. */
export function expectIptablesPorts(config: PortmapConfig, attachment: Attachment, plan: MappingPlan): void {
  format.expectHostports(planFormat(config, attachment, plan));
}

/** Whether the reference plugin publishes the ports, through either backend: an attachment from before an upgrade. */
export function hasReferencePorts(
  nft: Nftables,
  config: PortmapConfig,
  attachment: Attachment,
  plan: MappingPlan,
): boolean {
  return hasReferenceHostports(nft, planFormat(config, attachment, plan));
}

/** Removes the chain of the container on this network and returns its ports; starts a program only where there is one. */
export function removeIptablesPorts(
  nft: Nftables | undefined,
  { network, containerId }: Attachment,
): readonly SavedPort[] {
  return format.removeHostports(nft, { network, containerId });
}

/** Removes the chains of all containers of a network but the valid ones and returns their ports. */
export function removeStaleIptablesPorts(
  nft: Nftables | undefined,
  network: string,
  valid: readonly AttachmentKey[],
): readonly SavedPort[] {
  return format.removeStaleHostports(nft, {
    network,
    containerIds: valid.map(({ containerId }) => containerId),
  });
}

/** Throws notAvailable (50) naming the first program that is missing. */
export function expectIptablesUsable(): void {
  expectPrograms();
}

function planFormat(config: PortmapConfig, attachment: Attachment, plan: MappingPlan): HostportsPlan {
  const addresses = [plan.address4, plan.address6].filter((address) => address !== undefined);
  return planHostports({
    network: attachment.network,
    containerId: attachment.containerId,
    addresses,
    // Both families in one: the format's jump names every port of the attachment, whatever family it leads to.
    mappings: config.mappings.filter((mapping) => plan.entries.some((entry) => isPartOf(entry, mapping))),
    snat: config.snat,
    masqAll: config.masqAll,
    markMasqBit: config.markMasqBit,
    externalSetMarkChain: config.externalSetMarkChain,
    conditions4: config.conditions4,
    conditions6: config.conditions6,
  });
}

/** What the plan has skipped makes no rule. */
function isPartOf(entry: PlannedPort, { protocol, hostPort, hostIp }: PortMapping): boolean {
  return entry.protocol === protocol && entry.hostPort === hostPort && entry.hostIp === hostIp;
}
