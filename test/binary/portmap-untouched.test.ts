// What published ports must leave alone: other people's traffic, services of this host on 127.0.0.1, flows that pass
// through. Proven with packets from outside, from the LAN and from containers. Part of `npm run test:binary`.
import { describe, expect, onTestFinished, test } from 'vitest';
import { changed, PORTS, type Published, publish, publishFor, unpublish } from '../support/chain.ts';
import type { Place } from '../support/place.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import {
  openPortWorld,
  openPublishedWorld,
  type PortWorld,
  setBridgeNetfilter,
  WEB,
} from '../support/reachability.ts';
import { expectSuccess } from '../support/run-plugin.ts';
import {
  askAll,
  onAllTransports,
  openTalk,
  type Question,
  serve,
  TRANSPORTS,
  whoAnswers,
} from '../support/service.ts';
import { injecting, runTraced, wasInjected } from '../support/strace.ts';
import { LAN, OUTSIDE } from '../support/traffic.ts';

async function openWorld(): Promise<PortWorld> {
  const world = await openPortWorld();
  onTestFinished(() => world[Symbol.asyncDispose]());
  return world;
}

async function openPublished(): Promise<PortWorld & { readonly published: Published }> {
  const world = await openPublishedWorld();
  onTestFinished(() => world[Symbol.asyncDispose]());
  return world;
}

async function localnetLinks(host: PrivateHost): Promise<string[]> {
  const { stdout } = await host.shell('grep -l 1 /proc/sys/net/ipv4/conf/*/route_localnet || true');
  return stdout.split('\n').flatMap((path) => path.split('/')[6] ?? []);
}

/** Makes a place send packets for 127.0.0.1 to `gateway` as if nothing were special about that address. */
async function routeLoopbackTo(place: Place, gateway: string): Promise<void> {
  await place.shell(`
    sysctl -qw net.ipv4.conf.all.route_localnet=1
    ip addr del 127.0.0.1/8 dev lo
    ip route add 127.0.0.1 via ${gateway}
  `);
}

describe('route_localnet', () => {
  test('is switched on for the link to the container and for no other', async () => {
    const { host, pod } = await openWorld();
    expect(await localnetLinks(host)).toEqual([]);
    await publish(host, pod, WEB);
    expect(await localnetLinks(host)).toEqual([PORTS.bridge]);
  });

  test.for([
    ['no port is published on 127.0.0.1', LAN.host4, {}],
    ['only IPv6 is published', '::', {}],
    ['snat is off', '', { snat: false }],
  ] as const)('is left alone when %s', async ([, hostIP, portmap]) => {
    const { host, pod } = await openWorld();
    await publish(host, pod, [{ hostPort: 8080, containerPort: 80, hostIP }], { portmap });
    expect(await localnetLinks(host)).toEqual([]);
  });
});

describe('services of the host that listen on 127.0.0.1', () => {
  /** Each way in, as the place that sends, and what makes its packets arrive. */
  const intruders = [
    ['a container of the network', async ({ peer }: PortWorld) => intrude(peer, '10.92.0.1')],
    [
      'a host on a LAN that the bridge is part of',
      async ({ host }: PortWorld) => {
        const intruder = await host.addSandbox('intruder');
        await host.shell(`
          ip link add tap0 master ${PORTS.bridge} up type veth peer name eth0 netns intruder
          ip -n intruder addr add 10.92.0.200/24 dev eth0
          ip -n intruder link set eth0 up
        `);
        return intrude(intruder, '10.92.0.1');
      },
    ],
    [
      'a host on a LAN whose link has route_localnet for reasons of its own',
      async ({ host, lan }: PortWorld) => {
        await host.run('sysctl', ['-qw', 'net.ipv4.conf.lan.route_localnet=1']);
        return intrude(lan, LAN.host4);
      },
    ],
  ] as const;

  async function names(place: Place, questions: readonly Question[]): Promise<string[]> {
    return (await askAll(place, questions)).map((reply) => reply?.name ?? '');
  }

  async function intrude(place: Sandbox, gateway: string): Promise<Sandbox> {
    await routeLoopbackTo(place, gateway);
    return place;
  }

  for (const [who, prepare] of intruders) {
    for (const backend of ['nftables', 'iptables']) {
      test(`are out of reach for ${who}, which reaches them without the guard, with backend ${backend}`, async () => {
        const world = await openWorld();
        const { host, pod } = world;
        await serve(host, [
          { transport: 'tcp4', port: 631, address: '127.0.0.1' },
          { transport: 'udp4', port: 631, address: '127.0.0.1' },
        ]);
        await publish(host, pod, WEB, { portmap: { backend } });
        const intruder = await prepare(world);
        // The published port is no way in either.
        const ways = [
          { transport: 'tcp4', address: '127.0.0.1', port: 631 },
          { transport: 'udp4', address: '127.0.0.1', port: 631 },
          { transport: 'tcp4', address: '127.0.0.1', port: 8080 },
        ] as const;
        expect(await names(intruder, ways)).toEqual(['', '', '']);
        expect(await names(host, ways)).toEqual(['host', 'host', 'pod']);
        await host.run('nft', ['flush', 'chain', 'inet', 'patchbay', 'guard']);
        expect((await names(intruder, ways)).slice(0, 2)).toEqual(['host', 'host']);
      });
    }
  }

  test('are out of reach for a host on the LAN, whatever it sends', async () => {
    const { host, lan } = await openPublished();
    await serve(host, [{ transport: 'tcp4', port: 631, address: '127.0.0.1' }]);
    await routeLoopbackTo(lan, LAN.host4);
    expect(await whoAnswers(lan, 'tcp4', '127.0.0.1', 631)).toBe('');
    await host.run('nft', ['flush', 'chain', 'inet', 'patchbay', 'guard']);
    expect(await whoAnswers(lan, 'tcp4', '127.0.0.1', 631)).toBe('');
  });
});

describe('traffic that passes through', () => {
  /** Routes between outside, LAN and containers, each with a service on the published port. */
  async function openCrossroads(): Promise<PortWorld> {
    const world = await openPublished();
    const { outside, lan, peer, stranger } = world;
    for (const place of [outside, lan, peer, stranger]) await serve(place, onAllTransports(8080));
    await outside.shell(`
      ip route add 198.51.100.0/24 via ${OUTSIDE.host4}
      ip -6 route add 2001:db8:51::/64 via ${OUTSIDE.host6}
    `);
    return world;
  }

  test('to the same port elsewhere reaches who it is for: from outside to the LAN and back, and from containers', async () => {
    const { outside, lan, pod, stranger } = await openCrossroads();
    for (const transport of TRANSPORTS) {
      const isV4 = transport.endsWith('4');
      const [toLan, toOutside] = isV4
        ? [LAN.neighbour4, OUTSIDE.outside4]
        : [LAN.neighbour6, OUTSIDE.outside6];
      expect(await whoAnswers(outside, transport, toLan, 8080)).toBe('lan-host');
      expect(await whoAnswers(lan, transport, toOutside, 8080)).toBe('outside');
      for (const container of [pod, stranger]) {
        expect(await whoAnswers(container, transport, toLan, 8080)).toBe('lan-host');
      }
    }
  });

  test.for([0, 1] as const)(
    'between containers reaches who it is for, with bridge-nf-call-iptables %i',
    async (state, context) => {
      const { host, pod, peer, peerAttached, stranger, strangerAttached } = await openCrossroads();
      if (!(await setBridgeNetfilter(host, state))) {
        console.log('Skipped: the kernel has no br_netfilter');
        context.skip('no br_netfilter');
      }
      for (const transport of TRANSPORTS) {
        const address = transport.endsWith('4') ? 'ip4' : 'ip6';
        expect(await whoAnswers(pod, transport, peerAttached[address], 8080)).toBe('peer');
        expect(await whoAnswers(peer, transport, strangerAttached[address], 8080)).toBe('stranger');
        expect(await whoAnswers(stranger, transport, peerAttached[address], 8080)).toBe('peer');
      }
    },
  );

  test('is not taken for a hostIP that is somebody else’s address', async () => {
    const { host, outside, lan, pod, peer } = await openWorld();
    await serve(lan, onAllTransports(8080));
    await outside.shell(`
      ip route add 198.51.100.0/24 via ${OUTSIDE.host4}
      ip -6 route add 2001:db8:51::/64 via ${OUTSIDE.host6}
    `);
    const both = [LAN.neighbour4, LAN.neighbour6];
    await publish(
      host,
      pod,
      both.flatMap((hostIP) =>
        ['tcp', 'udp'].map((protocol) => ({ hostPort: 8080, containerPort: 80, protocol, hostIP })),
      ),
    );
    for (const transport of TRANSPORTS) {
      const address = transport.endsWith('4') ? LAN.neighbour4 : LAN.neighbour6;
      for (const client of [outside, host, peer]) {
        expect(await whoAnswers(client, transport, address, 8080)).toBe('lan-host');
      }
    }
  });
});

describe('a service that is translated at dstnat', () => {
  test('keeps its port, for clients from outside and on the host', async () => {
    const { host, outside, peer, peerAttached } = await openPublished();
    await serve(peer, onAllTransports(81));
    for (const [place, address] of [
      [outside, OUTSIDE.host4],
      [host, OUTSIDE.host4],
    ] as const) {
      expect(await whoAnswers(place, 'tcp4', address, 8080)).toBe('pod');
    }
    await host.run('nft', ['-f', '-'], {
      input: `table inet services {
        chain prerouting { type nat hook prerouting priority dstnat; meta l4proto { tcp, udp } th dport 8080 goto one; }
        chain output { type nat hook output priority -100; meta l4proto { tcp, udp } th dport 8080 goto one; }
        chain one {
          meta l4proto { tcp, udp } dnat ip to ${peerAttached.ip4}:81
          meta l4proto { tcp, udp } dnat ip6 to [${peerAttached.ip6}]:81
        }
      }`,
    });
    for (const transport of TRANSPORTS) {
      const address = transport.endsWith('4') ? OUTSIDE.host4 : OUTSIDE.host6;
      expect(await whoAnswers(outside, transport, address, 8080)).toBe('peer');
      expect(await whoAnswers(host, transport, address, 8080)).toBe('peer');
    }
  });
});

describe('UDP flows', () => {
  for (const [family, transport, address] of [
    [4, 'udp4', OUTSIDE.host4],
    [6, 'udp6', OUTSIDE.host6],
  ] as const) {
    test(`to the host over IPv${family} are led to the container by ADD, and away from it by DEL`, async () => {
      const { host, outside, pod } = await openWorld();
      await serve(host, onAllTransports(8080));
      // NAT of any kind makes the kernel keep flows.
      await host.shell('nft "add table inet t; add chain inet t c { type nat hook prerouting priority 0; }"');
      await using talk = await openTalk(outside, transport, address, 8080);
      expect(await talk.say()).toBe('host');
      const published = await publish(host, pod, WEB);
      expect(await talk.say()).toBe('pod');
      expectSuccess(await host.runPlugin('DEL', { ...published.portCall, netns: '' }));
      expect(await talk.say()).toBe('host');
    });

    test(`over IPv${family} are led to another container when one follows the other`, async () => {
      const { host, outside, pod } = await openWorld();
      const second = await host.addSandbox('second');
      await serve(second, onAllTransports(80));
      const first = await publish(host, pod, WEB);
      await using talk = await openTalk(outside, transport, address, 8080);
      expect(await talk.say()).toBe('pod');
      await unpublish(host, first);
      await publish(host, second, WEB);
      expect(await talk.say()).toBe('second');
    });
  }

  test('with conditions are led away from the container by DEL too', async () => {
    const { host, outside, pod } = await openWorld();
    await serve(host, onAllTransports(8080));
    const portmap = { conditionsV4: ['!', '-d', '192.0.2.0/24'] };
    const published = await publish(host, pod, WEB, { portmap });
    await using talk = await openTalk(outside, 'udp4', OUTSIDE.host4, 8080);
    expect(await talk.say()).toBe('pod');
    expectSuccess(await host.runPlugin('DEL', published.portCall));
    expect(await talk.say()).toBe('host');
  });

  test('of the iptables backend are led away from the container by DEL too', async () => {
    const { host, outside, pod } = await openWorld();
    await serve(host, onAllTransports(8080));
    const published = await publish(host, pod, WEB, { portmap: { backend: 'iptables' } });
    await using talk = await openTalk(outside, 'udp4', OUTSIDE.host4, 8080);
    expect(await talk.say()).toBe('pod');
    expectSuccess(await host.runPlugin('DEL', published.portCall));
    expect(await talk.say()).toBe('host');
  });

  for (const backend of ['nftables', 'iptables']) {
    test(`of backend ${backend} are led away from the container by GC too, and others’ stay`, async () => {
      const { host, outside, pod, peer, peerAttached } = await openWorld();
      await serve(host, onAllTransports(8080));
      await serve(peer, onAllTransports(80));
      const { portCall } = await publish(host, pod, WEB, { portmap: { backend } });
      const kept = [{ hostPort: 9090, containerPort: 80, protocol: 'udp' }];
      await publishFor(host, peerAttached, kept, { backend });
      await using talk = await openTalk(outside, 'udp4', OUTSIDE.host4, 8080);
      await using other = await openTalk(outside, 'udp4', OUTSIDE.host4, 9090);
      expect([await talk.say(), await other.say()]).toEqual(['pod', 'peer']);
      const valid = [{ containerID: 'peer', ifname: 'eth0' }];
      const { config } = changed(portCall, { 'cni.dev/valid-attachments': valid, prevResult: undefined });
      const before = await flowIds(host);
      expectSuccess(await host.runPlugin('GC', { plugin: 'portmap', config }));
      const after = await flowIds(host);
      expect(before.filter((id) => !after.includes(id))).toHaveLength(1);
      expect([await talk.say(), await other.say()]).toEqual(['host', 'peer']);
    });
  }

  test.for([
    ['ADD', 4, 'Cannot forget UDP flows'],
    ['ADD', 5, 'Cannot forget UDP flows'],
    ['DEL', 2, 'Cannot forget UDP flows'],
    ['DEL', 3, 'Cannot forget UDP flows'],
    ['ADD', 3, 'Published ports do not answer on 127.0.0.1'],
  ] as const)(
    'never fail a verb: %s without its socket number %i says so and goes on',
    async ([verb, number, words]) => {
      const { host, outside, pod } = await openWorld();
      const { portCall } = await publish(host, pod, WEB);
      // A flow to look at: without one the routes are not asked.
      await using talk = await openTalk(outside, 'udp4', OUTSIDE.host4, 8080);
      expect(await talk.say()).toBe('pod');
      const traced = await runTraced(
        host,
        verb,
        portCall,
        injecting('socket', `error=EMFILE:when=${number}`),
      );
      expect(wasInjected(traced)).toBe(true);
      expect(traced).toMatchObject({
        exitCode: 0,
        stderr: expect.stringContaining(words),
      });
    },
  );

  test('that pass through, to other ports and to other containers stay as they are', async () => {
    const { host, outside, lan, pod, peer, peerAttached } = await openWorld();
    const peerPorts = await publish(host, pod, [{ hostPort: 9090, containerPort: 80, protocol: 'udp' }]);
    await serve(lan, onAllTransports(8080));
    await serve(peer, onAllTransports(8080));
    await serve(host, onAllTransports(8081));
    await outside.run('ip', ['route', 'add', '198.51.100.0/24', 'via', OUTSIDE.host4]);
    const talks = [
      await openTalk(outside, 'udp4', LAN.neighbour4, 8080),
      await openTalk(outside, 'udp4', OUTSIDE.host4, 8081),
      await openTalk(outside, 'udp4', OUTSIDE.host4, 9090),
      await openTalk(host, 'udp4', peerAttached.ip4, 8080),
    ];
    for (const talk of talks) await talk.say();
    const before = await flowIds(host);
    expect(before.length).toBeGreaterThanOrEqual(talks.length);
    const second = await host.addSandbox('second');
    await serve(second, onAllTransports(80));
    await unpublish(host, await publish(host, second, WEB));
    const after = await flowIds(host);
    expect(before.filter((id) => !after.includes(id))).toEqual([]);
    expectSuccess(await host.runPlugin('DEL', peerPorts.portCall));
    const last = await flowIds(host);
    expect(before.filter((id) => !last.includes(id))).toHaveLength(1);
    for (const talk of talks) await talk[Symbol.asyncDispose]();
  });

  test('of one hostIP stay when another is published', async () => {
    const { host, outside, pod } = await openWorld();
    await serve(host, onAllTransports(8080));
    await host.shell('nft "add table inet t; add chain inet t c { type nat hook prerouting priority 0; }"');
    await using talk = await openTalk(outside, 'udp4', OUTSIDE.host4, 8080);
    await talk.say();
    const before = await flowIds(host);
    await publish(host, pod, [{ hostPort: 8080, containerPort: 80, protocol: 'udp', hostIP: LAN.host4 }]);
    expect(await flowIds(host)).toEqual(before);
    expect(await talk.say()).toBe('host');
  });

  async function flowIds(host: PrivateHost): Promise<string[]> {
    const { stdout } = await host.run('conntrack', ['-L', '-o', 'id', '-p', 'udp']);
    return stdout
      .split('\n')
      .flatMap((line) => /\bid=(\d+)/.exec(line)?.[1] ?? [])
      .sort();
  }
});
