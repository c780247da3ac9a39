// Puts attachments and stored addresses onto a bench host before anything is measured. Called by measure.ts.

import { type Attachment, hostLinkName, ownerComment } from '../../shared/cni/attachment.ts';
import { parseCidr } from '../../shared/ip/cidr.ts';
import { encodeNewChain, planMasquerade } from '../../shared/iptables/masquerade-plan.ts';
import type { BenchHost } from './host.ts';
import {
  type AttachmentAt,
  addressOf,
  bridgeName,
  configOf,
  type Implementation,
  invocation,
  NETWORKS,
  type NetworkNumber,
  type NetworkShape,
  networkName,
  type PortMapping,
  portmapConfigOf,
  portsFrom,
  storeOf,
} from './network.ts';

/** What is on a host already. */
export interface Prefill {
  /** Attachments: links, addresses and masquerade. */
  readonly attachments: number;
  /** Ports that each of them publishes, for ours only. */
  readonly portsEach: number;
  /** How many networks, and so bridges, they are spread over. A bridge takes 1,023 ports. */
  readonly networks: 1 | 4 | 8;
  /** Addresses in the measured network's store of attachments that have nothing else. */
  readonly stored: number;
  /** iptables rules of somebody else, in table nat. */
  readonly foreignRules: number;
}

export interface CrowdMember {
  readonly attachment: AttachmentAt;
  readonly network: NetworkNumber;
  /** Its place among the attachments to its network. */
  readonly n: number;
}

/** One container each, all in one network namespace, in turn on each of the networks. */
export function crowdOf({ attachments, networks }: Pick<Prefill, 'attachments' | 'networks'>): CrowdMember[] {
  return Array.from({ length: attachments }, (_, i) => ({
    attachment: { containerId: `crowd-${i}`, ifname: `e${i}`, netns: 'crowd' },
    network: NETWORKS[i % networks] ?? 0,
    n: Math.floor(i / networks),
  }));
}

/** Stores addresses as files of the shared format, and the pointer to the last: both implementations start there. */
export async function storeAddresses(
  host: BenchHost,
  network: NetworkNumber,
  owners: readonly AttachmentAt[],
): Promise<void> {
  const files = owners.map(
    ({ containerId, ifname }, n) =>
      [`${storeOf(network)}/${addressOf(network, n)}`, `${containerId}\r\n${ifname}`] as const,
  );
  await host.write([
    ...files,
    [`${storeOf(network)}/last_reserved_ip.0`, addressOf(network, owners.length - 1)],
  ]);
}

/** One real ADD; returns its result. */
export async function attach(
  host: BenchHost,
  implementation: Implementation,
  plugin: 'bridge' | 'portmap',
  attachment: AttachmentAt,
  config: unknown,
): Promise<unknown> {
  const order = invocation(implementation, plugin, 'ADD', attachment, config);
  const { exitCode, stdout } = await host.run({ ...order, settleMs: 0 });
  if (exitCode !== 0) throw new Error(`Cannot attach "${attachment.containerId}" with ${plugin}: ${stdout}`);
  return JSON.parse(stdout);
}

/** Attaches a crowd by real ADDs: slow (a process each) and true, whatever the implementation keeps where. */
export async function attachCrowd(
  host: BenchHost,
  implementation: Implementation,
  shape: NetworkShape,
  prefill: Prefill,
): Promise<void> {
  for (const { attachment, network } of crowdOf(prefill)) {
    await attach(host, implementation, 'bridge', attachment, configOf(shape, { network }));
  }
}

/**
 * Makes by ip and iptables-restore what the reference's ADDs would have left. A thousand of those take minutes, since
 * each lists all rules several times. The first of them is real and makes the bridge of its network.
 */
export async function imitateCrowd(
  host: BenchHost,
  implementation: Implementation,
  shape: NetworkShape,
  prefill: Prefill,
): Promise<void> {
  const crowd = crowdOf(prefill);
  const first = crowd.slice(0, prefill.networks);
  await attachCrowd(host, implementation, shape, { ...prefill, attachments: first.length });
  const rest = crowd.slice(first.length);
  const rules = rest.flatMap(({ network, n, attachment: { containerId } }) => {
    const plan = planMasquerade({
      network: networkName(network),
      containerId,
      addresses: [parseCidr(`${addressOf(network, n)}/16`)],
    });
    return encodeNewChain(plan, 4)
      .split('\n')
      .filter((line) => line.startsWith('-'));
  });
  await makeLinks(host, rest, ({ attachment: { ifname } }) => `veth${ifname}`);
  await host.write([['/run/bench/rules', ['*nat', ...rules, 'COMMIT', ''].join('\n')]]);
  await host.shell('iptables-restore --noflush < /run/bench/rules');
  await storeCrowd(host, crowd);
}

/**
 * Makes by ip and nft what our ADDs of bridge and portmap would have left, but for masquerade and routes. The first
 * ADDs of each network are real and make its bridge and the rules that serve all ports.
 */
export async function publishCrowd(
  host: BenchHost,
  implementation: Implementation,
  shape: NetworkShape,
  prefill: Prefill,
): Promise<void> {
  const crowd = crowdOf(prefill);
  for (const { attachment, network, n } of crowd.slice(0, prefill.networks)) {
    const prevResult = await attach(host, implementation, 'bridge', attachment, configOf(shape, { network }));
    const ports = portsOfMember({ network, n }, prefill);
    const portmap = portmapConfigOf(shape, { network, ports, prevResult });
    await attach(host, implementation, 'portmap', attachment, portmap);
  }
  const rest = crowd.slice(prefill.networks);
  await makeLinks(host, rest, (member) => hostLinkName(ownerOf(member)));
  await host.write([['/run/bench/elements', portElements(rest, prefill)]]);
  await host.shell('nft -f /run/bench/elements');
  await storeCrowd(host, crowd);
}

/** Their elements of our maps, as a file for nft. Pure. */
export function portElements(members: readonly CrowdMember[], prefill: Prefill): string {
  const lines = members.flatMap((member) => {
    const { network, n } = member;
    const comment = `comment "${ownerComment(ownerOf(member))}"`;
    const address = addressOf(network, n);
    return [
      ...portsOfMember(member, prefill).map(
        ({ protocol, hostPort, containerPort }) =>
          `hostports4 { ${protocol} . ${hostPort} ${comment} : ${address} . ${containerPort} }`,
      ),
      `hairpin4 { ${address} ${comment} : jump hairpin4-10.20${network}.0.0/16 }`,
    ];
  });
  return lines.map((line) => `add element inet patchbay ${line}\n`).join('');
}

/** Rules like those of a cluster with many services: each has a chain with three rules and a jump to it. */
export async function addForeignRules(host: BenchHost, count: number): Promise<void> {
  await host.write([['/run/bench/foreign', foreignRules(count)]]);
  await host.shell('iptables-restore --noflush < /run/bench/foreign');
}

/** That many rules, rounded up to whole services, as a file for iptables-restore. Pure. */
export function foreignRules(count: number): string {
  const services = Array.from({ length: Math.ceil(count / RULES_A_SERVICE) }, (_, i) => {
    const address = `10.96.${i >> 8}.${i & 255}`;
    const name = `SVC-${String(i).padStart(5, '0')}`;
    return {
      chain: `:${name} - [0:0]`,
      rules: [
        `-A SERVICES -d ${address}/32 -p tcp -m tcp --dport 443 -j ${name}`,
        `-A ${name} ! -s 10.244.0.0/16 -d ${address}/32 -p tcp -m tcp --dport 443 -j MARK --set-xmark 0x4000/0x4000`,
        `-A ${name} -m statistic --mode random --probability 0.5 -p tcp -j DNAT --to-destination 10.244.1.2:8443`,
        `-A ${name} -p tcp -j DNAT --to-destination 10.244.2.2:8443`,
      ],
    };
  });
  return [
    '*nat',
    ':SERVICES - [0:0]',
    ...services.map(({ chain }) => chain),
    ...services.flatMap(({ rules }) => rules),
    'COMMIT',
    '',
  ].join('\n');
}

const RULES_A_SERVICE = 4;
const FIRST_CROWD_PORT = 10_000;

/** Ports of their own for each, below those that are measured. */
function portsOfMember(
  { network, n }: Pick<CrowdMember, 'network' | 'n'>,
  { portsEach, networks }: Prefill,
): PortMapping[] {
  const position = n * networks + network;
  return portsFrom(FIRST_CROWD_PORT + position * portsEach, portsEach, ['tcp', 'udp']);
}

function ownerOf({ network, attachment: { containerId, ifname } }: CrowdMember): Attachment {
  return { network: networkName(network), containerId, ifname };
}

/** A veth pair of each member by `ip`, its address and nothing else; the bridges must be there. */
export async function makeLinks(
  host: BenchHost,
  members: readonly CrowdMember[],
  linkName: (member: CrowdMember) => string,
): Promise<void> {
  const links = members.map(
    (member) =>
      `link add ${linkName(member)} up master ${bridgeName(member.network)} type veth peer name ${member.attachment.ifname} netns crowd`,
  );
  const sandbox = members.flatMap(({ network, n, attachment: { ifname } }) => [
    `link set ${ifname} up`,
    `address add ${addressOf(network, n)}/16 dev ${ifname}`,
  ]);
  await host.write([
    ['/run/bench/links', `${links.join('\n')}\n`],
    ['/run/bench/sandbox', `${sandbox.join('\n')}\n`],
  ]);
  await host.shell(`
    ip -batch /run/bench/links
    ip -n crowd -batch /run/bench/sandbox
  `);
}

/** What host-local would have stored of them. */
export async function storeCrowd(host: BenchHost, crowd: readonly CrowdMember[]): Promise<void> {
  for (const network of NETWORKS) {
    const members = crowd.filter((member) => member.network === network);
    if (members.length === 0) continue;
    await storeAddresses(
      host,
      network,
      members.map((member) => member.attachment),
    );
  }
}
