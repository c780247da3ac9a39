// Whom the firewall lets through: the container's addresses, and the link of this host that leads to them.
// Called by ADD and CHECK, on the result of the plugins before this one.
import type { Attachment } from '../../shared/cni/attachment.ts';
import { invalidConfig, quote } from '../../shared/cni/error.ts';
import type { Result } from '../../shared/cni/result.ts';
import { parseAddress } from '../../shared/host/addresses.ts';
import { findHostLink, findLinkTowards } from '../../shared/host/links.ts';
import { formatIp, type Ip, isForwarded } from '../../shared/ip/cidr.ts';
import { isLinkName } from '../../shared/linux/link-name.ts';
import type { Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import type { FirewallWish, IngressPolicy } from '../../shared/ruleset/firewall.ts';

/**
 * What the attachment wants of the forward hook; undefined when nothing of it is forwarded by this host: it has no
 * address, or no link of this host leads to one (macvlan, ipvlan). Throws invalidConfig naming what cannot be read.
 */
export function findScope(
  host: Rtnetlink,
  attachment: Attachment,
  prevResult: Result,
  policy: IngressPolicy,
): FirewallWish | undefined {
  const addresses = listAddresses(prevResult);
  const bridge = reportedBridge(prevResult) ?? findBridgeTowards(host, addresses);
  if (bridge === undefined || addresses.length === 0) {
    return undefined;
  }
  return { attachment, link: findHostLink(host, attachment, prevResult), bridge, policy, addresses };
}

/** Those of all links, as the reference has it; each once. */
function listAddresses({ ips = [] }: Result): Ip[] {
  const all = ips.map(parseAddress).flatMap(({ ip }) => (isForwarded(ip) ? [ip] : []));
  return [...new Map(all.map((ip) => [formatIp(ip), ip])).values()];
}

/** Of the links in a result the first on the host is the one that packets pass: the bridge, or ptp's own end. */
function reportedBridge({ interfaces = [] }: Result): string | undefined {
  const position = interfaces.findIndex(({ sandbox }) => !sandbox);
  const name = interfaces[position]?.name;
  // nft could not read a quote in an element back.
  if (name !== undefined && (!isLinkName(name) || /["\\]/.test(name))) {
    const field = `Field "prevResult.interfaces[${position}].name" of the network configuration`;
    const rule = 'at most 15 bytes without white space, quotes, backslash, "/" and ":"';
    throw invalidConfig(`${field} must be the name of a link (${rule}), not ${quote(name)}`);
  }
  return name;
}

function findBridgeTowards(host: Rtnetlink, addresses: readonly Ip[]): string | undefined {
  const link = addresses.map((ip) => findLinkTowards(host, ip)).find((found) => found !== undefined);
  return link?.name;
}
