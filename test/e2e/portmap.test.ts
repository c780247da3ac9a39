// Published ports as a runtime asks for them: by a chain of plugins and by one for all, driven by cnitool.
// Part of `npm run test:e2e`; packets from outside, from the LAN, from the host and from the container itself.
import { expect, onTestFinished, test } from 'vitest';
import { describeWithCnitool } from '../support/describe-with-cnitool.ts';
import { installNetwork, type NetworkList, readNetwork, speaks } from '../support/network-list.ts';
import { expectDone, expectRefused } from '../support/place.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from '../support/private-host.ts';
import type { CniResult } from '../support/run-plugin.ts';
import { askAll, onAllTransports, serve, TRANSPORTS } from '../support/service.ts';
import { difference } from '../support/snapshot.ts';
import { addNeighbour, addOutside, LAN, OUTSIDE } from '../support/traffic.ts';

const NETWORKS = ['bridge-portmap.conflist', 'patchbay.conflist'].map(readNetwork);
const VERSIONS = ['0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;
const PORT_MAPPINGS = [
  { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
  { hostPort: 8080, containerPort: 80, protocol: 'udp' },
];

interface Scene {
  readonly host: PrivateHost;
  readonly outside: Sandbox;
  readonly lan: Sandbox;
}

async function openScene(network: NetworkList, version?: string): Promise<Scene> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  const [outside, lan] = [await addOutside(host), await addNeighbour(host)];
  installNetwork(host, network, version);
  return { host, outside, lan };
}

function callFor(
  network: NetworkList,
  sandbox: Sandbox,
  portMappings: readonly object[],
): Parameters<PrivateHost['cnitool']>[1] {
  return { network: network.name, netns: sandbox.path, capabilityArgs: { portMappings } };
}

/** Who answers the clients on port 8080 of this host, by its address and, for itself, by 127.0.0.1. */
async function answering(clients: readonly Sandbox[], host: PrivateHost): Promise<string[]> {
  const questions = TRANSPORTS.map((transport) => ({
    transport,
    address: transport.endsWith('4') ? OUTSIDE.host4 : OUTSIDE.host6,
    port: 8080,
  }));
  const local = { transport: 'tcp4', address: '127.0.0.1', port: 8080 } as const;
  const replies = await Promise.all([
    ...clients.map((client) => askAll(client, questions)),
    askAll(host, [...questions, local]),
  ]);
  return [...new Set(replies.flat().map((reply) => reply?.name ?? 'nobody'))];
}

for (const network of NETWORKS)
  describeWithCnitool(`cnitool publishes ports of ${network.file} by CAP_ARGS`, () => {
    test.for(VERSIONS.filter((version) => speaks(network, version)))(
      'at %s, for everybody outside and inside, until it takes them back',
      async (version) => {
        const { host, outside, lan } = await openScene(network, version);
        const earlier = await host.addSandbox('earlier');
        expectDone(await host.cnitool('add', callFor(network, earlier, PORT_MAPPINGS)));
        expectDone(await host.cnitool('del', callFor(network, earlier, PORT_MAPPINGS)));
        await earlier.delete();
        const [pod, peer] = [await host.addSandbox('pod'), await host.addSandbox('peer')];
        await serve(pod, onAllTransports(80));
        const before = await host.snapshot();

        const call = callFor(network, pod, PORT_MAPPINGS);
        const result = JSON.parse(expectDone(await host.cnitool('add', call)).stdout) as CniResult;
        expect(result.cniVersion).toBe(version);
        expectDone(await host.cnitool('add', callFor(network, peer, [])));
        expect(await answering([outside, lan, pod, peer], host)).toEqual(['pod']);
        expectDone(await host.cnitool('status', call));
        if (version !== '0.3.1') expectDone(await host.cnitool('check', call));

        expectDone(await host.cnitool('del', callFor(network, peer, [])));
        expectDone(await host.cnitool('del', call));
        expect(await answering([outside], host)).toEqual(['nobody']);
        expect(difference(before, await host.snapshot())).toEqual([]);
        expectDone(await host.cnitool('del', call));
      },
    );

    test('and refuses the second container a port that the first one has, without a trace of it', async () => {
      const { host } = await openScene(network);
      const [first, second] = [await host.addSandbox('first'), await host.addSandbox('second')];
      expectDone(await host.cnitool('add', callFor(network, first, PORT_MAPPINGS)));
      const before = await host.snapshot();
      const refused = expectRefused(await host.cnitool('add', callFor(network, second, PORT_MAPPINGS)));
      // Which of the two is found first is for the kernel's hash to say.
      expect(refused).toMatch(/Cannot publish (tcp|udp) port 8080/);
      expect(refused).toContain(`net: ${network.name}, if: eth0, id: cnitool-`);
      // As a runtime does after a failed ADD.
      expectDone(await host.cnitool('del', callFor(network, second, PORT_MAPPINGS)));
      expect(difference(before, await host.snapshot())).toEqual([]);
      expectDone(await host.cnitool('del', callFor(network, first, [])));
      expectDone(await host.cnitool('add', callFor(network, second, PORT_MAPPINGS)));
    });

    test('and gc, which knows of no valid attachment, leaves none published', async () => {
      const { host, lan } = await openScene(network);
      const pod = await host.addSandbox('pod');
      await serve(pod, onAllTransports(80));
      expectDone(await host.cnitool('add', callFor(network, pod, PORT_MAPPINGS)));
      expect(await answering([lan], host)).toEqual(['pod']);
      expectDone(await host.cnitool('gc', callFor(network, pod, [])));
      expect(await answering([lan], host)).toEqual(['nobody']);
    });

    test('for one address of the host only', async () => {
      const { host, lan } = await openScene(network);
      const pod = await host.addSandbox('pod');
      await serve(pod, onAllTransports(80));
      const only = [{ ...PORT_MAPPINGS[0], hostIP: LAN.host4 }];
      expectDone(await host.cnitool('add', callFor(network, pod, only)));
      const asked = [LAN.host4, OUTSIDE.host4].map((address) => ({
        transport: 'tcp4' as const,
        address,
        port: 8080,
      }));
      const replies = await askAll(lan, asked);
      expect(replies.map((reply) => reply?.name)).toEqual(['pod', undefined]);
      const cached = await host.shell('cat /var/lib/cni/results/*');
      expect(cached.stdout).toContain('portMappings');
    });
  });
