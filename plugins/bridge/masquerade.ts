// Masquerading as the bridge plugin asks for it: natively by default, in the reference's format when the config says so.
// Called by every verb; DEL and GC clean up after both, whatever the config says by then.
import { type Attachment, networkHash, ownerHash } from '../../shared/cni/attachment.ts';
import { kernelFeatureMissing, notAvailable } from '../../shared/cni/error.ts';
import type { AttachmentKey } from '../../shared/cni/network-config.ts';
import type { Rollback } from '../../shared/cni/rollback.ts';
import type { Cidr } from '../../shared/ip/cidr.ts';
import * as iptables from '../../shared/iptables/masquerade.ts';
import { planMasquerade } from '../../shared/iptables/masquerade-plan.ts';
import {
  hasReferenceMasquerade,
  planReferenceCleanup,
  planReferenceGc,
} from '../../shared/iptables/reference-nftables.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import { commitGuarded } from '../../shared/ruleset/commit.ts';
import * as native from '../../shared/ruleset/masquerade.ts';
import { findRuleset, type RulesetNeed, withRuleset } from '../../shared/ruleset/open.ts';
import type { BridgeConfig } from './config.ts';

/** Masquerades the addresses; the undo removes what this call made. Throws kernelFeatureMissing without nf_tables. */
export function masquerade(
  config: BridgeConfig,
  attachment: Attachment,
  addresses: readonly Cidr[],
  rollback: Rollback,
): void {
  if (addresses.length === 0) {
    return;
  }
  if (config.ipMasqBackend === 'iptables') {
    const owner = { network: attachment.network, containerId: attachment.containerId, addresses };
    rollback.add('remove the iptables rules', () => {
      using nft = findRuleset();
      iptables.removeMasquerade(nft, owner);
    });
    iptables.addMasquerade(planMasquerade(owner));
    return;
  }
  rollback.add('remove the masquerade elements', () => {
    using nft = findRuleset();
    removeMasquerade(nft, attachment);
  });
  withRuleset(need(kernelFeatureMissing), (nft) => native.addMasquerade(nft, attachment, addresses));
}

/** Removes our elements, and the rules the reference's nftables backend left for the attachment, in one batch. */
export function removeMasquerade(nft: Nftables | undefined, attachment: Attachment): void {
  if (nft === undefined) {
    return;
  }
  const owner = ownerHash(attachment);
  commitGuarded(nft, () => [
    ...native.planOwnerRemoval(nft, owner),
    ...planReferenceCleanup(nft, attachment),
  ]);
}

/** Removes the iptables chain of the container on this network; starts a program only where there is one. */
export function removeIptablesMasquerade(
  nft: Nftables | undefined,
  attachment: Attachment,
  addresses: readonly Cidr[] | undefined,
): void {
  iptables.removeMasquerade(nft, {
    network: attachment.network,
    containerId: attachment.containerId,
    addresses,
  });
}

/** What GC keeps of a network. */
export interface Kept {
  readonly network: string;
  /** Owners by hash. */
  readonly owners: ReadonlySet<string>;
  /** Undefined when the runtime said nothing: then what other plugins made is left alone, for it has no owner we know. */
  readonly valid: readonly AttachmentKey[] | undefined;
}

/** Removes the elements of all attachments of a network but those kept, and the reference's nftables rules likewise. */
export function removeStaleMasquerade(nft: Nftables | undefined, { network, owners, valid }: Kept): void {
  if (nft === undefined) {
    return;
  }
  const hash = networkHash(network);
  commitGuarded(nft, () => [
    ...native.planRemoval(nft, (owner) => owner.networkHash === hash && !owners.has(owner.ownerHash)),
    ...(valid === undefined ? [] : planReferenceGc(nft, { network, attachments: valid })),
  ]);
}

/** Removes the iptables chains of all containers of a network but the valid ones. */
export function removeStaleIptablesMasquerade(nft: Nftables | undefined, { network, valid }: Kept): void {
  if (valid !== undefined) {
    iptables.removeStaleMasquerade(nft, {
      network,
      containerIds: valid.map(({ containerId }) => containerId),
    });
  }
}

/**
 * Throws checkFailed unless each address is masqueraded: by our elements, or, for an attachment that the reference
 * made before an upgrade, by its rules.
 */
export function expectMasquerade(
  config: BridgeConfig,
  attachment: Attachment,
  addresses: readonly Cidr[],
): void {
  if (addresses.length === 0) {
    return;
  }
  const plan = planMasquerade({
    network: attachment.network,
    containerId: attachment.containerId,
    addresses,
  });
  if (config.ipMasqBackend === 'iptables') {
    iptables.expectMasquerade(plan);
    return;
  }
  withRuleset(need(kernelFeatureMissing), (nft) => {
    try {
      native.expectMasquerade(nft, attachment, addresses);
    } catch (error) {
      if (!hasReferenceMasquerade(nft, attachment, addresses) && !iptables.hasMasquerade(nft, plan)) {
        throw error;
      }
    }
  });
}

/** Throws notAvailable (50) when the backend of the config cannot be used on this host. */
export function expectMasqueradeUsable(config: BridgeConfig): void {
  if (config.ipMasqBackend === 'iptables') {
    iptables.expectPrograms();
    return;
  }
  withRuleset(need(notAvailable), (nft) => native.tryMasquerade(nft));
}

function need(fail: RulesetNeed['fail']): RulesetNeed {
  return { fail, need: 'Field "ipMasq"', alternative: '"ipMasqBackend" to "iptables"' };
}
