// A host outside that connects to a published port, and the service behind that port. Called by measure.ts.

import { join } from 'node:path';
import { HOST_PATH } from '../support/place.ts';
import type { BenchHost } from './host.ts';
import type { RunOrder } from './host-worker.ts';
import { MEASURED, type PortMapping } from './network.ts';

const PROGRAM = join(import.meta.dirname, 'connections.ts');
const NODE = [process.execPath, '--disable-warning=ExperimentalWarning', PROGRAM] as const;
const HOST_ADDRESS = '192.0.2.1';
const OUTSIDE_ADDRESS = '192.0.2.2';

// Those of a few seconds stay in connection tracking, and its table is the machine's: far below its smallest size.
const CONNECTIONS = 1000;
const AT_MOST_SECONDS = 30;

/** Joins a network namespace "outside" to the host, and starts what answers on the first of the ports. */
export async function openOutside(host: BenchHost, ports: readonly PortMapping[]): Promise<void> {
  const { containerPort } = firstOf(ports);
  await host.shell(`
    ip netns add outside
    ip link add outside up type veth peer name eth0 netns outside
    ip address add ${HOST_ADDRESS}/24 dev outside
    ip -n outside link set lo up
    ip -n outside link set eth0 up
    ip -n outside address add ${OUTSIDE_ADDRESS}/24 dev eth0
    ip netns exec ${MEASURED.netns} ${NODE.join(' ')} accept ${containerPort} \\
      < /dev/null > /run/bench/accept 2>&1 &
    for i in {1..500}; do
      ip netns exec ${MEASURED.netns} ss -Hltn "sport = :${containerPort}" | grep -q LISTEN && exit 0
      sleep 0.02
    done
    cat /run/bench/accept >&2
    exit 1
  `);
}

/** The run of a client: what it prints is the milliseconds that its connections took. */
export function connecting(ports: readonly PortMapping[]): Omit<RunOrder, 'kind'> {
  const { hostPort } = firstOf(ports);
  const words = ['connect', HOST_ADDRESS, String(hostPort), String(CONNECTIONS)];
  return {
    argv: [
      ...['/usr/bin/timeout', '-s', 'KILL', String(AT_MOST_SECONDS)],
      ...['/usr/bin/env', 'ip', 'netns', 'exec', 'outside', ...NODE, ...words],
    ],
    env: { PATH: HOST_PATH },
    stdin: '',
    settleMs: 8,
  };
}

function firstOf(ports: readonly PortMapping[]): PortMapping {
  const [port] = ports;
  if (port?.protocol !== 'tcp') throw new Error('Cannot connect to a port that is not TCP');
  return port;
}
