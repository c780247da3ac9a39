// `macspoofchk` and `ipspoofchk` from ADD to GC: honest traffic flows, forged frames do not, and nothing of it stays.
// Part of `npm run test:binary`; test/kernel/spoof-check.test.ts goes through the frames one by one.
import { describe, expect, onTestFinished, test } from 'vitest';
import { openNetns } from '../../shared/linux/netns.ts';
import { type Attached, attach, detach, withPrevResult } from '../support/attachment.ts';
import {
  arp,
  arrives,
  ethernet,
  icmpv6,
  ipv4,
  marker,
  neighbour,
  openTap,
  type Tap,
  udp,
} from '../support/frames.ts';
import type { BridgeConfig } from '../support/network-list.ts';
import { openPrimedHost } from '../support/primed-host.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from '../support/private-host.ts';
import { expectError, expectSuccess } from '../support/run-plugin.ts';
import { difference } from '../support/snapshot.ts';
import { ping } from '../support/traffic.ts';

const REFERENCE = '/usr/lib/cni';

function network(more: Partial<BridgeConfig> = {}): BridgeConfig {
  return {
    cniVersion: '1.0.0',
    name: 'checked',
    type: 'bridge',
    bridge: 'cni0',
    isDefaultGateway: true,
    ipMasq: true,
    ipspoofchk: true,
    ipam: { type: 'host-local', ranges: [[{ subnet: '10.22.0.0/24' }], [{ subnet: 'fd00:22::/64' }]] },
    ...more,
  };
}

interface Pair {
  readonly host: PrivateHost;
  readonly attacker: Attached & { readonly sandbox: Sandbox; readonly mac: string; readonly tap: Tap };
  readonly victim: Attached & { readonly sandbox: Sandbox; readonly mac: string; readonly tap: Tap };
}

async function openPair(config = network()): Promise<Pair> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  return { host, attacker: await join('attacker'), victim: await join('victim') };

  async function join(name: string) {
    const sandbox = await host.addSandbox(name);
    const attached = await attach(host, config, sandbox);
    const tap = tapOf(host, sandbox);
    return { ...attached, sandbox, mac: attached.result.interfaces?.[2]?.mac ?? '', tap };
  }
}

function tapOf(host: PrivateHost, sandbox: Sandbox): Tap {
  using netns = openNetns(host.file(sandbox.path));
  const tap = openTap(netns, 'eth0');
  onTestFinished(() => tap[Symbol.dispose]());
  return tap;
}

function passes({ attacker, victim }: Pair, frame: Buffer): boolean {
  const { mac, ip4 } = attacker;
  return arrives(
    attacker.tap,
    victim.tap,
    frame,
    ethernet({ src: mac, type: 0x0806 }, arp(1, mac, ip4, ip4)),
  );
}

const RULES = ['nft', ['list', 'table', 'bridge', 'patchbay']] as const;

async function elements(host: PrivateHost): Promise<string> {
  const { stdout } = await host.attempt(...RULES);
  return (stdout.match(/elements = \{[^}]*\}/g) ?? []).join('\n');
}

describe('a network with ipspoofchk', () => {
  test('carries honest traffic of both families, and passes CHECK', async () => {
    const { host, attacker, victim } = await openPair();
    await ping(attacker.sandbox, victim.ip4);
    await ping(attacker.sandbox, victim.ip6);
    await ping(victim.sandbox, '10.22.0.1');
    await ping(victim.sandbox, 'fd00:22::1');
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(attacker)));
  });

  test('lets nobody pass for somebody else, or for a router or DHCP server', async () => {
    const pair = await openPair();
    const { attacker, victim } = pair;
    const { mac } = attacker;
    const icmp = (type: number, body: Buffer) => icmpv6('fe80::1', 'ff02::1', type, body);
    const forged = [
      ethernet({ src: victim.mac, type: 0x0800 }, ipv4(victim.ip4, '10.22.0.1', 17, udp(7, 7))),
      ethernet({ src: mac, type: 0x0800 }, ipv4(victim.ip4, '10.22.0.1', 17, udp(7, 7))),
      ethernet({ src: mac, type: 0x0806 }, arp(2, mac, '10.22.0.1', victim.ip4)),
      ethernet({ src: mac, type: 0x86dd }, icmp(136, neighbour('fd00:22::1', { type: 2, mac }))),
      ethernet({ src: mac, type: 0x86dd }, icmp(134, marker())),
      ethernet({ src: mac, type: 0x0800 }, ipv4(attacker.ip4, '255.255.255.255', 17, udp(67, 68))),
    ];
    expect(forged.map((frame) => passes(pair, frame))).toEqual(forged.map(() => false));
  });

  test('does not redirect frames to who claims a MAC in a frame that no rule sees', async () => {
    const { host, attacker, victim } = await openPair();
    await ping(attacker.sandbox, victim.ip4);
    // LLDP: the bridge keeps it, and learns from it where the sender is before netfilter is asked.
    attacker.tap.send(ethernet({ src: victim.mac, dst: '01:80:c2:00:00:0e', type: 0x88cc }, marker()));
    const { stdout } = await host.run('bridge', ['-j', 'fdb', 'show', 'br', 'cni0']);
    const entries = JSON.parse(stdout) as { mac: string; ifname: string; master?: string }[];
    const known = entries.filter(({ mac, master }) => mac === victim.mac && master === 'cni0');
    expect(known.map(({ ifname }) => ifname)).toEqual([victim.result.interfaces?.[1]?.name]);
    await ping(attacker.sandbox, victim.ip4);
  });

  test('makes the link-local address the one that follows from the MAC, whatever the sandbox would do', async () => {
    const host = await openPrivateHost();
    onTestFinished(() => host.close());
    const sandbox = await host.addSandbox('pod');
    await sandbox.shell('echo 3 > /proc/sys/net/ipv6/conf/default/addr_gen_mode');
    await attach(host, network(), sandbox);
    await ping(sandbox, 'ff02::1%eth0');
  });
});

describe('the kernel state of a checked attachment', () => {
  test.for([
    ['with all that is known', withPrevResult],
    ['without result', ({ call }: Attached) => call],
    ['without result and path', ({ call }: Attached) => ({ ...call, netns: '' })],
    [
      'when the config no longer asks for it',
      ({ call }: Attached) => ({ ...call, config: network({ ipspoofchk: false }) }),
    ],
  ] as const)('goes with DEL %s', async ([, callOf]) => {
    const { host, sandbox, before } = await openPrimedHost(network());
    const attached = await attach(host, network(), sandbox);
    expect(await elements(host)).toContain(attached.ip6);
    expectSuccess(await host.runPlugin('DEL', callOf(attached)));
    expect(difference(before, await host.snapshot())).toEqual([]);
    expect(await elements(host)).toBe('');
  });

  test('goes with DEL after the link is gone', async () => {
    const { host, sandbox, before } = await openPrimedHost(network());
    const attached = await attach(host, network(), sandbox);
    await sandbox.run('ip', ['link', 'delete', 'eth0']);
    expectSuccess(await host.runPlugin('DEL', { ...attached.call, netns: '' }));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('goes with GC, and that of a valid attachment stays', async () => {
    const { host, sandbox, before } = await openPrimedHost(network());
    await attach(host, network(), sandbox);
    const other = await host.addSandbox('other');
    const kept = await attach(host, network(), other);
    const list = { 'cni.dev/valid-attachments': [{ containerID: 'other', ifname: 'eth0' }] };
    expectSuccess(await host.runPlugin('GC', { config: { ...network({ cniVersion: '1.1.0' }), ...list } }));
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(kept)));
    await detach(host, kept);
    await other.delete();
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('is undone when ADD fails', async () => {
    const { host, sandbox, before } = await openPrimedHost(network());
    const routes = [{ dst: '192.0.2.0/24', gw: '203.0.113.1' }];
    const config = network({ ipam: { ...(network().ipam as NonNullable<BridgeConfig['ipam']>), routes } });
    const call = { config, containerId: 'pod', netns: sandbox.path, ifname: 'eth0' };
    expect(expectError(await host.runPlugin('ADD', call)).code).toBe(105);
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test.for([
    ['nft delete table bridge patchbay', 'Chain "prerouting" of table "bridge patchbay" does not exist'],
    ['nft flush set bridge patchbay ips6', 'is not in set "ips6" of table "bridge patchbay"'],
    ['bridge link set dev HOSTLINK learning on', 'has learning on instead of off'],
  ] as const)('is missed by CHECK after "%s"', async ([command, difference]) => {
    const { host, sandbox } = await openPrimedHost(network());
    const attached = await attach(host, network(), sandbox);
    await host.shell(command.replace('HOSTLINK', attached.result.interfaces?.[1]?.name ?? ''));
    const { code, msg } = expectError(await host.runPlugin('CHECK', withPrevResult(attached)));
    expect({ code, msg }).toEqual({ code: 107, msg: expect.stringContaining(difference) });
  });
});

test('A layer-2 network with macspoofchk stops another MAC, and lets every address pass', async () => {
  const { ipam: _, ...layer2 } = network({ macspoofchk: true, ipspoofchk: false });
  const config = { ...layer2, isDefaultGateway: false, ipMasq: false } as BridgeConfig;
  const pair = await openPair(config);
  const { mac } = pair.attacker;
  const as = (src: string) => ethernet({ src, type: 0x0800 }, ipv4('192.0.2.1', '192.0.2.2', 17, udp(7, 7)));
  const proof = ethernet({ src: mac, type: 0x88b5 }, marker());
  const { attacker, victim } = pair;
  expect(arrives(attacker.tap, victim.tap, as(mac), proof)).toBe(true);
  expect(arrives(attacker.tap, victim.tap, as(victim.mac), proof)).toBe(false);
  expectSuccess(await pair.host.runPlugin('CHECK', withPrevResult(attacker)));
});

test('A bridge never accepts router advertisements, were it told to before', async () => {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  const pod = await host.addSandbox('pod');
  await host.shell(
    'ip link add cni0 type bridge; ip link set cni0 up; sysctl -qw net.ipv6.conf.cni0.accept_ra=2',
  );
  await attach(host, network({ ipspoofchk: false }), pod);
  expect((await host.run('sysctl', ['-n', 'net.ipv6.conf.cni0.accept_ra'])).stdout.trim()).toBe('0');
});

test.each([
  [true, '0'],
  [false, '1'],
])('With a default route of its own (%s) a sandbox has accept_ra %s', async (isDefaultGateway, accept) => {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  const pod = await host.addSandbox('pod');
  await attach(host, network({ ipspoofchk: false, isDefaultGateway }), pod);
  expect((await pod.run('sysctl', ['-n', 'net.ipv6.conf.eth0.accept_ra'])).stdout.trim()).toBe(accept);
});

describe('what the reference made for its macspoofchk', () => {
  const config = network({ ipspoofchk: false, macspoofchk: true });
  const reference = { directory: REFERENCE };
  const forOurs = ({ directory: _, ...call }: Attached['call']) => call;
  const rules = async (host: PrivateHost) =>
    (await host.run('nft', ['list', 'table', 'bridge', 'nat'])).stdout;

  test('passes our CHECK, unless it is gone', async () => {
    const { host, sandbox } = await openPrimedHost(config);
    const old = await attach(host, config, sandbox, reference);
    expectSuccess(await host.runPlugin('CHECK', forOurs(withPrevResult(old))));
    await host.run('nft', ['flush', 'chain', 'bridge', 'nat', 'PREROUTING']);
    expect(expectError(await host.runPlugin('CHECK', forOurs(withPrevResult(old)))).code).toBe(107);
  });

  test.for([true, false])('goes with our DEL, with its sandbox there: %s', async (isThere) => {
    const { host, sandbox } = await openPrimedHost(config);
    const old = await attach(host, config, sandbox, reference);
    const other = await attach(host, config, await host.addSandbox('other'), reference);
    expect(await rules(host)).toContain('cni-br-iface-pod-eth0-mac');
    if (!isThere) await sandbox.delete();
    expectSuccess(
      await host.runPlugin('DEL', forOurs(isThere ? withPrevResult(old) : { ...old.call, netns: '' })),
    );
    expect(await rules(host)).not.toContain('pod-eth0');
    expect(await rules(host)).toContain('cni-br-iface-other-eth0-mac');
    expectSuccess(await host.runPlugin('CHECK', forOurs(withPrevResult(other))));
  });

  test('goes with GC once its link is gone, and not before', async () => {
    const { host, sandbox } = await openPrimedHost(config);
    await attach(host, config, sandbox, reference);
    await attach(host, config, await host.addSandbox('other'), reference);
    await sandbox.delete();
    const gone = async () => !(await host.run('ip', ['-j', 'link'])).stdout.includes('"link_netnsid":0');
    for (let tries = 0; tries < 100 && !(await gone()); tries++) await host.run('sleep', ['0.02']);
    const gc = { ...config, cniVersion: '1.1.0', 'cni.dev/valid-attachments': [] };
    expectSuccess(await host.runPlugin('GC', { config: gc }));
    expect(await rules(host)).not.toContain('pod-eth0');
    expect(await rules(host)).toContain('cni-br-iface-other-eth0-mac');
  });
});
