// The links of this host that belong to an attachment: one that lives as long as it does, and the one its packets take.
// Called by the chained plugins, which know the attachment from another plugin's result.
import {
  type Attachment,
  type HostLink,
  hostLinkName,
  networkHash,
  type Owner,
  ownerHash,
} from '../cni/attachment.ts';
import type { GcCall } from '../cni/plugin.ts';
import type { Result } from '../cni/result.ts';
import type { Ip } from '../ip/cidr.ts';
import type { Link } from '../rtnetlink/link.ts';
import type { Rtnetlink } from '../rtnetlink/rtnetlink.ts';

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

/**
 * Which owners of a network a GC takes for gone: with a list (an empty one included) all that are not on it; without one,
 * those whose link on this host is gone (CNI SPEC 1.1.0, section 2, "GC").
 */
export function stalenessOf(
  host: Rtnetlink,
  { network, validAttachments }: GcScope,
): (owner: Owner) => boolean {
  const hash = networkHash(network.name);
  const kept =
    validAttachments && new Set(validAttachments.map((key) => ownerHash({ network: network.name, ...key })));
  return (owner) =>
    owner.networkHash === hash && (kept === undefined ? !isAlive(host, owner) : !kept.has(owner.ownerHash));
}

type GcScope = Pick<GcCall<unknown>, 'network' | 'validAttachments'>;

/** The link by which packets leave for an address; undefined when there is no way to it. */
export function findLinkTowards(host: Rtnetlink, ip: Ip): Link | undefined {
  const index = host.route.lookup(ip)?.oif;
  return index === undefined ? undefined : host.link.find({ index });
}
