// DEL of the whole chain with whatever a runtime may still know, in every combination: nothing of ours is left wherever it
// can be known, and nobody else is touched. Part of `npm test` with a share of them, of `npm run test:faults` with all.
import { writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { CHAINS, type Chain, callsOf } from '../support/fault-chain.ts';
import { report, TIMEOUT, thin } from '../support/fault-scale.ts';
import { addChain, delChain, leftovers, MAPPINGS, openLanes, type Scene } from '../support/fault-scene.ts';
import type { BridgeConfig } from '../support/network-list.ts';
import { type CniResult, expectSuccess, type PluginCall } from '../support/run-plugin.ts';

type Fields = { readonly [field: string]: unknown };

/** What a runtime hands over at DEL, field by field; each way is named as it appears in the titles of failures. */
const NETNS = ['present', 'empty', 'missing', 'another namespace', 'a plain file'] as const;
const PREV_RESULT = ['present', 'absent', 'of a foreign version', 'of another attachment'] as const;
const RUNTIME_CONFIG = ['as at ADD', 'absent', 'changed'] as const;
const IPAM = ['as at ADD', 'another range', 'another dataDir'] as const;

interface Combination {
  readonly netns: (typeof NETNS)[number];
  readonly prevResult: (typeof PREV_RESULT)[number];
  readonly runtimeConfig: (typeof RUNTIME_CONFIG)[number];
  readonly ipam: (typeof IPAM)[number];
}

const COMBINATIONS: readonly Combination[] = NETNS.flatMap((netns) =>
  PREV_RESULT.flatMap((prevResult) =>
    RUNTIME_CONFIG.flatMap((runtimeConfig) =>
      IPAM.map((ipam) => ({ netns, prevResult, runtimeConfig, ipam })),
    ),
  ),
);

test.for(CHAINS)(
  'DEL cleans up and comes to a good end in every combination, twice: $title',
  TIMEOUT,
  async (chain) => {
    await using lanes = await openLanes(chain);
    const combinations = thin(COMBINATIONS, 17);
    const problems = await lanes.run(combinations, async (scene, combination) => {
      try {
        await tryOnce(scene, combination);
        return undefined;
      } catch (error) {
        return `${JSON.stringify(combination)}: ${error instanceof Error ? error.message : String(error)}`;
      }
    });
    const clean = combinations.length - problems.length;
    report(`DEL, ${chain.title}`, { 'combinations of DEL': combinations.length, clean });
    expect(problems).toEqual([]);
    await lanes.expectSettings();
  },
);

async function tryOnce(scene: Scene, combination: Combination): Promise<void> {
  const { host, chain, sandbox } = scene;
  const known = { containerId: sandbox.name, netns: sandbox.path, mappings: MAPPINGS, prevResult: undefined };
  const result = await addChain(host, chain, known);
  const path = `/run/netns/${sandbox.name}`;
  if (combination.netns !== 'present' && combination.netns !== 'empty') {
    // The name goes; the namespace stays alive under another, as one does that a process still lives in.
    await host.shell(`touch /run/netns/kept; mount --bind ${path} /run/netns/kept; ip netns delete pod`);
    if (combination.netns === 'another namespace') {
      await host.shell(`touch ${path}; mount --bind /run/netns/resident ${path}`);
    }
    if (combination.netns === 'a plain file') writeFileSync(host.file(path), 'no namespace');
  }
  const calls = delCalls(scene, result, combination);
  try {
    for (const call of calls) expectSuccess(await host.runPlugin('DEL', call));
    const first = await leftAfter(scene, combination);
    for (const call of calls) expectSuccess(await host.runPlugin('DEL', call));
    const second = await leftAfter(scene, combination);
    expect(first, 'left after the first DEL').toEqual(unknowable(chain, result, combination));
    expect(second, 'left after the second DEL').toEqual(first);
  } finally {
    await restore(scene, combination);
  }
  expect(await leftovers(scene)).toEqual([]);
}

/** The sandbox itself is not what we look at: in most combinations its name is gone or leads elsewhere. */
async function leftAfter(scene: Scene, { netns }: Combination): Promise<string[]> {
  const left = await leftovers(scene);
  const isSandbox = (line: string) => /^[-+] ((pod|kept)[ :]|file \/run\/netns\/(pod|kept) )/.test(line);
  return netns === 'present' || netns === 'empty' ? left : left.filter((line) => !isSandbox(line));
}

/** The store of another directory than that of ADD is not ours to find; its records stay. */
function unknowable(chain: Chain, result: CniResult | undefined, { ipam }: Combination): string[] {
  if (ipam !== 'another dataDir') return [];
  const ips = (result?.ips ?? []).map(({ address }) => address.slice(0, address.indexOf('/')));
  return ips.map((ip) => `+ file /var/lib/cni/networks/${chain.network.name}/${ip} 0600 "pod\\r\\neth0"`);
}

/** Puts the sandbox back under its name, and frees what could not be known. */
async function restore(scene: Scene, { netns, ipam }: Combination): Promise<void> {
  const { host, sandbox } = scene;
  if (netns !== 'present' && netns !== 'empty') {
    await host.shell(`
      umount ${sandbox.path} 2> /dev/null || true
      rm -f ${sandbox.path}; touch ${sandbox.path}; chmod 0 ${sandbox.path}
      mount --bind /run/netns/kept ${sandbox.path}
      umount /run/netns/kept; rm /run/netns/kept
    `);
  }
  if (ipam === 'another dataDir') await delChain(scene, undefined);
}

function delCalls(scene: Scene, result: CniResult | undefined, combination: Combination): PluginCall[] {
  const { chain, sandbox } = scene;
  const netns = combination.netns === 'empty' ? '' : sandbox.path;
  const changed = { ...chain, network: { ...chain.network, ipam: ipamOf(chain, combination) } };
  const known = { containerId: sandbox.name, netns, mappings: [], prevResult: undefined };
  const fields = { ...prevResultOf(scene, result, combination), ...runtimeConfigOf(combination) };
  return callsOf(changed, known)
    .map((call) => ({ ...call, config: { ...withoutRuntimeConfig(call.config as Fields), ...fields } }))
    .reverse();
}

function withoutRuntimeConfig({ runtimeConfig: _, ...fields }: Fields): Fields {
  return fields;
}

function prevResultOf(
  { resident }: Scene,
  result: CniResult | undefined,
  { prevResult }: Combination,
): Fields {
  switch (prevResult) {
    case 'present':
      return { prevResult: result };
    case 'absent':
      return {};
    case 'of a foreign version':
      return { prevResult: { cniVersion: '0.2.0', ip4: { ip: '10.92.0.2/24' }, dns: 'none' } };
    case 'of another attachment':
      return { prevResult: resident };
  }
}

function runtimeConfigOf({ runtimeConfig }: Combination): Fields {
  switch (runtimeConfig) {
    case 'as at ADD':
      return { runtimeConfig: { portMappings: MAPPINGS } };
    case 'absent':
      return {};
    case 'changed':
      return {
        runtimeConfig: {
          portMappings: [{ hostPort: 9090, containerPort: 90, protocol: 'tcp' }],
          ips: ['10.92.0.77/24'],
          mac: '02:00:00:00:00:01',
        },
      };
  }
}

function ipamOf({ network }: Chain, { ipam }: Combination): Fields {
  const asAtAdd = (network as BridgeConfig).ipam ?? {};
  switch (ipam) {
    case 'as at ADD':
      return asAtAdd;
    case 'another range':
      return { ...asAtAdd, ranges: [[{ subnet: '10.93.0.0/24' }]] };
    case 'another dataDir':
      return { ...asAtAdd, dataDir: '/var/lib/cni/elsewhere' };
  }
}
