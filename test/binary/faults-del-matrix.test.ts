// DEL of bridge, host-local and portmap with whatever a runtime may still know, in every combination: nothing of ours is
// left wherever it can be known, and nobody else is touched. Part of `npm run test:binary`.
import { writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { type Fields, PORTS, type Published, publish } from '../support/chain.ts';
import { leftovers, MAPPINGS, openLanes, type Scene } from '../support/fault-scene.ts';
import { expectSuccess, type PluginCall } from '../support/run-plugin.ts';

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

test('DEL cleans up and comes to a good end in every combination, twice', {
  timeout: 1_800_000,
}, async () => {
  await using lanes = await openLanes();
  const problems = await lanes.run(COMBINATIONS, async (scene, combination) => {
    try {
      await tryOnce(scene, combination);
      return undefined;
    } catch (error) {
      return `${JSON.stringify(combination)}: ${error instanceof Error ? error.message : String(error)}`;
    }
  });
  console.log(`DEL: ${COMBINATIONS.length} combinations, ${COMBINATIONS.length - problems.length} clean`);
  expect(problems).toEqual([]);
  await lanes.expectSettings();
});

async function tryOnce(scene: Scene, combination: Combination): Promise<void> {
  const { host } = scene;
  const published = await publish(host, scene.sandbox, MAPPINGS);
  const path = `/run/netns/${scene.sandbox.name}`;
  if (combination.netns !== 'present' && combination.netns !== 'empty') {
    // The name goes; the namespace stays alive under another, as one does that a process still lives in.
    await host.shell(`touch /run/netns/kept; mount --bind ${path} /run/netns/kept; ip netns delete pod`);
    if (combination.netns === 'another namespace') {
      await host.shell(`touch ${path}; mount --bind /run/netns/resident ${path}`);
    }
    if (combination.netns === 'a plain file') writeFileSync(host.file(path), 'no namespace');
  }
  const calls = callsOf(scene, published, combination);
  try {
    for (const call of calls) expectSuccess(await host.runPlugin('DEL', call));
    const first = await leftAfter(scene, combination);
    for (const call of calls) expectSuccess(await host.runPlugin('DEL', call));
    const second = await leftAfter(scene, combination);
    expect(first, 'left after the first DEL').toEqual(unknowable(published, combination));
    expect(second, 'left after the second DEL').toEqual(first);
  } finally {
    await restore(scene, published, combination);
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
function unknowable({ ip4, ip6 }: Published, { ipam }: Combination): string[] {
  if (ipam !== 'another dataDir') return [];
  return [ip4, ip6].map((ip) => `+ file /var/lib/cni/networks/${PORTS.name}/${ip} 0600 "pod\\r\\neth0"`);
}

/** Puts the sandbox back under its name, and frees what could not be known. */
async function restore(
  { host, sandbox }: Scene,
  published: Published,
  { netns, ipam }: Combination,
): Promise<void> {
  if (netns !== 'present' && netns !== 'empty') {
    await host.shell(`
      umount ${sandbox.path} 2> /dev/null || true
      rm -f ${sandbox.path}; touch ${sandbox.path}; chmod 0 ${sandbox.path}
      mount --bind /run/netns/kept ${sandbox.path}
      umount /run/netns/kept; rm /run/netns/kept
    `);
  }
  if (ipam === 'another dataDir') expectSuccess(await host.runPlugin('DEL', published.call));
}

function callsOf(scene: Scene, published: Published, combination: Combination): PluginCall[] {
  const { call } = published;
  const netns = combination.netns === 'empty' ? '' : scene.sandbox.path;
  const fields = { ...prevResultOf(scene, published, combination), ...runtimeConfigOf(combination) };
  const { cniVersion, name } = PORTS;
  const portmap = { cniVersion, name, type: 'portmap', ...fields };
  const bridge = { ...PORTS, ipam: ipamOf(combination), ...fields };
  return [
    { ...call, plugin: 'portmap', netns, config: portmap },
    { ...call, netns, config: bridge },
  ];
}

function prevResultOf({ resident }: Scene, { result }: Published, { prevResult }: Combination): Fields {
  switch (prevResult) {
    case 'present':
      return { prevResult: result };
    case 'absent':
      return {};
    case 'of a foreign version':
      return { prevResult: { cniVersion: '0.2.0', ip4: { ip: '10.92.0.2/24' }, dns: 'none' } };
    case 'of another attachment':
      return { prevResult: resident.result };
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

function ipamOf({ ipam }: Combination): Fields {
  switch (ipam) {
    case 'as at ADD':
      return PORTS.ipam ?? {};
    case 'another range':
      return { ...PORTS.ipam, ranges: [[{ subnet: '10.93.0.0/24' }]] };
    case 'another dataDir':
      return { ...PORTS.ipam, dataDir: '/var/lib/cni/elsewhere' };
  }
}
