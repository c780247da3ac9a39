// The rules of an attachment as the config asks for them: masquerading, in our tables or in the reference's format, and
// what its port may send. Called by every verb; DEL and GC clean up after all of it, whatever the config says by then.
import { type Attachment, networkHash, type Owner, ownerHash } from '../../shared/cni/attachment.ts';
import { kernelFeatureMissing, notAvailable } from '../../shared/cni/error.ts';
import type { AttachmentKey } from '../../shared/cni/network-config.ts';
import type { Rollback } from '../../shared/cni/rollback.ts';
import type { Cidr } from '../../shared/ip/cidr.ts';
import * as iptables from '../../shared/iptables/masquerade.ts';
import { planMasquerade } from '../../shared/iptables/masquerade-plan.ts';
import {
  hasReferenceMacSpoof,
  planReferenceMacSpoofCleanup,
  planReferenceMacSpoofGc,
} from '../../shared/iptables/reference-macspoof.ts';
import {
  hasReferenceMasquerade,
  planReferenceCleanup,
  planReferenceGc,
} from '../../shared/iptables/reference-nftables.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import { commitGuarded } from '../../shared/ruleset/commit.ts';
import * as native from '../../shared/ruleset/masquerade.ts';
import { findRuleset, type RulesetNeed, withRuleset } from '../../shared/ruleset/open.ts';
import * as spoofing from '../../shared/ruleset/spoof-check.ts';
import type { BridgeConfig } from './config.ts';
import type { Addressing } from './plan.ts';

/** What an attachment needs rules for. */
export interface RulesWish {
  /** Addresses whose traffic leaves under the host's address. */
  readonly masqueraded: readonly Cidr[];
  /** What its port may send; undefined for everything. */
  readonly spoofCheck: spoofing.SpoofCheck | undefined;
}

/** Decides from the config, the addresses leased, and the MAC of the sandbox link. Pure. */
export function planRules(config: BridgeConfig, plan: Addressing, mac: string): RulesWish {
  const ips = config.ipSpoofCheck ? plan.addresses.map(({ address }) => address.ip) : undefined;
  const isChecked = config.macSpoofCheck || config.ipSpoofCheck;
  return { masqueraded: plan.masqueraded, spoofCheck: isChecked ? { mac, ips } : undefined };
}

/**
 * Masquerades and checks, in one batch where both are native; the undo removes what this call made.
 * Throws kernelFeatureMissing without nf_tables.
 */
export function installRules(
  config: BridgeConfig,
  attachment: Attachment,
  { masqueraded, spoofCheck }: RulesWish,
  rollback: Rollback,
): void {
  const isNative = config.ipMasqBackend === 'nftables';
  if (masqueraded.length > 0 && !isNative) {
    installIptables(attachment, masqueraded, rollback);
  }
  const addresses = isNative ? masqueraded : [];
  if (addresses.length === 0 && spoofCheck === undefined) {
    return;
  }
  rollback.add('remove the rules', () => {
    using nft = findRuleset();
    removeRules(nft, attachment, 'undo');
  });
  const plan = (nft: Nftables) => [
    ...(spoofCheck === undefined ? [] : spoofing.planSpoofCheck(nft, attachment, spoofCheck)),
    ...(addresses.length === 0 ? [] : native.planMasqueradeAddition(nft, attachment, addresses)),
  ];
  // A port that is to be checked comes up next.
  const when = spoofCheck === undefined ? 'together' : 'now';
  withRuleset(need(config, kernelFeatureMissing), (nft) => commitGuarded(nft, plan, { when }));
}

function installIptables(attachment: Attachment, addresses: readonly Cidr[], rollback: Rollback): void {
  const owner = { network: attachment.network, containerId: attachment.containerId, addresses };
  rollback.add('remove the iptables rules', () => {
    using nft = findRuleset();
    iptables.removeMasquerade(nft, owner);
  });
  iptables.addMasquerade(planMasquerade(owner));
}

/**
 * Removes our elements, and what the reference's nftables rules left for the attachment, in one batch. At once, for the
 * link goes next, and then the addresses.
 */
export function removeRules(
  nft: Nftables | undefined,
  attachment: Attachment,
  when: 'now' | 'undo' = 'now',
): void {
  if (nft === undefined) {
    return;
  }
  const owner = ownerHash(attachment);
  const plan = (nft: Nftables) => [
    ...native.planOwnerRemoval(nft, owner),
    ...spoofing.planSpoofRemoval(nft, attachment),
    ...planReferenceCleanup(nft, attachment),
    ...planReferenceMacSpoofCleanup(nft, attachment),
  ];
  commitGuarded(nft, plan, { when });
}

/** Whether the port of the attachment is checked: then it must not send once its rules are gone. */
export function isPortChecked(nft: Nftables | undefined, attachment: Attachment): boolean {
  return nft !== undefined && spoofing.hasSpoofCheck(nft, attachment);
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
  /** Whether there is a link of that name on the host. */
  readonly isThere: (link: string) => boolean;
}

/** Removes the elements of all attachments of a network but those kept, and the reference's nftables rules likewise. */
export function removeStaleRules(nft: Nftables | undefined, { network, owners, valid, isThere }: Kept): void {
  if (nft === undefined) {
    return;
  }
  const hash = networkHash(network);
  const isStale = (owner: Owner) => owner.networkHash === hash && !owners.has(owner.ownerHash);
  commitGuarded(nft, (nft) => [
    ...native.planRemoval(nft, isStale),
    ...spoofing.planStaleSpoofRemoval(nft, isStale),
    ...(valid === undefined ? [] : planReferenceGc(nft, { network, attachments: valid })),
    ...planReferenceMacSpoofGc(nft, isThere),
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
 * Throws checkFailed unless each address is masqueraded and the port is checked: by our elements, or, for an attachment
 * that the reference made before an upgrade, by its rules. `hostLink` is the name of the host end.
 */
export function expectInstalled(
  config: BridgeConfig,
  attachment: Attachment,
  { masqueraded, spoofCheck }: RulesWish,
  hostLink: string,
): void {
  if (masqueraded.length > 0) {
    expectMasquerade(config, attachment, masqueraded);
  }
  if (spoofCheck !== undefined) {
    withRuleset(need(config, kernelFeatureMissing), (nft) => {
      expectSpoofCheck(nft, attachment, spoofCheck, hostLink);
    });
  }
}

function expectMasquerade(config: BridgeConfig, attachment: Attachment, addresses: readonly Cidr[]): void {
  const plan = planMasquerade({
    network: attachment.network,
    containerId: attachment.containerId,
    addresses,
  });
  if (config.ipMasqBackend === 'iptables') {
    iptables.expectMasquerade(plan);
    return;
  }
  withRuleset(need(config, kernelFeatureMissing), (nft) => {
    try {
      native.expectMasquerade(nft, attachment, addresses);
    } catch (error) {
      if (!hasReferenceMasquerade(nft, attachment, addresses) && !iptables.hasMasquerade(nft, plan)) {
        throw error;
      }
    }
  });
}

/** The reference checks no addresses, so its rules are enough only where none are to be checked. */
function expectSpoofCheck(
  nft: Nftables,
  attachment: Attachment,
  check: spoofing.SpoofCheck,
  hostLink: string,
): void {
  try {
    spoofing.expectSpoofCheck(nft, attachment, check);
  } catch (error) {
    const isReference = hasReferenceMacSpoof(nft, attachment, { link: hostLink, mac: check.mac });
    if (check.ips !== undefined || !isReference) {
      throw error;
    }
  }
}

/** Throws notAvailable (50) when what the config asks for cannot be used on this host. */
export function expectRulesUsable(config: BridgeConfig): void {
  if (config.ipMasq && config.ipMasqBackend === 'iptables') {
    iptables.expectPrograms();
  }
  const isNative = config.ipMasq && config.ipMasqBackend === 'nftables';
  const isChecked = config.macSpoofCheck || config.ipSpoofCheck;
  if (!isNative && !isChecked) {
    return;
  }
  withRuleset(need(config, notAvailable), (nft) => {
    if (isNative) {
      native.tryMasquerade(nft);
    }
    if (isChecked) {
      spoofing.trySpoofTable(nft);
    }
  });
}

function need(config: BridgeConfig, fail: RulesetNeed['fail']): RulesetNeed {
  if (config.ipSpoofCheck || config.macSpoofCheck) {
    const field = config.ipSpoofCheck ? 'ipspoofchk' : 'macspoofchk';
    const what = 'nf_tables for bridges';
    return { fail, need: `Field "${field}"`, what, alternative: `"${field}" to false` };
  }
  return { fail, need: 'Field "ipMasq"', alternative: '"ipMasqBackend" to "iptables"' };
}
