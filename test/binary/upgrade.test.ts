// Nodes that change from the reference plugins to these or back: what the ones made, the others check and remove.
// Part of `npm run test:binary`; the reference is Debian's package, its newer nftables backend is played by nft.
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { type Attached, attach, detach, withPrevResult } from '../support/attachment.ts';
import { type BridgeConfig, readNetwork } from '../support/network-list.ts';
import { openPrimedHost, type Primed } from '../support/primed-host.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import { expectError, expectSuccess, type PluginCall } from '../support/run-plugin.ts';
import { difference } from '../support/snapshot.ts';
import { addOutside, OUTSIDE, ping } from '../support/traffic.ts';

/** Debian's package containernetworking-plugins; its newest version of the protocol is 1.0.0. */
const REFERENCE = '/usr/lib/cni';

const ipv4 = { ...readNetwork('10-bridge.conflist').config, cniVersion: '1.0.0' };
const dualStack = { ...readNetwork('bridge-dual-stack.conflist').config, cniVersion: '1.0.0' };

/** A host on which both were at work before. */
async function openSharedHost(config: BridgeConfig): Promise<Primed> {
  const { host, sandbox } = await openPrimedHost(config);
  const { call } = await attach(host, config, sandbox, { directory: REFERENCE });
  expectSuccess(await host.runPlugin('DEL', call));
  return { host, sandbox, before: await host.snapshot() };
}

/** The call of an attachment that the reference made, for the plugins under test. */
function forOurs({ directory: _, ...call }: PluginCall): PluginCall {
  return call;
}

// The index of our store is rebuilt from the store after the reference has written to it, not by the reference.
function withoutIndex(lines: readonly string[]): string[] {
  return lines.filter((line) => !line.includes('/networks/.patchbay/'));
}

describe('an attachment made by the reference plugins, which masquerade with iptables,', () => {
  test.for([
    ['IPv4', ipv4],
    ['dual stack', dualStack],
  ] as const)('on %s passes our CHECK and goes with our DEL', async ([, config]) => {
    const { host, sandbox, before } = await openSharedHost(config);
    const old = await attach(host, config, sandbox, { directory: REFERENCE });
    expectSuccess(await host.runPlugin('CHECK', forOurs(withPrevResult(old))));
    expect((await iptablesOf(host)).join('\n')).toContain(old.ip4);
    expectSuccess(await host.runPlugin('DEL', forOurs(withPrevResult(old))));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('fails our CHECK when its masquerading is gone', async () => {
    const { host, sandbox } = await openSharedHost(ipv4);
    const old = await attach(host, ipv4, sandbox, { directory: REFERENCE });
    await host.shell('iptables -t nat -F POSTROUTING');
    const { code, msg } = expectError(await host.runPlugin('CHECK', forOurs(withPrevResult(old))));
    expect({ code, msg }).toEqual({ code: 107, msg: expect.stringContaining(old.ip4) });
  });

  test.for([
    ['with its result', withPrevResult],
    ['without its result', ({ call }: Attached) => call],
    ['without its result and its path', ({ call }: Attached) => ({ ...call, netns: '' })],
  ] as const)('goes with our DEL %s after its sandbox is gone', async ([, callOf]) => {
    const { host, before } = await openSharedHost(dualStack);
    const doomed = await host.addSandbox('doomed');
    const old = await attach(host, dualStack, doomed, { directory: REFERENCE });
    await doomed.delete();
    expectSuccess(await host.runPlugin('DEL', forOurs(callOf(old))));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('goes with our DEL after its link is gone', async () => {
    const { host, sandbox, before } = await openSharedHost(dualStack);
    const old = await attach(host, dualStack, sandbox, { directory: REFERENCE });
    await sandbox.run('ip', ['link', 'delete', 'eth0']);
    expectSuccess(await host.runPlugin('DEL', forOurs(old.call)));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('shares its network with ours', async () => {
    const { host, sandbox, before } = await openSharedHost(ipv4);
    const old = await attach(host, ipv4, sandbox, { directory: REFERENCE });
    const neighbour = await host.addSandbox('neighbour');
    const young = await attach(host, ipv4, neighbour);
    expect(young.ip4).not.toBe(old.ip4);
    await ping(neighbour, old.ip4);
    await ping(sandbox, young.ip4);
    await detach(host, young);
    expectSuccess(await host.runPlugin('DEL', old.call));
    await neighbour.delete();
    expect(withoutIndex(difference(before, await host.snapshot()))).toEqual([]);
  });
});

describe('an attachment made by the reference plugins, which masquerade with nftables,', () => {
  test('passes our CHECK, works on, and goes with our DEL, and its neighbour’s rules stay', async () => {
    const { host, sandbox } = await openSharedHost(dualStack);
    await addOutside(host);
    await loadReferenceTable(host);
    const before = await host.snapshot();
    const old = await attachWithNftables(host, sandbox);
    await ping(sandbox, OUTSIDE.outside4);
    await ping(sandbox, OUTSIDE.outside6);
    expectSuccess(await host.runPlugin('CHECK', forOurs(withPrevResult(old))));
    expectSuccess(await host.runPlugin('DEL', forOurs(withPrevResult(old))));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('goes with our DEL after its sandbox is gone', async () => {
    const { host } = await openSharedHost(dualStack);
    await loadReferenceTable(host);
    const before = await host.snapshot();
    const doomed = await host.addSandbox('doomed');
    const old = await attachWithNftables(host, doomed);
    await doomed.delete();
    expectSuccess(await host.runPlugin('DEL', forOurs({ ...old.call, netns: '' })));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  // Debian's release has no such backend; this is what release 1.9.1 writes, with a neighbour in it.
  async function loadReferenceTable(host: PrivateHost): Promise<void> {
    const neighbour = `ip saddr 10.89.0.200 ip daddr != 10.89.0.0/24 masquerade comment "${tagOf('neighbour')}, net: dual-stack, if: eth0, id: neighbour"`;
    const table = `table inet cni_plugins_masquerade {
      comment "Masquerading for plugins from github.com/containernetworking/plugins"
      chain masq_checks {
        comment "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet"
        ${neighbour}
      }
      chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip daddr 224.0.0.0/4 return
        ip6 daddr ff00::/8 return
        goto masq_checks
      }
    }`;
    await host.run('nft', ['-f', '-'], { input: table });
  }

  async function attachWithNftables(host: PrivateHost, sandbox: Sandbox): Promise<Attached> {
    const plain = { ...dualStack, ipMasq: false };
    const { call, ...rest } = await attach(host, plain, sandbox, { directory: REFERENCE });
    const comment = `comment "${tagOf(sandbox.name)}, net: dual-stack, if: eth0, id: ${sandbox.name}"`;
    const input = `
      add rule inet cni_plugins_masquerade masq_checks ip saddr ${rest.ip4} ip daddr != 10.89.0.0/24 masquerade ${comment}
      add rule inet cni_plugins_masquerade masq_checks ip6 saddr ${rest.ip6} ip6 daddr != fd00:89::/64 masquerade ${comment}`;
    await host.run('nft', ['-f', '-'], { input });
    return { ...rest, call: { ...call, config: dualStack } };
  }

  function tagOf(containerId: string): string {
    const hash = (text: string) => createHash('sha512').update(text).digest('hex').slice(0, 16);
    return `${hash('dual-stack')}-${hash(`eth0:${containerId}`)}`;
  }
});

describe('an attachment of ours', () => {
  const iptables = { ...ipv4, ipMasqBackend: 'iptables' };

  test('is masqueraded as the reference does it by the iptables backend, so each removes what the other made', async () => {
    const { host, sandbox, before } = await openSharedHost(ipv4);
    const old = await attach(host, ipv4, sandbox, { directory: REFERENCE });
    const byReference = await iptablesOf(host);
    expectSuccess(await host.runPlugin('DEL', old.call));

    const young = await attach(host, iptables, sandbox);
    expect(await iptablesOf(host)).toEqual(byReference.map((line) => line.replaceAll(old.ip4, young.ip4)));
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(young)));
    expectSuccess(await host.runPlugin('DEL', { ...young.call, directory: REFERENCE }));
    expect(withoutIndex(difference(before, await host.snapshot()))).toEqual([]);

    const again = await attach(host, iptables, sandbox);
    await detach(host, again);
    expect(withoutIndex(difference(before, await host.snapshot()))).toEqual([]);
  });

  test.for([
    ['with its result', withPrevResult],
    ['without its result and its path', ({ call }: Attached) => ({ ...call, netns: '' })],
  ] as const)('by the iptables backend goes %s after its sandbox is gone', async ([, callOf]) => {
    const { host, before } = await openSharedHost(ipv4);
    const doomed = await host.addSandbox('doomed');
    const young = await attach(host, iptables, doomed);
    await doomed.delete();
    expectSuccess(await host.runPlugin('DEL', callOf(young)));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });
});

async function iptablesOf(host: PrivateHost): Promise<string[]> {
  return (await host.snapshot()).filter((line) => line.startsWith('iptables-save'));
}
