// The bridge plugin when the ground gives way: each system call that matters fails once, and the process dies at each.
// Part of `npm run test:binary`; strace injects the faults into the packaged executables.
import { describe, expect, test } from 'vitest';
import { attach, detach, withPrevResult } from '../support/attachment.ts';
import { readNetwork } from '../support/network-list.ts';
import { openPrimedHost } from '../support/primed-host.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import { expectError, expectSuccess, type Verb } from '../support/run-plugin.ts';
import { difference, type Snapshot } from '../support/snapshot.ts';
import { injecting, runTraced, type Traced, wasInjected } from '../support/strace.ts';

const { config } = readNetwork('bridge-dual-stack.conflist');

/** System calls by which ADD changes something, and an error each may well return. */
const FAULTS = [
  ['sendto', 'ENOBUFS'],
  ['setns', 'EPERM'],
  ['flock', 'ENOLCK'],
  ['link', 'ENOSPC'],
  ['rename', 'EROFS'],
  ['symlink', 'EDQUOT'],
  ['unlink', 'EIO'],
  ['lsetxattr', 'EOPNOTSUPP'],
] as const;

// An ADD sends some 35 messages; a plugin that never comes to an end of them would be worth knowing about too.
const MOST_CALLS = 80;

describe('ADD', () => {
  test.for(FAULTS)('undoes itself, or does without, when any %s fails with %s', async ([call, errno]) => {
    const { host, sandbox, before } = await openPrimedHost(config);
    const rounds = await forEachCall(async (n) => {
      const outcome = await injected(host, 'ADD', sandbox, call, `error=${errno}:when=${n}`);
      if (outcome.exitCode === 0) {
        const attached = { call: callOf(sandbox), result: JSON.parse(outcome.stdout), ip4: '', ip6: '' };
        expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
        await detach(host, attached);
      } else {
        expect(expectError(outcome).msg, `${call} ${n}`).not.toMatch(/undo|release/);
      }
      expect(leftBy(before, await host.snapshot()), `after ${call} ${n}`).toEqual([]);
      return outcome;
    });
    expect(rounds).toBeGreaterThan(0);
  });

  test.for(FAULTS)('leaves nothing that DEL does not remove when it is killed at any %s', async ([call]) => {
    const { host, sandbox, before } = await openPrimedHost(config);
    const rounds = await forEachCall(async (n) => {
      const outcome = await injected(host, 'ADD', sandbox, call, `signal=SIGKILL:when=${n}`);
      // The runtime knows of no result and DELs what may or may not be there.
      expectSuccess(await host.runPlugin('DEL', callOf(sandbox)));
      expect(leftBy(before, await host.snapshot()), `after ${call} ${n}`).toEqual([]);
      return outcome;
    });
    expect(rounds).toBeGreaterThan(0);
  });
});

describe('DEL', () => {
  test('comes to its end at the second try when it is killed at any message to the kernel', async () => {
    const { host, sandbox, before } = await openPrimedHost(config);
    const rounds = await forEachCall(async (n) => {
      await attach(host, config, sandbox);
      const outcome = await injected(host, 'DEL', sandbox, 'sendto', `signal=SIGKILL:when=${n}`);
      expectSuccess(await host.runPlugin('DEL', callOf(sandbox)));
      expect(leftBy(before, await host.snapshot()), `after sendto ${n}`).toEqual([]);
      return outcome;
    });
    expect(rounds).toBeGreaterThan(0);
  });

  test('goes on after any message fails, and the next one finishes the work', async () => {
    const { host, sandbox, before } = await openPrimedHost(config);
    const rounds = await forEachCall(async (n) => {
      await attach(host, config, sandbox);
      const outcome = await injected(host, 'DEL', sandbox, 'sendto', `error=ENOBUFS:when=${n}`);
      if (outcome.exitCode !== 0) expectError(outcome);
      expectSuccess(await host.runPlugin('DEL', callOf(sandbox)));
      expect(leftBy(before, await host.snapshot()), `after sendto ${n}`).toEqual([]);
      return outcome;
    });
    expect(rounds).toBeGreaterThan(0);
  });
});

test('sixteen containers come and go at once without getting in each other’s way', async () => {
  const { host, before } = await openPrimedHost(config);
  const names = Array.from({ length: 16 }, (_, index) => `pod-${index}`);
  const sandboxes = await Promise.all(names.map((name) => host.addSandbox(name)));
  const attached = await Promise.all(sandboxes.map((sandbox) => attach(host, config, sandbox)));
  expect(new Set(attached.map(({ ip4 }) => ip4)).size).toBe(names.length);
  expect(new Set(attached.map(({ ip6 }) => ip6)).size).toBe(names.length);
  for (const one of attached) expectSuccess(await host.runPlugin('CHECK', withPrevResult(one)));

  // Every second one goes while as many new ones come.
  const [leaving, staying] = [
    attached.filter((_, index) => index % 2 === 0),
    attached.filter((_, i) => i % 2 === 1),
  ];
  const free = sandboxes.filter((_, index) => index % 2 === 0);
  const arrivals = await Promise.all(free.map((_, index) => host.addSandbox(`late-${index}`)));
  const [arrived] = await Promise.all([
    Promise.all(arrivals.map((sandbox) => attach(host, config, sandbox))),
    Promise.all(leaving.map((one) => detach(host, one))),
  ]);
  const now = [...staying, ...arrived];
  expect(new Set(now.map(({ ip4 }) => ip4)).size).toBe(names.length);
  for (const one of now) expectSuccess(await host.runPlugin('CHECK', withPrevResult(one)));

  await Promise.all(now.map((one) => detach(host, one)));
  await Promise.all([...sandboxes, ...arrivals].map((sandbox) => sandbox.delete()));
  expect(leftBy(before, await host.snapshot())).toEqual([]);
});

function callOf(sandbox: Sandbox) {
  return { config, containerId: sandbox.name, netns: sandbox.path, ifname: 'eth0' };
}

/** Runs a round for the first, second … call until one goes by without a fault, and tells how many had one. */
async function forEachCall(round: (n: number) => Promise<Traced>): Promise<number> {
  for (let n = 1; n <= MOST_CALLS; n += 1) {
    if (!wasInjected(await round(n))) return n - 1;
  }
  throw new Error(`There are more than ${MOST_CALLS} of these calls`);
}

// Only the thread that runs JavaScript is traced: all system calls of the plugin come from there.
function injected(host: PrivateHost, verb: Verb, sandbox: Sandbox, call: string, fault: string) {
  return runTraced(host, verb, callOf(sandbox), injecting(call, fault));
}

// The index beside the store is made anew after such an end, so its files are no state.
function leftBy(before: Snapshot, after: Snapshot): string[] {
  return difference(before, after).filter((line) => !line.includes('/networks/.patchbay'));
}
