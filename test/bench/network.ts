// The network the benchmark attaches to, the ports it publishes, and the invocations of both.
// Called by measure.ts and prefill.ts.

import { convert } from '../../plugins/patchbay/convert.ts';
import { findPlugin } from '../../plugins/registry.ts';
import { HOST_PATH } from '../support/place.ts';
import type { RunOrder } from './host-worker.ts';

/** What is attached, apart from who does it. */
export interface NetworkShape {
  readonly families: 'IPv4' | 'dual stack';
  /** A backend named here is portmap's, too. */
  readonly ipMasq: 'off' | 'default' | 'iptables' | 'nftables';
  /** What portmap publishes; nothing for networks without it. */
  readonly ports: readonly PortMapping[];
}

/** An entry of `runtimeConfig.portMappings`. */
export interface PortMapping {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: 'tcp' | 'udp';
}

/** The executables of one implementation. */
export interface Implementation {
  readonly name: string;
  readonly directory: string;
}

export interface AttachmentAt {
  readonly containerId: string;
  readonly ifname: string;
  /** A network namespace of the bench host: "s1" or "crowd". */
  readonly netns: string;
}

export type Verb = 'ADD' | 'CHECK' | 'DEL' | 'VERSION';

/** The networks of a host, each with a bridge and subnets of its own. What is measured is number 0. */
export const NETWORKS = [0, 1, 2, 3, 4, 5, 6, 7] as const;
export type NetworkNumber = (typeof NETWORKS)[number];

export const MEASURED: AttachmentAt = { containerId: 'measured', ifname: 'eth0', netns: 's1' };

// After each process: links, rules and namespaces are freed behind its back, by work queues and grace periods.
const SETTLE_MS = 8;

// 1.0.0 is the newest version that Debian's reference plugins speak as well.
const CNI_VERSION = '1.0.0';

/** The invocation of `plugin` for a verb, as a runtime makes it. `prevResult` is what ADD printed. */
export function invocation(
  implementation: Implementation,
  plugin: 'bridge' | 'host-local' | 'portmap' | 'patchbay' | 'empty',
  verb: Verb,
  attachment: AttachmentAt,
  config: unknown,
): Omit<RunOrder, 'kind'> {
  return {
    argv: [`${implementation.directory}/${plugin}`],
    env: {
      PATH: HOST_PATH,
      CNI_COMMAND: verb,
      CNI_CONTAINERID: attachment.containerId,
      CNI_NETNS: `/run/netns/${attachment.netns}`,
      CNI_IFNAME: attachment.ifname,
      CNI_PATH: implementation.directory,
    },
    stdin: JSON.stringify(config),
    settleMs: SETTLE_MS,
  };
}

export function networkName(network: NetworkNumber): string {
  return `bench${network}`;
}

export function bridgeName(network: NetworkNumber): string {
  return `cnibench${network}`;
}

/** host-local's directory of a network. */
export function storeOf(network: NetworkNumber): string {
  return `/var/lib/cni/networks/${networkName(network)}`;
}

/** A config like the ones Podman and Kubernetes set-ups write: gateway on the bridge, default route, host-local. */
export function configOf(
  shape: NetworkShape,
  { network = 0, prevResult }: { network?: NetworkNumber; prevResult?: unknown } = {},
): Record<string, unknown> {
  const dual = shape.families === 'dual stack';
  return {
    cniVersion: CNI_VERSION,
    name: networkName(network),
    type: 'bridge',
    bridge: bridgeName(network),
    isDefaultGateway: true,
    ipMasq: shape.ipMasq !== 'off',
    ...(['iptables', 'nftables'].includes(shape.ipMasq) ? { ipMasqBackend: shape.ipMasq } : {}),
    ipam: {
      type: 'host-local',
      ranges: [
        [{ subnet: `10.20${network}.0.0/16` }],
        ...(dual ? [[{ subnet: `fd00:20${network}::/64` }]] : []),
      ],
    },
    ...(prevResult === undefined ? {} : { prevResult }),
  };
}

/** The entry behind `bridge` in a list, as a runtime passes it on. `ports` are those of `shape` unless given. */
export function portmapConfigOf(
  shape: NetworkShape,
  {
    network = 0,
    ports = shape.ports,
    prevResult,
  }: { network?: NetworkNumber; ports?: readonly PortMapping[]; prevResult: unknown },
): Record<string, unknown> {
  return {
    cniVersion: CNI_VERSION,
    name: networkName(network),
    type: 'portmap',
    ...(['iptables', 'nftables'].includes(shape.ipMasq) ? { backend: shape.ipMasq } : {}),
    runtimeConfig: { portMappings: ports },
    prevResult,
  };
}

/** Which of a host's networks a list is for, and how many addresses its subnets have. */
export interface ListPlace {
  readonly network?: NetworkNumber;
  /** Of the IPv4 subnet; nerdctl's have 24. */
  readonly prefixLength?: 16 | 24;
}

/** The chain of four plugins as nerdctl writes it for a network, and with backends where the shape names one. */
export function chainListOf(
  { families, ipMasq }: NetworkShape,
  { network = 0, prefixLength = 24 }: ListPlace = {},
): Record<string, unknown> {
  const dual = families === 'dual stack';
  const backend = ['iptables', 'nftables'].includes(ipMasq) ? ipMasq : undefined;
  return {
    cniVersion: CNI_VERSION,
    name: networkName(network),
    plugins: [
      {
        type: 'bridge',
        bridge: bridgeName(network),
        isGateway: true,
        ipMasq: true,
        ...(backend && { ipMasqBackend: backend }),
        hairpinMode: true,
        ipam: {
          type: 'host-local',
          ranges: [
            [{ gateway: `10.20${network}.0.1`, subnet: `10.20${network}.0.0/${prefixLength}` }],
            ...(dual ? [[{ gateway: `fd00:20${network}::1`, subnet: `fd00:20${network}::/64` }]] : []),
          ],
          routes: [{ dst: '0.0.0.0/0' }],
        },
      },
      { type: 'portmap', ...(backend && { backend }), capabilities: { portMappings: true } },
      { type: 'firewall', ingressPolicy: 'same-bridge' },
      { type: 'tuning' },
    ],
  };
}

/** The same chain as one plugin, as `patchbay convert` makes it. */
export function patchbayListOf(shape: NetworkShape, place: ListPlace = {}): Record<string, unknown> {
  const { stdout } = convert(Buffer.from(JSON.stringify(chainListOf(shape, place))), findPlugin);
  return JSON.parse(stdout) as Record<string, unknown>;
}

/** What a runtime tells that plugin. `prevResult` is what ADD printed. */
export function patchbayConfigOf(
  shape: NetworkShape,
  { prevResult, ...place }: ListPlace & { readonly prevResult?: unknown },
): Record<string, unknown> {
  const { cniVersion, name, plugins } = patchbayListOf(shape, place);
  const [patchbay] = plugins as [object];
  const runtimeConfig = { portMappings: shape.ports };
  return {
    cniVersion,
    name,
    ...patchbay,
    runtimeConfig,
    ...(prevResult === undefined ? {} : { prevResult }),
  };
}

/** The directory with that list, where `chainInvocation` has cnitool look. */
export const CHAIN_DIRECTORY = '/etc/cni/net.d';

/** A verb of the whole chain by cnitool, which calls each of its plugins, in a process of its own. */
export function chainInvocation(
  implementation: Implementation,
  cnitool: string,
  verb: Verb,
  { netns, ifname }: AttachmentAt,
  { ports }: NetworkShape,
): Omit<RunOrder, 'kind'> {
  return {
    argv: [cnitool, verb.toLowerCase(), networkName(0), `/run/netns/${netns}`],
    env: {
      PATH: HOST_PATH,
      NETCONFPATH: CHAIN_DIRECTORY,
      CNI_PATH: implementation.directory,
      CNI_IFNAME: ifname,
      CAP_ARGS: JSON.stringify({ portMappings: ports }),
    },
    stdin: '',
    settleMs: SETTLE_MS,
  };
}

/** So many consecutive host ports, the protocols in turn. Container ports count from 1000. */
export function portsFrom(
  first: number,
  count: number,
  protocols: readonly PortMapping['protocol'][],
): PortMapping[] {
  return Array.from({ length: count }, (_, i) => ({
    hostPort: first + i,
    containerPort: FIRST_CONTAINER_PORT + i,
    protocol: protocols[i % protocols.length] ?? 'tcp',
  }));
}

const FIRST_CONTAINER_PORT = 1000;

/** The IPv4 address that the n-th attachment to a network has, counted from 0 after the gateway's. */
export function addressOf(network: NetworkNumber, n: number): string {
  const host = n + 2;
  return `10.20${network}.${host >> 8}.${host & 255}`;
}
