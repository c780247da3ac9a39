// `vlan`, `vlanTrunk` and the gateway of a VLAN, from ADD to GC; and what a kernel without VLAN filtering makes of them.
// Part of `npm run test:binary`; what needs the filtering runs on Debian's kernel by `npm run test:vm`.
import { describe, expect, test } from 'vitest';
import { openNetns } from '../../shared/linux/netns.ts';
import { type Attached, attach, detach, withPrevResult } from '../support/attachment.ts';
import { arp, arrives, ethernet, openTap } from '../support/frames.ts';
import { filtersVlans, NO_VLANS } from '../support/kernel-features.ts';
import type { BridgeConfig } from '../support/network-list.ts';
import { openPrimedHost, openTestHost } from '../support/primed-host.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import { expectError, expectResult, expectSuccess } from '../support/run-plugin.ts';
import { difference } from '../support/snapshot.ts';
import { answers, ping } from '../support/traffic.ts';

/** A network of one VLAN without gateway; `first` is the last byte of its first address. */
function network(name: string, fields: object, first = 2): BridgeConfig {
  const range = { subnet: '10.22.0.0/24', rangeStart: `10.22.0.${first}`, rangeEnd: `10.22.0.${first + 9}` };
  const ipam = { type: 'host-local', ranges: [[range]] };
  return { cniVersion: '1.1.0', name, type: 'bridge', bridge: 'cni0', ipam, ...fields };
}

const GATEWAY = network('served', { vlan: 100, isDefaultGateway: true, ipMasq: true });

/** `1 PVID Egress Untagged, 7, 20-30`: bridge may tell each VLAN of a range by itself. */
async function vlansOf(host: PrivateHost, link: string): Promise<string> {
  const { stdout } = await host.run('bridge', ['-j', 'vlan', 'show', 'dev', link]);
  const [port] = JSON.parse(stdout) as { vlans: { vlan: number; vlanEnd?: number; flags?: string[] }[] }[];
  const ranges: { first: number; last: number; flags: string }[] = [];
  for (const { vlan, vlanEnd = vlan, flags = [] } of port?.vlans ?? []) {
    const before = ranges.at(-1);
    const words = flags.map((flag) => ` ${flag}`).join('');
    if (before?.last === vlan - 1 && before.flags === words) before.last = vlanEnd;
    else ranges.push({ first: vlan, last: vlanEnd, flags: words });
  }
  return ranges
    .map(({ first, last, flags }) => `${first === last ? first : `${first}-${last}`}${flags}`)
    .join(', ');
}

function hostLinkOf({ result }: Attached): string {
  return result.interfaces?.[1]?.name ?? '';
}

async function links(host: PrivateHost): Promise<string[]> {
  const { stdout } = await host.run('ip', ['-j', 'link']);
  return (JSON.parse(stdout) as { ifname: string }[]).map(({ ifname }) => ifname);
}

describe.skipIf(!filtersVlans)(`a VLAN${filtersVlans ? '' : ` (${NO_VLANS})`}`, () => {
  test('keeps its containers to itself', async () => {
    const host = await openTestHost();
    const [a, b, c] = [await host.addSandbox('a'), await host.addSandbox('b'), await host.addSandbox('c')];
    await attach(host, network('red', { vlan: 100 }), a);
    const neighbour = await attach(host, network('red', { vlan: 100 }), b);
    const stranger = await attach(host, network('blue', { vlan: 200 }, 50), c);
    await ping(a, neighbour.ip4);
    expect(await answers(a, stranger.ip4)).toBe(false);
  });

  test.for([
    [{ vlan: 100 }, '100 PVID Egress Untagged'],
    [{ vlanTrunk: [{ id: 7 }, { minID: 20, maxID: 30 }] }, '1 PVID Egress Untagged, 7, 20-30'],
    [{ vlan: 100, vlanTrunk: [{ id: 7 }] }, '7, 100 PVID Egress Untagged'],
    [{ vlan: 100, preserveDefaultVlan: true }, '1 Egress Untagged, 100 PVID Egress Untagged'],
    [{}, '1 PVID Egress Untagged'],
  ] as const)('of %j makes a port of these, which CHECK compares', async ([fields, expected]) => {
    const { host, sandbox, before } = await openPrimedHost(network('n', { vlan: 5 }));
    const attached = await attach(host, network('n', fields), sandbox);
    const link = hostLinkOf(attached);
    expect(await vlansOf(host, link)).toBe(expected);
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
    await host.run('bridge', ['vlan', 'add', 'vid', '300', 'dev', link]);
    const changed = await host.runPlugin('CHECK', withPrevResult(attached));
    if (Object.keys(fields).length === 0) expectSuccess(changed);
    else expect(expectError(changed).msg).toMatch(/is in VLANs ".*300.*" instead of "/);
    await detach(host, attached);
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('reaches a trunk with a tag', async () => {
    const host = await openTestHost();
    const [a, b] = [await host.addSandbox('a'), await host.addSandbox('b')];
    await attach(host, network('red', { vlan: 100 }), a);
    await attach(host, network('all', { vlanTrunk: [{ minID: 100, maxID: 101 }] }, 50), b);
    await b.shell('ip link add link eth0 name v100 type vlan id 100; ip addr add 10.22.0.99/24 dev v100');
    await b.shell('ip addr flush dev eth0; ip link set v100 up');
    await ping(a, '10.22.0.99');
  });

  test('holds with spoof checks too', async () => {
    const host = await openTestHost();
    const [a, b] = [await host.addSandbox('a'), await host.addSandbox('b')];
    const config = network('red', { vlan: 100, ipspoofchk: true });
    const first = await attach(host, config, a);
    const second = await attach(host, config, b);
    await ping(a, second.ip4);
    using from = tapOf(host, a);
    using to = tapOf(host, b);
    const mac = first.result.interfaces?.[2]?.mac ?? '';
    const honest = ethernet({ src: mac, type: 0x0806 }, arp(1, mac, first.ip4, first.ip4));
    const forged = ethernet({ src: mac, type: 0x0806 }, arp(2, mac, '10.22.0.1', second.ip4));
    expect(arrives(from, to, forged, honest)).toBe(false);
    const { stdout } = await host.run('bridge', ['fdb', 'show', 'dev', hostLinkOf(first)]);
    expect(stdout).toMatch(new RegExp(`${mac} vlan 100 master cni0 static`));
  });

  test('on a bridge that does not filter is warned of', async () => {
    const host = await openTestHost();
    const sandbox = await host.addSandbox('a');
    await host.shell('ip link add cni0 type bridge');
    const call = {
      config: network('red', { vlan: 100 }),
      containerId: 'a',
      netns: sandbox.path,
      ifname: 'eth0',
    };
    const outcome = await host.runPlugin('ADD', call);
    expectResult(outcome);
    expect(outcome.stderr).toContain('ip link set cni0 type bridge vlan_filtering 1');
  });
});

describe.skipIf(!filtersVlans)(`the gateway of a VLAN${filtersVlans ? '' : ` (${NO_VLANS})`}`, () => {
  test('serves it, and goes with the last container', async () => {
    const { host, sandbox, before } = await openPrimedHost(GATEWAY);
    const second = await host.addSandbox('second');
    const first = await attach(host, GATEWAY, sandbox);
    const other = await attach(host, GATEWAY, second);
    expect(first.result.interfaces?.[3]).toEqual({ name: 'cni0.100', mac: expect.any(String) });
    expect(other.result.interfaces?.[3]).toEqual(first.result.interfaces?.[3]);
    await ping(sandbox, '10.22.0.1');
    await ping(second, '10.22.0.1');
    expect((await host.run('ip', ['-4', 'addr', 'show', 'cni0'])).stdout).not.toContain('inet');
    expect((await host.run('sysctl', ['-n', 'net.ipv6.conf.cni0/100.accept_ra'])).stdout.trim()).toBe('0');
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(first)));
    await detach(host, first);
    await ping(second, '10.22.0.1');
    expectSuccess(await host.runPlugin('DEL', { ...other.call, netns: '' }));
    await second.delete();
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('is missed by CHECK', async () => {
    const { host, sandbox } = await openPrimedHost(GATEWAY);
    const attached = await attach(host, GATEWAY, sandbox);
    await host.run('ip', ['link', 'set', 'cni0.100', 'down']);
    expect(expectError(await host.runPlugin('CHECK', withPrevResult(attached))).msg).toContain(
      '"cni0.100" is down',
    );
    await host.run('ip', ['link', 'delete', 'cni0.100']);
    expect(expectError(await host.runPlugin('CHECK', withPrevResult(attached))).msg).toContain(
      'VLAN 100 does not exist',
    );
  });

  test('stays while any other port is in the VLAN', async () => {
    const { host, sandbox } = await openPrimedHost(GATEWAY);
    const attached = await attach(host, GATEWAY, sandbox);
    await host.shell('ip link add p0 master cni0 type veth peer name q0; bridge vlan add vid 90-110 dev p0');
    await detach(host, attached);
    expect(await links(host)).toContain('cni0.100');
    await host.shell('ip link delete p0');
    expectSuccess(await host.runPlugin('DEL', attached.call));
    expect(await links(host)).not.toContain('cni0.100');
  });

  test('goes with GC', async () => {
    const { host, sandbox, before } = await openPrimedHost(GATEWAY);
    await attach(host, GATEWAY, sandbox);
    const list = { 'cni.dev/valid-attachments': [] };
    expectSuccess(await host.runPlugin('GC', { config: { ...GATEWAY, ...list } }));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('goes with an ADD that fails', async () => {
    const { host, sandbox, before } = await openPrimedHost(GATEWAY);
    const ipam = { ...(GATEWAY.ipam as object), routes: [{ dst: '192.0.2.0/24', gw: '203.0.113.1' }] };
    const call = { config: { ...GATEWAY, ipam }, containerId: 'pod', netns: sandbox.path, ifname: 'eth0' };
    expect(expectError(await host.runPlugin('ADD', call)).code).toBe(105);
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('of another maker is used, and left', async () => {
    const host = await openTestHost();
    const sandbox = await host.addSandbox('pod');
    await host.shell(`
      ip link add cni0 type bridge vlan_filtering 1; ip link set cni0 up
      ip link add cni0.100 type veth peer name theirs; ip link set theirs master cni0 up
      bridge vlan del vid 1 dev theirs; bridge vlan add vid 100 dev theirs pvid untagged; ip link set cni0.100 up
    `);
    const attached = await attach(host, GATEWAY, sandbox);
    await ping(sandbox, '10.22.0.1');
    await detach(host, attached);
    expect(await links(host)).toContain('cni0.100');
  });

  test('is there for whoever comes while the last one goes', async () => {
    const { host, sandbox, before } = await openPrimedHost(GATEWAY);
    let going = await attach(host, GATEWAY, sandbox, { containerId: 'c0' });
    for (let round = 1; round <= 5; round++) {
      const pod = await host.addSandbox(`pod${round}`);
      const [, coming] = await Promise.all([
        detach(host, going),
        attach(host, GATEWAY, pod, { containerId: `c${round}` }),
      ]);
      await ping(pod, '10.22.0.1');
      going = coming;
    }
    await detach(host, going);
    for (let round = 1; round <= 5; round++) await host.run('ip', ['netns', 'delete', `pod${round}`]);
    expect(difference(before, await host.snapshot())).toEqual([]);
  });
});

describe.skipIf(filtersVlans)('a kernel without VLAN filtering', () => {
  const call = (sandbox: Sandbox, config: BridgeConfig) => ({
    config,
    containerId: 'pod',
    netns: sandbox.path,
    ifname: 'eth0',
  });

  test.for([
    ['vlan', { vlan: 100 }],
    ['vlan with a gateway', { vlan: 100, isGateway: true }],
    ['vlanTrunk', { vlanTrunk: [{ id: 7 }] }],
  ] as const)(
    'refuses %s by 106, on a bridge that is there or not, and nothing is left',
    async ([, fields]) => {
      const { host, sandbox, before } = await openPrimedHost(network('n', {}));
      for (const bridge of ['cni0', 'new0']) {
        const refused = expectError(
          await host.runPlugin('ADD', call(sandbox, network('n', { ...fields, bridge }))),
        );
        expect(refused).toMatchObject({
          code: 106,
          msg: expect.stringContaining('CONFIG_BRIDGE_VLAN_FILTERING'),
        });
        const left = difference(before, await host.snapshot());
        expect(left.filter((line) => !line.includes('vlans.lock'))).toEqual([]);
        expectSuccess(await host.runPlugin('DEL', call(sandbox, network('n', { ...fields, bridge }))));
      }
    },
  );

  test('is told by STATUS', async () => {
    const { host } = await openPrimedHost(network('n', {}));
    const { code, msg } = expectError(
      await host.runPlugin('STATUS', { config: network('n', { vlan: 100 }) }),
    );
    expect({ code, msg }).toEqual({ code: 50, msg: expect.stringContaining('CONFIG_BRIDGE_VLAN_FILTERING') });
  });
});

function tapOf(host: PrivateHost, sandbox: Sandbox) {
  using netns = openNetns(host.file(sandbox.path));
  return openTap(netns, 'eth0');
}
