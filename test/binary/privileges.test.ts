// Which capabilities each verb of each packaged plugin needs, measured against the table of docs/security.md; what the plugins
// give up before they read anything; and what the programs that they start keep. Part of `npm run test:binary`.
import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { findPlugin, listPlugins } from '../../plugins/registry.ts';
import { asOne, CHAIN, callsOfList, MAPPINGS } from '../support/list-runner.ts';
import { makePlace } from '../support/place.ts';
import { openTestHost } from '../support/primed-host.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import {
  type CniResult,
  environmentOf,
  executableOf,
  expectResult,
  expectSuccess,
  type PluginCall,
  type PluginOutcome,
  pluginDirectory,
  runPlugin,
  type Verb,
} from '../support/run-plugin.ts';
import { difference } from '../support/snapshot.ts';
import { injecting, runTraced, wasInjected } from '../support/strace.ts';

/** Tried in this order: the first that a verb works with is what it needs. */
const SETS = [
  [],
  ['NET_ADMIN'],
  ['SYS_ADMIN'],
  ['NET_ADMIN', 'SYS_ADMIN'],
  ['NET_ADMIN', 'SYS_ADMIN', 'SYS_PTRACE'],
];
const VERBS = ['STATUS', 'ADD', 'CHECK', 'GC', 'DEL'] as const;

/** Runs a verb as root without any capabilities but these: a program that root runs has what the bounding set has. */
function runBounded(
  host: PrivateHost,
  capabilities: readonly string[],
  verb: Verb,
  call: PluginCall,
): Promise<PluginOutcome> {
  const bounds = ['-all', ...capabilities.map((name) => `+${name.toLowerCase()}`)].join(',');
  const [program = '', args] = host.entering('setpriv', [`--bounding-set=${bounds}`, '--inh-caps=-all']);
  const place = makePlace('bounded', []);
  const bounded = {
    ...place,
    entering: (inner: string, more: readonly string[]): [string, string[]] => [
      program,
      [...args, inner, ...more],
    ],
  };
  return runPlugin(bounded, verb, call);
}

/** A DEL of tuning that lacks a capability says what it could not restore, and is done: what it undoes is made again. */
async function leastFor(host: PrivateHost, verb: Verb, call: PluginCall): Promise<[string, PluginOutcome]> {
  for (const set of SETS) {
    if (verb === 'DEL' && call.plugin === 'tuning') {
      await host.shell('ip -n pod link set eth0 mtu 1500');
      expectSuccess(await host.runPlugin('ADD', call));
    }
    const outcome = await runBounded(host, set, verb, call);
    if (outcome.exitCode === 0 && outcome.stderr === '')
      return [set.length === 0 ? '–' : set.join(', '), outcome];
  }
  throw new Error(`${verb} of ${call.plugin} works with none of the sets that are tried`);
}

interface Scene {
  readonly host: PrivateHost;
  readonly pod: Sandbox;
}

/** What a verb of the plugin is called with, and what was done before it. */
async function callOf({ host, pod }: Scene, plugin: string): Promise<PluginCall> {
  if (plugin === 'loopback') {
    await pod.run('ip', ['link', 'set', 'lo', 'down']);
    const config = { cniVersion: '1.1.0', name: 'n1', type: 'loopback' };
    return { plugin, config, containerId: 'pod', netns: pod.path, ifname: 'lo' };
  }
  if (plugin === 'host-local') {
    const config = { cniVersion: '1.1.0', name: 'n1', type: 'bridge', ipam: CHAIN.plugins[0]?.['ipam'] };
    return { plugin, config, containerId: 'pod', netns: pod.path, ifname: 'eth0' };
  }
  if (plugin === 'patchbay') return callsOfList(asOne(CHAIN), { sandbox: pod })[0] as PluginCall;
  let prevResult: CniResult | undefined;
  for (const call of callsOfList(CHAIN, { sandbox: pod, portMappings: MAPPINGS })) {
    const config = { ...(call.config as object), ...(prevResult && { prevResult }) };
    if (call.plugin === plugin) return { ...call, config };
    prevResult = expectResult(await host.runPlugin('ADD', { ...call, config }));
  }
  throw new Error(`There is no call for "${plugin}"`);
}

async function openScene(): Promise<Scene> {
  const host = await openTestHost();
  return { host, pod: await host.addSandbox('pod') };
}

function readTable(): Record<string, Record<string, string>> {
  const text = readFileSync(join(import.meta.dirname, '../../docs/security.md'), 'utf8');
  const [, ...rows] = /^\| plugin \| ADD.*\n(?:\|.*\n)+/m.exec(text)?.[0].trim().split('\n') ?? [];
  return Object.fromEntries(
    rows.slice(1).map((row) => {
      const [, plugin = '', ADD = '', CHECK = '', DEL = '', GC = '', STATUS = ''] = row
        .split('|')
        .map((cell) => cell.trim().replaceAll('`', ''));
      return [plugin, { STATUS, ADD, CHECK, GC, DEL }];
    }),
  );
}

describe('the least that each verb needs', () => {
  const TABLE = readTable();

  test.each(listPlugins())('%s needs what the table says', async (plugin) => {
    const scene = await openScene();
    const call = await callOf(scene, plugin);
    const before = await scene.host.snapshot();
    const measured: Record<string, string> = {};
    let prevResult: unknown = (call.config as { prevResult?: unknown }).prevResult;
    for (const verb of VERBS) {
      const valid = [{ containerID: 'pod', ifname: call.ifname }];
      const more = verb === 'GC' ? { 'cni.dev/valid-attachments': valid } : { prevResult };
      const config = { ...(call.config as object), ...more };
      const [least, outcome] = await leastFor(scene.host, verb, { ...call, config });
      measured[verb] = least;
      if (verb === 'ADD') prevResult = JSON.parse(outcome.stdout);
    }
    expect(measured).toEqual(TABLE[plugin]);
    const left = difference(before, await scene.host.snapshot());
    expect(left.filter((line) => line.includes('pod') || line.includes('veth'))).toEqual([]);
  });

  test('a sandbox behind the /proc of a process needs SYS_PTRACE, unless that one has no more than we', async () => {
    const { host, pod } = await openScene();
    const pid = (
      await host.shell(`nsenter --net=${pod.path} sleep 1000 > /dev/null 2>&1 & echo $!`)
    ).stdout.trim();
    const call = { ...(await callOf({ host, pod }, 'loopback')), netns: `/proc/${pid}/ns/net` };
    const [least] = await leastFor(host, 'ADD', call);
    expect(least).toBe('NET_ADMIN, SYS_ADMIN, SYS_PTRACE');
  });
});

describe('before it reads the config', () => {
  const ALWAYS = ['DAC_OVERRIDE', 'FOWNER', 'NET_ADMIN'];
  const NUMBERS: Readonly<Record<string, number>> = {
    DAC_OVERRIDE: 1,
    FOWNER: 3,
    NET_ADMIN: 12,
    SYS_PTRACE: 19,
    SYS_ADMIN: 21,
  };

  test.each(listPlugins())('%s has given up what it does not need', async (plugin) => {
    const { host } = await openScene();
    const needs = findPlugin(plugin)?.needs;
    const names = needs?.sandbox === 'enter' ? [...ALWAYS, 'SYS_PTRACE', 'SYS_ADMIN'] : ALWAYS;
    const mask = names.reduce((sum, name) => sum + 2 ** (NUMBERS[name] ?? Number.NaN), 0);
    const [program, args] = host.entering(executableOf({ plugin }), []);
    const child = spawn(program, args, {
      env: environmentOf('ADD', { containerId: 'c1', netns: '/run/netns/pod', ifname: 'eth0' }),
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    onTestFinished(() => void child.stdin?.end());
    // nsenter waits for the plugin, which is its only child; that one waits for its config: read(2) is 0, and so is stdin.
    const pidOf = () => readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim();
    const isWaiting = () =>
      pidOf() !== '' && /^0 0x0 /.test(readFileSync(`/proc/${pidOf()}/syscall`, 'utf8'));
    for (let tries = 0; !isWaiting() && tries < 1000; tries++) await delay(10);
    const status = () => readFileSync(`/proc/${pidOf()}/status`, 'utf8');
    const fieldOf = (name: string) => new RegExp(`^${name}:\\s*(\\S+)`, 'm').exec(status())?.[1];
    const hex = mask.toString(16).padStart(16, '0');
    expect([fieldOf('CapEff'), fieldOf('CapPrm')]).toEqual([hex, hex]);
    expect(fieldOf('NoNewPrivs')).toBe(needs?.programs === 'none' ? '1' : '0');
  });

  test('it goes on with what it has where the kernel refuses to take it', async () => {
    const { host, pod } = await openScene();
    const call = await callOf({ host, pod }, 'loopback');
    for (const refused of ['capget', 'capset', 'prctl']) {
      const traced = await runTraced(host, 'ADD', call, injecting(refused, 'error=EPERM'));
      expect(traced, refused).toMatchObject({ exitCode: 0, stderr: '' });
      expect(wasInjected(traced), refused).toBe(true);
    }
  });

  test('as another user than root it keeps what it was given', async () => {
    const { host, pod } = await openScene();
    const call = await callOf({ host, pod }, 'loopback');
    const caps = '+net_admin,+sys_admin';
    const [program = '', args] = host.entering('setpriv', [
      ...['--reuid=1000', '--regid=1000', '--clear-groups', `--inh-caps=${caps}`, `--ambient-caps=${caps}`],
    ]);
    const place = {
      ...makePlace('ambient', []),
      entering: (inner: string, more: readonly string[]): [string, string[]] => [
        program,
        [...args, inner, ...more],
      ],
    };
    expectSuccess(await runPlugin(place, 'ADD', call));
    expectSuccess(await runPlugin(place, 'DEL', call));
  });
});

test('an IPAM plugin that is another program starts with all that the runtime gave', async () => {
  const { host, pod } = await openScene();
  const script = `#!/bin/sh
    cat > /dev/null; grep -E 'CapEff|NoNewPrivs' /proc/self/status > /run/seen
    [ "$CNI_COMMAND" = ADD ] && echo '{ "cniVersion": "1.1.0", "ips": [{ "address": "10.99.0.9/16" }] }' || true`;
  await host.shell('mkdir /run/plugins');
  writeFileSync(host.file('/run/plugins/foreign'), script, { mode: 0o755 });
  const config = { cniVersion: '1.1.0', name: 'n1', type: 'bridge', ipam: { type: 'foreign' } };
  const env = { CNI_PATH: '/run/plugins' };
  const call = { config, containerId: 'pod', netns: pod.path, ifname: 'eth0', env };
  expectSuccess(await host.runPlugin('ADD', call));
  const own = (await host.shell("grep -E 'CapEff|NoNewPrivs' /proc/self/status")).stdout;
  expect(readFileSync(host.file('/run/seen'), 'utf8').trim()).toBe(own.trim());
  expect(pluginDirectory()).not.toBe('/run/plugins');
});
