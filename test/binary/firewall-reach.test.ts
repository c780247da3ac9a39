// Who reaches a container under each ingress policy: asked with packets of both families, over TCP and UDP, through
// published ports and without. Part of `npm run test:binary`.
import { describe, expect, onTestFinished, test } from 'vitest';
import { openNetns } from '../../shared/linux/netns.ts';
import { type Published, publish } from '../support/chain.ts';
import { admit, WALLED } from '../support/firewall.ts';
import { openMailbox } from '../support/mailbox.ts';
import {
  directReachability,
  openPortWorld,
  type PortWorld,
  reachability,
  setBridgeNetfilter,
  WEB,
} from '../support/reachability.ts';

const FROM_OUTSIDE = [
  'outside host      uplink    own   own   own   own',
  'LAN host          lan       own   own   own   own',
  'LAN host          uplink    own   own   own   own',
  'host              uplink    host  host  host  host',
  'host              lan       host  host  host  host',
  'host              gateway   host  host  host  host',
  'host              loopback  host  host  -     -',
];
const WAYS = ['uplink', 'lan', 'gateway'];

interface Reach {
  /** From the bridge itself. */
  readonly own: 'host' | '-';
  /** From another bridge, by published ports. */
  readonly other: 'host' | '-';
  /** Whether from another link any port is reached by the container's own address. */
  readonly isRouted: boolean;
}

/** The whole table: from the host everything goes, and from outside all published ports, whatever the policy. */
function table({ own, other, isRouted }: Reach): string[] {
  const row = (from: string, to: string, cell: string) =>
    [from.padEnd(17), to.padEnd(9), ...Array(4).fill(cell.padEnd(5))].join(' ').trimEnd();
  const rows = (from: string, cell: string) => WAYS.map((way) => row(from, way, cell));
  return [
    ...FROM_OUTSIDE,
    ...rows('container itself', own),
    ...rows('its neighbour', own),
    ...rows('other network', other),
    row('LAN host', 'container', isRouted ? 'own' : '-'),
    row('host', 'container', 'host'),
    row('its neighbour', 'container', own === '-' ? '-' : 'own'),
    row('other network', 'container', isRouted ? other : '-'),
  ];
}

const CASES: readonly [policy: string, others: string, expected: string[]][] = [
  ['open', 'open', table({ own: 'host', other: 'host', isRouted: true })],
  ['open', 'isolated', table({ own: 'host', other: 'host', isRouted: true })],
  ['same-bridge', 'open', table({ own: 'host', other: 'host', isRouted: false })],
  ['same-bridge', 'same-bridge', table({ own: 'host', other: '-', isRouted: false })],
  ['same-bridge', 'isolated', table({ own: 'host', other: '-', isRouted: false })],
  ['isolated', 'open', table({ own: '-', other: 'host', isRouted: false })],
  ['isolated', 'same-bridge', table({ own: '-', other: '-', isRouted: false })],
];

async function openWorld(): Promise<PortWorld & { readonly published: Published }> {
  const world = await openPortWorld({ network: WALLED });
  onTestFinished(() => world[Symbol.asyncDispose]());
  return { ...world, published: await publish(world.host, world.pod, WEB, { network: WALLED }) };
}

async function apply(
  { host, published, peerAttached, strangerAttached }: PortWorld & { readonly published: Published },
  policy: string,
  others: string,
): Promise<void> {
  await admit(host, published, { ingressPolicy: policy });
  await admit(host, peerAttached, { ingressPolicy: policy });
  await admit(host, strangerAttached, { ingressPolicy: others });
}

describe.each([0, 1] as const)('with bridge netfilter %i', (state) => {
  test.for(CASES)('policy %s, and %s on the other network', async ([policy, others, expected], { skip }) => {
    const world = await openWorld();
    if (!(await setBridgeNetfilter(world.host, state))) skip('this kernel has no bridge netfilter');
    await apply(world, policy, others);
    const [published, direct] = [
      await reachability(world, world.published),
      await directReachability(world, world.published),
    ];
    expect([...published, ...direct]).toEqual(expected);
  });
});

test('A bridge with a policy lets in no packet from elsewhere that belongs to no flow', async () => {
  const world = await openWorld();
  const { host, lan, pod, published } = world;
  await host.run('nft', ['-f', '-'], {
    input: 'table inet untracked { chain first { type filter hook prerouting priority -400; notrack; }; }',
  });
  using netns = openNetns(host.file(pod.path));
  using box = openMailbox(netns, '0.0.0.0', 7007);
  const say = (word: string) => lan.shell(`echo ${word} > /dev/udp/${published.ip4}/7007`);
  for (const policy of ['same-bridge', 'isolated', 'open']) {
    await admit(host, published, { ingressPolicy: policy });
    await say(policy);
  }
  const words: string[] = [];
  await expect.poll(() => words.push(...box.received()), { timeout: 2000 }).toBeGreaterThan(0);
  expect(words).toEqual(['open\n']);
});
