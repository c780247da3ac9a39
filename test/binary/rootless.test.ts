// The whole chain inside a user namespace, as a user who is root nowhere else: what `unshare -rmn` gives, with and without
// writable settings. Part of `npm run test:binary`.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { asOne, CHAIN, callsOfList, type List, withFields } from '../support/list-runner.ts';
import { HOST_PATH, makePlace, type Place } from '../support/place.ts';
import {
  expectError,
  expectResult,
  expectSuccess,
  type PluginCall,
  runPlugin,
} from '../support/run-plugin.ts';

const SANDBOX = '/run/netns/pod';

/** User 1000's own root, networks and mounts; everything that plugins keep is in memory there. */
async function openRootless(): Promise<Place> {
  const init = `
    set -e
    mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib; mkdir /run/netns /var/lib/cni
    ip link set lo up; echo 0 > /proc/sys/net/ipv4/ip_forward; ip netns add pod
    touch /run/ready; exec sleep 100000
  `;
  const user = ['--reuid=1000', '--regid=1000', '--clear-groups'];
  const child = spawn('setpriv', [...user, 'unshare', '-rmn', 'bash', '--norc', '-c', init], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: HOST_PATH },
  });
  let said = '';
  child.stderr?.on('data', (chunk) => {
    said += String(chunk);
  });
  onTestFinished(async () => {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  });
  const place = makePlace('rootless', [`--target=${child.pid}`, '--user', '--mount', '--net']);
  for (let tries = 0; tries < 500; tries++) {
    if (child.exitCode !== null) throw new Error(`Cannot make a user namespace: ${said}`);
    if ((await place.attempt('test', ['-e', '/run/ready'])).exitCode === 0) return place;
    await delay(20);
  }
  throw new Error(`The user namespace is not ready: ${said}`);
}

function callsIn(list: List, more: object = {}): PluginCall[] {
  const sandbox = { name: 'pod', path: SANDBOX } as never;
  return callsOfList(list, { sandbox }).map((call) => ({
    ...call,
    config: { ...(call.config as object), ...more },
  }));
}

async function live(place: Place, list: List): Promise<void> {
  let prevResult: object | undefined;
  for (const call of callsIn(list)) {
    const config = { ...(call.config as object), ...(prevResult && { prevResult }) };
    const outcome = await runPlugin(place, 'ADD', { ...call, config });
    expect(outcome.stderr).toBe('');
    prevResult = expectResult(outcome);
  }
  const inside = ['--net=/run/netns/pod', 'ip', '-o', '-4', 'addr', 'show', 'eth0'];
  expect((await place.run('nsenter', inside)).stdout).toContain('10.95.0.');
  expect(
    (await place.run('nsenter', ['--net=/run/netns/pod', 'ping', '-c1', '-W2', '10.95.0.1'])).exitCode,
  ).toBe(0);
  expect((await place.run('nft', ['list', 'table', 'inet', 'patchbay'])).stdout).toContain('10.95.0.');
  for (const call of callsIn(list, { prevResult })) expectSuccess(await runPlugin(place, 'CHECK', call));
  const valid = [{ containerID: 'pod', ifname: 'eth0' }];
  for (const call of callsIn(list, { 'cni.dev/valid-attachments': valid })) {
    expectSuccess(await runPlugin(place, 'GC', call));
  }
  for (const call of callsIn(list)) expectSuccess(await runPlugin(place, 'STATUS', call));
  for (const call of callsIn(list, { prevResult }).reverse()) {
    expect(await runPlugin(place, 'DEL', call)).toMatchObject({ exitCode: 0, stderr: '' });
  }
  expect((await place.run('ip', ['-o', 'link', 'show', 'type', 'veth'])).stdout).toBe('');
  // Chains of a subnet stay; what names the container does not.
  expect((await place.run('nft', ['list', 'ruleset'])).stdout).not.toMatch(/10\.95\.0\.[1-9]|id: pod/);
  const left = await place.run('find', ['/var/lib/cni/networks/whole', '-name', '10.*']);
  expect(left.stdout).toBe('');
}

describe('in a user namespace', () => {
  test.each([
    ['the list of plugins', CHAIN],
    ['patchbay', asOne(CHAIN)],
    [
      'the list with iptables',
      withFields(CHAIN, { bridge: { ipMasqBackend: 'iptables' }, portmap: { backend: 'iptables' } }),
    ],
  ])('%s works, and leaves nothing', async (what, list) => {
    const place = await openRootless();
    if (what.endsWith('iptables')) list = withFields(list, { firewall: { backend: 'nftables' } });
    await live(place, list);
    // Nobody but the user was needed.
    const owner = await place.run('cat', ['/proc/self/uid_map']);
    expect(owner.stdout.trim().split(/\s+/)).toEqual(['0', '1000', '1']);
  });

  test('loopback works', async () => {
    const place = await openRootless();
    const config = { cniVersion: '1.0.0', name: 'cni-loopback', type: 'loopback' };
    const call = { plugin: 'loopback', config, containerId: 'pod', netns: SANDBOX, ifname: 'lo' };
    for (const verb of ['ADD', 'CHECK', 'DEL'] as const) {
      const more = verb === 'CHECK' ? { prevResult: { cniVersion: '1.0.0' } } : {};
      expectSuccess(await runPlugin(place, verb, { ...call, config: { ...config, ...more } }));
    }
  });

  test('what belongs to the machine’s root is no reason for a word, though it has no number there', async () => {
    const place = await openRootless();
    const script = `#!/bin/sh
      [ "$CNI_COMMAND" = ADD ] && echo '{ "cniVersion": "1.1.0", "ips": [{ "address": "10.99.0.9/16" }] }' || true`;
    const directory = mkdtempSync(join(tmpdir(), 'patchbay-plugins-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    chmodSync(directory, 0o755);
    writeFileSync(join(directory, 'foreign'), script, { mode: 0o755 });
    expect((await place.run('stat', ['-c', '%u', directory])).stdout.trim()).toBe('65534');
    const config = { cniVersion: '1.1.0', name: 'n1', type: 'bridge', ipam: { type: 'foreign' } };
    const env = { CNI_PATH: directory };
    const call = { config, containerId: 'pod', netns: SANDBOX, ifname: 'eth0', env };
    for (const verb of ['ADD', 'DEL'] as const) {
      expect(await runPlugin(place, verb, call)).toMatchObject({ exitCode: 0, stderr: '' });
    }
  });

  test('with settings that are read-only, an error names the setting and what to do', async () => {
    const place = await openRootless();
    await place.shell('mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys');
    const [bridge, , , tuning] = callsIn(CHAIN);
    const refused = expectError(await runPlugin(place, 'ADD', bridge as PluginCall));
    expect(refused.msg).toMatch(
      /forwarding by sysctl "net\/ipv4\/ip_forward"; set it on the host, or mount \/proc\/sys/,
    );
    expect(refused.details).toMatch(/EROFS/);
    expect((await place.run('ip', ['-o', 'link', 'show', 'type', 'veth'])).stdout).toBe('');
    const config = { ...(tuning?.config as object), prevResult: { cniVersion: '1.1.0' } };
    const call = { ...(tuning as PluginCall), ifname: 'lo', config };
    const report = expectError(await runPlugin(place, 'ADD', call));
    expect(`${report.msg} ${report.details}`).toMatch(
      /sysctl "net\/ipv4\/conf\/lo\/arp_filter" to "1".*EROFS/,
    );
  });

  test('where forwarding is on already, settings may be read-only', async () => {
    const place = await openRootless();
    await place.shell(`
      echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding
      mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys
    `);
    const [call] = callsIn(CHAIN);
    const added = await runPlugin(place, 'ADD', call as PluginCall);
    expectResult(added);
    expect(added.stderr).toMatch(
      /^Cannot set sysctl "net\/ipv6\/conf\/eth0\/keep_addr_on_down" to "1": .*EROFS/m,
    );
    expectSuccess(await runPlugin(place, 'DEL', call as PluginCall));
  });
});

test('the machine lets users make such namespaces, or none of this was tried', () => {
  expect(Number(readFileSync('/proc/sys/user/max_user_namespaces', 'utf8'))).toBeGreaterThan(0);
});
