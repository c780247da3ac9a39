// ADD and DEL of host-local, killed before every system call that changes something: never a torn address file, never
// an address that stays. Part of `npm run test:binary`.
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import { expectResult, expectSuccess, pluginDirectory, type Verb } from '../support/run-plugin.ts';

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

/** Runs a verb under strace with further options; gives strace's exit code and what it wrote. */
async function straced(
  verb: Verb,
  containerId: string,
  ...options: string[]
): Promise<{ exitCode: number; lines: string[] }> {
  const output = '/run/trace';
  rmSync(host.file(output), { force: true });
  const program = ['strace', '-f', '-y', '-o', output, ...options, `${pluginDirectory()}/host-local`];
  // strace dies of the signal its tracee died of; bash makes an exit code of it.
  const { exitCode } = await host.attempt('bash', ['--norc', '-c', '"$@"; exit $?', 'bash', ...program], {
    input: JSON.stringify(config),
    env: {
      CNI_COMMAND: verb,
      CNI_CONTAINERID: containerId,
      CNI_NETNS: '/run/netns/none',
      CNI_IFNAME: 'eth0',
      CNI_PATH: pluginDirectory(),
    },
  });
  const lines = existsSync(host.file(output)) ? readFileSync(host.file(output), 'utf8').split('\n') : [];
  return { exitCode, lines };
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
    const inject = `${syscall}:signal=SIGKILL:when=${when}`;
    const { exitCode } = await straced(verb, containerId, '-e', `trace=${syscall}`, '-e', `inject=${inject}`);
    expect(exitCode, inject).toBe(137);
    expectWholeFiles();
    expectSuccess(await host.runPlugin('DEL', call(containerId)));
    expect(addressFiles(), `after ${inject}`).toEqual(kept);
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
