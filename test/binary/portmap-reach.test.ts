// Who reaches a published port, from where, by which address of the host, and under which address the container sees
// them: proven with packets. Part of `npm run test:binary`; the tables are printed.
import { describe, expect, onTestFinished, test } from 'vitest';
import { type ChainOptions, PORTS, publish } from '../support/chain.ts';
import {
  openPortWorld,
  openPublishedWorld,
  type PortWorld,
  REACHABILITY_HEAD,
  reachability,
  setBridgeNetfilter,
  WEB,
} from '../support/reachability.ts';
import { ask, askAll, onAllTransports, serve, TRANSPORTS, whoAnswers } from '../support/service.ts';
import { LAN, OUTSIDE } from '../support/traffic.ts';

/** What everybody can expect of a published port. `[::1]` cannot work through NAT. */
const EVERYWHERE = `
outside host      uplink    own   own   own   own
LAN host          lan       own   own   own   own
LAN host          uplink    own   own   own   own
host              uplink    host  host  host  host
host              lan       host  host  host  host
host              gateway   host  host  host  host
host              loopback  host  host  -     -
container itself  uplink    host  host  host  host
container itself  lan       host  host  host  host
container itself  gateway   host  host  host  host
its neighbour     uplink    host  host  host  host
its neighbour     lan       host  host  host  host
its neighbour     gateway   host  host  host  host
other network     uplink    host  host  host  host
other network     lan       host  host  host  host
other network     gateway   host  host  host  host
`.trim();

async function openWorld(options: ChainOptions = {}): ReturnType<typeof openPublishedWorld> {
  const world = await openPublishedWorld(options);
  onTestFinished(() => world[Symbol.asyncDispose]());
  return world;
}

/** Prints the table under a title and returns its body. */
async function tabulate(title: string, world: Awaited<ReturnType<typeof openWorld>>): Promise<string> {
  const rows = await reachability(world, world.published);
  console.log([`Reachability, ${title}`, REACHABILITY_HEAD, ...rows].join('\n'));
  return rows.join('\n');
}

/** Whether bridge netfilter is there to be set; prints why a test ends here when it is not. */
async function hasBridgeNetfilter({ host }: PortWorld, state: 0 | 1): Promise<boolean> {
  const isSet = await setBridgeNetfilter(host, state);
  if (!isSet)
    console.log('Skipped: the kernel has no br_netfilter (sysctl net.bridge.bridge-nf-call-iptables)');
  return isSet;
}

describe('a published port is reached from everywhere', () => {
  for (const state of [0, 1] as const) {
    for (const backend of ['nftables', 'iptables']) {
      test(`by the ${backend} backend with bridge-nf-call-iptables ${state}`, async (context) => {
        const world = await openWorld({ portmap: { backend } });
        if (!(await hasBridgeNetfilter(world, state))) context.skip('no br_netfilter');
        expect(await tabulate(`${backend}, bridge-nf-call-iptables ${state}`, world)).toBe(EVERYWHERE);
      });
    }
  }

  test('with masqAll, when the container sees nobody’s own address', async () => {
    const world = await openWorld({ portmap: { masqAll: true } });
    expect(await tabulate('masqAll', world)).toBe(
      EVERYWHERE.replaceAll('own ', 'host').replaceAll('own', 'host'),
    );
  });

  test('with snat off, except from the own subnet and from 127.0.0.1', async (context) => {
    const world = await openWorld({ portmap: { snat: false } });
    if (!(await hasBridgeNetfilter(world, 0))) context.skip('no br_netfilter');
    const needsSnat = /^(container itself|its neighbour|host +loopback)/;
    const expected = EVERYWHERE.split('\n').map((line) =>
      needsSnat.test(line) ? `${line.slice(0, 28)}-     -     -     -` : line,
    );
    expect((await tabulate('snat off', world)).split('\n')).toEqual(expected);
    const sysctl = await world.host.run('sysctl', ['-n', `net.ipv4.conf.${PORTS.bridge}.route_localnet`]);
    expect(sysctl.stdout).toBe('0');
  });
});

describe('the reference plugins', () => {
  // Debian's package, and another release where one is named.
  const directories = ['/usr/lib/cni', process.env['PATCHBAY_REFERENCE_DIR'] ?? ''].filter(
    (path) => path !== '',
  );
  test.for(directories)('in %s reach nothing that ours do not', async (directory) => {
    const network = { ...PORTS, cniVersion: '1.0.0' };
    const theirs = (
      await tabulate(`reference in ${directory}`, await openWorld({ directory, network }))
    ).split('\n');
    const ours = (await tabulate('ours, version 1.0.0', await openWorld({ network }))).split('\n');
    for (const [row, line] of theirs.entries()) {
      const [mine, other] = [cells(ours[row]), cells(line)];
      expect(mine.map((cell, column) => (other[column] === '-' ? '-' : cell))).toEqual(other);
    }
  });

  function cells(line = ''): string[] {
    return [line.slice(0, 28), ...line.slice(28).trim().split(/ +/)];
  }
});

describe('the container sees', () => {
  test('the address of a client from outside, of a client on the LAN, and of the gateway for its neighbour', async () => {
    const { outside, lan, peer, pod } = await openWorld();
    expect(await ask(outside, 'tcp4', OUTSIDE.host4, 8080)).toEqual({
      name: 'pod',
      client: OUTSIDE.outside4,
    });
    expect(await ask(outside, 'udp6', OUTSIDE.host6, 8080)).toEqual({
      name: 'pod',
      client: OUTSIDE.outside6,
    });
    expect(await ask(lan, 'udp4', LAN.host4, 8080)).toEqual({ name: 'pod', client: LAN.neighbour4 });
    expect(await ask(lan, 'tcp6', LAN.host6, 8080)).toEqual({ name: 'pod', client: LAN.neighbour6 });
    for (const client of [peer, pod]) {
      expect(await ask(client, 'tcp4', OUTSIDE.host4, 8080)).toEqual({ name: 'pod', client: '10.92.0.1' });
      expect(await ask(client, 'udp6', OUTSIDE.host6, 8080)).toEqual({ name: 'pod', client: 'fd00:92::1' });
    }
  });

  test.for([0, 1] as const)(
    'its neighbour’s own address when the neighbour asks it directly, with bridge-nf-call-iptables %i',
    async (state, context) => {
      const world = await openWorld();
      if (!(await hasBridgeNetfilter(world, state))) context.skip('no br_netfilter');
      const { peer, peerAttached, published } = world;
      for (const [transport, to, from] of [
        ['tcp4', published.ip4, peerAttached.ip4],
        ['udp4', published.ip4, peerAttached.ip4],
        ['tcp6', published.ip6, peerAttached.ip6],
        ['udp6', published.ip6, peerAttached.ip6],
      ] as const) {
        expect(await ask(peer, transport, to, 80)).toEqual({ name: 'pod', client: from });
      }
    },
  );
});

describe('hostIP', () => {
  /** Which of the host's addresses lead to the container over TCP: asked by the host itself and from the LAN. */
  async function reached(hostIP: string): Promise<{ said: string; addresses: string[] }> {
    const world = await openPortWorld();
    onTestFinished(() => world[Symbol.asyncDispose]());
    const { said } = await publish(world.host, world.pod, [{ hostPort: 8080, containerPort: 80, hostIP }]);
    const questions = [OUTSIDE.host4, LAN.host4, '127.0.0.1', OUTSIDE.host6, LAN.host6].map((address) => ({
      transport: address.includes(':') ? ('tcp6' as const) : ('tcp4' as const),
      address,
      port: 8080,
    }));
    const [fromHost, fromLan] = [await askAll(world.host, questions), await askAll(world.lan, questions)];
    for (const [position, { address }] of questions.entries()) {
      if (address !== '127.0.0.1') expect(fromLan[position]?.name).toBe(fromHost[position]?.name);
    }
    return {
      said,
      addresses: questions.flatMap(({ address }, position) =>
        fromHost[position]?.name === 'pod' ? [address] : [],
      ),
    };
  }

  const v4 = [OUTSIDE.host4, LAN.host4, '127.0.0.1'];
  const v6 = [OUTSIDE.host6, LAN.host6];
  test.for([
    ['', 'every address of both families', [...v4, ...v6]],
    ['0.0.0.0', 'every IPv4 address', v4],
    ['::', 'every IPv6 address, and no IPv4 client', v6],
    [LAN.host4, 'that IPv4 address alone', [LAN.host4]],
    [LAN.host6, 'that IPv6 address alone', [LAN.host6]],
    [`::ffff:${LAN.host4}`, 'the IPv4 address in it', [LAN.host4]],
    ['127.0.0.1', 'the host itself alone', ['127.0.0.1']],
  ] as const)('"%s" means %s', async ([hostIP, , addresses]) => {
    expect(await reached(hostIP)).toEqual({ said: '', addresses });
  });

  test('"::1" is left out with a line that says why', async () => {
    const { said, addresses } = await reached('::1');
    expect(addresses).toEqual([]);
    expect(said).toContain('Skipping port 8080/tcp on ::1: the kernel brings no answer of a container back');
  });

  test('tells two containers apart that publish one port on two addresses', async () => {
    const world = await openPortWorld();
    onTestFinished(() => world[Symbol.asyncDispose]());
    const { host, pod, lan } = world;
    const second = await host.addSandbox('second');
    await serve(second, onAllTransports(81));
    await publish(host, pod, [{ hostPort: 8080, containerPort: 80, hostIP: OUTSIDE.host4 }]);
    await publish(host, second, [{ hostPort: 8080, containerPort: 81, hostIP: LAN.host4 }]);
    for (const place of [host, lan]) {
      expect(await whoAnswers(place, 'tcp4', OUTSIDE.host4, 8080)).toBe('pod');
      expect(await whoAnswers(place, 'tcp4', LAN.host4, 8080)).toBe('second');
    }
  });

  test('takes an address that the host gets later', async () => {
    const world = await openPortWorld();
    onTestFinished(() => world[Symbol.asyncDispose]());
    const { host, pod, lan } = world;
    await publish(host, pod, [{ hostPort: 8080, containerPort: 80, hostIP: '198.51.100.77' }]);
    expect(await whoAnswers(lan, 'tcp4', '198.51.100.77', 8080)).toBe('');
    await host.run('ip', ['addr', 'add', '198.51.100.77/24', 'dev', 'lan']);
    expect(await whoAnswers(lan, 'tcp4', '198.51.100.77', 8080)).toBe('pod');
  });
});

describe('a mapping', () => {
  test('of a family that the container lacks is left out with a line, and the others are made', async () => {
    const world = await openPortWorld();
    onTestFinished(() => world[Symbol.asyncDispose]());
    const { host, pod, lan } = world;
    const network = {
      ...PORTS,
      name: 'four',
      bridge: 'cni-four0',
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.94.0.0/24' }]] },
    };
    const { said } = await publish(
      host,
      pod,
      [
        { hostPort: 8080, containerPort: 80 },
        { hostPort: 8081, containerPort: 80, hostIP: '::' },
        { hostPort: 8082, containerPort: 80, hostIP: LAN.host6 },
      ],
      { network },
    );
    expect(said.trim().split('\n')).toEqual([
      expect.stringContaining(
        'Skipping port 8081/tcp on any IPv6 address: the container has no IPv6 address',
      ),
      expect.stringContaining(`Skipping port 8082/tcp on ${LAN.host6}: the container has no IPv6 address`),
    ]);
    expect(await whoAnswers(lan, 'tcp4', LAN.host4, 8080)).toBe('pod');
    expect(await whoAnswers(lan, 'tcp6', LAN.host6, 8081)).toBe('');
  });

  test.for(['tcp', 'TCP', 'Tcp', ''])('of protocol "%s" is of TCP', async (protocol) => {
    const world = await openPortWorld();
    onTestFinished(() => world[Symbol.asyncDispose]());
    await publish(world.host, world.pod, [{ hostPort: 8080, containerPort: 80, protocol }]);
    const answers = await askAll(
      world.lan,
      TRANSPORTS.map((transport) => ({
        transport,
        address: transport.endsWith('4') ? LAN.host4 : LAN.host6,
        port: 8080,
      })),
    );
    expect(answers.map((answer) => answer?.name)).toEqual(['pod', undefined, 'pod', undefined]);
  });

  test('is understood in the spelling of any runtime', async () => {
    const world = await openPortWorld();
    onTestFinished(() => world[Symbol.asyncDispose]());
    const { host, pod, lan } = world;
    const portMappings = [
      { HostPort: 8080, ContainerPort: 80, Protocol: 'tcp', HostIP: '' },
      { hostport: 8081, CONTAINERPORT: 80, protocol: 'UDP', hostip: '0.0.0.0' },
    ];
    await publish(host, pod, [], { portmap: { runtimeConfig: { PortMappings: portMappings } } });
    expect(await whoAnswers(lan, 'tcp6', LAN.host6, 8080)).toBe('pod');
    expect(await whoAnswers(lan, 'udp4', LAN.host4, 8081)).toBe('pod');
  });

  test('of SCTP has its rule, whether or not the kernel has SCTP', async () => {
    const world = await openPortWorld();
    onTestFinished(() => world[Symbol.asyncDispose]());
    await publish(world.host, world.pod, [{ hostPort: 9, containerPort: 9, protocol: 'SCTP' }]);
    const { stdout } = await world.host.run('nft', ['list', 'table', 'inet', 'patchbay']);
    expect(stdout).toMatch(/sctp \. 9 comment .* : 10\.92\.0\.\d+ \. 9\b/);
    expect(stdout).toMatch(/sctp \. 9 comment .* : fd00:92::\w+ \. 9\b/);
  });
});

describe('DNAT wins over a process that listens on the port', () => {
  test('on every address of the host, 127.0.0.1 included, and the process gets the port back with DEL', async () => {
    const { host, outside, lan, pod } = await openPortWorld();
    onTestFinished(() => host.close());
    await serve(host, onAllTransports(8080));
    expect(await whoAnswers(host, 'tcp4', '127.0.0.1', 8080)).toBe('host');
    const published = await publish(host, pod, WEB);
    for (const transport of ['tcp4', 'udp4'] as const) {
      expect(await whoAnswers(host, transport, '127.0.0.1', 8080)).toBe('pod');
      expect(await whoAnswers(host, transport, OUTSIDE.host4, 8080)).toBe('pod');
      expect(await whoAnswers(outside, transport, OUTSIDE.host4, 8080)).toBe('pod');
    }
    expect(await whoAnswers(lan, 'tcp6', LAN.host6, 8080)).toBe('pod');
    expect(await whoAnswers(host, 'tcp6', '::1', 8080)).toBe('host');
    await host.runPlugin('DEL', published.portCall);
    expect(await whoAnswers(host, 'tcp4', '127.0.0.1', 8080)).toBe('host');
    expect(await whoAnswers(outside, 'udp4', OUTSIDE.host4, 8080)).toBe('host');
  });
});
