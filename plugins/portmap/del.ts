// The portmap plugin's DEL: finds what the attachment published by its owner, whatever the config says by now.
// Called by dispatch, often without netns, prevResult or portMappings.
import { type Attachment, ownerHash } from '../../shared/cni/attachment.ts';
import { Failures } from '../../shared/cni/failures.ts';
import type { DelCall } from '../../shared/cni/plugin.ts';
import type { Result } from '../../shared/cni/result.ts';
import { readableAddresses } from '../../shared/host/addresses.ts';
import type { Cidr } from '../../shared/ip/cidr.ts';
import { planReferenceHostportsCleanup } from '../../shared/iptables/reference-hostports.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import { commitGuarded, type When } from '../../shared/ruleset/commit.ts';
import { planHostportsRemoval } from '../../shared/ruleset/hostports.ts';
import { findRuleset } from '../../shared/ruleset/open.ts';
import type { PortmapTeardown } from './config.ts';
import { type FlowScope, forgetRemoved } from './flows.ts';
import { removeIptablesPorts } from './iptables.ts';

/**
 * Removes all published ports of the attachment in both backends, made by us or by the reference plugin, and the UDP
 * flows that still lead there (CNI SPEC 1.1.0, section 2, "DEL"). Throws the first failure after trying everything.
 */
export function del(call: DelCall<PortmapTeardown>): void {
  const { attachment, log } = call;
  const failures = new Failures();
  using nft = failures.attempt('look at the rules', findRuleset);
  const forget = (removed: FlowScope['ports']) => forgetRemoved(removed, log);
  failures.attempt('remove the published ports', () => {
    if (nft !== undefined) removeHeld(nft, attachment, call.network.prevResult, { afterwards: forget });
  });
  failures.attempt('remove the iptables rules', () => forget(removeIptablesPorts(nft, attachment)));
  failures.throwIfAny();
}

/** The undo of ADD: the native part alone. */
export function removePorts(attachment: Attachment): void {
  using nft = findRuleset();
  if (nft !== undefined) {
    removeHeld(nft, attachment, undefined, { when: 'undo' });
  }
}

function removeHeld(
  nft: Nftables,
  attachment: Attachment,
  prevResult: Result | undefined,
  { when, afterwards }: { readonly when?: When; readonly afterwards?: (removed: FlowScope['ports']) => void },
): void {
  const hash = ownerHash(attachment);
  let removed: FlowScope['ports'] = [];
  const plan = (nft: Nftables) => {
    const own = planHostportsRemoval(nft, ({ ownerHash }) => ownerHash === hash, { commentPrefix: hash });
    removed = own.removed;
    return [...own.commands, ...planReferenceHostportsCleanup(nft, attachment, addressesIn(prevResult))];
  };
  commitGuarded(nft, plan, { ...(when && { when }), afterwards: () => afterwards?.(removed) });
}

/** The reference's rules name the container alone, so its addresses on this network help where they are known. */
export function addressesIn(prevResult: Result | undefined): Cidr[] | undefined {
  const addresses = readableAddresses(prevResult);
  return addresses.length === 0 ? undefined : addresses;
}
