// host-local's store after a power cut: nothing is synced to disk, so any of its files may be empty, torn, or missing.
// Both implementations must read what is left, and give no address twice. Part of `npm test`,
// and of `npm run test:faults` with many more combinations.
import { existsSync, readdirSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { inParallel, pick, report, TIMEOUT, thin } from '../support/fault-scale.ts';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import {
  expectError,
  expectResult,
  expectSuccess,
  type PluginCall,
  type Verb,
} from '../support/run-plugin.ts';

const REFERENCE = '/usr/lib/cni';
const DATA_DIR = '/var/lib/cni/networks';
const LANES = 4;

type Side = 'ours' | 'theirs';

/** What may stand in the place of a file that was being written when the power went. */
interface Remains {
  readonly name: string;
  /** Undefined where the file is missing. */
  readonly text: ((whole: string) => string) | undefined;
  /** Whether somebody is named in it. */
  readonly isOwned: boolean;
}

const ADDRESS_FILES: readonly Remains[] = [
  { name: 'whole', text: (whole) => whole, isOwned: true },
  { name: 'missing', text: undefined, isOwned: false },
  { name: 'empty', text: () => '', isOwned: false },
  { name: 'zeros', text: (whole) => '\0'.repeat(whole.length), isOwned: false },
  { name: 'zeros at the end', text: () => 'victim\r\n\0\0\0\0', isOwned: false },
  { name: 'torn in the container id', text: () => 'vic', isOwned: true },
  { name: 'torn after the container id', text: () => 'victim', isOwned: true },
  { name: 'torn after CR', text: () => 'victim\r', isOwned: false },
  { name: 'torn after LF', text: () => 'victim\r\n', isOwned: false },
  { name: 'torn in the ifname', text: () => 'victim\r\net', isOwned: true },
];

const POINTERS: readonly Pick<Remains, 'name' | 'text'>[] = [
  { name: 'whole', text: (whole) => whole },
  { name: 'missing', text: undefined },
  { name: 'empty', text: () => '' },
  { name: 'torn', text: (whole) => whole.slice(0, 5) },
  { name: 'zeros', text: (whole) => '\0'.repeat(whole.length) },
];

const INDEXES = [
  'whole',
  'missing',
  'without its stamp',
  'without owners',
  'with a draft left over',
] as const;
const LOCKS = ['present', 'missing'] as const;

interface Cut {
  readonly network: string;
  readonly file4: Remains;
  readonly file6: Remains;
  readonly pointer: (typeof POINTERS)[number];
  readonly index: (typeof INDEXES)[number];
  readonly lock: (typeof LOCKS)[number];
}

// In a full run each pair of address files meets each pointer, each state of the index, and both of the lock.
const CUTS: readonly Cut[] = thin(
  ADDRESS_FILES.flatMap((file4) => ADDRESS_FILES.map((file6) => ({ file4, file6 }))),
  3,
)
  .flatMap((files, turn) =>
    pick(POINTERS, turn).map((pointer, variant) => ({
      ...files,
      pointer,
      index: choose(INDEXES, Math.floor(turn / POINTERS.length) + variant),
      lock: choose(LOCKS, Math.floor(turn / 3) + variant),
    })),
  )
  .map((cut, number) => ({ network: `n${number}`, ...cut }));

function choose<T>(alternatives: readonly T[], turn: number): T {
  return alternatives[turn % alternatives.length] as T;
}

let host: PrivateHost;

beforeAll(async () => {
  if (!existsSync(`${REFERENCE}/host-local`)) {
    throw new Error(`${REFERENCE}/host-local is missing (Debian package containernetworking-plugins)`);
  }
  host = await openPrivateHost();
});
afterAll(() => host.close());

test('whatever a power cut leaves, both read it, and no address is given twice', TIMEOUT, async () => {
  await inParallel(CUTS, LANES, async ({ network }) => {
    await add('ours', network, 'alive');
    await add('ours', network, 'victim');
  });
  for (const cut of CUTS) applyCut(cut);
  await restart('11111111-2222-4333-8444-555555555555');

  const problems = await inParallel(CUTS, LANES, async (cut) => {
    try {
      await expectUsable(cut);
      return undefined;
    } catch (error) {
      const files = `${cut.file4.name}, ${cut.file6.name}, pointer ${cut.pointer.name}`;
      return `${files}, index ${cut.index}, lock ${cut.lock}: ${error instanceof Error ? error.message : error}`;
    }
  });
  const failed = problems.filter((problem) => problem !== undefined);
  report('power cuts', { 'stores after a power cut': CUTS.length, usable: CUTS.length - failed.length });
  expect(failed).toEqual([]);
});

test.each(ADDRESS_FILES)(
  'the last free address, whose file is $name, is given out if nobody owns it',
  async (file4) => {
    const network = `last-${ADDRESS_FILES.indexOf(file4)}`;
    const range = [{ subnet: '10.1.0.0/24', rangeStart: '10.1.0.2', rangeEnd: '10.1.0.3' }];
    const call = { ...callOf('ours', network, 'late'), config: configOf(network, [range]) };
    await add('ours', network, 'alive');
    await add('ours', network, 'victim');
    // Written anew, so that it names no boot and cannot be proven dead.
    replace(`${storeOf(network)}/10.1.0.3`, file4, 'victim\r\neth0');
    const outcome = await host.runPlugin('ADD', call);
    if (file4.isOwned) expect(expectError(outcome).code).toBe(100);
    else expect(expectResult(outcome).ips?.[0]?.address).toBe('10.1.0.3/24');
  },
);

function applyCut({ network, file4, file6, pointer, index, lock }: Cut): void {
  const store = storeOf(network);
  if (file4.name !== 'whole') replace(`${store}/10.1.0.3`, file4, 'victim\r\neth0');
  if (file6.name !== 'whole') replace(`${store}/fd00:1::3`, file6, 'victim\r\neth0');
  replace(`${store}/last_reserved_ip.0`, pointer, '10.1.0.3');
  replace(`${store}/last_reserved_ip.1`, pointer, 'fd00:1::3');
  if (lock === 'missing') unlinkSync(`${store}/lock`);
  const side = host.file(`${DATA_DIR}/.patchbay/${network}`);
  if (index === 'missing') rmSync(side, { recursive: true });
  if (index === 'without its stamp') unlinkSync(`${side}/stamp`);
  if (index === 'without owners') rmSync(`${side}/owners`, { recursive: true });
  if (index === 'with a draft left over') {
    writeFileSync(`${side}/draft`, '');
    symlinkSync('10.1.0.2', `${side}/owners/nobody@eth0`);
  }
}

function replace(path: string, { text }: Pick<Remains, 'text'>, whole: string): void {
  rmSync(path, { force: true });
  if (text !== undefined) writeFileSync(path, text(whole), { mode: 0o600 });
}

/** The store is as it was, and the kernel is another. */
async function restart(bootId: string): Promise<void> {
  await host.shell(`
    echo ${bootId} > /run/boot-id
    mount --bind /run/boot-id /proc/sys/kernel/random/boot_id
  `);
}

async function expectUsable({ network }: Cut): Promise<void> {
  for (const side of ['ours', 'theirs'] as const) {
    expectSuccess(await host.runPlugin('CHECK', callOf(side, network, 'alive')));
  }
  const given = [
    '10.1.0.2',
    'fd00:1::2',
    ...(await add('ours', network, 'c1')),
    ...(await add('theirs', network, 'c2')),
    ...(await add('ours', network, 'c3')),
  ];
  expect(new Set(given).size, `addresses given: ${given.join(', ')}`).toBe(8);
  for (const [side, containerId] of [
    ['ours', 'victim'],
    ['theirs', 'victim'],
    ['theirs', 'c1'],
    ['ours', 'c2'],
    ['theirs', 'c3'],
  ] as const) {
    expectSuccess(await host.runPlugin('DEL', callOf(side, network, containerId)));
  }
  await collect(network);
  expect(addressFiles(network)).toEqual(['10.1.0.2', 'fd00:1::2']);
}

async function collect(network: string): Promise<void> {
  const valid = { 'cni.dev/valid-attachments': [{ containerID: 'alive', ifname: 'eth0' }] };
  const config = { ...configOf(network), cniVersion: '1.1.0', ...valid };
  expectSuccess(await host.runPlugin('GC', { plugin: 'host-local', config }));
}

async function add(side: Side, network: string, containerId: string): Promise<string[]> {
  const { ips = [] } = expectResult(
    await host.runPlugin('ADD' satisfies Verb, callOf(side, network, containerId)),
  );
  return ips.map(({ address }) => address.slice(0, address.indexOf('/')));
}

function callOf(side: Side, network: string, containerId: string): PluginCall {
  return {
    plugin: 'host-local',
    ...(side === 'theirs' ? { directory: REFERENCE } : {}),
    config: configOf(network),
    containerId,
    netns: '/run/netns/none',
    ifname: 'eth0',
  };
}

const RANGES = [[{ subnet: '10.1.0.0/24' }], [{ subnet: 'fd00:1::/64' }]];

// The newest version that Debian's release of the reference knows.
function configOf(network: string, ranges: readonly unknown[] = RANGES) {
  return { cniVersion: '1.0.0', name: network, type: 'bridge', ipam: { type: 'host-local', ranges } };
}

function storeOf(network: string): string {
  return host.file(`${DATA_DIR}/${network}`);
}

function addressFiles(network: string): string[] {
  return readdirSync(storeOf(network))
    .filter((name) => /^[0-9a-f]+[.:]/.test(name))
    .sort();
}
