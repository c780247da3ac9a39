// The attachments that are on a host already when others are measured, thousands of them in seconds.
// Called by run.ts; ours are made by our own code, those of the others as they would have left them.
import { join } from 'node:path';
import { type Cidr, formatIp, networkOf, parseCidr } from '../../../shared/ip/cidr.ts';
import { encodeNewChain, planMasquerade } from '../../../shared/iptables/masquerade-plan.ts';
import { findCnitool } from '../../support/cnitool.ts';
import { HOST_PATH } from '../../support/place.ts';
import type { BenchHost } from '../host.ts';
import {
  addressOf,
  chainListOf,
  type Implementation,
  NETWORKS,
  type NetworkShape,
  networkName,
  patchbayConfigOf,
} from '../network.ts';
import { type CrowdMember, crowdOf, makeLinks, storeCrowd } from '../prefill.ts';
import { netavarkCall, PLACE, residentOf } from './contestants.ts';
import type { CrowdOrder } from './crowd-worker.ts';

const WORKER = join(import.meta.dirname, 'crowd-worker.ts');
const NODE = `${process.execPath} --disable-warning=ExperimentalWarning`;
const PLAIN_SHAPE: NetworkShape = { families: 'IPv4', ipMasq: 'default', ports: [] };

/** Attachments of ours without ports, each by a whole ADD of `patchbay`, though not in a process each. */
export async function attachOurs(
  host: BenchHost,
  { directory }: Implementation,
  attachments: number,
): Promise<void> {
  const order: CrowdOrder = {
    directory,
    networks: NETWORKS.map((network) => ({
      config: patchbayConfigOf(PLAIN_SHAPE, { ...PLACE, network }),
      attachments: membersOf(attachments)
        .filter((member) => member.network === network)
        .map(({ attachment }) => attachment),
    })),
  };
  await host.write([['/run/bench/crowd.json', JSON.stringify(order)]]);
  await host.shell(`${NODE} ${WORKER} < /run/bench/crowd.json`);
}

/**
 * What the chain of four reference plugins leaves of attachments without ports. The first on each network is really
 * added and makes bridge and chains; of the others links are made by `ip`, rules by iptables-restore and nft.
 */
export async function imitateReference(
  host: BenchHost,
  implementation: Implementation,
  ipMasq: NetworkShape['ipMasq'],
  attachments: number,
): Promise<void> {
  const members = membersOf(attachments);
  const first = members.slice(0, NETWORKS.length);
  for (const member of first) await addByCnitool(host, implementation, ipMasq, member);
  const rest = members.slice(first.length);
  await makeLinks(host, rest, ({ attachment: { ifname } }) => `veth${ifname}`);
  const isNft = ipMasq === 'nftables';
  await host.write([
    ['/run/bench/rules', `${isNft ? '' : natRules(rest)}${filterRules(rest)}`],
    ['/run/bench/ruleset', isNft ? masqueradeRules(rest) : ''],
  ]);
  await host.shell(`
    iptables-restore --noflush < /run/bench/rules
    nft -f /run/bench/ruleset
  `);
  await storeCrowd(host, members);
}

/** netavark keeps rules per network, so more containers are more links: the first on each network is really there. */
export async function imitateNetavark(
  host: BenchHost,
  executable: string,
  attachments: number,
): Promise<void> {
  for (const network of NETWORKS.slice(1)) {
    await host.run({ ...netavarkCall(executable, 'setup', residentOf(network)), settleMs: 0 });
  }
  await linkCrowd(host, attachments);
}

/** Links on bridges that somebody made: Docker keeps rules per network and port, too. */
export async function linkCrowd(host: BenchHost, attachments: number): Promise<void> {
  await makeLinks(host, membersOf(attachments), ({ attachment: { ifname } }) => `veth${ifname}`);
}

/** What it is called in the rules, for a container without ports in table nat. Pure, as the next two. */
export function natRules(members: readonly CrowdMember[]): string {
  const rules = members.flatMap(({ network, n, attachment: { containerId } }) =>
    encodeNewChain(
      planMasquerade({ network: networkName(network), containerId, addresses: [cidrOf(network, n)] }),
      4,
    )
      .split('\n')
      .filter((line) => line.startsWith('-')),
  );
  return ['*nat', ...rules, 'COMMIT', ''].join('\n');
}

/** The rules of chain CNI-FORWARD. */
export function filterRules(members: readonly CrowdMember[]): string {
  const rules = members.flatMap(({ network, n }) => {
    const address = `${addressOf(network, n)}/32`;
    return [
      `-A CNI-FORWARD -d ${address} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
      `-A CNI-FORWARD -s ${address} -j ACCEPT`,
    ];
  });
  return ['*filter', ...rules, 'COMMIT', ''].join('\n');
}

/** The rules of the reference's own table for masquerading; its comments begin with two hashes. */
export function masqueradeRules(members: readonly CrowdMember[]): string {
  const rules = members.map(({ network, n, attachment: { containerId, ifname } }) => {
    const { ip, subnet } = { ip: cidrOf(network, n).ip, subnet: networkOf(cidrOf(network, n)) };
    const hashes = `${String(network).padStart(16, '0')}-${String(n).padStart(16, '0')}`;
    const comment = `${hashes}, net: ${networkName(network)}, if: ${ifname}, id: ${containerId}`;
    const match = `ip saddr ${formatIp(ip)} ip daddr != ${formatIp(subnet.ip)}/${subnet.prefix}`;
    return `add rule inet cni_plugins_masquerade masq_checks ${match} masquerade comment "${comment}"\n`;
  });
  return rules.join('');
}

async function addByCnitool(
  host: BenchHost,
  { directory }: Implementation,
  ipMasq: NetworkShape['ipMasq'],
  { network, attachment }: CrowdMember,
): Promise<void> {
  const list = chainListOf({ ...PLAIN_SHAPE, ipMasq }, { ...PLACE, network });
  await host.write([['/run/bench/first/bench.conflist', JSON.stringify(list)]]);
  const env = {
    PATH: HOST_PATH,
    NETCONFPATH: '/run/bench/first',
    CNI_PATH: directory,
    CNI_IFNAME: attachment.ifname,
  };
  const argv = [findCnitool() ?? '', 'add', networkName(network), `/run/netns/${attachment.netns}`];
  const { exitCode, stdout, stderr } = await host.run({ argv, env, stdin: '', settleMs: 0 });
  if (exitCode !== 0)
    throw new Error(`Cannot attach the first of ${networkName(network)}: ${stdout}${stderr}`);
}

function membersOf(attachments: number): CrowdMember[] {
  return crowdOf({ attachments, networks: 8 });
}

function cidrOf(network: CrowdMember['network'], n: number): Cidr {
  return parseCidr(`${addressOf(network, n)}/16`);
}
