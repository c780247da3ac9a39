// Puts attachments and stored addresses onto a bench host before anything is measured. Called by measure.ts.

import { parseCidr } from '../../shared/ip/cidr.ts';
import { encodeNewChain, planMasquerade } from '../../shared/iptables/masquerade-plan.ts';
import type { BenchHost } from './host.ts';
import {
  type AttachmentAt,
  addressOf,
  BRIDGE,
  configOf,
  type Implementation,
  invocation,
  NETWORK,
  type NetworkShape,
  STORE,
} from './network.ts';

/** What is on a host already. */
export interface Prefill {
  /** Attachments of the measured network, on its bridge: links, addresses and masquerade. At most 1,000. */
  readonly attachments: number;
  /** Addresses in the store of attachments that have nothing else. */
  readonly stored: number;
}

/** Stores addresses as files of the shared format, and the pointer to the last: both implementations start there. */
export async function storeAddresses(
  host: BenchHost,
  count: number,
  owner: (n: number) => AttachmentAt,
): Promise<void> {
  const files = Array.from({ length: count }, (_, n) => {
    const { containerId, ifname } = owner(n);
    return [`${STORE}/${addressOf(4, n)}`, `${containerId}\r\n${ifname}`] as const;
  });
  await host.write([...files, [`${STORE}/last_reserved_ip.0`, addressOf(4, count - 1)]]);
}

/** The attachment number n of a crowd: one container each, all in one network namespace. */
export function crowdMember(n: number): AttachmentAt {
  return { containerId: `crowd-${n}`, ifname: `e${n}`, netns: 'crowd' };
}

/** Attaches a crowd by real ADDs: slow (a process each) and true, whatever the implementation keeps where. */
export async function attachCrowd(
  host: BenchHost,
  implementation: Implementation,
  shape: NetworkShape,
  count: number,
): Promise<void> {
  const config = configOf(shape);
  for (let n = 0; n < count; n++) {
    const order = invocation(implementation, 'bridge', 'ADD', crowdMember(n), config);
    const { exitCode, stdout } = await host.run({ ...order, settleMs: 0 });
    if (exitCode !== 0) throw new Error(`${implementation.name} cannot attach number ${n}: ${stdout}`);
  }
}

/**
 * Makes by ip and iptables-restore what the reference's ADDs would have left. A thousand of those take minutes, since
 * each lists all rules several times. The bridge must exist.
 */
export async function imitateCrowd(host: BenchHost, count: number): Promise<void> {
  const members = Array.from({ length: count }, (_, n) => n);
  const rules = members.flatMap((n) => {
    const { containerId } = crowdMember(n);
    const addresses = [parseCidr(`${addressOf(4, n)}/16`)];
    const text = encodeNewChain(planMasquerade({ network: NETWORK, containerId, addresses }), 4);
    return text.split('\n').filter((line) => line.startsWith('-'));
  });
  await host.write([
    [
      '/run/bench/links',
      members
        .map((n) => `link add vethc${n} up master ${BRIDGE} type veth peer name e${n} netns crowd\n`)
        .join(''),
    ],
    [
      '/run/bench/sandbox',
      members.map((n) => `link set e${n} up\naddress add ${addressOf(4, n)}/16 dev e${n}\n`).join(''),
    ],
    ['/run/bench/rules', ['*nat', ...rules, 'COMMIT', ''].join('\n')],
  ]);
  await host.shell(`
    ip -batch /run/bench/links
    ip -n crowd -batch /run/bench/sandbox
    iptables-restore --noflush < /run/bench/rules
  `);
  await storeAddresses(host, count, crowdMember);
}
