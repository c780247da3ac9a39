// Everything that hostile neighbours try on a container and its host: with packets, each attempt a cell.
// Used by the test of that name, for chains of plugins that run one by one, in one process, and for the reference.
import { setTimeout as delay } from 'node:timers/promises';
import type { Netns } from '../../shared/linux/netns.ts';
import {
  arp,
  ethernet,
  icmpv6,
  ipv4,
  marker,
  neighbour as neighbourMessage,
  routerAdvertisement,
  udp,
  udp6,
} from './frames.ts';
import {
  type Attacker,
  CHECKS,
  type HostileWorld,
  INNER,
  type Ips,
  NEIGHBOURS,
  openHostileWorld,
  type Policy,
  type Station,
  type Way,
} from './hostile-world.ts';
import { type Mailbox, openMailbox } from './mailbox.ts';
import type { Place } from './place.ts';
import { askAll, type Reply, TRANSPORTS, type Transport } from './service.ts';
import { LAN, OUTSIDE } from './traffic.ts';

/** What each attempt is called, in the order in which they are shown. */
export const ATTEMPTS = {
  unpublished: 'a port that is not published',
  everywhere: 'a port published on every address',
  oneAddress: 'a port published on one address, by that',
  otherAddress: 'a port published on one address, by another',
  loopbackPort: 'a port published on 127.0.0.1, by an address',
  loopbackItself: 'a port published on 127.0.0.1, by that',
  loopbackMartian: 'a port published on 127.0.0.1, by a martian',
  loopbackService: 'a service on 127.0.0.1 or ::1, by a martian',
  transit: 'the published port of somebody else',
  hostAsLoopback: 'the host, as 127.0.0.1 or ::1',
  hostAsLoopback2: 'the host, as 127.0.0.2',
  hostAsHost: 'the host, as another address of it',
  hostAsContainer: 'the host, as another container',
  containerAsHost: 'the container, as the host',
  containerAsContainer: 'the container, as another container',
  gatewaySpoof: 'the place of its gateway (ARP, ND)',
  containerSpoof: 'its place, towards the host (ARP, ND)',
  macSpoof: 'its frames (MAC)',
  rogueDhcp: 'a DHCP answer to it',
  rogueRa: 'a router advertisement to it',
  rogueRaRoute: 'its default route, by that',
  rogueRaHost: 'the host’s default route, by that',
} as const;
export type Attempt = keyof typeof ATTEMPTS;

/** What came of one attempt over one family of addresses. */
export interface Cell {
  readonly from: Attacker;
  readonly attempt: Attempt;
  readonly family: 4 | 6;
  /**
   * `own` and `host`: answered, and the server saw the client's own address or one of the host's; `in`: arrived;
   * `fooled`: it is believed; `-`: none of it.
   */
  readonly seen: string;
}

/** Builds the host, has everybody try everything, and tells what came of it. */
export async function tryEverything(way: Way, policy: Policy): Promise<Cell[]> {
  await using world = await openHostileWorld(way, policy);
  const asked = await Promise.all(
    (['neighbour', 'neighbour (ipspoofchk)', 'other network', 'LAN host', 'host'] as const).map((from) =>
      askAround(world, from),
    ),
  );
  return [...asked.flat(), ...(await forgeDatagrams(world)), ...(await forgeFrames(world))];
}

/** What a client asks, and who should answer. */
interface Errand {
  readonly attempt: Attempt;
  readonly to: Partial<Ips>;
  readonly port: number;
  readonly server: string;
  readonly transports?: readonly Transport[];
}

const LOOPBACK_ITSELF = {
  attempt: 'loopbackItself',
  to: { 4: '127.0.0.1' },
  port: 8081,
  transports: ['tcp4'],
} as const;

/** Attempts that are answered or not, by TCP and by UDP; where these differ the cell tells both. */
async function askAround({ host, victim, stations }: HostileWorld, from: Attacker): Promise<Cell[]> {
  const place: Place = from === 'host' ? host : stations[from].place;
  const near: Ips = from === 'host' ? { 4: LAN.host4, 6: LAN.host6 } : stations[from].gateway;
  const victimHas = { server: victim.place.name };
  const errands: Errand[] = [
    { ...victimHas, attempt: 'unpublished', to: victim.ips, port: 83 },
    { ...victimHas, attempt: 'everywhere', to: near, port: 8080 },
    { ...victimHas, attempt: 'oneAddress', to: { 4: LAN.host4, 6: LAN.host6 }, port: 8082 },
    { ...victimHas, attempt: 'otherAddress', to: { 4: OUTSIDE.host4, 6: OUTSIDE.host6 }, port: 8082 },
    { ...victimHas, attempt: 'loopbackPort', to: { 4: near[4] }, port: 8081, transports: ['tcp4'] },
    ...(from === 'host' ? [{ ...victimHas, ...LOOPBACK_ITSELF }] : []),
    from === 'LAN host'
      ? {
          attempt: 'transit',
          to: { 4: OUTSIDE.outside4, 6: OUTSIDE.outside6 },
          port: 8080,
          server: 'outside',
        }
      : { attempt: 'transit', to: { 4: LAN.neighbour4, 6: LAN.neighbour6 }, port: 8080, server: 'lan-host' },
  ];
  const questions = errands.flatMap(({ to, port, transports = TRANSPORTS, ...errand }) =>
    transports.map((transport) => {
      const family = familyOf(transport);
      return { ...errand, transport, family, address: to[family] ?? '', port };
    }),
  );
  const own = Object.values(from === 'host' ? {} : stations[from].ips);
  const replies = await askAll(place, questions);
  const described = questions.map((question, index) => ({
    ...question,
    seen: describe(replies[index], question.server, own),
  }));
  return errands.flatMap(({ attempt }) =>
    ([4, 6] as const).flatMap((family) => {
      const mine = described.filter((one) => one.attempt === attempt && one.family === family);
      const seen = new Set(mine.map((one) => one.seen));
      if (seen.size === 0) return [];
      const words = mine.map((one) => `${one.transport.slice(0, 3)} ${one.seen}`);
      return { from, attempt, family, seen: seen.size === 1 ? [...seen].join() : words.join(', ') };
    }),
  );
}

function describe(reply: Reply | undefined, server: string, own: readonly string[]): string {
  if (reply === undefined) return '-';
  const client = own.includes(reply.client) ? 'own' : 'host';
  return reply.name === server ? client : `${client} at ${reply.name}`;
}

function familyOf(transport: Transport): 4 | 6 {
  return transport.endsWith('4') ? 4 : 6;
}

/** A datagram under whatever source, and where it would arrive. */
interface Shot {
  readonly attempt: Attempt;
  readonly family: 4 | 6;
  readonly src: string;
  readonly dst: string;
  readonly port: number;
  readonly box: Mailbox;
  /** Straight to the victim's link instead of the gateway's. */
  readonly isOnLink?: boolean;
}

const SERVICE = 7007;
const PRINTER = 631;

/** Attempts under forged sources, and at forged destinations: nobody waits for an answer. */
async function forgeDatagrams({ hostNetns, victim, stations }: HostileWorld): Promise<Cell[]> {
  using boxes = new DisposableStack();
  const open = (netns: Netns, address4: string, address6: string, port: number) => ({
    4: boxes.use(openMailbox(netns, address4, port)),
    6: boxes.use(openMailbox(netns, address6, port)),
  });
  const host = open(hostNetns, '0.0.0.0', '::', SERVICE);
  const loopback = open(hostNetns, '127.0.0.1', '::1', PRINTER);
  const container = open(victim.netns, '0.0.0.0', '::', SERVICE);
  const published = boxes.use(openMailbox(victim.netns, '0.0.0.0', 81));
  const everyBox = [host, loopback, container].flatMap((pair) => [pair[4], pair[6]]).concat(published);

  const cells: Cell[] = [];
  for (const [from, station] of entriesOf(stations)) {
    const isNear = from in CHECKS;
    const another = isNear ? stations['other network'].ips : stations.neighbour.ips;
    const hostElsewhere = { 4: OUTSIDE.host4, 6: OUTSIDE.host6 };
    const shots = ([4, 6] as const).flatMap((family): Shot[] => {
      const local = family === 4 ? '127.0.0.1' : '::1';
      const atHost = { family, dst: station.gateway[family], port: SERVICE, box: host[family] };
      const atContainer = { ...atHost, dst: victim.ips[family], box: container[family], isOnLink: isNear };
      const martian = { family, src: station.ips[family], dst: local };
      const shots: Shot[] = [
        { ...martian, attempt: 'loopbackService', port: PRINTER, box: loopback[family] },
        { ...atHost, attempt: 'hostAsLoopback', src: local },
        { ...atHost, attempt: 'hostAsHost', src: hostElsewhere[family] },
        { ...atHost, attempt: 'hostAsContainer', src: another[family] },
        { ...atContainer, attempt: 'containerAsHost', src: hostElsewhere[family] },
        { ...atContainer, attempt: 'containerAsContainer', src: another[family] },
      ];
      if (family === 6) return shots;
      return shots.concat(
        { ...martian, attempt: 'loopbackMartian', port: 8081, box: published },
        { ...atHost, attempt: 'hostAsLoopback2', src: '127.0.0.2' },
      );
    });
    const fired = shots.map((shot) => ({ ...shot, text: marker() }));
    for (const shot of fired) {
      const dst = shot.isOnLink ? victim.mac : station.gateway.mac;
      station.tap.send(datagram(station.mac, dst, shot, shot.text));
    }
    const arrived = await afterwards(station, host[4], everyBox);
    for (const { attempt, family, box, text } of fired) {
      const isIn = arrived.get(box)?.includes(text.toString('latin1'));
      cells.push({ from, attempt, family, seen: isIn ? 'in' : '-' });
    }
  }
  return cells;
}

function datagram(
  from: string,
  to: string,
  { family, src, dst, port }: Pick<Shot, 'family' | 'src' | 'dst' | 'port'>,
  text: Buffer,
  sport = SERVICE,
): Buffer {
  return family === 4
    ? ethernet({ src: from, dst: to, type: 0x0800 }, ipv4(src, dst, 17, udp(sport, port, text)))
    : ethernet({ src: from, dst: to, type: 0x86dd }, udp6(src, dst, sport, port, text));
}

/**
 * What is in the boxes once an honest datagram of the station, sent after all others, is in the host's. Throws when it does
 * not get there within two seconds: then nothing that is missing would mean anything.
 */
async function afterwards(
  station: Station,
  hostBox: Mailbox,
  boxes: readonly Mailbox[],
): Promise<ReadonlyMap<Mailbox, string[]>> {
  const proof = marker();
  const honest = { family: 4, src: station.ips[4], dst: station.gateway[4], port: SERVICE } as const;
  station.tap.send(datagram(station.mac, station.gateway.mac, honest, proof));
  const arrived = new Map(boxes.map((box) => [box, [] as string[]]));
  const collect = () => {
    for (const [box, texts] of arrived) texts.push(...box.received());
  };
  for (const deadline = Date.now() + 2000; !arrived.get(hostBox)?.includes(proof.toString('latin1')); ) {
    if (Date.now() > deadline) throw new Error(`Nothing of ${station.place.name} arrives at the host`);
    await delay(2);
    collect();
  }
  await delay(50); // on other ways, packets may take a little longer
  collect();
  return arrived;
}

/** Attempts of those on the link of the victim, by frames that claim to come from somebody else. */
async function forgeFrames({ host, hostNetns, victim, stations }: HostileWorld): Promise<Cell[]> {
  using boxes = new DisposableStack();
  const hostBox = boxes.use(openMailbox(hostNetns, '0.0.0.0', SERVICE));
  const dhcp = {
    4: boxes.use(openMailbox(victim.netns, '0.0.0.0', 68)),
    6: boxes.use(openMailbox(victim.netns, '::', 546)),
  };
  const toAll = { dst: '33:33:00:00:00:01', type: 0x86dd };
  const cells: Cell[] = [];
  for (const from of NEIGHBOURS) {
    const { tap, mac, ips, gateway } = stations[from];
    await host.shell(truth(victim));
    const advertisement = ethernet(
      { ...toAll, src: mac },
      icmpv6(`fe80::${NEIGHBOURS.indexOf(from) + 1}`, 'ff02::1', 134, routerAdvertisement()),
    );
    const answers = { 4: marker(), 6: marker() };
    victim.tap.received();
    for (const place of [gateway, victim.ips]) {
      const claim = neighbourMessage(place[6], { type: 2, mac });
      tap.send(ethernet({ src: mac, type: 0x0806 }, arp(1, mac, place[4], place[4])));
      tap.send(ethernet({ ...toAll, src: mac }, icmpv6(ips[6], 'ff02::1', 136, claim)));
    }
    for (const family of [4, 6] as const) {
      const [port, sport] = family === 4 ? [68, 67] : [546, 547];
      const answer = { family, src: ips[family], dst: victim.ips[family], port };
      tap.send(datagram(mac, victim.mac, answer, answers[family], sport));
    }
    tap.send(advertisement);
    tap.send(ethernet({ src: victim.mac, dst: gateway.mac, type: 0x88b5 }, marker()));
    const arrived = await afterwards(stations[from], hostBox, [hostBox, dhcp[4], dhcp[6]]);
    for (const family of [4, 6] as const) {
      const hasFooled = async (place: Place, link: string, ip: string) => {
        const { stdout } = await place.run('ip', ['neigh', 'show', 'to', ip, 'dev', link]);
        return stdout.includes(mac) ? 'fooled' : '-';
      };
      const isIn = arrived.get(dhcp[family])?.includes(answers[family].toString('latin1'));
      const gatewaySeen = await hasFooled(victim.place, 'eth0', gateway[family]);
      const victimSeen = await hasFooled(host, INNER.bridge, victim.ips[family]);
      cells.push(
        { from, attempt: 'gatewaySpoof', family, seen: gatewaySeen },
        { from, attempt: 'containerSpoof', family, seen: victimSeen },
        { from, attempt: 'rogueDhcp', family, seen: isIn ? 'in' : '-' },
      );
    }
    const entries = (await host.run('bridge', ['fdb', 'show', 'br', INNER.bridge])).stdout.split('\n');
    const isStolen = entries.some(
      (line) => line.startsWith(victim.mac) && line.includes('master') && !line.includes(victim.port),
    );
    cells.push({ from, attempt: 'macSpoof', family: 4, seen: isStolen ? 'fooled' : '-' });
    const isRead = victim.tap.received().some((frame) => frame.includes(advertisement.subarray(14)));
    const hasRoute = async (place: Place) => {
      const { stdout } = await place.run('ip', ['-6', 'route', 'show', 'default', 'proto', 'ra']);
      return stdout === '' ? '-' : 'fooled';
    };
    cells.push(
      { from, attempt: 'rogueRa', family: 6, seen: isRead ? 'in' : '-' },
      { from, attempt: 'rogueRaRoute', family: 6, seen: await hasRoute(victim.place) },
      { from, attempt: 'rogueRaHost', family: 6, seen: await hasRoute(host) },
    );
  }
  return cells;
}

/**
 * What the victim knows of its gateway, the host of the victim, and the bridge of its MAC, before anybody lies; and no
 * route by lies.
 */
function truth({ place, ips, mac, gateway }: Station): string {
  const inside = `ip netns exec ${place.name}`;
  return ([4, 6] as const)
    .map(
      (family) => `
    ${inside} ip neigh replace ${gateway[family]} dev eth0 lladdr ${gateway.mac} nud reachable
    ip neigh replace ${ips[family]} dev ${INNER.bridge} lladdr ${mac} nud reachable`,
    )
    .concat(
      `ip -6 route flush proto ra; ${inside} ip -6 route flush proto ra`,
      `${inside} ping -n -c 1 -W 1 ${gateway[4]}`,
    )
    .join('\n');
}

function entriesOf<Key extends string, Value>(record: Readonly<Record<Key, Value>>): [Key, Value][] {
  return Object.entries(record) as [Key, Value][];
}
