// docs/nftables-table.md against the kernel: every constant chain stands there as nft lists it. Run by vitest, project
// "kernel", as root.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseIp } from '../../shared/ip/cidr.ts';
import { openNftables } from '../../shared/nftables/nftables.ts';
import { planFirewallTable } from '../../shared/ruleset/firewall-table.ts';
import { planHostportsTable } from '../../shared/ruleset/hostports-table.ts';
import { planSpoofCheck } from '../../shared/ruleset/spoof-check.ts';
import { planTable } from '../../shared/ruleset/table.ts';
import { openTestNetns, type TestNetns } from '../support/sandbox.ts';

let host: TestNetns;

beforeAll(() => {
  host = openTestNetns();
  using nft = openNftables({ netns: host.netns });
  nft.commit([
    ...planTable(undefined),
    ...planHostportsTable(undefined),
    ...planFirewallTable(undefined),
    ...planSpoofCheck(
      nft,
      { network: 'n1', containerId: 'c1', ifname: 'eth0' },
      { mac: '02:00:00:00:00:01', ips: [parseIp('10.22.0.2')] },
    ),
  ]);
});

afterAll(() => host[Symbol.dispose]());

test.each([
  ['inet', 10],
  ['bridge', 11],
])(
  'The document has all chains of table %s patchbay, %i of them, as the kernel has them',
  (family, count) => {
    const path = join(import.meta.dirname, '../../docs/nftables-table.md');
    const blocks = readFileSync(path, 'utf8').match(/```\n.*?```/gs) ?? [];
    const told = chainsIn(
      blocks.filter((text) => text.includes('table bridge') === (family === 'bridge')).join('\n'),
    );
    const found = chainsIn(host.run('nft', 'list', 'table', family, 'patchbay'));
    expect(found.size).toBe(count);
    for (const [name, lines] of found) expect(told.get(name), `chain ${name}`).toEqual(lines);
  },
);

/** The lines of each chain, by its name. */
function chainsIn(text: string): Map<string, string[]> {
  const chains = text.matchAll(/^\tchain (\S+) \{\n(.*?)^\t\}/gms);
  return new Map(
    [...chains].map(([, name = '', body = '']) => [
      name,
      body
        .split('\n')
        .map((line) => line.trim())
        .filter((line) => line !== ''),
    ]),
  );
}
