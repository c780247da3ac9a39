// The network the benchmark attaches to, and the invocations of it. Called by measure.ts and prefill.ts.

import { HOST_PATH } from '../support/place.ts';
import type { RunOrder } from './host-worker.ts';

/** What is attached, apart from who does it. */
export interface NetworkShape {
  readonly families: 'IPv4' | 'dual stack';
  readonly ipMasq: 'off' | 'default' | 'iptables' | 'nftables';
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

export const NETWORK = 'bench';
export const BRIDGE = 'cnibench0';
export const STORE = '/var/lib/cni/networks/bench';
export const MEASURED: AttachmentAt = { containerId: 'measured', ifname: 'eth0', netns: 's1' };

// After each process: links, rules and namespaces are freed behind its back, by work queues and grace periods.
const SETTLE_MS = 8;

// 1.0.0 is the newest version that Debian's reference plugins speak as well.
const CNI_VERSION = '1.0.0';

/** The invocation of `plugin` for a verb, as a runtime makes it. `prevResult` is what ADD printed. */
export function invocation(
  implementation: Implementation,
  plugin: 'bridge' | 'host-local' | 'empty',
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

/** A config like the ones Podman and Kubernetes set-ups write: gateway on the bridge, default route, host-local. */
export function configOf(shape: NetworkShape, prevResult?: unknown): Record<string, unknown> {
  const dual = shape.families === 'dual stack';
  return {
    cniVersion: CNI_VERSION,
    name: NETWORK,
    type: 'bridge',
    bridge: BRIDGE,
    isDefaultGateway: true,
    ipMasq: shape.ipMasq !== 'off',
    ...(['iptables', 'nftables'].includes(shape.ipMasq) ? { ipMasqBackend: shape.ipMasq } : {}),
    ipam: {
      type: 'host-local',
      ranges: [[{ subnet: '10.200.0.0/16' }], ...(dual ? [[{ subnet: 'fd00:200::/64' }]] : [])],
    },
    ...(prevResult === undefined ? {} : { prevResult }),
  };
}

/** The address the n-th attachment has, counted from 0 after the gateway's. */
export function addressOf(family: 4 | 6, n: number): string {
  const host = n + 2;
  return family === 4 ? `10.200.${host >> 8}.${host & 255}` : `fd00:200::${host.toString(16)}`;
}
