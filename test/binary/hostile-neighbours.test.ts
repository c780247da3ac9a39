// What hostile neighbours can do to a container and to its host under each ingress policy, tried with packets. Part of
// `npm run test:binary`; the matrix is printed, with the reference's column where that is installed.
import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { ATTEMPTS, type Attempt, type Cell, tryEverything } from '../support/hostile-neighbours.ts';
import type { Attacker, Policy, Way } from '../support/hostile-world.ts';

type Row = readonly [
  Attacker,
  Attempt,
  families: '4' | '6' | '46',
  open: string,
  sameBridge: string,
  isolated: string,
];

/** What can be expected; test/support/hostile-neighbours.ts says what the words mean. */
const EXPECTED: readonly Row[] = [
  // Who gets an answer. A container of the network is seen as itself, others through NAT as the host.
  ['neighbour', 'unpublished', '46', 'own', 'own', '-'],
  ['neighbour', 'everywhere', '46', 'host', 'host', '-'],
  ['neighbour', 'oneAddress', '46', 'host', 'host', '-'],
  ['neighbour', 'otherAddress', '46', '-', '-', '-'],
  ['neighbour', 'loopbackPort', '4', '-', '-', '-'],
  ['neighbour', 'transit', '46', 'host', 'host', 'host'],
  ['neighbour (ipspoofchk)', 'unpublished', '46', 'own', 'own', '-'],
  ['neighbour (ipspoofchk)', 'everywhere', '46', 'host', 'host', '-'],
  ['neighbour (ipspoofchk)', 'oneAddress', '46', 'host', 'host', '-'],
  ['neighbour (ipspoofchk)', 'otherAddress', '46', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'loopbackPort', '4', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'transit', '46', 'host', 'host', 'host'],
  ['other network', 'unpublished', '46', 'host', '-', '-'],
  ['other network', 'everywhere', '46', 'host', '-', '-'],
  ['other network', 'oneAddress', '46', 'host', '-', '-'],
  ['other network', 'otherAddress', '46', '-', '-', '-'],
  ['other network', 'loopbackPort', '4', '-', '-', '-'],
  ['other network', 'transit', '46', 'host', 'host', 'host'],
  ['LAN host', 'unpublished', '46', 'own', '-', '-'],
  ['LAN host', 'everywhere', '46', 'own', 'own', 'own'],
  ['LAN host', 'oneAddress', '46', 'own', 'own', 'own'],
  ['LAN host', 'otherAddress', '46', '-', '-', '-'],
  ['LAN host', 'loopbackPort', '4', '-', '-', '-'],
  ['LAN host', 'transit', '46', 'own', 'own', 'own'],
  ['host', 'unpublished', '46', 'host', 'host', 'host'],
  ['host', 'everywhere', '46', 'host', 'host', 'host'],
  ['host', 'oneAddress', '46', 'host', 'host', 'host'],
  ['host', 'otherAddress', '46', '-', '-', '-'],
  ['host', 'loopbackPort', '4', '-', '-', '-'],
  ['host', 'loopbackItself', '4', 'host', 'host', 'host'],
  ['host', 'transit', '46', 'host', 'host', 'host'],

  // What arrives under a false address.
  ['neighbour', 'loopbackMartian', '4', '-', '-', '-'],
  ['neighbour', 'loopbackService', '46', '-', '-', '-'],
  ['neighbour', 'hostAsLoopback', '46', '-', '-', '-'],
  ['neighbour', 'hostAsLoopback2', '4', '-', '-', '-'],
  ['neighbour', 'hostAsHost', '4', '-', '-', '-'],
  ['neighbour', 'hostAsHost', '6', 'in', 'in', 'in'],
  ['neighbour', 'hostAsContainer', '46', 'in', 'in', 'in'],
  ['neighbour', 'containerAsHost', '46', 'in', 'in', '-'],
  ['neighbour', 'containerAsContainer', '46', 'in', 'in', '-'],
  ['neighbour (macspoofchk)', 'loopbackMartian', '4', '-', '-', '-'],
  ['neighbour (macspoofchk)', 'loopbackService', '46', '-', '-', '-'],
  ['neighbour (macspoofchk)', 'hostAsLoopback', '46', '-', '-', '-'],
  ['neighbour (macspoofchk)', 'hostAsLoopback2', '4', '-', '-', '-'],
  ['neighbour (macspoofchk)', 'hostAsHost', '4', '-', '-', '-'],
  ['neighbour (macspoofchk)', 'hostAsHost', '6', 'in', 'in', 'in'],
  ['neighbour (macspoofchk)', 'hostAsContainer', '46', 'in', 'in', 'in'],
  ['neighbour (macspoofchk)', 'containerAsHost', '46', 'in', 'in', '-'],
  ['neighbour (macspoofchk)', 'containerAsContainer', '46', 'in', 'in', '-'],
  ['neighbour (ipspoofchk)', 'loopbackMartian', '4', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'loopbackService', '46', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'hostAsLoopback', '46', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'hostAsLoopback2', '4', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'hostAsHost', '46', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'hostAsContainer', '46', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'containerAsHost', '46', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'containerAsContainer', '46', '-', '-', '-'],
  ['other network', 'loopbackMartian', '4', '-', '-', '-'],
  ['other network', 'loopbackService', '46', '-', '-', '-'],
  ['other network', 'hostAsLoopback', '46', '-', '-', '-'],
  ['other network', 'hostAsLoopback2', '4', '-', '-', '-'],
  ['other network', 'hostAsHost', '4', '-', '-', '-'],
  ['other network', 'hostAsHost', '6', 'in', 'in', 'in'],
  ['other network', 'hostAsContainer', '46', 'in', 'in', 'in'],
  ['other network', 'containerAsHost', '4', '-', '-', '-'],
  ['other network', 'containerAsHost', '6', 'in', '-', '-'],
  ['other network', 'containerAsContainer', '46', 'in', '-', '-'],
  ['LAN host', 'loopbackMartian', '4', '-', '-', '-'],
  ['LAN host', 'loopbackService', '46', '-', '-', '-'],
  ['LAN host', 'hostAsLoopback', '46', '-', '-', '-'],
  ['LAN host', 'hostAsLoopback2', '4', '-', '-', '-'],
  ['LAN host', 'hostAsHost', '4', '-', '-', '-'],
  ['LAN host', 'hostAsHost', '6', 'in', 'in', 'in'],
  ['LAN host', 'hostAsContainer', '46', 'in', 'in', 'in'],
  ['LAN host', 'containerAsHost', '4', '-', '-', '-'],
  ['LAN host', 'containerAsHost', '6', 'in', '-', '-'],
  ['LAN host', 'containerAsContainer', '46', 'in', '-', '-'],

  // Who believes a lie on the link: the kernel has no way to tell, the checks have.
  ['neighbour', 'gatewaySpoof', '46', 'fooled', 'fooled', '-'],
  ['neighbour', 'containerSpoof', '46', 'fooled', 'fooled', 'fooled'],
  ['neighbour', 'macSpoof', '4', 'fooled', 'fooled', 'fooled'],
  ['neighbour', 'rogueDhcp', '46', 'in', 'in', '-'],
  ['neighbour', 'rogueRa', '6', 'in', 'in', '-'],
  ['neighbour', 'rogueRaRoute', '6', '-', '-', '-'],
  ['neighbour', 'rogueRaHost', '6', '-', '-', '-'],
  ['neighbour (macspoofchk)', 'gatewaySpoof', '46', 'fooled', 'fooled', '-'],
  ['neighbour (macspoofchk)', 'containerSpoof', '46', 'fooled', 'fooled', 'fooled'],
  ['neighbour (macspoofchk)', 'macSpoof', '4', '-', '-', '-'],
  ['neighbour (macspoofchk)', 'rogueDhcp', '46', '-', '-', '-'],
  ['neighbour (macspoofchk)', 'rogueRa', '6', '-', '-', '-'],
  ['neighbour (macspoofchk)', 'rogueRaRoute', '6', '-', '-', '-'],
  ['neighbour (macspoofchk)', 'rogueRaHost', '6', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'gatewaySpoof', '46', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'containerSpoof', '46', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'macSpoof', '4', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'rogueDhcp', '46', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'rogueRa', '6', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'rogueRaRoute', '6', '-', '-', '-'],
  ['neighbour (ipspoofchk)', 'rogueRaHost', '6', '-', '-', '-'],
];

const OURS: readonly Way[] = [{ name: 'one by one' }, { name: 'patchbay', isOne: true }];

/** The newest release that is there. */
const REFERENCE = [process.env['PATCHBAY_REFERENCE_DIR'] ?? '', '/usr/lib/cni'].find((directory) =>
  existsSync(`${directory}/firewall`),
);

test.each(['open', 'same-bridge', 'isolated'] as const)(
  'Hostile neighbours get no further than they may where the policy is %s',
  async (policy) => {
    const columns = await Promise.all([...OURS.map((way) => tryOut(way, policy)), ...reference(policy)]);
    const shown = columns.filter((column) => column !== undefined);
    const expected = expectedUnder(policy);
    console.log(matrix(policy, expected, shown));
    const wrong = shown
      .filter(({ way }) => OURS.includes(way))
      .flatMap(({ way, cells }) => differences(way, expected, cells));
    expect(wrong).toEqual([]);
  },
);

async function tryOut(way: Way, policy: Policy): Promise<Column> {
  return { way, cells: await tryEverything(way, policy) };
}

/** Its column, or a line that says why there is none: Debian's release does not know "isolated". */
function reference(policy: Policy): Promise<Column | undefined>[] {
  if (REFERENCE === undefined) {
    console.log('No column for the reference: it is not installed');
    return [];
  }
  return [
    tryOut({ name: 'reference', directory: REFERENCE }, policy).catch((error: unknown) => {
      console.log(`No column for the reference in ${REFERENCE}: ${error}`);
      return undefined;
    }),
  ];
}

interface Column {
  readonly way: Way;
  readonly cells: readonly Cell[];
}

function expectedUnder(policy: Policy): Cell[] {
  const column = (['open', 'same-bridge', 'isolated'] as const).indexOf(policy);
  return EXPECTED.flatMap(([from, attempt, families, ...seen]) =>
    [...families].map((family) => ({
      from,
      attempt,
      family: Number(family) as 4 | 6,
      seen: seen[column] ?? '',
    })),
  );
}

/** Each wrong cell by its name; one that nobody expects, or nobody saw, is wrong too. */
function differences(way: Way, expected: readonly Cell[], cells: readonly Cell[]): string[] {
  const known = new Map(expected.map((cell) => [nameOf(cell), cell.seen]));
  const seen = new Map(cells.map((cell) => [nameOf(cell), cell.seen]));
  const names = new Set([...known.keys(), ...seen.keys()]);
  return [...names]
    .filter((name) => known.get(name) !== seen.get(name))
    .map((name) => {
      const words = name.replaceAll(/ +/g, ' ');
      return `${way.name}: ${words}: expected "${known.get(name)}", seen "${seen.get(name)}"`;
    });
}

function nameOf({ from, attempt, family }: Cell): string {
  return `${from.padEnd(23)} → ${ATTEMPTS[attempt].padEnd(46)} IPv${family}`;
}

/** A line for each cell: what is expected, and what came of it each way, `!` where that differs. */
function matrix(policy: Policy, expected: readonly Cell[], columns: readonly Column[]): string {
  const head = ['expected', ...columns.map(({ way }) => way.name)];
  const lines = expected.map((cell) => {
    const others = columns.map(({ cells }) => {
      const { seen } = cells.find((other) => nameOf(other) === nameOf(cell)) ?? { seen: '?' };
      return seen === cell.seen ? seen : `${seen} !`;
    });
    return formatLine(nameOf(cell), [cell.seen, ...others]);
  });
  return [`Hostile neighbours, policy ${policy}`, formatLine('', head), ...lines].join('\n');
}

function formatLine(name: string, cells: readonly string[]): string {
  return [name.padEnd(78), ...cells.map((cell) => cell.padEnd(11))].join(' ').trimEnd();
}
