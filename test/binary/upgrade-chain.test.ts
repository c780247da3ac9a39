// A node that changes from the reference plugins to these and back, with bridge, host-local and portmap as a runtime calls
// them: each release and backend of the reference, and each way in which a container may be gone. Part of
// `npm run test:binary`; PATCHBAY_REFERENCE_DIR names a second release.
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Chain, callsOf, gcCallsOf, type Known } from '../support/fault-chain.ts';
import { addChain } from '../support/fault-scene.ts';
import { readNetwork } from '../support/network-list.ts';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import { type CniResult, expectSuccess, pluginDirectory } from '../support/run-plugin.ts';
import { difference, type Snapshot } from '../support/snapshot.ts';

const DEBIAN = '/usr/lib/cni';
const newest = process.env['PATCHBAY_REFERENCE_DIR'];
if (newest === undefined) {
  console.log('Not compared: the nftables backends, as PATCHBAY_REFERENCE_DIR names no release with them');
}

type Backend = 'iptables' | 'nftables';

interface Reference {
  readonly title: string;
  readonly directory: string;
  readonly backend: Backend;
}

const REFERENCES: readonly Reference[] = [
  { title: 'Debian’s release, iptables', directory: DEBIAN, backend: 'iptables' },
  ...(newest === undefined
    ? []
    : (['iptables', 'nftables'] as const).map((backend) => ({
        title: `the newest release, ${backend}`,
        directory: newest,
        backend,
      }))),
];

// Debian's release knows 1.0.0 at most.
const { config, chained } = readNetwork('bridge-portmap.conflist');

function chainOf(backend: Backend): Chain {
  return {
    title: backend,
    network: { ...config, cniVersion: '1.0.0', ipMasqBackend: backend },
    chained: chained.map(({ name: _, cniVersion: __, ...plugin }) => ({
      ...plugin,
      backend,
      capabilities: { portMappings: true },
    })),
    ifname: 'eth0',
  };
}

interface Node {
  readonly chain: Chain;
  readonly host: PrivateHost;
  /** What the host must be like when no container is left. */
  readonly before: Snapshot;
}

/** A host on which both were at work before, in a sandbox that is gone. */
async function openNode({ directory, backend }: Reference): Promise<Node> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  const node = { chain: chainOf(backend), host, before: [] };
  for (const side of [pluginDirectory(), directory]) {
    const known = await add(node, 'earlier', side);
    await del(node, known, side);
    await host.run('ip', ['netns', 'delete', 'earlier']);
  }
  return { ...node, before: await host.snapshot() };
}

async function add({ chain, host }: Node, containerId: string, directory: string): Promise<Known> {
  await host.addSandbox(containerId);
  const known: Known = {
    containerId,
    netns: `/run/netns/${containerId}`,
    mappings: [
      { hostPort: containerId === 'pod' ? 8080 : 9090, containerPort: 80, protocol: 'tcp' },
      { hostPort: containerId === 'pod' ? 5353 : 6363, containerPort: 53, protocol: 'udp' },
    ],
    prevResult: undefined,
    directory,
  };
  return { ...known, prevResult: (await addChain(host, chain, known)) as CniResult };
}

async function del({ chain, host }: Node, known: Known, directory: string): Promise<void> {
  for (const call of callsOf(chain, { ...known, directory }).reverse()) {
    expectSuccess(await host.runPlugin('DEL', call));
  }
}

async function check({ chain, host }: Node, known: Known): Promise<void> {
  for (const call of callsOf(chain, { ...known, directory: pluginDirectory() })) {
    expectSuccess(await host.runPlugin('CHECK', call));
  }
}

/** GC as 1.1.0 knows it, by the plugins under test, keeping these containers. */
async function collect({ chain, host }: Node, containerIds: readonly string[]): Promise<void> {
  const newer = { ...chain, network: { ...chain.network, cniVersion: '1.1.0' } };
  for (const call of gcCallsOf(newer, containerIds)) expectSuccess(await host.runPlugin('GC', call));
}

/**
 * What is there that was not before. The index beside our store is made anew from the store, so it is no state; and the
 * kernel takes a moment to remove the links of a sandbox that is gone.
 */
async function left({ host, before }: Node): Promise<string[]> {
  for (const deadline = Date.now() + 3000; ; await delay(50)) {
    const lines = difference(before, await host.snapshot());
    const found = lines.filter((line) => !line.includes('/networks/.patchbay'));
    if (!found.some((line) => line.startsWith('+ host link ')) || Date.now() > deadline) return found;
  }
}

async function removeSandbox({ host }: Node, { containerId }: Known): Promise<void> {
  await host.run('ip', ['netns', 'delete', containerId]);
}

const LOST = { netns: '', prevResult: undefined, mappings: [] };

describe.each(REFERENCES)('what the reference made: $title', (reference) => {
  test('passes our CHECK and goes with our DEL', async () => {
    const node = await openNode(reference);
    const known = await add(node, 'pod', reference.directory);
    await check(node, known);
    await del(node, known, pluginDirectory());
    await removeSandbox(node, known);
    expect(await left(node)).toEqual([]);
  });

  test.each([
    ['without its result', { prevResult: undefined }],
    ['without the path of its sandbox', { netns: '' }],
    ['without anything known', LOST],
  ] as const)('goes with our DEL %s while its sandbox lives', async (_, lost) => {
    const node = await openNode(reference);
    const known = await add(node, 'pod', reference.directory);
    await del(node, { ...known, ...lost }, pluginDirectory());
    await removeSandbox(node, known);
    expect(await left(node)).toEqual([]);
  });

  test.each([
    ['with its result', {}],
    ['without anything known', LOST],
  ] as const)('goes with our DEL %s after its sandbox is gone', async (_, lost) => {
    const node = await openNode(reference);
    const known = await add(node, 'pod', reference.directory);
    await removeSandbox(node, known);
    await del(node, { ...known, ...lost }, pluginDirectory());
    expect(await left(node)).toEqual([]);
  });

  test('goes with our GC after its sandbox is gone, and a neighbour stays', async () => {
    const node = await openNode(reference);
    const neighbour = await add(node, 'neighbour', reference.directory);
    const before = await node.host.snapshot();
    const known = await add(node, 'pod', reference.directory);
    await removeSandbox(node, known);
    await collect(node, ['neighbour']);
    await check(node, neighbour);
    const collected = await left({ ...node, before });
    // The rules of that backend tell the container and no network, so GC of a network can't know them.
    const isNameless = (line: string) => /"table":"cni_hostport".*"comment":"pod"/.test(line);
    expect(collected.filter((line) => !isNameless(line))).toEqual([]);
    if (reference.backend === 'iptables') expect(collected).toEqual([]);
    await del(node, { ...known, ...LOST }, pluginDirectory());
    expect(await left({ ...node, before })).toEqual([]);
  });
});

describe.each(REFERENCES.filter(({ backend }) => backend === 'iptables'))(
  'what we made, for $title:',
  (reference) => {
    test.each([
      ['with its result', {}],
      ['without its result, in its sandbox', { prevResult: undefined }],
    ] as const)('by iptables goes with the DEL of the reference %s', async (_, lost) => {
      const node = await openNode(reference);
      const known = await add(node, 'pod', pluginDirectory());
      await del(node, { ...known, ...lost }, reference.directory);
      await removeSandbox(node, known);
      expect(await left(node)).toEqual([]);
    });
  },
);

describe.each(REFERENCES)('what we made, before the way back to $title,', (reference) => {
  test('goes with DEL, and the reference begins on a clean host', async () => {
    const node = await openNode(reference);
    const known = await add(node, 'pod', pluginDirectory());
    await del(node, known, pluginDirectory());
    await removeSandbox(node, known);
    expect(await left(node)).toEqual([]);
    await expectReferenceWorks(node, reference);
  });

  test('goes with GC and the remaining list, and the reference begins on a clean host', async () => {
    const node = await openNode(reference);
    const known = await add(node, 'pod', pluginDirectory());
    await removeSandbox(node, known);
    await collect(node, []);
    expect(await left(node)).toEqual([]);
    await expectReferenceWorks(node, reference);
  });
});

async function expectReferenceWorks(node: Node, { directory }: Reference): Promise<void> {
  const next = await add(node, 'next', directory);
  await del(node, next, directory);
  await removeSandbox(node, next);
  expect(await left(node)).toEqual([]);
}
