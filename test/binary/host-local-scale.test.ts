// The cost of a verb must not grow with the store: system calls on the store are counted, with none and with 20,000
// addresses in it. Part of `npm run test:binary`.
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import { expectError, expectResult, type Verb } from '../support/run-plugin.ts';
import { runTraced } from '../support/strace.ts';

const DATA_DIR = '/var/lib/cni/networks';
const ADDRESSES = 20_000;

let host: PrivateHost;

beforeEach(async () => {
  host = await openPrivateHost();
});
afterEach(() => host.close());

function config(network: string): object {
  return {
    cniVersion: '1.1.0',
    name: network,
    type: 'bridge',
    ipam: { type: 'host-local', subnet: '10.1.0.0/16' },
  };
}

/** 10.1.0.2 and those after it, held by as many containers. */
function fill(network: string): void {
  const directory = host.file(`${DATA_DIR}/${network}`);
  mkdirSync(directory, { recursive: true });
  for (let number = 2; number < ADDRESSES + 2; number++) {
    const containerId = number.toString(16).padStart(64, '0');
    writeFileSync(`${directory}/10.1.${number >> 8}.${number & 255}`, `${containerId}\r\neth0`, {
      mode: 0o600,
    });
  }
}

/** The first verb after foreign writes reads everything once. */
async function addFirst(network: string): Promise<void> {
  const call = {
    plugin: 'host-local',
    config: config(network),
    containerId: 'first',
    netns: 'x',
    ifname: 'eth0',
  };
  expectResult(await host.runPlugin('ADD', call));
}

/** Runs a verb under strace and gives its calls on the store, one line each, without numbers that differ by run. */
async function trace(
  verb: Verb,
  network: string,
  containerId: string,
): Promise<{ stdout: string; calls: string[] }> {
  const call = {
    plugin: 'host-local',
    config: config(network),
    containerId,
    netns: '/run/none',
    ifname: 'eth0',
  };
  const { stdout, lines } = await runTraced(host, verb, call, ['-f', '-y', '-s', '4096']);
  const calls = lines
    .filter((line) => line.includes(DATA_DIR) || /^\d+ +flock/.test(line))
    .map((line) => line.replace(/^\d+ +/, '').replace(/\(.*/s, ''));
  return { stdout, calls };
}

test('each verb makes the same calls on a store of 20,000 addresses as on an empty one', async () => {
  fill('full');
  for (const network of ['empty', 'full']) await addFirst(network);
  const steps: readonly [Verb, string][] = [
    ['ADD', 'c1'],
    ['CHECK', 'c1'],
    ['DEL', 'unknown'],
    ['DEL', 'c1'],
    ['DEL', 'c1'],
    ['ADD', 'c2'],
  ];
  for (const [verb, containerId] of steps) {
    const empty = await trace(verb, 'empty', containerId);
    const full = await trace(verb, 'full', containerId);
    expect(empty.calls).toContain('flock');
    expect(full.calls, `${verb} ${containerId}`).toEqual(empty.calls);
    expect(full.calls.filter((call) => call.startsWith('getdents'))).toEqual([]);
  }
});

test('a pointer before 20,000 taken addresses costs one look at the directory', async () => {
  fill('full');
  const pointer = host.file(`${DATA_DIR}/full/last_reserved_ip.0`);
  await addFirst('full');
  writeFileSync(pointer, '10.1.0.1');
  const { stdout, calls } = await trace('ADD', 'full', 'c1');
  expect(JSON.parse(stdout).ips).toEqual([{ address: '10.1.78.35/16', gateway: '10.1.0.1' }]);
  expect(calls.length).toBeLessThan(700);
  expect(readFileSync(pointer, 'latin1')).toBe('10.1.78.35');
});

test('after a foreign write everything is read once, and then no more', async () => {
  fill('full');
  await addFirst('full');
  writeFileSync(host.file(`${DATA_DIR}/full/10.1.200.1`), 'stranger\r\neth0');
  expect((await trace('CHECK', 'full', 'stranger')).calls.length).toBeGreaterThan(ADDRESSES);
  expect((await trace('CHECK', 'full', 'stranger')).calls.length).toBeLessThan(50);
});

test('an exhausted range of a thousand addresses says so, and how many they are', async () => {
  const small = { ...config('small'), ipam: { type: 'host-local', subnet: '10.1.0.0/22' } };
  const directory = host.file(`${DATA_DIR}/small`);
  mkdirSync(directory, { recursive: true });
  for (let number = 2; number < 1023; number++) {
    writeFileSync(`${directory}/10.1.${number >> 8}.${number & 255}`, `c${number}\r\neth0`);
  }
  const outcome = await host.runPlugin('ADD', {
    plugin: 'host-local',
    config: small,
    containerId: 'c1',
    netns: 'x',
    ifname: 'eth0',
  });
  expect(expectError(outcome)).toMatchObject({
    code: 100,
    msg: 'There are no IP addresses available in range set "10.1.0.1-10.1.3.254": all 1021 are taken',
  });
  expect(readdirSync(directory)).toHaveLength(1021 + 1);
  expect(existsSync(`${directory}/last_reserved_ip.0`)).toBe(false);
});
