// Who reaches a container under each ingress policy: asked with packets of both families, over TCP and UDP, through
// published ports and without. Part of `npm run test:binary`.
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Published, publish } from '../support/chain.ts';
import { admit, WALLED } from '../support/firewall.ts';
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

/** The whole table: from outside and from the host everything goes, whatever the policy. */
function table({ own, other }: { own: 'host' | '-'; other: 'host' | '-' }): string[] {
  const row = (from: string, to: string, cell: string) =>
    [from.padEnd(17), to.padEnd(9), ...Array(4).fill(cell.padEnd(5))].join(' ').trimEnd();
  const rows = (from: string, cell: string) => WAYS.map((way) => row(from, way, cell));
  return [
    ...FROM_OUTSIDE,
    ...rows('container itself', own),
    ...rows('its neighbour', own),
    ...rows('other network', other),
    row('LAN host', 'container', 'own'),
    row('host', 'container', 'host'),
    row('its neighbour', 'container', own === '-' ? '-' : 'own'),
    row('other network', 'container', other),
  ];
}

const CASES: readonly [policy: string, others: string, expected: string[]][] = [
  ['open', 'open', table({ own: 'host', other: 'host' })],
  ['open', 'isolated', table({ own: 'host', other: 'host' })],
  ['same-bridge', 'open', table({ own: 'host', other: 'host' })],
  ['same-bridge', 'same-bridge', table({ own: 'host', other: '-' })],
  ['same-bridge', 'isolated', table({ own: 'host', other: '-' })],
  ['isolated', 'open', table({ own: '-', other: 'host' })],
  ['isolated', 'same-bridge', table({ own: '-', other: '-' })],
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
