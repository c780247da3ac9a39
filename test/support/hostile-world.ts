// A host with hostile neighbours on all sides: two networks, a LAN, a container that serves and everybody who wants to it.
// Opened by hostile-neighbours.ts, once for each chain of plugins and each ingress policy.
import { type Netns, openNetns } from '../../shared/linux/netns.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import type { Fields, Mapping } from './chain.ts';
import { openTap, type Tap } from './frames.ts';
import { addList, asOne, type List } from './list-runner.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from './private-host.ts';
import { setBridgeNetfilter } from './reachability.ts';
import { onAllTransports, serve } from './service.ts';
import { addNeighbour, addOutside, LAN, OUTSIDE } from './traffic.ts';

export type Policy = 'open' | 'same-bridge' | 'isolated';

/** Those on the victim's network, and what their ports are checked for; the victim's and the others are not. */
export const CHECKS = {
  neighbour: {},
  'neighbour (macspoofchk)': { macspoofchk: true },
  'neighbour (ipspoofchk)': { ipspoofchk: true },
};
export type Neighbour = keyof typeof CHECKS;
export const NEIGHBOURS = Object.keys(CHECKS) as Neighbour[];

export type Attacker = Neighbour | 'other network' | 'LAN host' | 'host';

/** Whose plugins, and how they are called. */
export interface Way {
  readonly name: string;
  /** All of them in one process. */
  readonly isOne?: boolean;
  readonly directory?: string;
}

/** Somebody who sends frames by hand. */
export interface Station extends Disposable {
  readonly place: Sandbox;
  readonly netns: Netns;
  readonly tap: Tap;
  readonly mac: string;
  readonly ips: Ips;
  /** The host's end of its link. */
  readonly port: string;
  /** The host, as this station sees it. */
  readonly gateway: Ips & { readonly mac: string };
}

export type Ips = Readonly<Record<4 | 6, string>>;

export interface HostileWorld extends AsyncDisposable {
  readonly host: PrivateHost;
  readonly hostNetns: Netns;
  readonly victim: Station;
  readonly stations: Readonly<Record<Exclude<Attacker, 'host'>, Station>>;
}

export const INNER = { name: 'inner', bridge: 'cni-inner0', net4: '10.97.0', net6: 'fd00:97:' };
const OTHER = { name: 'other', bridge: 'cni-other0', net4: '10.98.0', net6: 'fd00:98:' };

/** All ports of the victim; 83 is not published. */
const MAPPINGS: readonly Mapping[] = ['tcp', 'udp'].flatMap((protocol) => [
  { hostPort: 8080, containerPort: 80, protocol },
  { hostPort: 8081, containerPort: 81, protocol, hostIP: '127.0.0.1' },
  { hostPort: 8082, containerPort: 82, protocol, hostIP: LAN.host4 },
  { hostPort: 8082, containerPort: 82, protocol, hostIP: LAN.host6 },
]);

/**
 * Two networks and a LAN. The host is set as carelessly as hosts are: no reverse path filter, route_localnet everywhere
 * (as kube-proxy had it), and links that are born ready to believe router advertisements.
 */
export async function openHostileWorld(way: Way, policy: Policy): Promise<HostileWorld> {
  const host = await openPrivateHost();
  await using opened = new AsyncDisposableStack();
  opened.use(host);
  const hostNetns = opened.use(openNetns(`/proc/${host.pid}/ns/net`));
  const [outside, lan] = [await addOutside(host), await addNeighbour(host)];
  await host.shell(`
    sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.lan.rp_filter=0
    sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv6.conf.default.accept_ra=2
    sysctl -qw net.ipv6.conf.all.forwarding=1
    ip -n outside route add 198.51.100.0/24 via ${OUTSIDE.host4}
    ip -n outside -6 route add 2001:db8:51::/64 via ${OUTSIDE.host6}
  `);

  async function join(name: string, network: typeof INNER, { checks = {}, portMappings = [] }: Wishes) {
    const sandbox = await host.addSandbox(name);
    const list = listOf(way, policy, network, checks);
    const known = { sandbox, portMappings, ...(way.directory && { directory: way.directory }) };
    const { ips = [], interfaces = [] } = await addList(host, list, known);
    const [ip4 = '', ip6 = ''] = ips.map(({ address }) => address.split('/')[0]);
    const gateway = { 4: `${network.net4}.1`, 6: `${network.net6}:1`, mac: macOf(hostNetns, network.bridge) };
    const port = interfaces[1]?.name ?? '';
    return opened.use(openStation(host, sandbox, { ips: { 4: ip4, 6: ip6 }, port, gateway }));
  }

  const victim = await join('victim', INNER, { portMappings: MAPPINGS });
  const stations = {
    neighbour: await join('neighbour', INNER, { checks: CHECKS.neighbour }),
    'neighbour (macspoofchk)': await join('macs', INNER, { checks: CHECKS['neighbour (macspoofchk)'] }),
    'neighbour (ipspoofchk)': await join('ips', INNER, { checks: CHECKS['neighbour (ipspoofchk)'] }),
    'other network': await join('stranger', OTHER, {}),
    'LAN host': opened.use(
      openStation(host, lan, {
        ips: { 4: LAN.neighbour4, 6: LAN.neighbour6 },
        port: 'lan',
        gateway: { 4: LAN.host4, 6: LAN.host6, mac: macOf(hostNetns, 'lan') },
      }),
    ),
  };
  await setBridgeNetfilter(host, 0);
  await Promise.all([
    serve(victim.place, [...onAllTransports(80, 82, 83), { transport: 'tcp4', port: 81 }]),
    serve(lan, onAllTransports(8080)),
    serve(outside, onAllTransports(8080)),
  ]);
  const kept = opened.move();
  return { host, hostNetns, victim, stations, [Symbol.asyncDispose]: () => kept.disposeAsync() };
}

interface Wishes {
  /** Fields for bridge. */
  readonly checks?: Fields;
  readonly portMappings?: readonly Mapping[];
}

function listOf({ isOne = false }: Way, ingressPolicy: Policy, network: typeof INNER, checks: Fields): List {
  const list: List = {
    cniVersion: '1.0.0',
    name: network.name,
    plugins: [
      {
        type: 'bridge',
        bridge: network.bridge,
        isDefaultGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ...checks,
        ipam: {
          type: 'host-local',
          ranges: [[{ subnet: `${network.net4}.0/24` }], [{ subnet: `${network.net6}:/64` }]],
        },
      },
      { type: 'portmap', capabilities: { portMappings: true } },
      { type: 'firewall', ingressPolicy },
    ],
  };
  return isOne ? asOne(list) : list;
}

function openStation(
  host: PrivateHost,
  place: Sandbox,
  known: Pick<Station, 'ips' | 'port' | 'gateway'>,
): Station {
  const netns = openNetns(host.file(place.path));
  const tap = openTap(netns, 'eth0');
  const mac = macOf(netns, 'eth0');
  return {
    ...known,
    place,
    netns,
    tap,
    mac,
    [Symbol.dispose]() {
      tap[Symbol.dispose]();
      netns[Symbol.dispose]();
    },
  };
}

function macOf(netns: Netns, link: string): string {
  using rtnetlink = openRtnetlink({ netns });
  return rtnetlink.link.get({ name: link }).mac;
}
