// One published port: how the runtime asks for it, and how messages name it.
// Used by config.ts and plan.ts; the verbs take its types and words.
import * as v from 'valibot';
import { configObject, wholeNumber } from '../../shared/cni/decode.ts';
import { type Family, formatIp, type Ip, isMulticast, isUnspecified, parseIp } from '../../shared/ip/cidr.ts';
import type { HostPort } from '../../shared/ruleset/port-overlap.ts';

export type Protocol = (typeof PROTOCOLS)[number];

/** A port of the host that leads to a port of the container. */
export interface PortMapping {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: Protocol;
  /** The only address that is published; undefined for every address of `families`. */
  readonly hostIp: Ip | undefined;
  readonly families: readonly Family[];
}

/** The protocols that have ports and that the kernel translates (include/uapi/linux/in.h: 6, 17 and 132). */
export const PROTOCOLS = ['tcp', 'udp', 'sctp'] as const;

/**
 * A schema for an entry of `runtimeConfig.portMappings`, in the spelling of any runtime: `hostPort` or `HostPort`. Both
 * ports are needed: the runtimes leave out what is not published, and a port 0 would publish nothing without a word.
 */
export function portMappingSchema() {
  return v.pipe(
    configObject({ protocol, hostIP: hostIp }, { hostPort: port, containerPort: port }),
    v.transform(
      ({ hostPort, containerPort, protocol, hostIP }): PortMapping => ({
        hostPort,
        containerPort,
        protocol: protocol ?? 'tcp',
        hostIp: hostIP === undefined || isUnspecified(hostIP) ? undefined : hostIP,
        families: hostIP === undefined ? [4, 6] : [hostIP.family],
      }),
    ),
  );
}

/** What a mapping takes of the host, one port a family. */
export function hostPortsOf({ protocol, hostIp, hostPort, families }: PortMapping): HostPort[] {
  return families.map((family) => ({ family, protocol, hostIp, hostPort }));
}

/** A mapping in words: `8080/tcp on any address`, `53/udp on 192.0.2.7`. */
export function describeMapping(mapping: Omit<PortMapping, 'containerPort'>): string {
  const { hostPort, protocol, hostIp, families } = mapping;
  return `${hostPort}/${protocol} on ${hostIp === undefined ? anyAddress(families) : formatIp(hostIp)}`;
}

/** As `describeMapping`, for one family. */
export function describeHostPort({ family, protocol, hostIp, hostPort }: HostPort): string {
  return describeMapping({ protocol, hostIp, hostPort, families: [family] });
}

function anyAddress([family, ...others]: readonly Family[]): string {
  return family === undefined || others.length > 0 ? 'any address' : `any IPv${family} address`;
}

function port() {
  return wholeNumber({ min: 1, max: 65535 });
}

function protocol() {
  return v.pipe(
    v.string(),
    v.check((text) => text === '' || isProtocol(text.toLowerCase()), 'tcp, udp or sctp'),
    v.transform((text) => PROTOCOLS.find((protocol) => protocol === text.toLowerCase())),
  );
}

function isProtocol(text: string): text is Protocol {
  return PROTOCOLS.some((protocol) => protocol === text);
}

// Anything but an address would be read as "any" by somebody; a zone says which link, and a rule has no place for it.
function hostIp() {
  const isAddress = (text: string) => text === '' || findIp(text) !== undefined;
  const isOfHost = (text: string) => !isOfNoHost(findIp(text));
  return v.pipe(
    v.string(),
    v.check((text) => !text.includes('%'), 'an IP address without a zone'),
    v.check(isAddress, 'an IP address, or empty for any'),
    v.check(isOfHost, 'an address that a host can have, not multicast or broadcast'),
    v.transform(findIp),
  );
}

function findIp(text: string): Ip | undefined {
  try {
    return text === '' ? undefined : parseIp(text);
  } catch {
    return undefined;
  }
}

const BROADCAST = 0xffff_ffffn;

// No packet to such an address is for this host alone, so it would never be translated.
function isOfNoHost(ip: Ip | undefined): boolean {
  return ip !== undefined && (isMulticast(ip) || (ip.family === 4 && ip.value === BROADCAST));
}
