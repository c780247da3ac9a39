// Puts attachments and stored addresses onto a bench host before anything is measured. Called by measure.ts.

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
  storeOf,
} from './network.ts';

/** What is on a host already. */
export interface Prefill {
  /** Attachments: links, addresses and masquerade. */
  readonly attachments: number;
  /** How many networks, and so bridges, they are spread over. A bridge takes 1,023 ports. */
  readonly networks: 1 | 4;
  /** Addresses in the measured network's store of attachments that have nothing else. */
  readonly stored: number;
}

interface CrowdMember {
  readonly attachment: AttachmentAt;
  readonly network: NetworkNumber;
  /** Its place among the attachments to its network. */
  readonly n: number;
}

/** One container each, all in one network namespace, in turn on each of the networks. */
export function crowdOf({ attachments, networks }: Prefill): CrowdMember[] {
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

/** Attaches a crowd by real ADDs: slow (a process each) and true, whatever the implementation keeps where. */
export async function attachCrowd(
  host: BenchHost,
  implementation: Implementation,
  shape: NetworkShape,
  prefill: Prefill,
): Promise<void> {
  for (const { attachment, network } of crowdOf(prefill)) {
    const order = invocation(implementation, 'bridge', 'ADD', attachment, configOf(shape, { network }));
    const { exitCode, stdout } = await host.run({ ...order, settleMs: 0 });
    if (exitCode !== 0) throw new Error(`Cannot attach "${attachment.containerId}": ${stdout}`);
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
  const rest = crowd.slice(first.length).map((member) => ({
    ...member,
    address: `${addressOf(member.network, member.n)}/16`,
  }));
  const links = rest.map(
    ({ network, attachment: { ifname } }) =>
      `link add veth${ifname} up master ${bridgeName(network)} type veth peer name ${ifname} netns crowd`,
  );
  const sandbox = rest.flatMap(({ attachment: { ifname }, address }) => [
    `link set ${ifname} up`,
    `address add ${address} dev ${ifname}`,
  ]);
  const rules = rest.flatMap(({ network, attachment: { containerId }, address }) => {
    const plan = planMasquerade({
      network: networkName(network),
      containerId,
      addresses: [parseCidr(address)],
    });
    return encodeNewChain(plan, 4)
      .split('\n')
      .filter((line) => line.startsWith('-'));
  });
  await host.write([
    ['/run/bench/links', `${links.join('\n')}\n`],
    ['/run/bench/sandbox', `${sandbox.join('\n')}\n`],
    ['/run/bench/rules', ['*nat', ...rules, 'COMMIT', ''].join('\n')],
  ]);
  await host.shell(`
    ip -batch /run/bench/links
    ip -n crowd -batch /run/bench/sandbox
    iptables-restore --noflush < /run/bench/rules
  `);
  for (const network of NETWORKS.slice(0, prefill.networks)) {
    const members = crowd.filter((member) => member.network === network);
    await storeAddresses(
      host,
      network,
      members.map((member) => member.attachment),
    );
  }
}
