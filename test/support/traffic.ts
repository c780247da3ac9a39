// Packets on purpose: pings between places, and namespaces that play the world outside a host.
// Used by the end-to-end tests, the lifecycle tests and the demo.
import type { Place } from './place.ts';
import type { PrivateHost, Sandbox } from './private-host.ts';

/** Sends one ping, given three seconds for neighbour discovery; throws when no answer comes. */
export async function ping(from: Place, address: string): Promise<void> {
  await from.run('ping', ['-n', '-c', '1', '-i', '0.3', '-w', '3', address]);
}

/** Whether anything answers within a second; for what must *not* be reachable. */
export async function answers(from: Place, address: string): Promise<boolean> {
  const { exitCode } = await from.attempt('ping', ['-n', '-c', '2', '-i', '0.2', '-W', '0.5', address]);
  return exitCode === 0;
}

/** Addresses on the link between a host and its outside; documentation prefixes, so nothing else has them. */
export const OUTSIDE = {
  host4: '203.0.113.1',
  host6: '2001:db8:113::1',
  outside4: '203.0.113.2',
  outside6: '2001:db8:113::2',
} as const;

/**
 * Adds a namespace that plays the outside world: joined to the host by a veth pair (`uplink`, `eth0`), a
 * default route of the host goes there, and no route leads from it to any network behind the host. So an
 * answer from it proves that it saw an address of the host.
 */
export async function addOutside(host: PrivateHost): Promise<Sandbox> {
  const outside = await host.addSandbox('outside');
  await outside.shell('echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad');
  await host.shell(`
    ip link add uplink index 1000 type veth peer name eth0 netns outside
    ip addr add ${OUTSIDE.host4}/24 dev uplink
    ip addr add ${OUTSIDE.host6}/64 dev uplink nodad
    ip link set uplink up
    ip -n outside addr add ${OUTSIDE.outside4}/24 dev eth0
    ip -n outside addr add ${OUTSIDE.outside6}/64 dev eth0 nodad
    ip -n outside link set eth0 up
    ip route add default via ${OUTSIDE.outside4}
    ip -6 route add default via ${OUTSIDE.outside6}
  `);
  return outside;
}

/** Addresses on the link between a host and its neighbour; documentation prefixes again. */
export const LAN = {
  host4: '198.51.100.1',
  host6: '2001:db8:51::1',
  neighbour4: '198.51.100.2',
  neighbour6: '2001:db8:51::2',
} as const;

/**
 * Adds a namespace that plays another host on the same LAN, joined to this one by a veth pair (`lan`, `eth0`). It takes
 * this host for the way to everything else, so it can also send what a good neighbour would not.
 */
export async function addNeighbour(host: PrivateHost): Promise<Sandbox> {
  const neighbour = await host.addSandbox('lan-host');
  await neighbour.shell('echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad');
  await host.shell(`
    ip link add lan index 2000 type veth peer name eth0 netns lan-host
    ip addr add ${LAN.host4}/24 dev lan
    ip addr add ${LAN.host6}/64 dev lan nodad
    ip link set lan up
    ip -n lan-host addr add ${LAN.neighbour4}/24 dev eth0
    ip -n lan-host addr add ${LAN.neighbour6}/64 dev eth0 nodad
    ip -n lan-host link set eth0 up
    ip -n lan-host route add default via ${LAN.host4}
    ip -n lan-host -6 route add default via ${LAN.host6}
  `);
  return neighbour;
}
