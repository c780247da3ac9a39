// One store, two implementations: Debian's host-local (release 1.1.1) and ours work on it at the same time.
// Part of `npm run test:binary`.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import {
  expectError,
  expectResult,
  expectSuccess,
  type PluginOutcome,
  type Verb,
} from '../support/run-plugin.ts';

const REFERENCE = '/usr/lib/cni';
const STORE = '/var/lib/cni/networks/shared';

type Side = 'ours' | 'theirs';

let host: PrivateHost;
let directory: string;

beforeEach(async () => {
  if (!existsSync(`${REFERENCE}/host-local`)) {
    throw new Error(`${REFERENCE}/host-local is missing (Debian package containernetworking-plugins)`);
  }
  host = await openPrivateHost();
  directory = host.file(STORE);
});
afterEach(() => host.close());

function run(side: Side, verb: Verb, containerId: string, subnet = '10.1.0.0/24'): Promise<PluginOutcome> {
  return host.runPlugin(verb, {
    plugin: 'host-local',
    ...(side === 'theirs' ? { directory: REFERENCE } : {}),
    // The newest version that release knows.
    config: {
      cniVersion: '1.0.0',
      name: 'shared',
      type: 'bridge',
      ipam: { type: 'host-local', ranges: [[{ subnet }], [{ subnet: 'fd00:22::/64' }]] },
    },
    containerId,
    netns: '/run/netns/none',
    ifname: 'eth0',
  });
}

async function add(side: Side, containerId: string, subnet?: string): Promise<string[]> {
  const { ips = [] } = expectResult(await run(side, 'ADD', containerId, subnet));
  return ips.map(({ address }) => address.slice(0, address.indexOf('/')));
}

function addressFiles(): string[] {
  return readdirSync(directory)
    .filter((name) => /^[0-9a-f]+[.:]/.test(name))
    .sort();
}

// Permissions are those of newer releases: this one still made its files 0644.
test('both write the same files, byte for byte', async () => {
  await add('ours', 'c1');
  const ours = listFiles();
  await run('ours', 'DEL', 'c1');
  for (const pointer of [0, 1]) writeFileSync(`${directory}/last_reserved_ip.${pointer}`, '');
  await add('theirs', 'c1');
  expect(listFiles()).toEqual(ours);
  expect(ours.map(({ name }) => name)).toEqual([
    '10.1.0.2',
    'fd00:22::2',
    'last_reserved_ip.0',
    'last_reserved_ip.1',
    'lock',
  ]);
});

test('each goes on after the address the other took last', async () => {
  const given = [
    await add('ours', 'c1'),
    await add('theirs', 'c2'),
    await add('ours', 'c3'),
    await add('theirs', 'c4'),
  ];
  expect(given).toEqual([
    ['10.1.0.2', 'fd00:22::2'],
    ['10.1.0.3', 'fd00:22::3'],
    ['10.1.0.4', 'fd00:22::4'],
    ['10.1.0.5', 'fd00:22::5'],
  ]);
});

test('each checks and frees what the other took, and refuses it a second time', async () => {
  await add('ours', 'c1');
  await add('theirs', 'c2');
  expectSuccess(await run('theirs', 'CHECK', 'c1'));
  expectSuccess(await run('ours', 'CHECK', 'c2'));
  expect((await run('theirs', 'ADD', 'c1')).exitCode).toBe(1);
  expect(expectError(await run('ours', 'ADD', 'c2')).code).toBe(102);
  expectSuccess(await run('theirs', 'DEL', 'c1'));
  expect(addressFiles()).toEqual(['10.1.0.3', 'fd00:22::3']);
  expectSuccess(await run('ours', 'DEL', 'c2'));
  expect(addressFiles()).toEqual([]);
  expect(expectError(await run('ours', 'CHECK', 'c1')).code).toBe(107);
});

test('ours frees what a very old release wrote, as theirs does', async () => {
  mkdirSync(directory, { recursive: true });
  for (const side of ['ours', 'theirs'] as const) {
    writeFileSync(`${directory}/10.1.0.7`, 'old');
    expectSuccess(await run(side, 'CHECK', 'old'));
    expectSuccess(await run(side, 'DEL', 'old'));
    expect(addressFiles()).toEqual([]);
  }
});

test('a hundred attachments come and go by both at once: no address twice, none left', async () => {
  // Which attachment holds an address between the end of its ADD and the beginning of its DEL.
  const holders = new Map<string, string>();
  const sides: readonly Side[] = ['ours', 'theirs'];
  const random = seeded(7);
  await inParallel(100, 8, async (number) => {
    const containerId = `c${number}`;
    const addresses = await add(sides[number % 2] ?? 'ours', containerId);
    for (const address of addresses) {
      expect(holders.get(address), `${address} was given to ${containerId} as well`).toBeUndefined();
      holders.set(address, containerId);
    }
    if (random() < 0.3) expectSuccess(await run(random() < 0.5 ? 'ours' : 'theirs', 'CHECK', containerId));
    for (const address of addresses) holders.delete(address);
    expectSuccess(await run(random() < 0.5 ? 'ours' : 'theirs', 'DEL', containerId));
  });
  expect(addressFiles()).toEqual([]);
});

test('a range filled by both at once gives each address once, and then says that it is exhausted', async () => {
  const given: string[] = [];
  const refused: PluginOutcome[] = [];
  await inParallel(40, 8, async (number) => {
    const outcome = await run(number % 2 === 0 ? 'ours' : 'theirs', 'ADD', `c${number}`, '10.1.0.0/27');
    if (outcome.exitCode === 0) given.push(expectResult(outcome).ips?.[0]?.address ?? '');
    else refused.push(outcome);
  });
  expect(given.sort()).toEqual(Array.from({ length: 29 }, (_, number) => `10.1.0.${number + 2}/27`).sort());
  expect(refused).toHaveLength(11);
  for (const outcome of refused)
    expect(expectError(outcome).msg).toContain('no IP addresses available in range set');
  // A refused ADD keeps nothing of the sets before the exhausted one, nor of those after it.
  expect(addressFiles()).toHaveLength(2 * 29);
});

interface FileFacts {
  readonly name: string;
  readonly text: string;
}

function listFiles(): FileFacts[] {
  return readdirSync(directory)
    .sort()
    .map((name) => ({
      name,
      text: readFileSync(`${directory}/${name}`, 'latin1'),
    }));
}

async function inParallel(
  count: number,
  workers: number,
  step: (number: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const work = async () => {
    while (next < count) await step(next++);
  };
  await Promise.all(Array.from({ length: workers }, work));
}

// A small generator (mulberry32), so that a failure can be seen again.
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
