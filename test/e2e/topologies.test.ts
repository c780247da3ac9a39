// The topologies that people build by hand to understand container networking, built by the plugins instead.
// Part of `npm run test:e2e`; each one ends with packets that flow, or that must not.
import { expect, onTestFinished, test } from 'vitest';
import { attach, detach } from '../support/attachment.ts';
import { openCapture } from '../support/capture.ts';
import { type BridgeConfig, installResolvConf, readNetwork } from '../support/network-list.ts';
import type { Place } from '../support/place.ts';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import { addOutside, answers, OUTSIDE, ping } from '../support/traffic.ts';

test('two sandboxes on a layer 2 bridge reach each other with addresses that the plugins know nothing of', async () => {
  const host = await openHost();
  const { config } = readNetwork('bridge-layer2.conflist');
  const left = await host.addSandbox('left');
  const right = await host.addSandbox('right');
  await attach(host, config, left);
  await attach(host, config, right);
  await left.shell('ip addr add 192.0.2.1/24 dev eth0; ip addr add 2001:db8::1/64 dev eth0 nodad');
  await right.shell('ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad');

  await ping(left, '192.0.2.2');
  await ping(right, '2001:db8::1');

  // The bridge forwards frames and is no neighbour itself: the host has no address there and no route to it.
  expect(await globalAddresses(host, config.bridge)).toEqual([]);
  expect(await answers(host, '192.0.2.1')).toBe(false);
  // 28 bytes of IPv4 and ICMP headers: 1422 is what fits into the MTU of 1450 that the network asks for.
  await left.run('ping', ['-n', '-c', '1', '-w', '2', '-M', 'do', '-s', '1422', '192.0.2.2']);
  const tooLong = await left.attempt('ping', [
    '-n',
    '-c',
    '1',
    '-w',
    '2',
    '-M',
    'do',
    '-s',
    '1423',
    '192.0.2.2',
  ]);
  expect(tooLong.exitCode).not.toBe(0);
});

test('a gateway on the bridge and a default route take packets past the host, under the sandbox’s own address', async () => {
  const host = await openHost();
  const outside = await addOutside(host);
  const { config } = readNetwork('bridge-no-masquerade.conflist');
  const left = await host.addSandbox('left');
  const right = await host.addSandbox('right');
  const { result, ip4, ip6 } = await attach(host, config, left);
  const other = await attach(host, config, right);

  await ping(left, other.ip4);
  await ping(left, other.ip6);
  for (const { gateway = 'no gateway' } of result.ips ?? []) await ping(left, gateway);
  await ping(left, OUTSIDE.host4);
  await ping(left, OUTSIDE.host6);

  // The world outside sees the sandbox, but does not know the way back until it is told.
  await using capture = await openCapture(outside, 'eth0', 'icmp or icmp6');
  expect(await answers(left, OUTSIDE.outside4)).toBe(false);
  await capture.waitFor(new RegExp(`${ip4} > ${OUTSIDE.outside4}: ICMP echo request`));
  await outside.run('ip', ['route', 'add', subnetOf(config, 4), 'via', OUTSIDE.host4]);
  await outside.run('ip', ['route', 'add', subnetOf(config, 6), 'via', OUTSIDE.host6]);
  await ping(left, OUTSIDE.outside4);
  await ping(left, OUTSIDE.outside6);
  await ping(outside, ip4);
  await ping(outside, ip6);
});

test('behind a masquerade the outside sees the host’s address only, and neighbours see each other’s own', async () => {
  const host = await openHost();
  const outside = await addOutside(host);
  const { config } = readNetwork('bridge-dual-stack.conflist');
  const left = await host.addSandbox('left');
  const right = await host.addSandbox('right');
  const here = await attach(host, config, left);
  const there = await attach(host, config, right);

  await using capture = await openCapture(outside, 'eth0', 'icmp or icmp6');
  await ping(left, OUTSIDE.outside4);
  await ping(left, OUTSIDE.outside6);
  await capture.waitFor(new RegExp(`${OUTSIDE.host4} > ${OUTSIDE.outside4}: ICMP echo request`));
  await capture.waitFor(new RegExp(`${OUTSIDE.host6} > ${OUTSIDE.outside6}: ICMP6, echo request`));
  expect(capture.lines.filter((line) => line.includes(here.ip4) || line.includes(here.ip6))).toEqual([]);

  await using between = await openCapture(right, 'eth0', 'icmp or icmp6');
  await ping(left, there.ip4);
  await ping(left, there.ip6);
  await between.waitFor(new RegExp(`${here.ip4} > ${there.ip4}: ICMP echo request`));
  await between.waitFor(new RegExp(`${here.ip6} > ${there.ip6}: ICMP6, echo request`));
});

test('multicast leaves a masqueraded sandbox under its own address', async () => {
  const host = await openHost();
  const { config } = readNetwork('10-bridge.conflist');
  const sandbox = await host.addSandbox('sandbox');
  const { ip4 } = await attach(host, config, sandbox);
  await using capture = await openCapture(host, config.bridge, 'udp port 5353');
  await sandbox.shell('echo hello > /dev/udp/224.0.0.251/5353');
  await capture.waitFor(new RegExp(`${ip4}\\.\\d+ > 224\\.0\\.0\\.251\\.5353`));
});

test('two networks on one host keep their routes apart, also in a sandbox that is on both', async () => {
  const host = await openHost();
  const outside = await addOutside(host);
  const first = readNetwork('bridge-dual-stack.conflist').config;
  const second = withoutRoutes(readNetwork('bridge-no-masquerade.conflist').config);
  const both = await host.addSandbox('both');
  const onFirst = await host.addSandbox('on-first');
  const onSecond = await host.addSandbox('on-second');
  const eth0 = await attach(host, first, both);
  const neighbour = await attach(host, first, onFirst);
  const routesBefore = await routesOf(host, first.bridge);
  const eth1 = await attach(host, second, both, { ifname: 'eth1' });
  const stranger = await attach(host, second, onSecond);

  expect(await routesOf(host, first.bridge)).toEqual(routesBefore);
  expect(await deviceTo(both, OUTSIDE.outside4)).toBe('eth0');
  expect(await deviceTo(both, OUTSIDE.outside6)).toBe('eth0');
  for (const [ip4, ip6, device] of [
    [neighbour.ip4, neighbour.ip6, 'eth0'],
    [stranger.ip4, stranger.ip6, 'eth1'],
  ] as const) {
    expect(await deviceTo(both, ip4)).toBe(device);
    expect(await deviceTo(both, ip6)).toBe(device);
    await ping(both, ip4);
    await ping(both, ip6);
  }

  // Only the first network masquerades: what leaves eth0 for the outside arrives under the host's address.
  await using capture = await openCapture(outside, 'eth0', 'icmp');
  await ping(both, OUTSIDE.outside4);
  await capture.waitFor(new RegExp(`${OUTSIDE.host4} > ${OUTSIDE.outside4}: ICMP echo request`));

  await detach(host, eth1);
  expect(await routesOf(host, first.bridge)).toEqual(routesBefore);
  await ping(both, neighbour.ip4);
  await ping(both, OUTSIDE.outside6);
  await detach(host, eth0);
  expect((await both.run('ip', ['-brief', 'link'])).stdout).not.toContain('eth');
  await ping(onFirst, OUTSIDE.outside4);
});

test('a capture inside a sandbox shows the packets of its neighbour, and what they carry', async () => {
  const host = await openHost();
  const { config } = readNetwork('10-bridge.conflist');
  const client = await host.addSandbox('client');
  const server = await host.addSandbox('server');
  const here = await attach(host, config, client);
  const there = await attach(host, config, server);
  await using capture = await openCapture(server, 'eth0', 'udp port 9');
  await client.shell(`printf 0123456789 > /dev/udp/${there.ip4}/9`);
  const line = await capture.waitFor(new RegExp(`${here.ip4}\\.\\d+ > ${there.ip4}\\.9:`));
  expect(line).toContain('length 10');
});

test('isolated ports reach the outside but not each other', async () => {
  const host = await openHost();
  await addOutside(host);
  const { config } = readNetwork('bridge-ranges.conflist');
  const left = await host.addSandbox('left');
  const right = await host.addSandbox('right');
  await attach(host, config, left);
  const { ip4, ip6 } = await attach(host, config, right);
  await ping(left, OUTSIDE.outside4);
  await ping(left, OUTSIDE.outside6);
  expect(await answers(left, ip4)).toBe(false);
  expect(await answers(left, ip6)).toBe(false);
});

async function openHost(): Promise<PrivateHost> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  installResolvConf(host);
  return host;
}

interface LinkFacts {
  readonly addr_info: readonly { readonly local: string; readonly scope: string }[];
}

async function globalAddresses(place: Place, link: string): Promise<string[]> {
  const { stdout } = await place.run('ip', ['-json', 'addr', 'show', link]);
  const [facts] = JSON.parse(stdout) as LinkFacts[];
  return (facts?.addr_info ?? []).filter(({ scope }) => scope === 'global').map(({ local }) => local);
}

async function routesOf(place: Place, link: string): Promise<string> {
  return (await place.shell(`ip route show dev ${link}; ip -6 route show dev ${link} proto kernel`)).stdout;
}

async function deviceTo(place: Place, address: string): Promise<string> {
  const { stdout } = await place.run('ip', ['-json', 'route', 'get', address]);
  return (JSON.parse(stdout) as { dev: string }[])[0]?.dev ?? 'none';
}

function subnetOf(config: BridgeConfig, family: 4 | 6): string {
  const subnets = (config.ipam?.ranges ?? []).flat().map(({ subnet }) => subnet);
  return subnets.find((subnet) => subnet.includes(':') === (family === 6)) ?? '';
}

function withoutRoutes(config: BridgeConfig): BridgeConfig {
  const { routes, ...ipam } = { routes: [], ranges: [], ...config.ipam };
  expect(routes).not.toEqual([]);
  return { ...config, ipam };
}
