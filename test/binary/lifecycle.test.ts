// The life of an attachment by the packaged plugins: ADD, CHECK, packets, DEL, whatever else happens.
// Part of `npm run test:binary`; each story ends with a host that is what it was before.
import { describe, expect, test } from 'vitest';
import { type Attached, attach, detach, withPrevResult } from '../support/attachment.ts';
import {
  type BridgeConfig,
  familiesOf,
  listNetworks,
  type NetworkList,
  readNetwork,
} from '../support/network-list.ts';
import { openPrimedHost, openTestHost, type Primed } from '../support/primed-host.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import { expectError, expectSuccess } from '../support/run-plugin.ts';
import { difference } from '../support/snapshot.ts';
import { addOutside, OUTSIDE, ping } from '../support/traffic.ts';

const dualStack = readNetwork('bridge-dual-stack.conflist').config;

describe('an attachment', () => {
  for (const { file, config, facts } of listNetworks()) {
    test(`to ${file} comes, is checked, carries packets, goes, and goes again`, async () => {
      const { host, sandbox, before } = await openPrimedHost(config);
      const attached = await attach(host, config, sandbox);
      expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
      await expectLinks(host, sandbox, facts, attached);
      await expectNeighbour(host, { config, facts }, sandbox, attached);

      expectSuccess(await host.runPlugin('DEL', withPrevResult(attached)));
      expect(difference(before, await host.snapshot())).toEqual([]);
      expectSuccess(await host.runPlugin('DEL', withPrevResult(attached)));
      expect(difference(before, await host.snapshot())).toEqual([]);
    });

    test(`to ${file} goes without a trace when DEL knows neither sandbox nor result`, async () => {
      const { host, sandbox, before } = await openPrimedHost(config);
      const { call } = await attach(host, config, sandbox);
      expectSuccess(await host.runPlugin('DEL', { ...call, netns: '' }));
      expect(difference(before, await host.snapshot())).toEqual([]);
    });

    test(`to ${file} goes without a trace after its sandbox is gone`, async () => {
      const { host, before } = await openPrimedHost(config);
      const doomed = await host.addSandbox('doomed');
      const attached = await attach(host, config, doomed);
      await doomed.delete();
      expectSuccess(await host.runPlugin('DEL', withPrevResult(attached)));
      expect(difference(before, await host.snapshot())).toEqual([]);
    });

    test(`to ${file} goes without a trace after its link is gone`, async () => {
      const { host, sandbox, before } = await openPrimedHost(config);
      const { call } = await attach(host, config, sandbox);
      await sandbox.run('ip', ['link', 'delete', 'eth0']);
      expectSuccess(await host.runPlugin('DEL', call));
      expect(difference(before, await host.snapshot())).toEqual([]);
    });

    test(`to ${file} goes alone when another sandbox is at its path`, async () => {
      const { host, sandbox, before } = await openPrimedHost(config);
      const attached = await attach(host, config, sandbox);
      // The first namespace lives on under another path; the one now at the old path has a link of that name
      // too.
      await host.shell(`
        touch /run/netns/kept
        mount --bind ${sandbox.path} /run/netns/kept
        ip netns delete pod
        ip netns add pod
        ip -n pod link add eth0 type veth peer name eth1
      `);
      const foreign = await linksIn(host, 'pod');
      expectSuccess(await host.runPlugin('DEL', withPrevResult(attached)));
      expect(await linksIn(host, 'pod')).toEqual(foreign);
      expect(await linksIn(host, 'kept')).toEqual(['lo']);
      await host.shell('ip netns delete kept; ip netns delete pod');
      await host.addSandbox('pod');
      expect(difference(before, await host.snapshot())).toEqual([]);
    });
  }

  test('leaves its neighbours on the network alone when it goes', async () => {
    const { host, sandbox } = await openPrimedHost(dualStack);
    await addOutside(host);
    const neighbour = await host.addSandbox('neighbour');
    await attach(host, dualStack, neighbour);
    const before = await host.snapshot();
    await detach(host, await attach(host, dualStack, sandbox));
    expect(difference(before, await host.snapshot())).toEqual([]);
    await ping(neighbour, OUTSIDE.outside4);
    await ping(neighbour, OUTSIDE.outside6);
  });
});

describe('a container that is on one network twice', () => {
  test('keeps the second attachment whole when the first one goes', async () => {
    const { host, sandbox, before } = await openPrimedHost(dualStack);
    const first = await attach(host, dualStack, sandbox);
    // The second default route would be the same as the first: this one serves the subnet only.
    const withoutDefault = { ...dualStack, isDefaultGateway: false, isGateway: true };
    const second = await attach(host, withoutDefault, sandbox, { ifname: 'eth1' });
    expect(second.ip4).not.toBe(first.ip4);
    for (const attached of [first, second]) {
      expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
    }
    await detach(host, first);
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(second)));
    await ping(sandbox, second.result.ips?.[0]?.gateway ?? 'no gateway');
    await detach(host, second);
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('is masqueraded on both links', async () => {
    const { host, sandbox } = await openPrimedHost(dualStack);
    await addOutside(host);
    await attach(host, dualStack, sandbox);
    const second = await attach(host, { ...dualStack, isDefaultGateway: false, isGateway: true }, sandbox, {
      ifname: 'eth1',
    });
    await sandbox.run('ping', ['-n', '-c', '1', '-w', '3', OUTSIDE.outside4]);
    // Answers come back only if the address of the second link was translated as well.
    await sandbox.shell(`ip route replace default via ${second.result.ips?.[0]?.gateway} dev eth1`);
    await sandbox.run('ping', ['-n', '-c', '1', '-w', '3', '-I', second.ip4, OUTSIDE.outside4]);
  });
});

describe('an attachment made and removed at version', () => {
  const versions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
  test.for(versions)('%s is reported in the shape of that version', async (cniVersion) => {
    const config = { ...dualStack, cniVersion };
    const { host, sandbox, before } = await openPrimedHost(config);
    const { call, result } = await attach(host, config, sandbox);
    expect(maskMacs(result)).toEqual(expectedResult(cniVersion, sandbox));
    expect(Object.keys(result)[0]).toBe('cniVersion');

    const withResult = { ...call, config: { ...config, prevResult: result } };
    const checked = await host.runPlugin('CHECK', withResult);
    if (cniVersion < '0.4.0') expect(expectError(checked).code).toBe(1);
    else expectSuccess(checked);
    expectSuccess(await host.runPlugin('DEL', withResult));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test.for(['0.1.0', '0.2.0'])(
    '%s without an address cannot be reported, and is undone',
    async (cniVersion) => {
      const layer2 = readNetwork('bridge-layer2.conflist').config;
      const { host, sandbox, before } = await openPrimedHost(layer2);
      const config = { ...layer2, cniVersion };
      const call = { config, containerId: 'pod', netns: sandbox.path, ifname: 'eth0' };
      expectError(await host.runPlugin('ADD', call));
      expect(difference(before, await host.snapshot())).toEqual([]);
    },
  );
});

describe('GC', () => {
  const valid = 'cni.dev/valid-attachments';

  test('removes what is not on the list, and nothing else', async () => {
    const { host, before, keep, stale, other } = await openCrowdedHost();
    const list = [{ containerID: keep.call.containerId, ifname: 'eth0' }];
    expectSuccess(await host.runPlugin('GC', { config: { ...dualStack, [valid]: list } }));
    await expectGone(host, stale);
    for (const attached of [keep, other]) {
      expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
    }
    const once = await host.snapshot();
    expectSuccess(await host.runPlugin('GC', { config: { ...dualStack, [valid]: list } }));
    expect(difference(once, await host.snapshot())).toEqual([]);
    for (const attached of [keep, stale, other]) await detach(host, attached);
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('tells the links of one container apart', async () => {
    const { host, sandbox } = await openPrimedHost(dualStack);
    const eth0 = await attach(host, dualStack, sandbox);
    const secondary = { ...dualStack, isDefaultGateway: false, isGateway: true };
    const eth1 = await attach(host, secondary, sandbox, { ifname: 'eth1' });
    const list = [{ containerID: sandbox.name, ifname: 'eth1' }];
    expectSuccess(await host.runPlugin('GC', { config: { ...dualStack, [valid]: list } }));
    await expectGone(host, eth0);
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(eth1)));
  });

  test.for([
    ['null', null],
    ['an empty list', []],
    ['a list of strangers', [{ containerID: 'stranger', ifname: 'eth0' }]],
  ] as const)('takes %s for "no attachment is valid"', async ([, list]) => {
    const { host, keep, stale, other } = await openCrowdedHost();
    expectSuccess(await host.runPlugin('GC', { config: { ...dualStack, [valid]: list } }));
    await expectGone(host, keep);
    await expectGone(host, stale);
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(other)));
  });

  test('without a list removes only what has lost its link', async () => {
    const { host, keep, stale, other } = await openCrowdedHost();
    expectSuccess(await host.runPlugin('GC', { config: dualStack }));
    for (const attached of [keep, stale, other]) {
      expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
    }
    await host.run('ip', ['link', 'delete', hostLinkOf(stale)]);
    expectSuccess(await host.runPlugin('GC', { config: dualStack }));
    await expectGone(host, stale);
    for (const attached of [keep, other]) {
      expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
    }
  });

  test('of a network that was never used changes nothing', async () => {
    const { host } = await openCrowdedHost();
    const before = await host.snapshot();
    expectSuccess(await host.runPlugin('GC', { config: { ...dualStack, name: 'unused', [valid]: [] } }));
    expect(difference(before, await host.snapshot()).filter((line) => !line.includes('/unused'))).toEqual([]);
  });

  test('on a layer 2 network removes the links', async () => {
    const layer2 = readNetwork('bridge-layer2.conflist').config;
    const { host, sandbox, before } = await openPrimedHost(layer2);
    await attach(host, layer2, sandbox);
    expectSuccess(await host.runPlugin('GC', { config: { ...layer2, [valid]: [] } }));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });
});

describe('STATUS', () => {
  for (const { file, config } of listNetworks()) {
    const call = { plugin: config.type, config };
    test(`of ${file} is good before and after the first attachment, and changes nothing`, async () => {
      const host = await openTestHost();
      const untouched = await host.snapshot();
      expect(await host.runPlugin('STATUS', call)).toMatchObject({ exitCode: 0, stdout: '' });
      expect(difference(untouched, await host.snapshot())).toEqual([]);
      await attach(host, config, await host.addSandbox('pod'));
      const attached = await host.snapshot();
      expect(await host.runPlugin('STATUS', call)).toMatchObject({ exitCode: 0, stdout: '' });
      expect(difference(attached, await host.snapshot())).toEqual([]);
    });
  }

  test('warns of a range that is exhausted', async () => {
    const host = await openTestHost();
    const config = withRanges([[{ subnet: '10.89.0.0/30' }]]);
    expect((await host.runPlugin('STATUS', { config })).stderr).toBe('');
    await attach(host, config, await host.addSandbox('pod'));
    const { exitCode, stderr } = await host.runPlugin('STATUS', { config });
    expect(exitCode).toBe(0);
    expect(stderr).toContain('no IP addresses available in range set "10.89.0.1-10.89.0.2"');
  });
});

interface Crowded extends Primed {
  readonly keep: Attached;
  readonly stale: Attached;
  /** On another network of the same host. */
  readonly other: Attached;
}

async function openCrowdedHost(): Promise<Crowded> {
  const { host, sandbox } = await openPrimedHost(dualStack);
  const otherConfig = readNetwork('10-bridge.conflist').config;
  const otherSandbox = await host.addSandbox('other');
  await detach(host, await attach(host, otherConfig, otherSandbox));
  const staleSandbox = await host.addSandbox('stale');
  const before = await host.snapshot();
  return {
    host,
    sandbox,
    before,
    keep: await attach(host, dualStack, sandbox),
    stale: await attach(host, dualStack, staleSandbox),
    other: await attach(host, otherConfig, otherSandbox),
  };
}

async function expectGone(host: PrivateHost, { call, ip4, ip6 }: Attached): Promise<void> {
  const traces = [
    `${call.containerId} link ${call.ifname} `,
    ...[ip4, ip6].flatMap((ip) => [`"${ip}"`, `/networks/dual-stack/${ip} `]),
  ];
  const found = (await host.snapshot()).filter((line) => traces.some((trace) => line.includes(trace)));
  expect(found).toEqual([]);
}

function hostLinkOf({ result }: Attached): string {
  return result.interfaces?.[1]?.name ?? 'no link';
}

/** The result names what is there, and the host link tells its owner to whoever looks at it. */
async function expectLinks(
  host: PrivateHost,
  sandbox: Sandbox,
  config: BridgeConfig,
  { result }: Attached,
): Promise<void> {
  const [bridge, hostLink, sandboxLink] = result.interfaces ?? [];
  expect(bridge?.name).toBe(config.bridge);
  expect(hostLink?.name).toMatch(/^veth[0-9a-f]{11}$/);
  expect(sandboxLink).toMatchObject({ name: 'eth0', sandbox: sandbox.path });
  const links = JSON.parse((await host.run('ip', ['-json', '-details', 'link'])).stdout) as LinkFacts[];
  const inside = JSON.parse(
    (await sandbox.run('ip', ['-json', 'link', 'show', 'eth0'])).stdout,
  ) as LinkFacts[];
  for (const [link, found] of [
    [bridge, links.find(({ ifname }) => ifname === bridge?.name)],
    [hostLink, links.find(({ ifname }) => ifname === hostLink?.name)],
    [sandboxLink, inside[0]],
  ] as const) {
    expect(found?.address).toBe(link?.mac);
    expect(found?.mtu).toBe(config.mtu ?? 1500);
  }
  const alias = links.find(({ ifname }) => ifname === hostLink?.name)?.ifalias;
  expect(alias).toContain(`net: ${config.name}`);
  expect(alias).toContain('if: eth0');
  expect(alias).toContain(`id: ${sandbox.name}`);
}

interface LinkFacts {
  readonly ifname: string;
  readonly address: string;
  readonly mtu: number;
  readonly ifalias?: string;
}

/** Another sandbox of the network can be reached, unless the network forbids it. */
async function expectNeighbour(
  host: PrivateHost,
  { config, facts }: Pick<NetworkList, 'config' | 'facts'>,
  sandbox: Sandbox,
  attached: Attached,
): Promise<void> {
  const neighbour = await host.addSandbox('neighbour');
  const there = await attach(host, config, neighbour);
  expect(familiesOf(config).length).toBe(attached.result.ips?.length ?? 0);
  for (const ip of [there.ip4, there.ip6].filter((address) => address !== '')) {
    if (facts.portIsolation) await ping(host, ip);
    else await ping(sandbox, ip);
  }
  await detach(host, there);
  await neighbour.delete();
}

async function linksIn(host: PrivateHost, name: string): Promise<string[]> {
  const { stdout } = await host.run('ip', ['-n', name, '-json', 'link']);
  return (JSON.parse(stdout) as LinkFacts[]).map(({ ifname }) => ifname);
}

function withRanges(ranges: readonly (readonly { readonly subnet: string }[])[]): BridgeConfig {
  return { ...dualStack, ipam: { type: 'host-local', ranges } };
}

function maskMacs(result: unknown): unknown {
  return JSON.parse(JSON.stringify(result), (key, value) => (key === 'mac' ? 'a MAC' : value)) as unknown;
}

// The second address of each range, since the earlier attachment had the first.
function expectedResult(cniVersion: string, sandbox: Sandbox): unknown {
  const [ip4, ip6] = ['10.89.0.3/24', 'fd00:89::3/64'];
  const [gw4, gw6] = ['10.89.0.1', 'fd00:89::1'];
  const [default4, default6] = [
    { dst: '0.0.0.0/0', gw: gw4 },
    { dst: '::/0', gw: gw6 },
  ];
  if (cniVersion < '0.3.0') {
    return {
      cniVersion,
      ip4: { ip: ip4, gateway: gw4, routes: [default4] },
      ip6: { ip: ip6, gateway: gw6, routes: [default6] },
      dns: {},
    };
  }
  const isOld = cniVersion < '1.0.0';
  return {
    cniVersion,
    interfaces: [
      { name: dualStack.bridge, mac: 'a MAC' },
      { name: expect.stringMatching(/^veth/), mac: 'a MAC' },
      { name: 'eth0', mac: 'a MAC', sandbox: sandbox.path },
    ],
    ips: [
      { ...(isOld && { version: '4' }), interface: 2, address: ip4, gateway: gw4 },
      { ...(isOld && { version: '6' }), interface: 2, address: ip6, gateway: gw6 },
    ],
    routes: [default4, default6],
    ...(isOld && { dns: {} }),
  };
}
