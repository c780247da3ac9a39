// A node that restarts, and containers that die without a DEL: the store and the runtime's cache are kept, the kernel's
// state is gone. Nothing has to be deleted by hand. Part of `npm test`.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { type Chain, callsOf, gcCallsOf, type Known, WAYS } from '../support/fault-chain.ts';
import { TIMEOUT } from '../support/fault-scale.ts';
import { addChain } from '../support/fault-scene.ts';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import { type CniResult, expectError, expectResult, expectSuccess } from '../support/run-plugin.ts';
import { difference, type Snapshot } from '../support/snapshot.ts';
import { addSurroundings } from '../support/surroundings.ts';

const OTHER_BOOT = '11111111-2222-4333-8444-555555555555';

const NAMES = ['a', 'b', 'c'] as const;

/** A node, by its chain, with what its runtime remembers. */
interface Node {
  readonly chain: Chain;
  readonly host: PrivateHost;
  readonly cache: Map<string, CniResult>;
  /** What others have there. */
  readonly foreign: Snapshot;
}

async function openNode(chain: Chain): Promise<Node> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  await addSurroundings(host, chain.network.name);
  const foreign = (await host.snapshot()).filter((line) => !line.startsWith('host sysctl'));
  return { chain, host, cache: new Map(), foreign };
}

function knownOf({ cache }: Node, containerId: string): Known {
  const number = [...NAMES].indexOf(containerId as 'a');
  return {
    containerId,
    netns: `/run/netns/${containerId}`,
    mappings: [{ hostPort: 8000 + number, containerPort: 80, protocol: 'tcp' }],
    prevResult: cache.get(containerId),
  };
}

/** ADD of the chain in a new sandbox. Gives the addresses. */
async function start(node: Node, containerId: string): Promise<string[]> {
  await node.host.addSandbox(containerId);
  const known = { ...knownOf(node, containerId), prevResult: undefined };
  const result = (await addChain(node.host, node.chain, known)) as CniResult;
  node.cache.set(containerId, result);
  for (const call of callsOf(node.chain, { ...known, prevResult: result })) {
    expectSuccess(await node.host.runPlugin('CHECK', call));
  }
  return (result.ips ?? []).map(({ address }) => address);
}

async function stop(node: Node, containerId: string): Promise<void> {
  for (const call of callsOf(node.chain, knownOf(node, containerId)).reverse()) {
    expectSuccess(await node.host.runPlugin('DEL', call));
  }
}

/** Another host with the files of the first one that are on a disk: what /run and the kernel held is gone. */
async function restart(node: Node): Promise<Node> {
  const next = await openNode(node.chain);
  const archive = '/run/var-lib-cni.tar';
  await node.host.run('tar', [
    '--xattrs',
    '--xattrs-include=user.*',
    '-C',
    '/var/lib/cni',
    '-cf',
    archive,
    '.',
  ]);
  writeFileSync(next.host.file(archive), readFileSync(node.host.file(archive)));
  await next.host.shell(`
    tar --xattrs --xattrs-include='user.*' -C /var/lib/cni -xf ${archive}
    rm ${archive}
    echo ${OTHER_BOOT} > /run/boot-id
    mount --bind /run/boot-id /proc/sys/kernel/random/boot_id
  `);
  return { ...next, cache: node.cache };
}

function addressFiles({ chain, host }: Node): string[] {
  return readdirSync(host.file(`/var/lib/cni/networks/${chain.network.name}`))
    .filter((name) => /^(10\.92\.0\.(?!250$)|fd00:)/.test(name))
    .sort();
}

/** No address is held, and nothing of anybody else's is missing. */
async function expectEmpty(node: Node): Promise<void> {
  expect(addressFiles(node)).toEqual([]);
  const missing = difference(node.foreign, await node.host.snapshot()).filter((line) => line.startsWith('-'));
  expect(missing).toEqual([]);
}

test.for(WAYS)(
  'after a restart DEL with the old results, then ADD of the same ids: $title',
  TIMEOUT,
  async (chain) => {
    const before = await openNode(chain);
    for (const name of NAMES) await start(before, name);
    const node = await restart(before);
    for (const name of NAMES) await stop(node, name);
    expect(addressFiles(node)).toEqual([]);
    for (const name of NAMES) await start(node, name);
    expect(addressFiles(node)).toHaveLength(2 * NAMES.length);
    for (const name of NAMES) await stop(node, name);
    await expectEmpty(node);
  },
);

test.for(WAYS)(
  'after a restart ADD of the same ids gives each its old addresses: $title',
  TIMEOUT,
  async (chain) => {
    const before = await openNode(chain);
    const old = new Map<string, string[]>();
    for (const name of NAMES) old.set(name, await start(before, name));
    const node = await restart(before);
    for (const name of [...NAMES].reverse()) expect(await start(node, name)).toEqual(old.get(name));
    for (const name of NAMES) await stop(node, name);
    await expectEmpty(node);
  },
);

test.for(WAYS)('after a restart GC with an empty list empties the store: $title', TIMEOUT, async (chain) => {
  const before = await openNode(chain);
  for (const name of NAMES) await start(before, name);
  const node = await restart(before);
  for (const call of gcCallsOf(chain, [])) expectSuccess(await node.host.runPlugin('GC', call));
  await expectEmpty(node);
});

test('after a restart addresses of before are given out when the range is full', TIMEOUT, async () => {
  const [{ network }] = WAYS as [Chain];
  const ipam = { type: 'host-local', ranges: [[{ subnet: '10.92.0.0/29' }]] };
  const small: Chain = { title: 'small', network: { ...network, ipam }, chained: [], ifname: 'eth0' };
  const before = await openNode(small);
  for (const name of ['1', '2', '3', '4', '5']) await start(before, name);
  const node = await restart(before);
  for (const name of ['6', '7', '8', '9', '10']) await start(node, name);
  await node.host.addSandbox('11');
  const call = callsOf(small, { ...knownOf(node, '11'), prevResult: undefined })[0] ?? {};
  expect(expectError(await node.host.runPlugin('ADD', call)).code).toBe(100);
});

test.for(WAYS)(
  'a container that died without a DEL is added again with its old addresses: $title',
  TIMEOUT,
  async (chain) => {
    const node = await openNode(chain);
    const old = await start(node, 'a');
    await start(node, 'b');
    await node.host.run('ip', ['netns', 'delete', 'a']);
    expect(await start(node, 'a')).toEqual(old);
    for (const name of ['a', 'b']) await stop(node, name);
    await expectEmpty(node);
  },
);

test.for(WAYS)('a container that lives is not added a second time: $title', TIMEOUT, async (chain) => {
  const node = await openNode(chain);
  await start(node, 'a');
  await node.host.addSandbox('elsewhere');
  const files = addressFiles(node);
  for (const netns of ['/run/netns/a', '/run/netns/elsewhere']) {
    const call = callsOf(chain, { ...knownOf(node, 'a'), netns, prevResult: undefined })[0] ?? {};
    const { code, msg } = expectError(await node.host.runPlugin('ADD', call));
    expect({ code, msg }).toEqual({ code: 102, msg: expect.stringMatching(/\bDEL\b/) });
    expect(addressFiles(node)).toEqual(files);
  }
  for (const call of callsOf(chain, knownOf(node, 'a'))) {
    expectSuccess(await node.host.runPlugin('CHECK', call));
  }
});

test(
  'a second ADD that comes while the first is between address and link takes nothing away',
  TIMEOUT,
  async () => {
    const [chain] = WAYS as [Chain];
    const node = await openNode(chain);
    await node.host.addSandbox('a');
    const call = callsOf(chain, { ...knownOf(node, 'a'), prevResult: undefined })[0] ?? {};
    const outcomes = await Promise.all([1, 2, 3].map(() => node.host.runPlugin('ADD', call)));
    const [result, ...more] = outcomes.filter(({ exitCode }) => exitCode === 0);
    expect(more).toEqual([]);
    if (result === undefined) throw new Error('One of them should have succeeded');
    node.cache.set('a', expectResult(result));
    expectSuccess(await node.host.runPlugin('CHECK', callsOf(chain, knownOf(node, 'a'))[0] ?? {}));
    await stop(node, 'a');
    await expectEmpty(node);
  },
);
