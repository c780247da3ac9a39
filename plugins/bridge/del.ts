// The bridge plugin's DEL: converges whatever is missing, and reports only at the end what it could not do.
// Called by dispatch; the owner's name and comments find everything, so netns and prevResult may be absent or wrong.
import { hostLinkName, ownerHash, ownerIn } from '../../shared/cni/attachment.ts';
import { Failures } from '../../shared/cni/failures.ts';
import type { DelCall } from '../../shared/cni/plugin.ts';
import { type Cidr, parseCidr } from '../../shared/ip/cidr.ts';
import { findNetns } from '../../shared/linux/netns.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import { openRtnetlink, type Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { findRuleset } from '../../shared/ruleset/open.ts';
import type { BridgeTeardown } from './config.ts';
import { isPortChecked, removeIptablesMasquerade, removeRules } from './rules.ts';
import { removeUnusedVlanGateway } from './vlan-gateway.ts';

/**
 * Removes rules, link and addresses of the attachment, in this order: an address is released only once nothing uses it
 * any more (CNI SPEC 1.1.0, section 2, "DEL"). Throws the first failure after trying everything.
 */
export function del(call: DelCall<BridgeTeardown>): void {
  const { ipamType } = call.config;
  const failures = new Failures();
  const { isLinkGone } = detach(call, failures);
  if (ipamType !== undefined && isLinkGone) {
    failures.attempt('release the addresses', () => call.ipam.del(ipamType));
  }
  failures.throwIfAny();
}

/**
 * Rules, then link: what is masqueraded no more has no link to come from soon after. A port that is checked is silenced
 * first, since the sandbox may still be alive, and would have it to itself meanwhile.
 */
function detach(call: DelCall<BridgeTeardown>, failures: Failures): { isLinkGone: boolean } {
  let isLinkGone = false;
  using nft = failures.attempt('look at the rules', findRuleset);
  using host = failures.attempt('look at the links', openRtnetlink);
  failures.attempt('silence the port', () => silenceCheckedPort(host, nft, call));
  failures.attempt('remove the rules', () => removeRules(nft, call.attachment));
  failures.attempt('remove the iptables rules', () =>
    removeIptablesMasquerade(nft, call.attachment, reportedAddresses(call)),
  );
  if (host !== undefined) {
    failures.attempt('delete the link', () => {
      removeLink(host, call);
      isLinkGone = true;
    });
    failures.attempt('remove the gateway of the VLAN', () => removeVlanGateway(host, call));
  }
  return { isLinkGone };
}

/** The gateway of a VLAN goes with the last port in it. */
function removeVlanGateway(host: Rtnetlink, { config: { bridge, vlan } }: DelCall<BridgeTeardown>): void {
  if (vlan !== undefined) {
    removeUnusedVlanGateway(host, { bridge, vlan });
  }
}

/** Equivalent to: `ip link set vethX down` */
function silenceCheckedPort(
  host: Rtnetlink | undefined,
  nft: Nftables | undefined,
  { attachment }: DelCall<BridgeTeardown>,
): void {
  const port = isPortChecked(nft, attachment)
    ? host?.link.find({ name: hostLinkName(attachment) })
    : undefined;
  if (port?.kind === 'veth') {
    host?.link.set(port.index, { up: false });
  }
}

/**
 * The iptables format does not tell the attachments of one container apart, so the addresses help where they are known.
 * Those of a result that is another attachment's would make us leave our own rules.
 */
function reportedAddresses({ network, attachment, netns }: DelCall<BridgeTeardown>): Cidr[] | undefined {
  const { interfaces = [], ips = [] } = network.prevResult ?? {};
  const index = interfaces.findIndex(({ name, sandbox }) => name === attachment.ifname && sandbox);
  const ours = interfaces.filter(({ name, sandbox }) => !sandbox && HOST_LINK.test(name));
  const isOwn =
    ours.length > 0
      ? ours.some(({ name }) => name === hostLinkName(attachment))
      : !netns || netns === interfaces[index]?.sandbox;
  const own = ips
    .filter((ip) => isOwn && ip.interface === index)
    .flatMap(({ address }) => tryParseCidr(address) ?? []);
  return own.length === 0 ? undefined : own;
}

/** The names that hostLinkName gives; the reference's are shorter. */
const HOST_LINK = /^veth[0-9a-f]{11}$/;

/** A prevResult may come from anybody; what is no address in it is no address of ours. */
function tryParseCidr(text: string): Cidr | undefined {
  try {
    return parseCidr(text);
  } catch {
    return undefined;
  }
}

/** Deleting one end deletes both. Equivalent to: `ip link del vethX` */
function removeLink(host: Rtnetlink, call: DelCall<BridgeTeardown>): void {
  const ours = host.link.find({ name: hostLinkName(call.attachment) });
  if (ours?.kind === 'veth') {
    host.link.remove({ index: ours.index });
  } else {
    removeAdoptedLink(host, call);
  }
}

/**
 * An attachment made by other plugins (an upgrade in place) has a host end of any name: it is found from the sandbox.
 * The path may lead to somebody else's namespace by now, so everything known has to agree before anything is deleted.
 */
function removeAdoptedLink(host: Rtnetlink, call: DelCall<BridgeTeardown>): void {
  using netns = findNetns(call.netns);
  if (netns === undefined) {
    return;
  }
  using inside = openRtnetlink({ netns });
  const link = inside.link.find({ name: call.attachment.ifname });
  const peer = link?.peerIndex === undefined ? undefined : host.link.find({ index: link.peerIndex });
  if (
    link?.kind === 'veth' &&
    peer?.kind === 'veth' &&
    peer.peerIndex === link.index &&
    isOurs(host, peer, call)
  ) {
    host.link.remove({ index: peer.index });
  }
}

function isOurs(host: Rtnetlink, peer: Link, call: DelCall<BridgeTeardown>): boolean {
  const owner = peer.alias === undefined ? undefined : ownerIn(peer.alias);
  if (owner !== undefined) {
    return owner.ownerHash === ownerHash(call.attachment);
  }
  const recorded = call.network.prevResult?.interfaces?.filter(({ sandbox }) => !sandbox);
  if (recorded !== undefined && recorded.length > 0) {
    return recorded.some(({ name }) => name === peer.name);
  }
  const master = peer.master === undefined ? undefined : host.link.find({ index: peer.master });
  return master?.name === call.config.bridge;
}
