// The bridge plugin's GC: removes what attachments of this network left behind, and nothing of any other network.
// Called by dispatch with the attachments to keep, or without a word about them.
import { hostLinkNameOf, networkHash, type Owner, ownerHash, ownerIn } from '../../shared/cni/attachment.ts';
import { Failures } from '../../shared/cni/failures.ts';
import type { GcCall } from '../../shared/cni/plugin.ts';
import { pause } from '../../shared/linux/clock.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import { openRtnetlink, type Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { findRuleset } from '../../shared/ruleset/open.ts';
import type { BridgeTeardown } from './config.ts';
import { type Kept, removeStaleIptablesMasquerade, removeStaleRules } from './rules.ts';
import { listVlanGateways, removeUnusedVlanGateway } from './vlan-gateway.ts';

/** An ADD of another network on the same bridge passes through this state in about a millisecond. */
const HALF_MADE_GRACE_MS = 100;

/**
 * With a list (an empty one included) everything of this network that is not on it goes; without one, only what
 * belongs to attachments whose host link is gone (CNI SPEC 1.1.0, section 2, "GC"). Goes on after a failure and
 * throws at the end.
 */
export function gc(call: GcCall<BridgeTeardown>): void {
  const { ipamType } = call.config;
  const failures = new Failures();
  failures.attempt('look at the links', () => collect(call, failures));
  if (ipamType !== undefined) {
    failures.attempt('collect the addresses', () => call.ipam.gc(ipamType));
  }
  failures.throwIfAny();
}

function collect(call: GcCall<BridgeTeardown>, failures: Failures): void {
  using nft = failures.attempt('look at the rules', findRuleset);
  using host = openRtnetlink(); // without it nothing is known to be stale
  const links = host.link.list({ kind: 'veth' }).map((link) => ({ link, owner: ownerOf(link) }));
  const own = links.filter(({ owner }) => owner?.networkHash === networkHash(call.network.name));
  const kept = planKept(
    call,
    host,
    own.flatMap(({ owner }) => owner?.ownerHash ?? []),
  );
  // Links before rules: while there is a link, what it may send stays checked.
  if (kept.valid !== undefined) {
    removeStaleLinks(call, host, { links, kept }, failures);
  }
  for (const where of listVlanGateways(
    call.config.bridge,
    links.map(({ link }) => link),
  )) {
    failures.attempt(`remove the gateway of VLAN ${where.vlan}`, () => removeUnusedVlanGateway(host, where));
  }
  failures.attempt('remove stale rules', () => removeStaleRules(nft, kept));
  failures.attempt('remove stale iptables chains', () => removeStaleIptablesMasquerade(nft, kept));
}

interface OwnedLink {
  readonly link: Link;
  readonly owner: Owner | undefined;
}

function removeStaleLinks(
  call: GcCall<BridgeTeardown>,
  host: Rtnetlink,
  { links, kept }: { links: readonly OwnedLink[]; kept: Kept },
  failures: Failures,
): void {
  const own = links.filter(({ owner }) => owner?.networkHash === networkHash(call.network.name));
  const stale = own.filter(({ owner }) => owner !== undefined && !kept.owners.has(owner.ownerHash));
  const doomed = [
    ...stale.map(({ link }) => link),
    ...halfMade(
      host,
      call,
      links.map(({ link }) => link),
      kept,
    ),
  ];
  for (const link of doomed) {
    failures.attempt(`delete link "${link.name}"`, () => host.link.remove({ index: link.index }));
  }
}

/** Valid is what the runtime says; when it says nothing, every attachment whose link is there. */
function planKept(
  { network, validAttachments }: GcCall<BridgeTeardown>,
  host: Rtnetlink,
  living: readonly string[],
): Kept {
  const listed = validAttachments?.map((key) => ownerHash({ network: network.name, ...key }));
  const isThere = (name: string) => host.link.find({ name }) !== undefined;
  return { network: network.name, owners: new Set(listed ?? living), valid: validAttachments, isThere };
}

function ownerOf(link: Link): Owner | undefined {
  return link.alias === undefined ? undefined : ownerIn(link.alias);
}

/**
 * Host ends of an ADD that was killed before it could name the owner: our kind of name, on our bridge, without an
 * alias and still down. Looked at twice, so that an ADD in progress is not taken for a dead one.
 */
function halfMade(host: Rtnetlink, call: GcCall<BridgeTeardown>, links: readonly Link[], kept: Kept): Link[] {
  const keptNames = new Set([...kept.owners].map(hostLinkNameOf));
  const bridge = host.link.find({ name: call.config.bridge });
  const isSuspect = (link: Link) =>
    /^veth[0-9a-f]{11}$/.test(link.name) &&
    link.master === bridge?.index &&
    !link.alias &&
    !link.isUp &&
    !keptNames.has(link.name);
  const suspects = bridge === undefined ? [] : links.filter(isSuspect);
  if (suspects.length === 0) {
    return [];
  }
  pause(HALF_MADE_GRACE_MS);
  return suspects.filter(({ index }) => {
    const link = host.link.find({ index });
    return link !== undefined && isSuspect(link);
  });
}
