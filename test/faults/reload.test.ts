// A firewall reload that flushes the whole ruleset under running attachments: CHECK names what is missing, and what
// docs/firewall-reload.md tells to do keeps or restores exactly what was there, without an ADD. Part of `npm test`.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { type Chain, callsOf, IPTABLES, NATIVE, typeAt, WAYS } from '../support/fault-chain.ts';
import { TIMEOUT } from '../support/fault-scale.ts';
import { addChain } from '../support/fault-scene.ts';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import { type CniResult, expectError, expectSuccess, type PluginCall } from '../support/run-plugin.ts';
import { difference } from '../support/snapshot.ts';

interface Node {
  readonly host: PrivateHost;
  /** CHECK of every plugin of each attachment, first plugin first. */
  readonly checks: readonly PluginCall[];
}

const GUIDE = readFileSync(join(import.meta.dirname, '../../docs/firewall-reload.md'), 'utf8');

/** The commands of the guide under a title, as they stand there. */
function commandsOf(title: string): string {
  const section = GUIDE.split(/^## /m).find((text) => text.startsWith(title));
  const commands = /```sh\n(.*?)```/s.exec(section ?? '')?.[1];
  if (commands === undefined) throw new Error(`docs/firewall-reload.md has no commands under "${title}"`);
  return commands;
}

/** What the administrator's own firewall is. */
const OWN_RULES = `#!/usr/sbin/nft -f
flush ruleset
table inet filter {
  chain input {
    type filter hook input priority filter; policy accept;
    tcp dport 22 accept
  }
}
`;

async function openNode(chain: Chain): Promise<Node> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  await host.run('nft', ['-f', '-'], { input: OWN_RULES });
  await host.run('tee', ['/etc/nftables.conf'], { input: OWN_RULES });
  const checks: PluginCall[] = [];
  for (const [number, containerId] of ['a', 'b'].entries()) {
    const { path: netns } = await host.addSandbox(containerId);
    const mappings = [{ hostPort: 8080 + number, containerPort: 80, protocol: 'tcp' }];
    const known = { containerId, netns, mappings, prevResult: undefined };
    const prevResult = (await addChain(host, chain, known)) as CniResult;
    checks.push(...callsOf(chain, { ...known, prevResult }));
  }
  return { host, checks };
}

async function expectChecked({ host, checks }: Node): Promise<void> {
  for (const call of checks) expectSuccess(await host.runPlugin('CHECK', call));
}

/** Whose work is in the ruleset; the others have nothing to miss. */
const RULED: ReadonlySet<string> = new Set(['bridge', 'portmap', 'firewall', 'patchbay']);

test.for(WAYS)('CHECK names what a flushed ruleset is missing: $title', TIMEOUT, async (chain) => {
  const node = await openNode(chain);
  await expectChecked(node);
  await node.host.run('nft', ['flush', 'ruleset']);
  const plugins = [0, ...chain.chained.map((_, index) => index + 1)].map((position) =>
    typeAt(chain, position),
  );
  for (const call of node.checks.filter(({ plugin = '' }) => plugins.includes(plugin) && RULED.has(plugin))) {
    const { code, msg } = expectError(await node.host.runPlugin('CHECK', call));
    expect({ code, msg }, call.plugin).toEqual({
      code: 107,
      msg: expect.stringMatching(/chain|table|map|rule/i),
    });
  }
});

test('a reload that takes our tables along leaves everything as it was', TIMEOUT, async () => {
  const node = await openNode(NATIVE);
  const before = await node.host.snapshot();
  await node.host.shell(commandsOf('Reload without a gap'));
  expect(difference(before, await node.host.snapshot())).toEqual([]);
  await expectChecked(node);
});

test('an ADD that comes while the rules are reloaded waits, and is not lost', TIMEOUT, async () => {
  const node = await openNode(NATIVE);
  const { path: netns } = await node.host.addSandbox('late');
  const known = { containerId: 'late', netns, mappings: [], prevResult: undefined };
  const reload = commandsOf('Reload without a gap').replace('nft -f -', '(sleep 1; cat) | nft -f -');
  const [result] = await Promise.all([addChain(node.host, NATIVE, known), node.host.shell(reload)]);
  await expectChecked(node);
  for (const call of callsOf(NATIVE, { ...known, prevResult: result })) {
    expectSuccess(await node.host.runPlugin('CHECK', call));
  }
});

test('what was saved before is restored after', TIMEOUT, async () => {
  const node = await openNode(NATIVE);
  const before = await node.host.snapshot();
  await node.host.shell(commandsOf('Save'));
  await node.host.run('nft', ['-f', '/etc/nftables.conf']);
  await node.host.shell(commandsOf('Restore'));
  await node.host.shell('rm /run/patchbay/rules.nft');
  expect(difference(before, await node.host.snapshot())).toEqual([]);
  await expectChecked(node);
});

test('with the iptables backends, what was saved before is restored after', TIMEOUT, async () => {
  const node = await openNode(IPTABLES);
  const [save = '', restore = ''] = commandsOf('The iptables backends').split('# after the reload');
  const before = await node.host.snapshot();
  await node.host.shell(commandsOf('Save') + save);
  await node.host.run('nft', ['-f', '/etc/nftables.conf']);
  await node.host.shell(commandsOf('Restore') + restore);
  await node.host.shell('rm /run/patchbay/rules.nft');
  // iptables makes a table with all chains that it knows, empty ones that accept among them.
  const isEmpty = (line: string) => /^\+ nft chain .*"(INPUT|OUTPUT)".*"policy":"accept"/.test(line);
  expect(difference(before, await node.host.snapshot()).filter((line) => !isEmpty(line))).toEqual([]);
  await expectChecked(node);
});
