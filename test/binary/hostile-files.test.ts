// Links, FIFOs and devices planted wherever the packaged plugins keep or look for files, and directories that others may write
// to: no file outside is touched, nobody is held, and what can be done is done. Part of `npm run test:binary`.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, expect, test } from 'vitest';
import { networkHash, ownerHash } from '../../shared/cni/attachment.ts';
import { attach } from '../support/attachment.ts';
import { readNetwork } from '../support/network-list.ts';
import { openTestHost } from '../support/primed-host.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import { expectError, expectResult, expectSuccess, type PluginCall } from '../support/run-plugin.ts';
import { attachTunable } from '../support/tuned.ts';

const NETWORK = readNetwork('10-bridge.conflist').config;
const DATA = '/var/lib/cni/networks';
const STORE = `${DATA}/${NETWORK.name}`;
const SIDE = `${DATA}/.patchbay/${NETWORK.name}`;
/** Long before a FIFO or a lock that nobody gives back would be given up. */
const PATIENCE_MS = 10_000;

/** Places that are none of the plugins' business, with names in them that they use; hard links reach their own disk only. */
const VICTIMS = ['/run/victim', '/var/lib/cni/victim'];
const MAKE_VICTIMS = `
  for victim in ${VICTIMS.join(' ')}; do
    mkdir -p $victim/owners
    for name in file lock draft stamp nftables.lock pod_eth0.json owners/pod@eth0 owners/other; do
      echo precious > $victim/$name
    done
  done
`;

async function victimOf(host: PrivateHost): Promise<string> {
  const find = `find ${VICTIMS.join(' ')}`;
  const listing = `${find} -printf '%p %y %m\\n' | sort; ${find} -type f -printf '%p %s\\n' -exec cat {} + | sort`;
  return (await host.shell(listing)).stdout;
}

interface Scene {
  readonly host: PrivateHost;
  readonly pod: Sandbox;
}

/** A host with the victim on it, on which the network was in use. */
async function openScene(): Promise<Scene> {
  const host = await openTestHost();
  const earlier = await host.addSandbox('earlier');
  const { call } = await attach(host, NETWORK, earlier);
  expectSuccess(await host.runPlugin('DEL', call));
  await host.shell(MAKE_VICTIMS);
  return { host, pod: await host.addSandbox('pod') };
}

/** ADD, CHECK, GC and DEL of the attachment, each within the time; gives the outcome of ADD. */
async function live({ host, pod }: Scene, expected: 'works' | { readonly code: number }): Promise<string> {
  const call: PluginCall = { config: NETWORK, containerId: 'pod', netns: pod.path, ifname: 'eth0' };
  const added = await host.runPlugin('ADD', call);
  expect(added.ms).toBeLessThan(PATIENCE_MS);
  if (expected === 'works') {
    const result = expectResult(added);
    const valid = [{ containerID: 'pod', ifname: 'eth0' }];
    for (const [verb, fields] of [
      ['CHECK', { prevResult: result }],
      ['GC', { 'cni.dev/valid-attachments': valid }],
      ['DEL', { prevResult: result }],
    ] as const) {
      const outcome = await host.runPlugin(verb, { ...call, config: { ...NETWORK, ...fields } });
      expectSuccess(outcome);
      expect(outcome.ms).toBeLessThan(PATIENCE_MS);
    }
    const left = await host.shell(`
      find -L ${STORE} -name '10.*' -type f -exec grep -l pod {} + || true; ip -o link show type veth
    `);
    expect(left.stdout).toBe('');
  } else {
    expect(expectError(added)).toMatchObject(expected);
  }
  return added.stderr;
}

describe('the address store', () => {
  test.each([
    [
      'a symlink for every address',
      `for i in $(seq 2 9); do ln -s /var/lib/cni/victim/file ${STORE}/10.88.0.$i; done`,
    ],
    [
      'a hard link for every address',
      `for i in $(seq 2 9); do ln /var/lib/cni/victim/file ${STORE}/10.88.0.$i; done`,
    ],
    ['a FIFO for every address', `for i in $(seq 2 9); do mkfifo ${STORE}/10.88.0.$i; done`],
    ['a device for every address', `for i in $(seq 2 9); do mknod ${STORE}/10.88.0.$i c 1 5; done`],
    ['a symlink for the pointer', `ln -sf /var/lib/cni/victim/file ${STORE}/last_reserved_ip.0`],
    ['a hard link for the pointer', `ln -f /var/lib/cni/victim/file ${STORE}/last_reserved_ip.0`],
    ['a FIFO for the pointer', `rm ${STORE}/last_reserved_ip.0; mkfifo ${STORE}/last_reserved_ip.0`],
    ['a FIFO for the lock', `rm ${STORE}/lock; mkfifo ${STORE}/lock`],
    ['a hard link for the lock', `ln -f /var/lib/cni/victim/lock ${STORE}/lock`],
    ['a symlink for the draft', `mkdir -p ${SIDE}; ln -sf /var/lib/cni/victim/draft ${SIDE}/draft`],
    ['a hard link for the draft', `mkdir -p ${SIDE}; ln -f /var/lib/cni/victim/draft ${SIDE}/draft`],
    ['a FIFO for the draft', `mkdir -p ${SIDE}; mkfifo ${SIDE}/draft`],
    [
      'a symlink for the directory beside all stores',
      `rm -rf ${DATA}/.patchbay; ln -s /var/lib/cni/victim ${DATA}/.patchbay`,
    ],
    ['a symlink for the directory beside', `rm -rf ${SIDE}; ln -s /var/lib/cni/victim ${SIDE}`],
    [
      'a symlink for the index',
      `rm -rf ${SIDE}/owners; ln -s /var/lib/cni/victim/owners ${SIDE}/owners; touch ${STORE}/x`,
    ],
    ['a file for the index', `rm -rf ${SIDE}; ln /var/lib/cni/victim/file ${SIDE}`],
    [
      'links in the index',
      `ln -sf /var/lib/cni/victim/file ${SIDE}/owners/pod@eth0; ln -f /var/lib/cni/victim/file ${SIDE}/owners/x`,
    ],
    [
      'files in the index that are no notes',
      `touch ${STORE}/x; ln /var/lib/cni/victim/file ${SIDE}/owners/x`,
    ],
    ['a link of root to another disk', `mv ${STORE} /run/disk; ln -s /run/disk ${STORE}`],
  ])('with %s is used, and nothing behind it', async (_, plant) => {
    const scene = await openScene();
    await scene.host.shell(plant);
    const before = await victimOf(scene.host);
    await live(scene, 'works');
    expect(await victimOf(scene.host)).toBe(before);
  });

  test.each([
    ['a symlink for the lock', `ln -sf /var/lib/cni/victim/lock ${STORE}/lock`],
    ['a symlink for the lock that leads nowhere', `ln -sf /var/lib/cni/victim/new ${STORE}/lock`],
    ['a directory for the lock', `rm ${STORE}/lock; mkdir ${STORE}/lock`],
    [
      'the link of another user in its place',
      `rm -r ${STORE}; ln -s /var/lib/cni/victim ${STORE}; chown -h 1000 ${STORE}`,
    ],
    ['a file in its place', `rm -r ${STORE}; echo > ${STORE}`],
    ['a FIFO in its place', `rm -r ${STORE}; mkfifo ${STORE}`],
  ])('with %s is refused', async (_, plant) => {
    const scene = await openScene();
    await scene.host.shell(plant);
    const before = await victimOf(scene.host);
    await live(scene, { code: 110 });
    expect(await victimOf(scene.host)).toBe(before);
  });

  test.each([
    [
      'everybody may write to it',
      `chmod 777 ${STORE}`,
      /can be changed by others \(mode 777\); run "chmod go-w"/,
    ],
    [
      'a group may write to its parent',
      `chmod 775 ${DATA}`,
      /networks" can be changed by others \(mode 775\)/,
    ],
    ['it belongs to somebody', `chown 1000 ${STORE}`, /belongs to user 1000, who can change it/],
  ])('is used and said to be exposed when %s', async (_, expose, says) => {
    const scene = await openScene();
    await scene.host.shell(expose);
    expect(await live(scene, 'works')).toMatch(says);
  });

  test('has no file that anybody but root may read, as scanners want it (CIS Kubernetes 1.1.9)', async () => {
    const { host, pod } = await openScene();
    await host.shell(`rm -r ${DATA}`);
    await attach(host, NETWORK, pod);
    const { stdout } = await host.shell(`find ${DATA} -type f -printf '%f %m %u\\n' | sort`);
    expect(stdout.split('\n')).toEqual([
      '10.88.0.2 600 root',
      'last_reserved_ip.0 600 root',
      'lock 600 root',
    ]);
  });
});

describe('the directory of locks', () => {
  test.each([
    ['a symlink for the lock', 'ln -sf /run/victim/nftables.lock /run/patchbay/nftables.lock'],
    ['a symlink that leads nowhere', 'ln -sf /run/victim/new /run/patchbay/nftables.lock'],
    ['a hard link for the lock', 'ln -f /run/victim/nftables.lock /run/patchbay/nftables.lock'],
    ['a FIFO for the lock', 'rm /run/patchbay/nftables.lock; mkfifo /run/patchbay/nftables.lock'],
    ['a directory for the lock', 'rm /run/patchbay/nftables.lock; mkdir /run/patchbay/nftables.lock'],
    ['a file in its place', 'rm -r /run/patchbay; echo > /run/patchbay'],
    [
      'the link of another user in its place',
      'rm -r /run/patchbay; ln -s /run/victim /run/patchbay; chown -h 1000 /run/patchbay',
    ],
    ['a FIFO in its place', 'rm -r /run/patchbay; mkfifo /run/patchbay'],
  ])('with %s keeps nothing from working', async (_, plant) => {
    const scene = await openScene();
    await scene.host.shell(plant);
    const before = await victimOf(scene.host);
    await live(scene, 'works');
    expect(await victimOf(scene.host)).toBe(before);
  });
});

describe('the directory of backups', () => {
  const TUNING = '/run/cni/tuning';

  function hashesOf({ config, containerId = '', ifname = '' }: PluginCall): {
    network: string;
    owner: string;
  } {
    const { name: network } = config as { readonly name: string };
    return { network: networkHash(network), owner: ownerHash({ network, containerId, ifname }) };
  }

  async function openTuned() {
    const { host, pod } = await openScene();
    const tunable = await attachTunable(host, pod);
    return { host, pod, call: tunable.tuningCall };
  }

  test('with a link or a FIFO for a draft is used, and nothing behind it', async () => {
    const { host, call } = await openTuned();
    const { network, owner } = hashesOf(call);
    const draft = `${TUNING}/.${network}-${owner}.new`;
    for (const link of ['ln -s /run/victim/file', 'ln /run/victim/file', 'mkfifo']) {
      await host.shell(`mkdir -p ${TUNING}; ${link} ${draft}`);
      const before = await victimOf(host);
      expectSuccess(await host.runPlugin('ADD', call));
      expect(await victimOf(host)).toBe(before);
      expectSuccess(await host.runPlugin('DEL', call));
    }
  });

  test('is refused when it is the link of another user, and used when it is one of root', async () => {
    const { host, call } = await openTuned();
    await host.shell(
      `mkdir -p /run/cni; rm -rf ${TUNING}; ln -s /run/victim ${TUNING}; chown -h 1000 ${TUNING}`,
    );
    const before = await victimOf(host);
    expect(expectError(await host.runPlugin('ADD', call))).toMatchObject({ code: 5 });
    expect(await victimOf(host)).toBe(before);
    await host.shell(`rm ${TUNING}; mkdir /run/disk; ln -s /run/disk ${TUNING}`);
    expectSuccess(await host.runPlugin('ADD', call));
    expectSuccess(await host.runPlugin('DEL', call));
  });
});

describe('a setting of the kernel', () => {
  const FORWARD = '/proc/sys/net/ipv4/ip_forward';
  const SAYS = /sysctl "net\/ipv4\/.*(does not lie on the kernel's own file system|EXDEV|ELOOP|ENOENT)/;

  test.each([
    ['a file is mounted over it', `mount --bind /run/victim/file ${FORWARD}`],
    ['another setting is mounted over it', `mount --bind /proc/sys/net/ipv4/tcp_syncookies ${FORWARD}`],
    ['a file of procfs that is no setting is mounted over it', `mount --bind /proc/self/comm ${FORWARD}`],
    [
      'its directory is another file system',
      'mount -t tmpfs tmpfs /proc/sys/net/ipv4; ln -s /run/victim/file /proc/sys/net/ipv4/ip_forward',
    ],
    [
      'all of them are another file system',
      `mount -t tmpfs tmpfs /proc/sys; mkdir -p /proc/sys/net/ipv4 /proc/sys/kernel/random
       cp /run/victim/file ${FORWARD}`,
    ],
  ])('is neither believed nor written when %s', async (_, mount) => {
    const scene = await openScene();
    const { host } = scene;
    const cookies = await host.shell(
      'cat /proc/sys/net/ipv4/tcp_syncookies; echo 0 > /proc/sys/net/ipv4/ip_forward',
    );
    await host.shell(mount);
    const before = await victimOf(host);
    const config = { ...NETWORK, isGateway: true, isDefaultGateway: true };
    const added = await host.runPlugin('ADD', {
      config,
      containerId: 'pod',
      netns: scene.pod.path,
      ifname: 'eth0',
    });
    const { msg, details } = expectError(added);
    expect(`${msg}: ${details}`).toMatch(SAYS);
    expect(await victimOf(host)).toBe(before);
    expect((await host.attempt('umount', ['/proc/sys'])).exitCode).toBeLessThan(33);
    await host.attempt('bash', [
      '-c',
      'umount /proc/sys/net/ipv4 /proc/sys/net/ipv4/ip_forward 2> /dev/null',
    ]);
    expect((await host.shell('cat /proc/sys/net/ipv4/tcp_syncookies')).stdout).toBe(cookies.stdout);
    expect((await host.shell(`cat ${FORWARD}`)).stdout).toBe('0');
  });

  test('is set where containers mount the settings of the network anew', async () => {
    const scene = await openScene();
    await scene.host.shell(`
      echo 0 > ${FORWARD}
      mount --bind /proc/sys /proc/sys; mount -o remount,ro,bind /proc/sys
      mount --bind /proc/sys/net /proc/sys/net; mount -o remount,rw,bind /proc/sys/net
    `);
    await live(scene, 'works');
    expect((await scene.host.shell(`cat ${FORWARD}`)).stdout).toBe('1');
  });
});

describe('a sandbox whose path is exchanged all the time', () => {
  const PATH = '/run/flip/ns';

  /** Lets the path lead to the pod and to the host by turns, a few thousand times a second. */
  async function flip(host: PrivateHost, pod: Sandbox, work: () => Promise<void>): Promise<void> {
    mkdirSync(dirname(host.file(PATH)), { recursive: true });
    await host.shell(`
      exec 3>&- 3<&-
      ln -s ${pod.path} /run/flip/pod; ln -s /proc/1/ns/net /run/flip/host; cp -P /run/flip/pod ${PATH}
    `);
    const exchange = `
      const { renameSync, symlinkSync } = require('node:fs');
      for (;;) for (const target of [${JSON.stringify(pod.path)}, '/proc/1/ns/net']) {
        try { symlinkSync(target, '/run/flip/next'); renameSync('/run/flip/next', '${PATH}'); } catch {}
      }`;
    writeFileSync(host.file('/run/flip/exchange.cjs'), exchange);
    await host.shell(
      `setsid ${process.execPath} /run/flip/exchange.cjs > /dev/null 2>&1 & echo $! > /run/flip/pid`,
    );
    try {
      await work();
    } finally {
      await host.shell('kill -9 $(cat /run/flip/pid)');
    }
  }

  test('is never the host: every verb works in the pod, or is refused', async () => {
    const { host, pod } = await openScene();
    const hostState = async () =>
      (
        await host.shell(`
          ip -o link show dev lo; ip -o link | grep -c . ; cat /proc/sys/net/core/somaxconn
        `)
      ).stdout;
    const before = await hostState();
    const seen = { pod: 0, refused: 0 };
    const loopback = { cniVersion: '1.1.0', name: 'n1', type: 'loopback' };
    const tuning = {
      cniVersion: '1.1.0',
      name: 'n1',
      type: 'tuning',
      sysctl: { 'net.core.somaxconn': '77' },
    };
    await flip(host, pod, async () => {
      for (let round = 0; round < 40; round++) {
        for (const [plugin, verb, config] of [
          ['loopback', 'ADD', loopback],
          ['loopback', 'DEL', loopback],
          ['tuning', 'ADD', { ...tuning, prevResult: { cniVersion: '1.1.0' } }],
          ['tuning', 'DEL', tuning],
        ] as const) {
          const call = { plugin, config, containerId: 'c1', netns: PATH, ifname: 'lo' };
          const outcome = await host.runPlugin(verb, call);
          if (outcome.exitCode === 0) seen.pod++;
          else {
            expect(expectError(outcome)).toMatchObject({ code: 8 });
            seen.refused++;
          }
        }
      }
    });
    expect(await hostState()).toBe(before);
    // Both ways were taken, or the test has tested nothing.
    expect(seen.pod).toBeGreaterThan(5);
    expect(seen.refused).toBeGreaterThan(5);
  });
});

describe('an IPAM plugin of somebody else', () => {
  const DIRECTORY = '/run/plugins';
  const IPAM = `#!/bin/sh
    [ "$CNI_COMMAND" = ADD ] || exit 0
    echo '{ "cniVersion": "1.1.0", "ips": [{ "address": "10.88.0.9/16", "gateway": "10.88.0.1" }] }'`;

  async function openForeign(expose: string): Promise<{ host: PrivateHost; call: PluginCall }> {
    const { host, pod } = await openScene();
    mkdirSync(host.file(DIRECTORY), { mode: 0o755 });
    writeFileSync(host.file(`${DIRECTORY}/foreign`), IPAM, { mode: 0o755 });
    await host.shell(expose);
    const config = { ...NETWORK, ipam: { type: 'foreign' } };
    const env = { CNI_PATH: DIRECTORY };
    return { host, call: { config, containerId: 'pod', netns: pod.path, ifname: 'eth0', env } };
  }

  test.each([
    ['the file', `chmod 777 ${DIRECTORY}/foreign`],
    ['its directory', `chmod 777 ${DIRECTORY}`],
  ])('is not run for an ADD when everybody may write to %s, and still cleans up', async (_, expose) => {
    const { host, call } = await openForeign(expose);
    expect(expectError(await host.runPlugin('ADD', call))).toMatchObject({
      code: 111,
      msg: expect.stringMatching(/can be replaced by everybody: run "chmod o-w"/),
    });
    const del = await host.runPlugin('DEL', call);
    expect(del).toMatchObject({ exitCode: 0, stderr: expect.stringMatching(/can be replaced by everybody/) });
  });

  test.each([
    ['a group may write to its directory', `chgrp 100 ${DIRECTORY}; chmod 775 ${DIRECTORY}`, /by group 100/],
    ['it came out of an archive with an owner', `chown 1001:127 ${DIRECTORY}/foreign`, /by user 1001/],
  ])('is run with a word about it when %s', async (_, expose, says) => {
    const { host, call } = await openForeign(expose);
    const added = await host.runPlugin('ADD', call);
    expectSuccess(added);
    expect(added.stderr).toMatch(says);
  });

  test.each([
    ['root alone may write', ':'],
    ['the group of root may write', `chmod 775 ${DIRECTORY} ${DIRECTORY}/foreign`],
    ['its directory is like /tmp', `chmod 1777 ${DIRECTORY}`],
  ])('is run without a word when %s', async (_, expose) => {
    const { host, call } = await openForeign(expose);
    expect(await host.runPlugin('ADD', call)).toMatchObject({ exitCode: 0, stderr: '' });
  });
});
