// Which ports of the host lead where, decided from the config and the result of the plugins before this one.
// Pure: ADD carries the plan out, CHECK compares the kernel with it.
import type { Attachment } from '../../shared/cni/attachment.ts';
import type { Result, ResultIp } from '../../shared/cni/result.ts';
import { parseAddress } from '../../shared/host/addresses.ts';
import {
  type Cidr,
  type Family,
  type Ip,
  isForwarded,
  isLinkLocal,
  isLoopback,
} from '../../shared/ip/cidr.ts';
import type { HostPort } from '../../shared/ruleset/port-overlap.ts';
import type { PortmapConfig } from './config.ts';
import { describeMapping, hostPortsOf, type PortMapping } from './port-mapping.ts';

/** One host port and where it leads. */
export interface PlannedPort extends HostPort {
  readonly target: Ip;
  readonly containerPort: number;
}

/** All of an attachment's ports; `entries` is empty when there is nothing to publish. */
export interface MappingPlan {
  /** The container's address with its subnet; undefined when it has none in that family. */
  readonly address4: Cidr | undefined;
  readonly address6: Cidr | undefined;
  readonly entries: readonly PlannedPort[];
  /** A line for each mapping that nothing comes of. */
  readonly skipped: readonly string[];
  /** A line for each mapping that works less well than it looks. */
  readonly warnings: readonly string[];
}

/**
 * Decides where each mapping leads. A mapping for both families follows the addresses the container has.
 * Throws invalidConfig when the prevResult holds an address that cannot be parsed.
 */
export function planMappings(config: PortmapConfig, prevResult: Result, attachment: Attachment): MappingPlan {
  const addresses = listAddresses(prevResult, attachment);
  const address4 = addresses.find(({ ip }) => ip.family === 4);
  const address6 = addresses.find(({ ip }) => ip.family === 6);
  const entries: PlannedPort[] = [];
  const skipped: string[] = [];
  const warnings: string[] = [];
  for (const mapping of config.mappings) {
    const planned = planMapping(mapping, [address4, address6]);
    if (planned.length > 0 && !isUnreachable(mapping)) entries.push(...planned);
    else skipped.push(`Skipping port ${describeMapping(mapping)}: ${whySkipped(mapping)}`);
    if (planned.length > 0 && isHalfReachable(mapping)) {
      warnings.push(
        `Port ${describeMapping(mapping)} answers this host alone: ${LINK_LOCAL_IS_NOT_FORWARDED}`,
      );
    }
  }
  return { address4, address6, entries, skipped, warnings };
}

const LINK_LOCAL_IS_NOT_FORWARDED = 'the kernel forwards nothing that comes from a link-local address';

// As the reference chooses: an address without a link of its own counts, one of another link or of the host does not.
function listAddresses(prevResult: Result, { ifname }: Attachment): Cidr[] {
  const isOfAttachment = (ip: ResultIp) => {
    const link = ip.interface === undefined ? undefined : prevResult.interfaces?.[ip.interface];
    return link === undefined || (link.name === ifname && link.sandbox !== undefined && link.sandbox !== '');
  };
  return (prevResult.ips ?? [])
    .flatMap((ip, position) => (isOfAttachment(ip) ? [parseAddress(ip, position)] : []))
    .filter(({ ip }) => isForwarded(ip));
}

function planMapping(mapping: PortMapping, addresses: readonly (Cidr | undefined)[]): PlannedPort[] {
  return hostPortsOf(mapping).flatMap((hostPort) => {
    const address = addresses.find((address) => address?.ip.family === hostPort.family);
    return address === undefined
      ? []
      : [{ ...hostPort, target: address.ip, containerPort: mapping.containerPort }];
  });
}

// The answer comes back from the container for ::1, and the kernel takes packets for ::1 from no link but lo. For
// 127.0.0.1 there is route_localnet; IPv6 has nothing like it.
function isUnreachable({ hostIp }: PortMapping): boolean {
  return hostIp !== undefined && hostIp.family === 6 && isLoopback(hostIp);
}

// net/ipv6/ip6_output.c, ip6_forward: a link-local source goes no further, and masquerading comes after that.
function isHalfReachable({ hostIp }: PortMapping): boolean {
  return hostIp !== undefined && hostIp.family === 6 && isLinkLocal(hostIp);
}

function whySkipped(mapping: PortMapping): string {
  if (isUnreachable(mapping)) {
    return 'the kernel brings no answer of a container back to "::1"; publish 127.0.0.1 or an address of the host';
  }
  return `the container has no ${familyWord(mapping.families)}address that packets can be sent on to`;
}

function familyWord([family, ...others]: readonly Family[]): string {
  return family === undefined || others.length > 0 ? '' : `IPv${family} `;
}
