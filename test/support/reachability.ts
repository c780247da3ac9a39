// Who reaches a published port from where, and under which address: asked with packets, written as a table.
// Used by the tests of published ports, for ours and for the reference plugins alike.
import { type Attached, attach } from './attachment.ts';
import { type ChainOptions, type Mapping, PORTS, type Published, publish } from './chain.ts';
import { readNetwork } from './network-list.ts';
import type { Place } from './place.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from './private-host.ts';
import { askAll, onAllTransports, type Reply, serve, TRANSPORTS } from './service.ts';
import { addNeighbour, addOutside, LAN, OUTSIDE } from './traffic.ts';

/** A host between an outside world and a LAN, with three containers, one of which serves on port 80. */
export interface PortWorld extends AsyncDisposable {
  readonly host: PrivateHost;
  readonly outside: Sandbox;
  readonly lan: Sandbox;
  /** Serves. */
  readonly pod: Sandbox;
  /** On the network of `pod`. */
  readonly peer: Sandbox;
  readonly peerAttached: Attached;
  /** On another network. */
  readonly stranger: Sandbox;
  readonly strangerAttached: Attached;
}

/** What the matrix is asked about; port 8080 of the host leads to port 80 of `pod`. */
export const WEB: readonly Mapping[] = [
  { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
  { hostPort: 8080, containerPort: 80, protocol: 'udp' },
];

/** Opens the world with the two containers that publish nothing attached to their networks, and `pod` to none. */
export async function openPortWorld(
  options: Pick<ChainOptions, 'directory' | 'network'> = {},
): Promise<PortWorld> {
  const host = await openPrivateHost();
  const { network = PORTS, ...more } = options;
  const other = { ...readNetwork('bridge-dual-stack.conflist').config, cniVersion: network.cniVersion };
  const [outside, lan] = [await addOutside(host), await addNeighbour(host)];
  const [pod, peer, stranger] = [
    await host.addSandbox('pod'),
    await host.addSandbox('peer'),
    await host.addSandbox('stranger'),
  ];
  await host.shell('sysctl -qw net.ipv6.conf.all.forwarding=1');
  const peerAttached = await attach(host, network, peer, more);
  const strangerAttached = await attach(host, other, stranger, more);
  await serve(pod, onAllTransports(80));
  return {
    host,
    outside,
    lan,
    pod,
    peer,
    peerAttached,
    stranger,
    strangerAttached,
    [Symbol.asyncDispose]: () => host.close(),
  };
}

/** As `openPortWorld`, with `pod` on its network and its port published. */
export async function openPublishedWorld(
  options: ChainOptions = {},
): Promise<PortWorld & { readonly published: Published }> {
  const world = await openPortWorld(options);
  return { ...world, published: await publish(world.host, world.pod, WEB, options) };
}

/** Sets whether iptables and nf_tables see the frames of a bridge; false where the kernel has no bridge netfilter. */
export async function setBridgeNetfilter(host: PrivateHost, state: 0 | 1): Promise<boolean> {
  const { exitCode } = await host.attempt('sysctl', [
    '-qw',
    `net.bridge.bridge-nf-call-iptables=${state}`,
    `net.bridge.bridge-nf-call-ip6tables=${state}`,
  ]);
  return exitCode === 0;
}

/**
 * One line for each pair of client and address, one column for each transport: `own` when the service saw the client's
 * own address, `host` when it saw one of the host's, `-` when no answer came.
 */
export async function reachability(world: PortWorld, published: Attached): Promise<string[]> {
  const gateways = gatewaysOf(published);
  const addresses: Readonly<Record<string, readonly [string, string]>> = {
    uplink: [OUTSIDE.host4, OUTSIDE.host6],
    lan: [LAN.host4, LAN.host6],
    gateway: gateways,
    loopback: ['127.0.0.1', '::1'],
  };
  const own = await ownAddresses(world.host);
  const clients: readonly [string, Place, readonly string[]][] = [
    ['outside host', world.outside, ['uplink']],
    ['LAN host', world.lan, ['lan', 'uplink']],
    ['host', world.host, ['uplink', 'lan', 'gateway', 'loopback']],
    ['container itself', world.pod, ['uplink', 'lan', 'gateway']],
    ['its neighbour', world.peer, ['uplink', 'lan', 'gateway']],
    ['other network', world.stranger, ['uplink', 'lan', 'gateway']],
  ];
  const rows = clients.map(async ([name, place, targets]) => {
    const questions = targets.flatMap((target) =>
      TRANSPORTS.map((transport) => ({
        transport,
        address: addresses[target]?.[transport.endsWith('4') ? 0 : 1] ?? '',
        port: 8080,
      })),
    );
    const replies = await askAll(place, questions);
    return targets.map((target, row) => {
      const cells = replies.slice(row * TRANSPORTS.length, (row + 1) * TRANSPORTS.length);
      return [name, target, ...cells.map((reply) => describe(reply, own))];
    });
  });
  return (await Promise.all(rows)).flat().map(formatRow);
}

/**
 * The same for the container's own addresses and port 80, without any published port: who gets there by routing and
 * bridging alone.
 */
export async function directReachability(world: PortWorld, { ip4, ip6 }: Attached): Promise<string[]> {
  const own = await ownAddresses(world.host);
  const clients: readonly (readonly [string, Place])[] = [
    ['LAN host', world.lan],
    ['host', world.host],
    ['its neighbour', world.peer],
    ['other network', world.stranger],
  ];
  const rows = clients.map(async ([name, place]) => {
    const questions = TRANSPORTS.map((transport) => ({
      transport,
      address: transport.endsWith('4') ? ip4 : ip6,
      port: 80,
    }));
    const replies = await askAll(place, questions);
    return formatRow([name, 'container', ...replies.map((reply) => describe(reply, own))]);
  });
  return Promise.all(rows);
}

/** The head of the table that `reachability` fills. */
export const REACHABILITY_HEAD = formatRow(['from', 'to', ...TRANSPORTS]);

function describe(reply: Reply | undefined, ofHost: ReadonlySet<string>): string {
  if (reply === undefined) return '-';
  if (reply.name !== 'pod') return reply.name;
  return ofHost.has(reply.client) ? 'host' : 'own';
}

function formatRow(cells: readonly string[]): string {
  const [from = '', to = '', ...transports] = cells;
  return [from.padEnd(17), to.padEnd(9), ...transports.map((cell) => cell.padEnd(5))].join(' ').trimEnd();
}

function gatewaysOf({ result }: Attached): readonly [string, string] {
  const gateways = (result.ips ?? []).map(({ gateway = '' }) => gateway);
  return [
    gateways.find((gateway) => !gateway.includes(':')) ?? '',
    gateways.find((gateway) => gateway.includes(':')) ?? '',
  ];
}

async function ownAddresses(host: PrivateHost): Promise<Set<string>> {
  const links = JSON.parse((await host.run('ip', ['-j', 'addr'])).stdout) as {
    addr_info: { local: string }[];
  }[];
  return new Set(links.flatMap(({ addr_info }) => addr_info.map(({ local }) => local)));
}
