// What the bridge plugin promises beyond the plain life of an attachment: refusals that explain themselves, failures
// that leave nothing, and a CHECK that looks. Part of `npm run test:binary`.
import { describe, expect, onTestFinished, test } from 'vitest';
import { attach, detach, withPrevResult } from '../support/attachment.ts';
import type { BridgeConfig } from '../support/network-list.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from '../support/private-host.ts';
import { expectError, expectResult, expectSuccess, type PluginCall } from '../support/run-plugin.ts';
import { difference } from '../support/snapshot.ts';

function network(name: string, more: Partial<BridgeConfig> = {}): BridgeConfig {
  return {
    cniVersion: '1.1.0',
    name,
    type: 'bridge',
    bridge: 'cni0',
    isDefaultGateway: true,
    ipMasq: true,
    ipam: { type: 'host-local', ranges: [[{ subnet: '10.22.0.0/24' }]] },
    ...more,
  };
}

function ranges(...subnets: string[]): NonNullable<BridgeConfig['ipam']> {
  return { type: 'host-local', ranges: subnets.map((subnet) => [{ subnet }]) };
}

async function openHost(): Promise<{ host: PrivateHost; pod: Sandbox }> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  return { host, pod: await host.addSandbox('pod') };
}

function callOf(config: BridgeConfig, pod: Sandbox, more: Partial<PluginCall> = {}): PluginCall {
  return { config, containerId: pod.name, netns: pod.path, ifname: 'eth0', ...more };
}

async function json<T>(place: PrivateHost | Sandbox, program: string, ...args: string[]): Promise<T[]> {
  return JSON.parse((await place.run(program, args)).stdout || '[]') as T[];
}

/** The IPv4 addresses of a link, sorted. */
async function addressesOf(host: PrivateHost, link: string): Promise<string[]> {
  const found = await json<{ addr_info: { local: string }[] }>(host, 'ip', '-4', '-j', 'addr', 'show', link);
  return found.flatMap(({ addr_info }) => addr_info.map(({ local }) => local)).sort();
}

describe('a bridge that serves another network', () => {
  test('is refused, naming the network, its users and the way out, and nothing is left', async () => {
    const { host, pod } = await openHost();
    const other = await host.addSandbox('other');
    await attach(host, network('first'), other);
    const config = network('second', { ipam: ranges('10.23.0.0/24') });
    await host.runPlugin('ADD', callOf(config, pod));
    const before = await host.snapshot();
    const { code, msg } = expectError(await host.runPlugin('ADD', callOf(config, pod)));
    expect(code).toBe(104);
    expect(msg).toContain(
      'Bridge "cni0" has address "10.22.0.1/24", used by network "first" (1 attached to it)',
    );
    expect(msg).toContain('"forceAddress"');
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('names the command that frees an address nobody uses any more', async () => {
    const { host, pod } = await openHost();
    await host.shell('ip link add cni0 type bridge; ip addr add 192.0.2.1/24 dev cni0; ip link set cni0 up');
    const { msg } = expectError(await host.runPlugin('ADD', callOf(network('n'), pod)));
    expect(msg).toContain('no container is attached');
    expect(msg).toContain('ip addr del 192.0.2.1/24 dev cni0');
  });

  test('is taken over with forceAddress', async () => {
    const { host, pod } = await openHost();
    await host.shell('ip link add cni0 type bridge; ip addr add 192.0.2.1/24 dev cni0; ip link set cni0 up');
    await attach(host, network('n', { forceAddress: true }), pod);
    expect(await addressesOf(host, 'cni0')).toEqual(['10.22.0.1']);
  });
});

test('Two ranges of one network share the bridge, each with its gateway', async () => {
  const { host, pod } = await openHost();
  const config = network('n', { ipam: ranges('10.22.0.0/24', '10.23.0.0/24') });
  const { result } = await attach(host, config, pod);
  expect(result.ips?.map(({ gateway }) => gateway)).toEqual(['10.22.0.1', '10.23.0.1']);
  const again = await host.addSandbox('again');
  await attach(host, config, again);
  await pod.run('ping', ['-n', '-c', '1', '-w', '3', '10.23.0.1']);
});

test('The addresses that a runtime asks for reach the IPAM plugin', async () => {
  const { host, pod } = await openHost();
  const config = network('n', {
    ipam: ranges('10.22.0.0/24', 'fd00:22::/64'),
    runtimeConfig: { ips: ['10.22.0.77', 'fd00:22::77/64'] },
  });
  const { ip4, ip6 } = await attach(host, config, pod);
  expect([ip4, ip6]).toEqual(['10.22.0.77', 'fd00:22::77']);
});

test('Pools that are used one after the other may put their gateways on one bridge', async () => {
  const { host, pod } = await openHost();
  const pools = { type: 'host-local', ranges: [[{ subnet: '10.22.0.0/30' }, { subnet: '10.23.0.0/30' }]] };
  const config = network('n', { ipam: pools });
  const first = await attach(host, config, pod);
  const second = await attach(host, config, await host.addSandbox('other'));
  expect([first.ip4, second.ip4]).toEqual(['10.22.0.2', '10.23.0.2']);
});

test('A link of another kind under the name of the bridge is refused by kind', async () => {
  const { host, pod } = await openHost();
  await host.shell('ip link add cni0 type veth peer name other');
  const before = await host.snapshot();
  const { code, msg } = expectError(await host.runPlugin('ADD', callOf(network('n'), pod)));
  expect({ code, msg }).toEqual({
    code: 109,
    msg: expect.stringContaining('is no bridge but of kind "veth"'),
  });
  expect(difference(before, await host.snapshot())).toEqual([]);
});

test('An ADD whose last route the kernel refuses leaves nothing, and reports the route', async () => {
  const { host, pod } = await openHost();
  const config = network('n', {
    ipam: { ...ranges('10.22.0.0/24', 'fd00:22::/64'), routes: [{ dst: '192.0.2.0/24', gw: '203.0.113.1' }] },
  });
  await host.runPlugin('ADD', callOf(config, pod));
  const before = await host.snapshot();
  const { code, msg, details } = expectError(await host.runPlugin('ADD', callOf(config, pod)));
  expect(code).toBe(105);
  expect(msg).toBe('Cannot add route to "192.0.2.0/24" via "203.0.113.1" on "eth0"');
  expect(details).toContain('ENETUNREACH');
  expect(difference(before, await host.snapshot())).toEqual([]);
  expect((await pod.run('ip', ['-j', 'link'])).stdout).not.toContain('eth0');
});

test('A second ADD is refused before it can release what the first one leased', async () => {
  const { host, pod } = await openHost();
  const attached = await attach(host, network('n'), pod);
  const before = await host.snapshot();
  const { code, msg } = expectError(await host.runPlugin('ADD', attached.call));
  expect(code).toBe(102);
  expect(msg).toContain('run DEL for it first');
  expect(difference(before, await host.snapshot())).toEqual([]);
  expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
});

test('A configured default route without gateway becomes the one default route', async () => {
  const { host, pod } = await openHost();
  const config = network('n', { ipam: { ...ranges('10.22.0.0/24'), routes: [{ dst: '0.0.0.0/0' }] } });
  const { result } = await attach(host, config, pod);
  expect(result.routes).toEqual([{ dst: '0.0.0.0/0', gw: '10.22.0.1' }]);
  expect(await json(pod, 'ip', '-j', 'route', 'show', 'default')).toHaveLength(1);
});

test('Route attributes reach the kernel and CHECK', async () => {
  const { host, pod } = await openHost();
  const routes = [
    { dst: '192.0.2.0/24', gw: '10.22.0.254', mtu: 1400, advmss: 1300, priority: 77 },
    { dst: '198.51.100.0/24', table: 120 },
    { dst: '203.0.113.0/24', scope: 253 },
  ];
  const attached = await attach(host, network('n', { ipam: { ...ranges('10.22.0.0/24'), routes } }), pod);
  const { stdout } = await pod.run('ip', ['route', 'show', 'table', 'all']);
  expect(stdout).toMatch(/192\.0\.2\.0\/24 via 10\.22\.0\.254 dev eth0 metric 77 mtu 1400 advmss 1300/);
  expect(stdout).toMatch(/198\.51\.100\.0\/24 via 10\.22\.0\.1 dev eth0 table 120/);
  expect(stdout).toMatch(/203\.0\.113\.0\/24 dev eth0 scope link/);
  expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
});

test('A bridge with all its ports in use is named with the limit', async () => {
  const { host, pod } = await openHost();
  const commands = Array.from(
    { length: 1023 },
    (_, n) => `link add p${n} master cni0 type veth peer name q${n}`,
  );
  await host.run('ip', ['-batch', '-'], { input: ['link add cni0 type bridge', ...commands].join('\n') });
  const { code, msg } = expectError(await host.runPlugin('ADD', callOf(network('n'), pod)));
  expect({ code, msg }).toEqual({
    code: 108,
    msg: expect.stringContaining('"cni0" has all its 1023 ports in use'),
  });
  expect((await pod.run('ip', ['-j', 'link'])).stdout).not.toContain('eth0');
});

describe('the MTU', () => {
  test('of both ends is the configured one, and a warning names an uplink that takes less', async () => {
    const { host, pod } = await openHost();
    await host.shell(`
      ip link add uplink type veth peer name far; ip link set uplink up; ip link set far up
      ip addr add 198.51.100.2/24 dev uplink; ip route add default via 198.51.100.1
    `);
    const outcome = await host.runPlugin('ADD', callOf(network('n', { mtu: 9000 }), pod));
    expectResult(outcome);
    expect(outcome.stderr).toContain(
      'MTU 9000 of network bridge "cni0" is larger than MTU 1500 of uplink "uplink"',
    );
    const [inside] = await json<{ mtu: number }>(pod, 'ip', '-j', 'link', 'show', 'eth0');
    const [outside] = await json<{ mtu: number }>(host, 'ip', '-j', 'link', 'show', 'master', 'cni0');
    expect([inside?.mtu, outside?.mtu]).toEqual([9000, 9000]);
  });

  test('of a bridge that exists is left alone', async () => {
    const { host, pod } = await openHost();
    await host.shell('ip link add cni0 mtu 1400 type bridge');
    await attach(host, network('n', { mtu: 1300 }), pod);
    const [bridge] = await json<{ address: string }>(host, 'ip', '-j', 'link', 'show', 'cni0');
    const [link] = await json<{ mtu: number }>(pod, 'ip', '-j', 'link', 'show', 'eth0');
    expect(bridge).toBeDefined();
    expect(link?.mtu).toBe(1300);
  });
});

test('The ranges of one network keep their gateways when forceAddress is set', async () => {
  const { host, pod } = await openHost();
  const config = network('n', { forceAddress: true, ipam: ranges('10.22.0.0/24', '10.23.0.0/24') });
  const attached = await attach(host, config, pod);
  await attach(host, config, await host.addSandbox('other'));
  expect(await addressesOf(host, 'cni0')).toEqual(['10.22.0.1', '10.23.0.1']);
  expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
});

test('Promiscuous mode is switched on, and CHECK misses it when somebody switches it off', async () => {
  const { host, pod } = await openHost();
  const attached = await attach(host, network('n', { promiscMode: true }), pod);
  const [bridge] = await json<{ flags: string[] }>(host, 'ip', '-j', 'link', 'show', 'cni0');
  expect(bridge?.flags).toContain('PROMISC');
  expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
  await host.shell('ip link set cni0 promisc off');
  const { code, msg } = expectError(await host.runPlugin('CHECK', withPrevResult(attached)));
  expect({ code, msg }).toEqual({ code: 107, msg: 'Bridge "cni0" is not promiscuous' });
});

test('A disabled container interface is made, reported and left down', async () => {
  const { host, pod } = await openHost();
  const { ipam: _, ...layer2 } = network('n', { disableContainerInterface: true });
  const attached = await attach(host, layer2, pod);
  const [inside] = await json<{ operstate: string; flags: string[] }>(
    pod,
    'ip',
    '-j',
    'link',
    'show',
    'eth0',
  );
  expect(inside?.flags).not.toContain('UP');
  expect(attached.result.interfaces?.[2]).toMatchObject({ name: 'eth0', sandbox: pod.path });
  expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
  await detach(host, attached);
});

test('The DNS section of the config replaces that of IPAM only when it says something', async () => {
  const { host, pod } = await openHost();
  await host.shell('echo nameserver 198.51.100.53 > /run/resolv.conf');
  const ipam = { ...ranges('10.22.0.0/24'), resolvConf: '/run/resolv.conf' };
  const empty = await attach(host, network('n', { ipam, dns: { nameservers: [] } }), pod);
  expect(empty.result.dns).toEqual({ nameservers: ['198.51.100.53'] });
  await detach(host, empty);
  const own = await attach(host, network('n', { ipam, dns: { search: ['example.org'] } }), pod);
  expect(own.result.dns).toEqual({ search: ['example.org'] });
});

describe('A bridge that somebody else made', () => {
  test('and that has lost its ports becomes a gateway', async () => {
    const { host, pod } = await openHost();
    await host.shell(`
      ip link add cni0 type bridge; ip link set cni0 up
      ip link add port master cni0 type veth peer name other; ip link del port`);
    const attached = await attach(host, network('n', { ipam: ranges('10.22.0.0/24', 'fd00:22::/64') }), pod);
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
    expect(attached.result.interfaces?.[0]?.mac).not.toBe('00:00:00:00:00:00');
  });

  test('may change its MAC with its ports, and earlier attachments are still right', async () => {
    const { host, pod } = await openHost();
    await host.shell('ip link add cni0 type bridge');
    const { ipam: _, ...layer2 } = network('n');
    const attached = await attach(host, layer2, pod);
    await host.shell('ip link add low address 00:00:5e:00:53:01 master cni0 up type veth peer name other');
    const [bridge] = await json<{ address: string }>(host, 'ip', '-j', 'link', 'show', 'cni0');
    expect(bridge?.address).toBe('00:00:5e:00:53:01');
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
  });
});

describe('MAC addresses', () => {
  test('of bridge and host link stay what they were at birth', async () => {
    const { host, pod } = await openHost();
    const first = await attach(host, network('n'), pod);
    const mac = first.result.interfaces?.[0]?.mac;
    for (const name of ['a', 'b', 'c']) await attach(host, network('n'), await host.addSandbox(name));
    await detach(host, first);
    const [bridge] = await json<{ address: string }>(host, 'ip', '-j', 'link', 'show', 'cni0');
    expect(bridge?.address).toBe(mac);
  });

  test('of the container is the requested one', async () => {
    const { host, pod } = await openHost();
    const config = network('n', { capabilities: { mac: true }, runtimeConfig: { mac: '02:00:00:AA:BB:CC' } });
    const { result } = await attach(host, config, pod);
    expect(result.interfaces?.[2]?.mac).toBe('02:00:00:aa:bb:cc');
    const [link] = await json<{ address: string }>(pod, 'ip', '-j', 'link', 'show', 'eth0');
    expect(link?.address).toBe('02:00:00:aa:bb:cc');
  });
});

test('The host link says in words whose it is', async () => {
  const { host, pod } = await openHost();
  const { result } = await attach(host, network('n'), pod);
  const name = result.interfaces?.[1]?.name ?? '';
  expect(name).toMatch(/^veth[0-9a-f]{11}$/);
  const [link] = await json<{ ifalias: string }>(host, 'ip', '-j', 'link', 'show', name);
  expect(link?.ifalias).toMatch(/^[0-9a-f]{32} [0-9a-f]{16}, net: n, if: eth0, id: pod$/);
});

test('Router advertisements are not believed on bridge and host link', async () => {
  const { host, pod } = await openHost();
  const { result } = await attach(host, network('n'), pod);
  for (const link of ['cni0', result.interfaces?.[1]?.name]) {
    const { stdout } = await host.run('sysctl', ['-n', `net.ipv6.conf.${link}.accept_ra`]);
    expect(stdout.trim()).toBe('0');
  }
});

test('A new bridge asks its first neighbour at once over IPv6, unless duplicate detection is asked for', async () => {
  const { host, pod } = await openHost();
  await host.shell('sysctl -qw net.ipv6.conf.default.accept_dad=1');
  const config = network('n', { ipam: ranges('fd00:22::/64') });
  await attach(host, config, pod);
  const other = { ...config, name: 'other', bridge: 'cni1', enabledad: true, ipam: ranges('fd00:23::/64') };
  await attach(host, other, await host.addSandbox('second'));
  const acceptDad = async (link: string) =>
    (await host.run('sysctl', ['-n', `net.ipv6.conf.${link}.accept_dad`])).stdout.trim();
  expect(await acceptDad('cni0')).toBe('0');
  expect(await acceptDad('cni1')).toBe('1');
});

describe('a host without IPv6', () => {
  test('attaches to an IPv4 network', async () => {
    const { host, pod } = await openHost();
    await host.shell('sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1');
    const attached = await attach(host, network('n'), pod);
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
  });

  test('is told which sysctl keeps the bridge from its IPv6 gateway, and nothing is left', async () => {
    const { host, pod } = await openHost();
    await host.shell('sysctl -qw net.ipv6.conf.default.disable_ipv6=1');
    const config = network('n', { ipam: ranges('10.22.0.0/24', 'fd00:22::/64') });
    await host.runPlugin('ADD', callOf(config, pod));
    const before = await host.snapshot();
    const { msg } = expectError(await host.runPlugin('ADD', callOf(config, pod)));
    expect(msg).toContain('"net.ipv6.conf.cni0.disable_ipv6" to 0');
    expect(difference(before, await host.snapshot())).toEqual([]);
  });
});

test('A read-only /proc/sys does not keep a container from an IPv4 network', async () => {
  const { host, pod } = await openHost();
  await host.shell('sysctl -qw net.ipv4.ip_forward=1; mount --bind -o ro /proc/sys /proc/sys');
  const outcome = await host.runPlugin('ADD', callOf(network('n'), pod));
  expectResult(outcome);
  expect(outcome.stderr).toContain(
    'Cannot set sysctl "net/ipv4/conf/eth0/arp_notify" to "1": ' +
      'Cannot open "net/ipv4/conf/eth0/arp_notify": read-only file system (EROFS)\n',
  );
  await pod.run('ping', ['-n', '-c', '1', '-w', '3', '10.22.0.1']);
});

test('A read-only /proc/sys without forwarding is an error that names the sysctl', async () => {
  const { host, pod } = await openHost();
  await host.shell('mount --bind -o ro /proc/sys /proc/sys');
  const { msg } = expectError(await host.runPlugin('ADD', callOf(network('n'), pod)));
  expect(msg).toContain('Cannot switch on IPv4 forwarding by sysctl "net/ipv4/ip_forward"');
});

describe('duplicate address detection', () => {
  const config = network('n', { enabledad: true, ipam: ranges('fd00:22::/64') });

  test('ends with addresses that are usable', async () => {
    const { host, pod } = await openHost();
    await attach(host, config, pod);
    const [link] = await json<{ addr_info: { tentative?: boolean }[] }>(
      pod,
      'ip',
      '-j',
      '-6',
      'addr',
      'show',
      'eth0',
    );
    expect(link?.addr_info.some(({ tentative }) => tentative)).toBe(false);
  });

  test('is not waited for unless the config asks, and addresses are usable at once', async () => {
    const { host, pod } = await openHost();
    await pod.shell('sysctl -qw net.ipv6.conf.default.accept_dad=1');
    await attach(host, { ...config, enabledad: false }, pod);
    const { stdout } = await pod.run('ip', ['-6', 'addr', 'show', 'dev', 'eth0', 'scope', 'global']);
    expect(stdout).toMatch(/fd00:22::2\/64 .*nodad/);
    expect(stdout).not.toContain('tentative');
  });

  test('finds a station that has the address already, and undoes the attachment', async () => {
    const { host, pod } = await openHost();
    const squatter = await host.addSandbox('squatter');
    await host.shell(`
      ip link add cni0 type bridge; ip link set cni0 up
      ip link add squat master cni0 up type veth peer name eth0 netns squatter
    `);
    await squatter.shell(
      'sysctl -qw net.ipv6.conf.eth0.accept_dad=0; ip link set eth0 up; ip addr add fd00:22::2/64 dev eth0 nodad',
    );
    await pod.shell('true');
    await host.shell('sleep 0.2');
    const { msg } = expectError(await host.runPlugin('ADD', callOf(config, pod)));
    expect(msg).toContain('"fd00:22::2/64" is in use by another station');
    expect((await pod.run('ip', ['-j', 'link'])).stdout).not.toContain('eth0');
  });
});

describe('CHECK', () => {
  const breakages: readonly [what: string, script: string, said: string][] = [
    [
      'its masquerade element',
      'nft delete element inet patchbay masquerade4 { 10.22.0.2 }',
      'is not in map "masquerade4"',
    ],
    [
      'a rule of the base chain',
      'nft flush chain inet patchbay postrouting',
      'Rule 1 of chain "postrouting"',
    ],
    [
      'a rule of its subnet',
      'nft flush chain inet patchbay masquerade4-10.22.0.0/24',
      'Rule 1 of chain "masquerade4-10.22.0.0/24"',
    ],
    [
      'its table',
      'nft delete table inet patchbay',
      'Chain "postrouting" of table "inet patchbay" does not exist',
    ],
    ['forwarding', 'sysctl -qw net.ipv4.ip_forward=0', 'so nothing is forwarded'],
    ['the gateway address', 'ip addr del 10.22.0.1/24 dev cni0', 'lacks gateway address "10.22.0.1/24"'],
    ['its place on the bridge', 'ip link set $HOST_LINK nomaster', 'is not a port of bridge "cni0"'],
    ['its host link, which is down', 'ip link set $HOST_LINK down', 'is down'],
    ['its port flags', 'bridge link set dev $HOST_LINK hairpin on', 'has hairpin mode on instead of off'],
    ['the bridge, which is down', 'ip link set cni0 down', 'Bridge "cni0" is down'],
    [
      'its address',
      'ip -n pod addr add 10.22.0.77/24 dev eth0; ip -n pod addr del 10.22.0.2/24 dev eth0',
      'lacks address "10.22.0.2/24"',
    ],
    [
      'its default route',
      'ip -n pod route del default',
      'Route to "0.0.0.0/0" by link "eth0" does not exist',
    ],
    [
      'the gateway of its default route',
      'ip -n pod route replace default via 10.22.0.9',
      'has gateway 10.22.0.9 instead of 10.22.0.1',
    ],
    [
      'its MAC',
      'ip -n pod link set eth0 address 02:00:00:00:00:99',
      'has MAC "02:00:00:00:00:99" instead of',
    ],
    ['its link, which is down', 'ip -n pod link set eth0 down', 'is down'],
    ['its link', 'ip -n pod link del eth0', 'Link "eth0" does not exist in sandbox'],
  ];

  test.for(breakages)('of an attachment that lost %s names the difference', async ([, script, said]) => {
    const { host, pod } = await openHost();
    const attached = await attach(host, network('n'), pod);
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
    const hostLink = attached.result.interfaces?.[1]?.name ?? '';
    await host.shell(script.replaceAll('$HOST_LINK', hostLink));
    const before = await host.snapshot();
    const { code, msg } = expectError(await host.runPlugin('CHECK', withPrevResult(attached)));
    expect({ code, msg }).toEqual({ code: 107, msg: expect.stringContaining(said) });
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('of somebody else’s element under the address names its owner', async () => {
    const { host, pod } = await openHost();
    const attached = await attach(host, network('n'), pod);
    await host.shell(`nft -f - <<< '
      delete element inet patchbay masquerade4 { 10.22.0.2 }
      add element inet patchbay masquerade4 { 10.22.0.2 comment "mine" : jump masquerade4-10.22.0.0/24 }'`);
    const { msg } = expectError(await host.runPlugin('CHECK', withPrevResult(attached)));
    expect(msg).toContain('belongs to "mine"');
  });
});

describe('our part of the ruleset', () => {
  test('survives nft list ruleset and nft -f into an empty namespace', async () => {
    const { host, pod } = await openHost();
    const config = network('n', { ipam: ranges('10.22.0.0/24', 'fd00:22::/64') });
    const odd = await host.addSandbox('odd');
    const attached = await attach(host, config, pod);
    await attach(host, config, odd, { containerId: `long.${'x'.repeat(200)}`, ifname: 'e"\\é$(x)' });
    const { stdout } = await host.run('nft', ['list', 'ruleset']);
    await host.shell('nft flush ruleset');
    await host.run('nft', ['-f', '-'], { input: stdout });
    expect((await host.run('nft', ['list', 'ruleset'])).stdout).toBe(stdout);
    expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
  });

  test('has as many rules for the tenth attachment as for the first', async () => {
    const { host, pod } = await openHost();
    await attach(host, network('n'), pod);
    const rules = async () =>
      (await host.run('nft', ['-j', 'list', 'ruleset'])).stdout.match(/"rule":/g)?.length;
    const first = await rules();
    for (let n = 0; n < 9; n++) await attach(host, network('n'), await host.addSandbox(`pod${n}`));
    expect(await rules()).toBe(first);
  });

  test('is written anew when an older format is found, and its elements stay', async () => {
    const { host, pod } = await openHost();
    const attached = await attach(host, network('n'), pod);
    await host.shell(`nft -f - <<< '
      delete chain inet patchbay postrouting
      add chain inet patchbay postrouting { type nat hook postrouting priority srcnat; comment "patchbay format 0"; }
      add rule inet patchbay postrouting counter'`);
    const other = await host.addSandbox('other');
    await attach(host, network('n'), other);
    const { stdout } = await host.run('nft', ['list', 'chain', 'inet', 'patchbay', 'postrouting']);
    expect(stdout).toContain('ip saddr vmap @masquerade4');
    expect(stdout).not.toContain('counter');
    expect((await host.run('nft', ['list', 'map', 'inet', 'patchbay', 'masquerade4'])).stdout).toContain(
      attached.ip4,
    );
  });

  test('leaves a foreign ruleset untouched', async () => {
    const { host, pod } = await openHost();
    const foreign = `
      table inet firewalld { chain c { type filter hook forward priority 10; policy accept; tcp dport 22 accept; }; }
      table ip nat { chain POSTROUTING { type nat hook postrouting priority 100; ip saddr 172.17.0.0/16 masquerade; }; }`;
    await host.run('nft', ['-f', '-'], { input: foreign });
    const list = async () =>
      (await host.shell('nft list table inet firewalld; nft list table ip nat')).stdout;
    const before = await list();
    const attached = await attach(host, network('n'), pod);
    expect(await list()).toBe(before);
    await detach(host, attached);
    expect(await list()).toBe(before);
  });
});
