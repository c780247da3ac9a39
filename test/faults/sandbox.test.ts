// Tuning and loopback hurt at every system call, and what becomes of the sandbox itself: links and settings inside it are
// what they were, which tests of whole chains cannot see, because the link goes with them. Part of `npm test`, and of
// `npm run test:faults` with everything at each point.
import { existsSync, readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { errnoOf } from '../../shared/linux/system-error.ts';
import { attach } from '../support/attachment.ts';
import {
  listPoints,
  type Place,
  type Point,
  placesOf,
  runAnswered,
  runKilled,
  runRefused,
  textOf,
  untilMet,
} from '../support/fault-points.ts';
import { pick, report, TIMEOUT } from '../support/fault-scale.ts';
import { openTestHost } from '../support/primed-host.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import {
  expectError,
  expectResult,
  expectSuccess,
  type PluginCall,
  type Verb,
} from '../support/run-plugin.ts';
import { difference, type Snapshot } from '../support/snapshot.ts';
import type { Traced } from '../support/strace.ts';
import { SETTINGS, TUNED, tunedFacts, tuningCallOf } from '../support/tuned.ts';

/** A plugin and a sandbox in which it is hurt. */
interface Subject {
  readonly host: PrivateHost;
  readonly call: PluginCall;
  /** Everything that ADD changes, and the host around it. */
  look(): Promise<Snapshot>;
  /** Sets by hand what DEL was not allowed to. */
  reset(): Promise<unknown>;
}

const SUBJECTS = [
  ['tuning', openTuning],
  ['loopback', openLoopback],
] as const;

async function openTuning(): Promise<Subject> {
  const host = await openTestHost();
  const sandbox = await host.addSandbox('pod');
  const call = tuningCallOf(await attach(host, TUNED, sandbox), SETTINGS);
  const look = async () => [
    ...(await host.snapshot()),
    ...Object.entries(await tunedFacts(sandbox)).map(([name, value]) => `${name} ${value}`),
  ];
  const { mac, mtu, txQLen, somaxconn, arpFilter } = await tunedFacts(sandbox);
  const reset = () =>
    sandbox.shell(`
      ip link set eth0 address ${mac} mtu ${mtu} promisc off allmulticast off txqueuelen ${txQLen}
      sysctl -qw net.core.somaxconn=${somaxconn} net.ipv4.conf.eth0.arp_filter=${arpFilter}
    `);
  return settled({ host, call, look, reset });
}

async function openLoopback(): Promise<Subject> {
  const host = await openTestHost();
  const sandbox: Sandbox = await host.addSandbox('pod');
  const config = { cniVersion: '1.1.0', name: 'lo', type: 'loopback' };
  const call = { plugin: 'loopback', config, containerId: 'pod', netns: sandbox.path, ifname: 'lo' };
  const reset = () => sandbox.run('ip', ['link', 'set', 'lo', 'down']);
  return settled({ host, call, look: () => host.snapshot(), reset });
}

/** Directories are made once, and `lo` keeps 127.0.0.1 once it was up. */
async function settled(subject: Subject): Promise<Subject> {
  for (const verb of ['ADD', 'DEL'] as const) expectSuccess(await run(subject, verb));
  return subject;
}

function run({ host, call }: Subject, verb: Verb) {
  return host.runPlugin(verb, call);
}

const ERRORS = ['ENOMEM', 'EBUSY', 'EINVAL', 'ENOSPC', 'EROFS', 'EPERM', 'EINTR', 'EAGAIN'] as const;

test.for(SUBJECTS)('%s’s ADD, killed anywhere, is undone by DEL', TIMEOUT, async ([name, open]) => {
  const subject = await open();
  const before = await subject.look();
  const points = await pointsOf(subject, 'ADD');
  let kills = 0;
  for (const place of placesOf(points)) {
    await killAt(subject, 'ADD', place);
    expectSuccess(await run(subject, 'DEL'));
    expect(difference(before, await subject.look()), whereOf(place)).toEqual([]);
    kills += 1;
  }
  report(`ADD ${name}, in the sandbox`, { 'points killed': kills, converged: kills });
  expect(kills).toBeGreaterThan(2);
});

test.for(SUBJECTS)('%s’s ADD, killed anywhere, is completed by another', TIMEOUT, async ([name, open]) => {
  const subject = await open();
  const before = await subject.look();
  const points = await pointsOf(subject, 'ADD');
  let kills = 0;
  for (const place of placesOf(points)) {
    await killAt(subject, 'ADD', place);
    const prevResult = expectResult(await run(subject, 'ADD'));
    expectSuccess(await subject.host.runPlugin('CHECK', withResult(subject.call, prevResult)));
    expectSuccess(await run(subject, 'DEL'));
    expect(difference(before, await subject.look()), whereOf(place)).toEqual([]);
    kills += 1;
  }
  report(`ADD ${name} again, in the sandbox`, { 'points killed': kills, converged: kills });
});

test.for(SUBJECTS)('%s’s DEL, killed anywhere, is completed by another', TIMEOUT, async ([name, open]) => {
  const subject = await open();
  const before = await subject.look();
  expectSuccess(await run(subject, 'ADD'));
  const points = await pointsOf(subject, 'DEL');
  let kills = 0;
  for (const place of placesOf(points)) {
    expectSuccess(await run(subject, 'ADD'));
    await killAt(subject, 'DEL', place);
    expectSuccess(await run(subject, 'DEL'));
    expect(difference(before, await subject.look()), whereOf(place)).toEqual([]);
    kills += 1;
  }
  report(`DEL ${name}, in the sandbox`, { 'points killed': kills, converged: kills });
});

test.for(SUBJECTS)('%s’s ADD is all or nothing, whatever fails', TIMEOUT, async ([name, open]) => {
  const subject = await open();
  const before = await subject.look();
  const points = await pointsOf(subject, 'ADD');
  const trials = trialsOf(points);
  for (const trial of trials) {
    const outcome = await strike(subject, 'ADD', trial);
    if (outcome.exitCode === 0) {
      expectSuccess(await subject.host.runPlugin('CHECK', withResult(subject.call, expectResult(outcome))));
      expectSuccess(await run(subject, 'DEL'));
    } else {
      expectNamed(outcome, trial);
      expect(outcome.stderr, trialText(trial)).not.toMatch(/after a failure/);
    }
    expect(difference(before, await subject.look()), trialText(trial)).toEqual([]);
  }
  report(`ADD ${name}, in the sandbox`, { faults: trials.length, 'met as promised': trials.length });
  expect(trials.length).toBeGreaterThan(2);
});

test.for(SUBJECTS)('%s’s DEL does what it can, and says what it cannot', TIMEOUT, async ([name, open]) => {
  const subject = await open();
  const before = await subject.look();
  expectSuccess(await run(subject, 'ADD'));
  const points = await pointsOf(subject, 'DEL');
  const trials = trialsOf(points);
  for (const trial of trials) {
    expectSuccess(await run(subject, 'ADD'));
    const outcome = await strike(subject, 'DEL', trial);
    if (outcome.exitCode !== 0) {
      expectNamed(outcome, trial);
      expectSuccess(await run(subject, 'DEL'));
    } else {
      // Nothing is kept on the host after a success; one value that the kernel refused may be what it was.
      expect(backupsOf(subject), trialText(trial)).toEqual([]);
      if (outcome.stderr !== '') {
        expect(outcome.stderr, trialText(trial)).toContain(trial.errno);
        expect(outcome.stderr.trim().split('\n')).toHaveLength(1);
        await subject.reset();
      }
    }
    expect(difference(before, await subject.look()), trialText(trial)).toEqual([]);
  }
  report(`DEL ${name}, in the sandbox`, { faults: trials.length, 'met as promised': trials.length });
});

interface Trial {
  readonly point: Point;
  readonly how: 'call' | 'answer';
  readonly errno: string;
}

async function pointsOf(subject: Subject, verb: 'ADD' | 'DEL'): Promise<readonly Point[]> {
  const points = await listPoints(subject.host, verb, subject.call);
  if (verb === 'ADD') expectSuccess(await run(subject, 'DEL'));
  return points;
}

function trialsOf(points: readonly Point[]): Trial[] {
  return points.flatMap((point, turn) => {
    const ways = point.answer === undefined ? (['call'] as const) : (['call', 'answer'] as const);
    return ways.flatMap((how, other) =>
      pick(ERRORS, 3 * turn + 4 * other).map((errno) => ({ point, how, errno })),
    );
  });
}

function strike(subject: Subject, verb: 'ADD' | 'DEL', { point, how, errno }: Trial): Promise<Traced> {
  const { host, call } = subject;
  return shoot(subject, verb, () =>
    how === 'call'
      ? runRefused(host, verb, call, point, errno)
      : runAnswered(host, verb, call, point, errnoOf(errno)),
  );
}

function killAt(subject: Subject, verb: 'ADD' | 'DEL', place: Place): Promise<Traced> {
  return shoot(subject, verb, () => runKilled(subject.host, verb, subject.call, place));
}

/** Runs the verb with a fault. Where that was not met, what the verb did is undone, or done again, and it has another go. */
function shoot(subject: Subject, verb: 'ADD' | 'DEL', once: () => Promise<Traced | undefined>) {
  return untilMet(async () => {
    const traced = await once();
    if (traced !== undefined) return traced;
    expectSuccess(await run(subject, 'DEL'));
    if (verb === 'DEL') expectSuccess(await run(subject, 'ADD'));
    return undefined;
  });
}

function backupsOf({ host }: Subject): string[] {
  const directory = host.file('/run/cni/tuning');
  return existsSync(directory) ? readdirSync(directory) : [];
}

function withResult(call: PluginCall, prevResult: object): PluginCall {
  return { ...call, config: { ...(call.config as object), prevResult } };
}

function expectNamed(outcome: Traced, trial: Trial): void {
  const { msg, details = '' } =
    trial.point.label === 'write stdout' ? { msg: outcome.stderr } : expectError(outcome);
  expect(`${msg} ${details}`, trialText(trial)).toContain(trial.errno);
}

function whereOf({ point, side }: Place): string {
  return `killed ${side} ${textOf(point)}`;
}

function trialText({ point, how, errno }: Trial): string {
  return `${errno} from ${how} ${textOf(point)}`;
}
