// ADD and DEL of host-local, killed before every system call that changes something: never a torn address file, never
// an address that stays. Part of `npm run test:binary`.
import { readdirSync, readFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import { expectResult, expectSuccess, type Verb } from '../support/run-plugin.ts';
import { injecting, runTraced, type Traced } from '../support/strace.ts';

const DATA_DIR = '/var/lib/cni/networks';

/** What changes files, and close: before it is after a write. */
const CHANGING =
  /^(openat|open|write|pwrite64|link|linkat|unlink|unlinkat|symlink|symlinkat|rename|renameat2?|mkdir|mkdirat|utimensat|lsetxattr|flock|close)$/;

let host: PrivateHost;
let directory: string;

beforeEach(async () => {
  host = await openPrivateHost();
  directory = host.file(`${DATA_DIR}/n1`);
});
afterEach(() => host.close());

const config = {
  cniVersion: '1.1.0',
  name: 'n1',
  type: 'bridge',
  ipam: { type: 'host-local', ranges: [[{ subnet: '10.1.0.0/24' }], [{ subnet: 'fd00::/64' }]] },
};

function call(containerId: string) {
  return { plugin: 'host-local', config, containerId, netns: '/run/netns/none', ifname: 'eth0' };
}

function straced(verb: Verb, containerId: string, ...options: string[]): Promise<Traced> {
  return runTraced(host, verb, call(containerId), ['-f', '-y', ...options]);
}

interface Point {
  readonly syscall: string;
  /** Which of the main thread's calls of that name. */
  readonly when: number;
}

/** Every changing call from the opening of the lock on. */
function pointsIn(lines: readonly string[]): Point[] {
  const main = /^(\d+)/.exec(lines[0] ?? '')?.[1];
  const counts = new Map<string, number>();
  const points: Point[] = [];
  let isInside = false;
  for (const line of lines) {
    const [, pid, syscall = ''] = /^(\d+) +(\w+)\(/.exec(line) ?? [];
    if (pid !== main) continue;
    const when = (counts.get(syscall) ?? 0) + 1;
    counts.set(syscall, when);
    isInside ||= line.includes(`${DATA_DIR}/n1/lock`);
    if (isInside && CHANGING.test(syscall)) points.push({ syscall, when });
  }
  return points;
}

function addressFiles(): string[] {
  return readdirSync(directory)
    .filter((name) => /^[0-9a-f]+[.:]/.test(name))
    .sort();
}

function expectWholeFiles(): void {
  for (const name of addressFiles()) {
    expect(readFileSync(`${directory}/${name}`, 'latin1'), name).toMatch(/^(other|c\d+)\r\neth0$/);
  }
}

async function add(containerId: string): Promise<void> {
  expectResult(await host.runPlugin('ADD', call(containerId)));
}

async function killAtEveryPoint(verb: Verb, prepare: (containerId: string) => Promise<void>): Promise<void> {
  await add('other');
  const kept = addressFiles();
  await prepare('c0');
  const points = pointsIn((await straced(verb, 'c0')).lines);
  expectSuccess(await host.runPlugin('DEL', call('c0')));
  expect(points.length).toBeGreaterThan(15);
  for (const [index, { syscall, when }] of points.entries()) {
    const containerId = `c${index + 1}`;
    await prepare(containerId);
    const fault = `signal=SIGKILL:when=${when}`;
    const { exitCode } = await straced(verb, containerId, ...injecting(syscall, fault));
    expect(exitCode, `${syscall} ${when}`).toBe(137);
    expectWholeFiles();
    expectSuccess(await host.runPlugin('DEL', call(containerId)));
    expect(addressFiles(), `after ${syscall} ${when}`).toEqual(kept);
    expectSuccess(await host.runPlugin('CHECK', call('other')));
  }
  console.log(`${verb}: ${points.length} points killed, ${points.length} converged`);
}

test('ADD killed anywhere leaves whole files, and DEL frees them', async () => {
  await killAtEveryPoint('ADD', async () => {});
}, 300_000);

test('DEL killed anywhere is finished by the next DEL', async () => {
  await killAtEveryPoint('DEL', add);
}, 300_000);
