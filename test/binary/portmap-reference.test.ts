// Ours beside the reference plugins: the same iptables chains from the same config, and attachments that one of them
// made and the other checks and removes. Part of `npm run test:binary`; PATCHBAY_REFERENCE_DIR names a second release.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { detach } from '../support/attachment.ts';
import {
  byOurs,
  type ChainOptions,
  changed,
  type Fields,
  type Mapping,
  PORTS,
  type Published,
  publish,
  unpublish,
} from '../support/chain.ts';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import { openPortWorld, WEB } from '../support/reachability.ts';
import { expectError, expectSuccess, type PluginOutcome, type Verb } from '../support/run-plugin.ts';
import { whoAnswers } from '../support/service.ts';
import { difference, type Snapshot } from '../support/snapshot.ts';
import { LAN, OUTSIDE } from '../support/traffic.ts';

// Debian's; its newest version of the protocol is 1.0.0.
const DEBIAN = '/usr/lib/cni';
const network = { ...PORTS, cniVersion: '1.0.0' };

/** A release that has an nftables backend and knows masqAll; there is less to compare with when none is named. */
const modern = findModern();

/** Each release with the backends it has. */
const releases: readonly (readonly [directory: string, backends: readonly string[]])[] = [
  [DEBIAN, ['']],
  ...(modern === undefined ? [] : [[modern, ['iptables', 'nftables']] as const]),
];

function findModern(): string | undefined {
  const directory = process.env['PATCHBAY_REFERENCE_DIR'];
  if (directory !== undefined && existsSync(join(directory, 'portmap'))) return directory;
  console.log(
    'Not compared: masqAll and the nftables backend, as PATCHBAY_REFERENCE_DIR names no release with them',
  );
  return undefined;
}

const MIXED: readonly Mapping[] = [
  { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
  { hostPort: 8443, containerPort: 443, protocol: 'tcp', hostIP: '192.0.2.7' },
  { hostPort: 5353, containerPort: 53, protocol: 'udp', hostIP: '0.0.0.0' },
  { hostPort: 9, containerPort: 9, protocol: 'sctp', hostIP: '2001:db8::7' },
];

async function openHost(): Promise<PrivateHost> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  return host;
}

/** What iptables-save prints of table nat, without what our own table guards. */
async function chainsOf(host: PrivateHost): Promise<string[]> {
  return (await host.snapshot()).filter((line) => /^ip6?tables-save/.test(line));
}

function portmapOf(backend: string): Fields {
  return backend === '' ? {} : { backend };
}

type Compared = [what: string, portmap: Fields, mappings: readonly Mapping[]];

const MASQ_ALL: Compared = ['with masqAll', { masqAll: true }, MIXED];

describe('the iptables backend makes the chains that the reference makes', () => {
  const many = Array.from({ length: 33 }, (_, n) => ({
    hostPort: 9000 + n,
    containerPort: 90 + n,
    protocol: n % 3 === 0 ? 'udp' : 'tcp',
  }));
  const directory = modern ?? DEBIAN;
  const configs: readonly Compared[] = [
    ['for every protocol and kind of hostIP', {}, MIXED],
    ['for more ports than a rule takes', {}, many],
    ['without snat', { snat: false }, MIXED],
    ['with another mark', { markMasqBit: 5 }, MIXED],
    ['with a chain of somebody else for the mark', { externalSetMarkChain: 'KUBE-MARK-MASQ' }, MIXED],
    [
      'with conditions',
      { conditionsV4: ['!', '-d', '192.0.2.0/24', '-i', 'eth+'], conditionsV6: ['-s', '2001:db8::/32'] },
      MIXED,
    ],
  ];

  const comparable = modern === undefined ? configs : [...configs, MASQ_ALL];

  test.for(comparable)('%s, and DEL of either removes them', async ([, portmap, mappings]) => {
    const host = await openHost();
    await host.shell('iptables -t nat -N KUBE-MARK-MASQ; ip6tables -t nat -N KUBE-MARK-MASQ');
    const [pod, other] = [await host.addSandbox('pod'), await host.addSandbox('other')];
    // 1.1.1 has no backends: it takes iptables, also to masquerade.
    const masquerading = { ...network, ipMasqBackend: 'iptables' };
    const ours: ChainOptions = { network: masquerading, portmap: { ...portmap, backend: 'iptables' } };
    const theirs =
      modern === undefined ? { network: masquerading, portmap, directory } : { ...ours, directory };

    const byReference = await publish(host, pod, mappings, theirs);
    const expected = await chainsOf(host);
    expect(expected.length).toBeGreaterThan(mappings.length);
    const reference = byOurs(byReference.portCall);
    expectSuccess(await host.runPlugin('CHECK', changed(reference, { backend: 'iptables' })));
    expectSuccess(await host.runPlugin('DEL', reference));
    await detach(host, { ...byReference, call: byOurs(byReference.call) });
    const shared = await chainsOf(host);
    expect(shared.filter((line) => /CNI-DN-|DNAT --to|CNI-[0-9a-f]{24}/.test(line))).toEqual([]);

    const byPatchbay = await publish(host, pod, mappings, ours);
    const made = await chainsOf(host);
    expect(made.map(withoutAddress)).toEqual(expected.map(withoutAddress));
    // 1.1.1 looks for the rules of IPv4 among those of IPv6, and finds its own work wanting.
    if (modern) expectSuccess(await host.runPlugin('CHECK', { ...byPatchbay.portCall, directory }));
    // The other one's chains stay as they are when this one's go.
    await publish(host, other, [{ hostPort: 7000, containerPort: 70 }], ours);
    const both = await chainsOf(host);
    expectSuccess(await host.runPlugin('DEL', { ...byPatchbay.portCall, directory }));
    await detach(host, { ...byPatchbay, call: { ...byPatchbay.call, directory } });
    const left = await chainsOf(host);
    expect(difference(both, left).some((line) => line.startsWith('+'))).toBe(false);
    expect(left.filter((line) => /CNI-DN-/.test(line)).length).toBeGreaterThan(0);
  });

  // Both attachments are of one container id, so only the address it got tells them apart.
  function withoutAddress(line: string): string {
    return line.replaceAll(/\b10\.92\.0\.\d+\b(?!\/24)/g, 'IPV4').replaceAll(/fd00:92::[0-9a-f]+\b/g, 'IPV6');
  }
});

for (const [directory, backends] of releases) {
  for (const backend of backends) {
    describe(`an attachment of the reference in ${directory}${backend && `, backend ${backend}`}`, () => {
      const theirs: ChainOptions = { network, directory, portmap: portmapOf(backend) };

      /** A host on which both were at work before, and an attachment of the reference. */
      async function openSharedHost(): Promise<{ host: PrivateHost; old: Published; before: Snapshot }> {
        const host = await openHost();
        const earlier = await host.addSandbox('earlier');
        await unpublish(host, await publish(host, earlier, MIXED, theirs));
        await unpublish(host, await publish(host, earlier, MIXED, { network }));
        await earlier.delete();
        const pod = await host.addSandbox('pod');
        const before = await host.snapshot();
        return { host, old: await publish(host, pod, MIXED, theirs), before };
      }

      /** Our verb on their attachment, with the default backend as an upgrade leaves it. */
      function runOurs(
        host: PrivateHost,
        verb: Verb,
        { portCall }: Published,
        more: Fields = {},
      ): Promise<PluginOutcome> {
        return host.runPlugin(verb, changed(byOurs(portCall), { backend: undefined, ...more }));
      }

      test('passes our CHECK until something of it is missing', async () => {
        const { host, old } = await openSharedHost();
        expectSuccess(await runOurs(host, 'CHECK', old));
        const breakage =
          backend === 'nftables'
            ? 'nft flush chain ip cni_hostport hostports'
            : 'iptables -t nat -F CNI-HOSTPORT-DNAT';
        await host.shell(breakage);
        expect(expectError(await runOurs(host, 'CHECK', old)).code).toBe(107);
      });

      test('is removed by our DEL', async () => {
        const { host, old, before } = await openSharedHost();
        expectSuccess(await runOurs(host, 'DEL', old));
        await detach(host, { ...old, call: byOurs(old.call) });
        expect(withoutIndex(difference(before, await host.snapshot()))).toEqual([]);
      });

      test('is removed by our DEL that knows neither ports, sandbox nor result', async () => {
        const { host, old } = await openSharedHost();
        const bare = { runtimeConfig: undefined, prevResult: undefined };
        const call = changed(byOurs(old.portCall), { backend: undefined, ...bare });
        expectSuccess(await host.runPlugin('DEL', { ...call, netns: '' }));
        expect((await host.snapshot()).filter((line) => /\b(8080|8443|5353)\b/.test(line))).toEqual([]);
      });

      test('keeps its ports when one of ours comes and goes beside it', async () => {
        const world = await openPortWorld({ network, directory });
        onTestFinished(() => world[Symbol.asyncDispose]());
        const { host, pod, lan, outside } = world;
        await publish(host, pod, WEB, theirs);
        const second = await host.addSandbox('second');
        const young = await publish(host, second, [{ hostPort: 9090, containerPort: 80 }], { network });
        expect(await whoAnswers(lan, 'tcp4', LAN.host4, 8080)).toBe('pod');
        await unpublish(host, young);
        expect(await whoAnswers(outside, 'udp6', OUTSIDE.host6, 8080)).toBe('pod');
      });
    });
  }
}

// The index of our store is rebuilt after the reference has written to it, not by the reference.
function withoutIndex(lines: readonly string[]): string[] {
  return lines.filter((line) => !line.includes('/networks/.patchbay/'));
}
