// Who is measured: how each makes, checks and takes away an attachment, and what its host needs before.
// Called by run.ts. CNI plugins are called by cnitool, netavark by its own command, Docker's daemon by its own API.
import { findCnitool } from '../../support/cnitool.ts';
import { HOST_PATH } from '../../support/place.ts';
import { openRuntimeHost } from '../../support/runtime-host.ts';
import { IMAGE } from '../../support/runtime-image.ts';
import type { Call } from '../burst.ts';
import { type BenchHost, openBenchHost } from '../host.ts';
import {
  addressOf,
  bridgeName,
  CHAIN_DIRECTORY,
  chainInvocation,
  chainListOf,
  type Implementation,
  NETWORKS,
  type NetworkNumber,
  type NetworkShape,
  networkName,
  type PortMapping,
  patchbayListOf,
  portsFrom,
} from '../network.ts';
import type { ContestantName, Scene } from './plan.ts';

export type ScaleVerb = 'ADD' | 'CHECK' | 'DEL';

export interface Contestant {
  readonly name: ContestantName;
  readonly verbs: readonly ScaleVerb[];
  /** Whose executables its processes are, for a look at their memory. */
  readonly directory: string;
  /** File with the process id of the daemon that does its work. */
  readonly daemon?: string;
  open(): Promise<BenchHost>;
  /** Makes what must be there before the first attachment: config, containers. Sandboxes "s1", "s2" … are there. */
  prepare(host: BenchHost, scene: Scene): Promise<void>;
  /** The call that a client makes; clients count from 0. */
  call(verb: ScaleVerb, client: number, scene: Scene): Call;
}

/** A network that holds what is measured and its part of the crowd. */
export const PLACE = { prefixLength: 16 } as const;

const FIRST_PORT = 20_000;

/** What each client attaches: an address of its own on network 0, ports of its own. */
export function shapeOf(scene: Scene, ipMasq: NetworkShape['ipMasq'] = 'default', client = 0): NetworkShape {
  const ports = portsFrom(FIRST_PORT + client * scene.ports, scene.ports, ['tcp', 'udp']);
  return { families: 'IPv4', ipMasq, ports };
}

/** Plugins, as one list: `patchbay` for ours, the chain of four that nerdctl writes for the others. */
export function cniContestant(
  name: ContestantName,
  implementation: Implementation,
  ipMasq: NetworkShape['ipMasq'] = 'default',
): Contestant {
  // That release looks for ports of IPv6 on a network without, and so finds fault with each of its attachments.
  const hasCheck = name !== 'Debian 1.1.1';
  const cnitool = findCnitool();
  if (cnitool === undefined) throw new Error('cnitool is missing: without Go it cannot be built');
  return {
    name,
    verbs: hasCheck ? ['ADD', 'CHECK', 'DEL'] : ['ADD', 'DEL'],
    directory: implementation.directory,
    open: openBenchHost,
    async prepare(host, scene) {
      const listOf = name === 'ours' ? patchbayListOf : chainListOf;
      const list = listOf(shapeOf(scene, ipMasq), PLACE);
      await host.write([[`${CHAIN_DIRECTORY}/bench.conflist`, JSON.stringify(list)]]);
    },
    call(verb, client, scene) {
      const attachment = { containerId: '', ifname: 'eth0', netns: sandboxOf(client) };
      return {
        label: verb,
        ...chainInvocation(implementation, cnitool, verb, attachment, shapeOf(scene, ipMasq, client)),
      };
    },
  };
}

/** podman's own network program. */
export function netavarkContestant(executable: string): Contestant {
  return {
    name: 'netavark',
    verbs: ['ADD', 'DEL'],
    directory: executable.slice(0, executable.lastIndexOf('/')),
    open: openBenchHost,
    // Whoever leaves a network last takes bridge and chains along: another container stays.
    async prepare(host) {
      await host.shell('ip netns add resident');
      await host.run({ ...netavarkCall(executable, 'setup', residentOf(0)), settleMs: 0 });
    },
    call(verb, client, scene) {
      const { ports } = shapeOf(scene, 'default', client);
      // Addresses are podman's to give: behind all those that a crowd could have.
      const address = addressOf(0, 50_000 + client);
      const attachment = {
        id: `client-${client}`,
        netns: sandboxOf(client),
        network: 0,
        address,
        ports,
      } as const;
      return { label: verb, ...netavarkCall(executable, verb === 'ADD' ? 'setup' : 'teardown', attachment) };
    },
  };
}

/** One container on each network, as its first. */
export function residentOf(network: NetworkNumber): NetavarkAttachment {
  const address = addressOf(network, 60_000);
  return { id: `resident-${network}`, netns: 'resident', network, address, ports: [] };
}

export interface NetavarkAttachment {
  readonly id: string;
  readonly netns: string;
  readonly network: NetworkNumber;
  readonly address: string;
  readonly ports: readonly PortMapping[];
}

/** netavark's own command; its config is what podman would write. */
export function netavarkCall(
  executable: string,
  command: 'setup' | 'teardown',
  { id, netns, network, address, ports }: NetavarkAttachment,
): Omit<Call, 'label'> {
  const name = networkName(network);
  const config = {
    container_id: id,
    container_name: id,
    port_mappings: ports.map(({ hostPort, containerPort, protocol }) => ({
      host_ip: '',
      host_port: hostPort,
      container_port: containerPort,
      protocol,
      range: 1,
    })),
    networks: { [name]: { static_ips: [address], interface_name: `eth${network}` } },
    network_info: {
      [name]: {
        name,
        id: String(network).padStart(64, '5'),
        driver: 'bridge',
        network_interface: bridgeName(network),
        subnets: [{ subnet: `10.20${network}.0.0/16`, gateway: `10.20${network}.0.1` }],
        ipv6_enabled: false,
        internal: false,
        dns_enabled: false,
        ipam_options: { driver: 'host-local' },
        options: {},
        created: '2024-01-01T00:00:00Z',
      },
    },
  };
  return {
    argv: [executable, command, `/run/netns/${netns}`],
    env: { PATH: HOST_PATH },
    stdin: JSON.stringify(config),
  };
}

const DOCKER_SOCKET = '/run/docker.sock';
const DOCKER = `docker -H unix://${DOCKER_SOCKET}`;

/** The bridge driver of a real daemon: a running container is connected to a network and disconnected again. */
export function dockerContestant(): Contestant {
  return {
    name: 'Docker',
    verbs: ['ADD', 'DEL'],
    directory: '/usr/sbin',
    daemon: '/run/docker.pid',
    open: () => openBenchHost(() => openRuntimeHost()),
    async prepare(host, scene) {
      await host.shell(`
        sysctl -qw net.ipv4.ip_forward=0
        dockerd --data-root /srv/docker -H unix://${DOCKER_SOCKET} --pidfile /run/docker.pid --bridge=none \\
          < /dev/null > /srv/dockerd.log 2>&1 &
        for i in {1..300}; do ${DOCKER} version > /dev/null 2>&1 && break; sleep 0.1; done
        ${DOCKER} load -q -i /srv/images.tar
        ${DOCKER} network create --internal --subnet 10.199.0.0/16 start
      `);
      for (const network of NETWORKS.slice(0, scene.attachments > 0 ? NETWORKS.length : 1)) {
        await host.shell(
          `${DOCKER} network create --subnet 10.20${network}.0.0/16 --ip-range 10.20${network}.240.0/20 ` +
            `-o com.docker.network.bridge.name=${bridgeName(network)} ${networkName(network)}`,
        );
      }
      for (let client = 0; client < scene.parallel; client++) {
        const published = shapeOf(scene, 'default', client).ports.map(
          ({ hostPort, containerPort, protocol }) => `-p ${hostPort}:${containerPort}/${protocol}`,
        );
        await host.shell(`
          ${DOCKER} run -d --name c${client} --network start ${published.join(' ')} ${IMAGE} sleep 2147483647
          ${DOCKER} network disconnect start c${client}
        `);
      }
    },
    call(verb, client) {
      const command = verb === 'ADD' ? 'connect' : 'disconnect';
      const url = `http://docker/networks/${networkName(0)}/${command}`;
      const request = ['-X', 'POST', '-H', 'Content-Type: application/json', '-d', '@-'];
      return {
        label: verb,
        argv: ['/usr/bin/curl', '-sS', '--fail-with-body', '--unix-socket', DOCKER_SOCKET, ...request, url],
        env: { PATH: HOST_PATH },
        stdin: JSON.stringify({ Container: `c${client}` }),
      };
    },
  };
}

/** The network namespace of a client. */
export function sandboxOf(client: number): string {
  return `s${client + 1}`;
}
