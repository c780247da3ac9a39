// The packaged loopback plugin as containerd calls it: at its own versions, beside the pod network's ADD, and with DELs
// that know next to nothing. Part of `npm run test:binary`.
import { describe, expect, test } from 'vitest';
import { attach, detach, withPrevResult } from '../support/attachment.ts';
import { readNetwork } from '../support/network-list.ts';
import { openPrimedHost, openTestHost } from '../support/primed-host.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import { expectError, expectResult, expectSuccess, type PluginCall } from '../support/run-plugin.ts';
import { difference } from '../support/snapshot.ts';

const DUAL_STACK = readNetwork('bridge-dual-stack.conflist').config;
const ZERO = '00:00:00:00:00:00';

/** As containerd's CRI writes it, at another version if asked. */
function callFor(sandbox: Sandbox, fields: object = {}): PluginCall {
  const config = { cniVersion: '0.3.1', name: 'cni-loopback', type: 'loopback', ...fields };
  return { plugin: 'loopback', config, containerId: sandbox.name, netns: sandbox.path, ifname: 'lo' };
}

/** A host with a sandbox whose `lo` is down, as runtimes make them. */
async function openFreshSandbox(): Promise<{ host: PrivateHost; sandbox: Sandbox }> {
  const host = await openTestHost();
  await host.run('ip', ['netns', 'add', 'pod']);
  return { host, sandbox: host.placeAt('pod', '/run/netns/pod') };
}

async function isUp(sandbox: Sandbox): Promise<boolean> {
  const [link] = JSON.parse((await sandbox.run('ip', ['-json', 'link', 'show', 'lo'])).stdout) as {
    readonly flags: readonly string[];
  }[];
  return link?.flags.includes('UP') ?? false;
}

describe('ADD', () => {
  const current = {
    interfaces: [{ mac: ZERO, name: 'lo', sandbox: '/run/netns/pod' }],
    ips: [
      { address: '127.0.0.1/8', interface: 0 },
      { address: '::1/128', interface: 0 },
    ],
  };
  const middle = {
    ...current,
    ips: [
      { version: '4', ...current.ips[0] },
      { version: '6', ...current.ips[1] },
    ],
    dns: {},
  };
  const first = { ip4: { ip: '127.0.0.1/8' }, ip6: { ip: '::1/128' }, dns: {} };

  test.for([
    ['0.1.0', first],
    ['0.2.0', first],
    ['0.3.0', middle],
    ['0.3.1', middle],
    ['0.4.0', middle],
    ['1.0.0', current],
    ['1.1.0', current],
  ] as const)('at version %s reports lo in the shape of that version', async ([cniVersion, shape]) => {
    const { host, sandbox } = await openFreshSandbox();
    expect(await isUp(sandbox)).toBe(false);
    const result = expectResult(await host.runPlugin('ADD', callFor(sandbox, { cniVersion })));
    expect(result).toEqual({ cniVersion, ...shape });
    expect(await isUp(sandbox)).toBe(true);
    expect(expectResult(await host.runPlugin('ADD', callFor(sandbox, { cniVersion })))).toEqual(result);
  });

  test('passes on what plugins before it reported, unknown keys and all', async () => {
    const { host, sandbox } = await openFreshSandbox();
    const prevResult = { cniVersion: '1.1.0', ips: [{ address: '10.0.0.2/24', x: 1 }], vendor: [1] };
    const call = callFor(sandbox, { cniVersion: '1.1.0', prevResult });
    expect(expectResult(await host.runPlugin('ADD', { ...call, ifname: 'eth0' }))).toEqual(prevResult);
    expect(await isUp(sandbox)).toBe(true);
  });

  test('reports IPv4 alone where IPv6 is off', async () => {
    const { host, sandbox } = await openFreshSandbox();
    await sandbox.run('sysctl', ['-qw', 'net.ipv6.conf.all.disable_ipv6=1']);
    const result = expectResult(await host.runPlugin('ADD', callFor(sandbox, { cniVersion: '1.0.0' })));
    expect(result.ips).toEqual([{ address: '127.0.0.1/8', interface: 0 }]);
  });

  test.for(['192.0.2.1/32', '2001:db8::1/128'])(
    'refuses a lo with %s, and leaves it down',
    async (address) => {
      const { host, sandbox } = await openFreshSandbox();
      await sandbox.run('ip', ['addr', 'add', address, 'dev', 'lo']);
      const before = await host.snapshot();
      const { code, msg } = expectError(await host.runPlugin('ADD', callFor(sandbox)));
      expect({ code, msg }).toEqual({ code: 104, msg: expect.stringContaining(address) });
      expect(difference(before, await host.snapshot())).toEqual([]);
      expect(await isUp(sandbox)).toBe(false);
      await sandbox.run('ip', ['link', 'set', 'lo', 'up']);
      expectError(await host.runPlugin('ADD', callFor(sandbox)));
      expect(await isUp(sandbox)).toBe(true);
    },
  );

  test.for([
    ['no sandbox', '/run/netns/nowhere', 8],
    ['a file in its place', '/etc/hostname', 8],
    ['the host itself', '/proc/self/ns/net', 8],
    ['nothing', '', 4],
  ] as const)('refuses %s', async ([, netns, code]) => {
    const { host, sandbox } = await openFreshSandbox();
    const before = await host.snapshot();
    expect(expectError(await host.runPlugin('ADD', { ...callFor(sandbox), netns })).code).toBe(code);
    expect(difference(before, await host.snapshot())).toEqual([]);
  });
});

test('DEL sets lo down, and is content without a sandbox as often as it is called', async () => {
  const { host, sandbox } = await openFreshSandbox();
  // Once it was up, 127.0.0.1 stays with it; the kernel takes away ::1 alone.
  await sandbox.shell('ip link set lo up; ip link set lo down');
  const before = await host.snapshot();
  const call = callFor(sandbox);
  expectSuccess(await host.runPlugin('ADD', call));
  expect(await isUp(sandbox)).toBe(true);
  const none = { exitCode: 0, stdout: '', stderr: '' };
  for (const netns of [sandbox.path, sandbox.path, '', '', '/run/netns/nowhere', '/etc/hostname']) {
    expect(await host.runPlugin('DEL', { ...call, netns })).toMatchObject(none);
    if (netns === sandbox.path) expect(difference(before, await host.snapshot())).toEqual([]);
  }
  await sandbox.delete();
  expect(await host.runPlugin('DEL', call)).toMatchObject(none);
});

test('CHECK is content with what ADD made, with its result or without, and names what is missing', async () => {
  const { host, sandbox } = await openFreshSandbox();
  const call = callFor(sandbox, { cniVersion: '1.1.0' });
  const prevResult = expectResult(await host.runPlugin('ADD', call));
  const withResult = callFor(sandbox, { cniVersion: '1.1.0', prevResult });
  for (const good of [call, withResult]) expectSuccess(await host.runPlugin('CHECK', good));

  await sandbox.run('ip', ['addr', 'del', '::1/128', 'dev', 'lo']);
  expect(expectError(await host.runPlugin('CHECK', withResult))).toMatchObject({
    code: 107,
    msg: expect.stringContaining('"::1/128"'),
  });
  expectSuccess(await host.runPlugin('CHECK', call));
  await sandbox.run('ip', ['link', 'set', 'lo', 'down']);
  for (const bad of [call, withResult]) {
    expect(expectError(await host.runPlugin('CHECK', bad))).toMatchObject({
      code: 107,
      msg: expect.stringContaining('down'),
    });
  }
});

test('VERSION, STATUS and GC have nothing to complain of, and change nothing', async () => {
  const { host, sandbox } = await openFreshSandbox();
  expectSuccess(await host.runPlugin('ADD', callFor(sandbox)));
  const before = await host.snapshot();
  const config = { cniVersion: '1.1.0', name: 'cni-loopback', type: 'loopback' };
  const env = { CNI_NETNS: 'dummy', CNI_IFNAME: 'dummy', CNI_PATH: 'dummy' };
  const version = await host.runPlugin('VERSION', {
    plugin: 'loopback',
    config: { cniVersion: '1.0.0' },
    env,
  });
  expect(JSON.parse(version.stdout)).toMatchObject({
    supportedVersions: ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'],
  });
  const gc = { ...config, 'cni.dev/valid-attachments': [] };
  for (const outcome of [
    await host.runPlugin('STATUS', { plugin: 'loopback', config }),
    await host.runPlugin('GC', { plugin: 'loopback', config: gc }),
    await host.runPlugin('GC', { plugin: 'loopback', config }),
  ]) {
    expect(outcome).toMatchObject({ exitCode: 0, stdout: '', stderr: '' });
  }
  expect(difference(before, await host.snapshot())).toEqual([]);
});

test('it comes and goes beside the pod’s network, again and again, and both are whole each time', async () => {
  const { host, before } = await openPrimedHost(DUAL_STACK);
  for (let round = 0; round < 4; round += 1) {
    const pods = await Promise.all(
      ['a', 'b', 'c'].map(async (name) => {
        await host.run('ip', ['netns', 'add', name]);
        // What containerd does: IPv6 is off until a plugin wants it.
        const sandbox = host.placeAt(name, `/run/netns/${name}`);
        await sandbox.run('sysctl', [
          '-qw',
          'net.ipv6.conf.all.disable_ipv6=1',
          'net.ipv6.conf.default.disable_ipv6=1',
        ]);
        return sandbox;
      }),
    );
    await Promise.all(
      pods.map(async (sandbox) => {
        const [lo, attached] = await Promise.all([
          host.runPlugin('ADD', callFor(sandbox)),
          attach(host, DUAL_STACK, sandbox),
        ]);
        expect(expectResult(lo).ips?.[0]?.address).toBe('127.0.0.1/8');
        expectSuccess(await host.runPlugin('CHECK', callFor(sandbox, { cniVersion: '1.1.0' })));
        expectSuccess(await host.runPlugin('CHECK', withPrevResult(attached)));
        await sandbox.run('ping', ['-n', '-c', '1', '-w', '3', '127.0.0.1']);
        await sandbox.run('ping', ['-n', '-c', '1', '-w', '3', '::1']);
        await Promise.all([
          host.runPlugin('DEL', callFor(sandbox)).then(expectSuccess),
          detach(host, attached),
        ]);
        expect(await isUp(sandbox)).toBe(false);
      }),
    );
    for (const { name } of pods) await host.run('ip', ['netns', 'delete', name]);
    expect(difference(before, await host.snapshot())).toEqual([]);
  }
});
