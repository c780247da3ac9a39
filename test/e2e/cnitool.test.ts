// The example networks driven by cnitool, the client of the CNI project, as a runtime would drive them.
// Part of `npm run test:e2e`; every verb must do its work and leave the host as it found it.
import { expect, onTestFinished, test } from 'vitest';
import { describeWithCnitool } from '../support/describe-with-cnitool.ts';
import {
  installNetwork,
  installResolvConf,
  listNetworks,
  type NetworkList,
  speaks,
} from '../support/network-list.ts';
import { expectDone, expectRefused } from '../support/place.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from '../support/private-host.ts';
import type { CniResult } from '../support/run-plugin.ts';
import { difference, type Snapshot } from '../support/snapshot.ts';
import { ping } from '../support/traffic.ts';

const VERSIONS = ['0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;

const networks = listNetworks();

describeWithCnitool('cnitool drives the example networks', () => {
  for (const network of networks) {
    const versions = VERSIONS.filter((version) => speaks(network, version));
    test.for(versions)(`${network.file} goes through every verb at %s`, async (version) => {
      const { host, sandbox, before } = await openPrimedHost(network, version);
      const call = { network: network.name, netns: sandbox.path };

      const added = expectDone(await host.cnitool('add', call));
      const result = JSON.parse(added.stdout) as CniResult;
      expect(result.cniVersion).toBe(version);
      expect(result.interfaces?.map(({ sandbox }) => sandbox)).toEqual([undefined, undefined, sandbox.path]);
      expect(result.ips?.length ?? 0).toBe(network.config.ipam?.ranges.length ?? 0);
      if (network.facts.isGateway || network.facts.isDefaultGateway) {
        for (const { gateway = 'no gateway' } of result.ips ?? []) await ping(sandbox, gateway);
      }

      expectDone(await host.cnitool('status', call));
      const checked = await host.cnitool('check', call);
      if (version === '0.3.1') expect(checked.stderr).toContain('does not support the CHECK command');
      else expectDone(checked);

      // cnitool names no valid attachment, so this one is DELeted; then, from 1.1.0 on, the plugins get GC.
      expectDone(await host.cnitool('gc', call));
      expect(difference(before, await host.snapshot())).toEqual([]);
      expectRefused(await host.cnitool('check', call));

      expectDone(await host.cnitool('add', call));
      expectDone(await host.cnitool('del', call));
      expect(difference(before, await host.snapshot())).toEqual([]);
      expectDone(await host.cnitool('del', call));
      expect(difference(before, await host.snapshot())).toEqual([]);
    });

    test(`${network.file} loses nothing when the sandbox is gone before del`, async () => {
      const { host, before } = await openPrimedHost(network);
      const doomed = await host.addSandbox('doomed');
      const call = { network: network.name, netns: doomed.path };
      expectDone(await host.cnitool('add', call));
      await doomed.delete();
      expectDone(await host.cnitool('del', call));
      expect(difference(before, await host.snapshot())).toEqual([]);
    });

    test(`${network.file} refuses a sandbox that does not exist and changes nothing`, async () => {
      const { host, before } = await openPrimedHost(network);
      const call = { network: network.name, netns: '/run/netns/nowhere' };
      expect(expectRefused(await host.cnitool('add', call))).toContain('/run/netns/nowhere');
      expect(difference(before, await host.snapshot())).toEqual([]);
      expectDone(await host.cnitool('del', call));
      expect(difference(before, await host.snapshot())).toEqual([]);
    });

    test(`${network.file} refuses a second add and leaves the first attachment alone`, async () => {
      const { host, sandbox, before } = await openPrimedHost(network);
      const call = { network: network.name, netns: sandbox.path };
      expectDone(await host.cnitool('add', call));
      const attached = await host.snapshot();
      expectRefused(await host.cnitool('add', call));
      expect(difference(attached, await host.snapshot())).toEqual([]);
      expectDone(await host.cnitool('check', call));
      expectDone(await host.cnitool('del', call));
      expect(difference(before, await host.snapshot())).toEqual([]);
    });

    test(`${network.file} refuses a bridge name that belongs to another kind of link`, async () => {
      const { host, sandbox } = await openPrimedHost(network);
      const { bridge } = network.facts;
      await host.shell(`ip link delete ${bridge}; ip link add ${bridge} type veth peer name other-end`);
      const before = await host.snapshot();
      expect(
        expectRefused(await host.cnitool('add', { network: network.name, netns: sandbox.path })),
      ).toContain(bridge);
      expect(difference(before, await host.snapshot())).toEqual([]);
    });
  }

  test('the third sandbox of a range of two addresses is refused, and served once one is free', async () => {
    const network = withSubnet(networkNamed('10-bridge.conflist'), '10.77.0.0/29', '10.77.0.3');
    const { host } = await openPrimedHost(network);
    const first = await host.addSandbox('first');
    const second = await host.addSandbox('second');
    const third = await host.addSandbox('third');
    for (const { path } of [first, second]) {
      expectDone(await host.cnitool('add', { network: network.name, netns: path }));
    }
    const full = await host.snapshot();
    const refused = expectRefused(await host.cnitool('add', { network: network.name, netns: third.path }));
    expect(refused).toContain('no IP addresses available in range set');
    expect(difference(full, await host.snapshot())).toEqual([]);

    expectDone(await host.cnitool('del', { network: network.name, netns: first.path }));
    expectDone(await host.cnitool('add', { network: network.name, netns: third.path }));
    await ping(third, '10.77.0.1');
  });

  test('addresses and a MAC asked for by the client are the ones that the sandbox gets', async () => {
    const network = networkNamed('bridge-dual-stack.conflist');
    const { host, sandbox } = await openPrimedHost(network);
    const wished = { ips: ['10.89.0.77', 'fd00:89::77/64'], mac: '02:00:5e:00:53:01' };
    const call = { network: network.name, netns: sandbox.path, capabilityArgs: wished };
    const added = expectDone(
      await host.cnitool('add', { ...call, args: 'IgnoreUnknown=1;K8S_POD_NAME=web' }),
    );
    const result = JSON.parse(added.stdout) as CniResult;
    expect(result.ips?.map(({ address }) => address)).toEqual(['10.89.0.77/24', 'fd00:89::77/64']);
    expect(result.interfaces?.[2]).toMatchObject({ name: 'eth0', mac: wished.mac });
    const { stdout } = await sandbox.run('ip', ['-brief', 'link', 'show', 'eth0']);
    expect(stdout).toContain(wished.mac);
    expectDone(await host.cnitool('check', call));
  });
});

/** A host on which the network was used once: one ADD and DEL, in a sandbox that is gone. */
async function openPrimedHost(network: NetworkList, version?: string): Promise<Primed> {
  const host = await openHostWith(network, version);
  const earlier = await host.addSandbox('earlier');
  const call = { network: network.name, netns: earlier.path };
  expectDone(await host.cnitool('add', call));
  expectDone(await host.cnitool('del', call));
  await earlier.delete();
  const sandbox = await host.addSandbox('pod');
  return { host, sandbox, before: await host.snapshot() };
}

interface Primed {
  readonly host: PrivateHost;
  readonly sandbox: Sandbox;
  readonly before: Snapshot;
}

async function openHostWith(network: NetworkList, version?: string): Promise<PrivateHost> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  installNetwork(host, network, version);
  installResolvConf(host);
  return host;
}

function networkNamed(file: string): NetworkList {
  const network = networks.find((candidate) => candidate.file === file);
  if (network === undefined) throw new Error(`There is no example network "${file}"`);
  return network;
}

function withSubnet(network: NetworkList, subnet: string, rangeEnd: string): NetworkList {
  const list = JSON.parse(network.text) as { plugins: { ipam: object }[] };
  for (const plugin of list.plugins) plugin.ipam = { ...plugin.ipam, ranges: [[{ subnet, rangeEnd }]] };
  return { ...network, text: JSON.stringify(list) };
}
