// The crowds that the scale benchmark imitates are what the reference plugins leave. Run by vitest, project "binary".
import { expect, test } from 'vitest';
import { hasReference, REFERENCE_DIRECTORY } from '../../build/tools.ts';
import { type BenchHost, openBenchHost } from '../bench/host.ts';
import { chainListOf, invocation, type NetworkShape, networkName, storeOf } from '../bench/network.ts';
import { crowdOf } from '../bench/prefill.ts';
import { PLACE } from '../bench/scale/contestants.ts';
import { attachOurs, imitateReference } from '../bench/scale/crowd.ts';
import { findCnitool } from '../support/cnitool.ts';
import { pluginDirectory } from '../support/run-plugin.ts';

const REFERENCE = { name: 'reference', directory: REFERENCE_DIRECTORY };
const ATTACHMENTS = 11; // eight are real, one on each network
const NETWORKS = [0, 1, 2] as const;
const PLUGINS = ['bridge', 'portmap', 'firewall', 'tuning'] as const;
const missing = !hasReference() || findCnitool() === undefined;

test.skipIf(missing).each(['default', 'nftables'] as const)(
  `An imitated crowd is what the chain of four leaves (${missing ? 'skipped: no reference plugins or no cnitool' : 'backend %s'})`,
  { timeout: 60_000 },
  async (ipMasq) => {
    await using imitated = await openBenchHost();
    await imitateReference(imitated, REFERENCE, ipMasq, ATTACHMENTS);
    await using real = await openBenchHost();
    await imitateReference(real, REFERENCE, ipMasq, 8);
    for (const { attachment, network } of crowdOf({ attachments: ATTACHMENTS, networks: 8 }).slice(8)) {
      await addByPlugins(real, ipMasq, attachment, network);
    }
    expect(await rulesOf(imitated)).toEqual(await rulesOf(real));
    for (const network of NETWORKS) {
      const list = `ls ${storeOf(network)} | grep -v lock; ip -o link show master cnibench${network} | wc -l`;
      expect(await imitated.shell(list)).toBe(await real.shell(list));
    }
  },
);

test('A crowd of ours has links, addresses, rules and leases', { timeout: 60_000 }, async () => {
  await using host = await openBenchHost();
  await attachOurs(host, { name: 'ours', directory: pluginDirectory() }, 9);
  expect(await host.shell(`ls ${storeOf(0)} | grep -v -e lock -e last`)).toBe('10.200.0.2\n10.200.0.3\n');
  expect(await host.shell('ip -o link show type veth | wc -l')).toBe('9\n');
  expect(await host.shell('nft list map inet patchbay masquerade4 | grep -o "net: bench" | wc -l')).toBe(
    '9\n',
  );
  expect(await host.shell('ip -n crowd -o -4 address show | grep -c "scope global"')).toBe('9\n');
});

/** What a runtime would do. The result goes from plugin to plugin. */
async function addByPlugins(
  host: BenchHost,
  ipMasq: NetworkShape['ipMasq'],
  attachment: { containerId: string; ifname: string; netns: string },
  network: (typeof NETWORKS)[number] | 3 | 4 | 5 | 6 | 7,
): Promise<void> {
  const { cniVersion, plugins } = chainListOf(
    { families: 'IPv4', ipMasq, ports: [] },
    { ...PLACE, network },
  ) as { cniVersion: string; plugins: Record<string, unknown>[] };
  let prevResult: unknown;
  for (const plugin of PLUGINS) {
    const own = plugins.find(({ type }) => type === plugin);
    const config = { cniVersion, name: networkName(network), ...own, ...(prevResult ? { prevResult } : {}) };
    // The call is the same for each plugin but for its name.
    const order = invocation(REFERENCE, 'bridge', 'ADD', attachment, config);
    const { exitCode, stdout } = await host.run({ ...order, argv: [`${REFERENCE_DIRECTORY}/${plugin}`] });
    expect(exitCode, stdout).toBe(0);
    prevResult = JSON.parse(stdout);
  }
}

/** Without what differs with the id that cnitool gives, and hashes that nobody but their writer reads. */
async function rulesOf(host: BenchHost): Promise<string[]> {
  const rules = await host.shell(
    'iptables-save; nft list table inet cni_plugins_masquerade 2> /dev/null || true',
  );
  return rules
    .split('\n')
    .filter((line) => !line.startsWith('#'))
    .map((line) => line.replace(/comment "[0-9a-f]{16}-[0-9a-f]{16}, /, 'comment "'))
    .toSorted();
}
