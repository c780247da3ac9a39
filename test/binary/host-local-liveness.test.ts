// What host-local makes of addresses whose container is alive, dead or unknown: a lost store, an earlier boot, a GC that
// is told nothing. Part of `npm run test:binary`.
import { copyFileSync, readdirSync, rmSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Attached, attach } from '../support/attachment.ts';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import {
  expectError,
  expectResult,
  expectSuccess,
  type PluginOutcome,
  pluginDirectory,
  type Verb,
} from '../support/run-plugin.ts';

const STORE = '/var/lib/cni/networks/n1';
const OTHER_BOOT = '11111111-2222-3333-4444-555555555555';

let host: PrivateHost;

beforeEach(async () => {
  host = await openPrivateHost();
});
afterEach(() => host.close());

function network(more: object = {}) {
  return {
    cniVersion: '1.1.0',
    name: 'n1',
    type: 'bridge',
    bridge: 'cni0',
    isDefaultGateway: true,
    ipMasq: true,
    ipam: { type: 'host-local', ranges: [[{ subnet: '10.1.0.0/29' }]] },
    ...more,
  };
}

async function attachNew(name: string, config = network()): Promise<Attached> {
  return attach(host, config, await host.addSandbox(name));
}

/** host-local alone, as another main plugin would call it. */
function run(verb: Verb, containerId: string, more: object = {}): Promise<PluginOutcome> {
  const call = { config: network(more), containerId, netns: '/run/netns/none', ifname: 'eth0' };
  return host.runPlugin(verb, { plugin: 'host-local', ...call });
}

async function add(containerId: string, more?: object): Promise<string | undefined> {
  return expectResult(await run('ADD', containerId, more)).ips?.[0]?.address;
}

function addressFiles(): string[] {
  return readdirSync(host.file(STORE))
    .filter((name) => /^[0-9a-f]+[.:]/.test(name))
    .sort();
}

async function setBoot(address: string, boot: string): Promise<void> {
  await host.run('setfattr', ['-n', 'user.patchbay.boot', '-v', boot, `${STORE}/${address}`]);
}

describe('a lost store', () => {
  test('gives no address twice while attachments masquerade theirs', async () => {
    const alive = [await attachNew('a'), await attachNew('b')];
    expect(alive.map(({ ip4 }) => ip4)).toEqual(['10.1.0.2', '10.1.0.3']);
    rmSync(host.file('/var/lib/cni/networks'), { recursive: true });
    const sandbox = await host.addSandbox('c');
    const outcome = await host.runPlugin('ADD', {
      config: network(),
      containerId: 'c',
      netns: sandbox.path,
      ifname: 'eth0',
    });
    expect(expectResult(outcome).ips?.[0]?.address).toBe('10.1.0.4/29');
    expect(outcome.stderr).toMatch(
      /^The address "10\.1\.0\.2" is in use behind link "veth[0-9a-f]{11}", though the store ".*" does not have it; trying the next one\n/,
    );
    expect(outcome.stderr.split('\n')).toHaveLength(3);
  });

  test('gives no address twice while a neighbour of the host has it, masqueraded or not', async () => {
    const { ip4 } = await attachNew('a', network({ ipMasq: false }));
    await host.run('ping', ['-c1', '-W2', ip4]);
    rmSync(host.file('/var/lib/cni/networks'), { recursive: true });
    expect(await add('b', { ipMasq: false })).toBe('10.1.0.3/29');
    expect(
      expectError(
        await host.runPlugin('ADD', {
          plugin: 'host-local',
          config: network(),
          containerId: 'c',
          netns: 'x',
          ifname: 'eth0',
          args: `IP=${ip4}`,
        }),
      ),
    ).toMatchObject({
      code: 101,
      msg: expect.stringMatching(/requested address "10\.1\.0\.2": it is in use behind link "veth/),
    });
  });

  test('gives the address of a container that is gone', async () => {
    const { call, ip4 } = await attachNew('a');
    await host.run('ping', ['-c1', '-W2', ip4]);
    expectSuccess(await host.runPlugin('DEL', call));
    rmSync(host.file('/var/lib/cni/networks'), { recursive: true });
    expect(await add('b')).toBe('10.1.0.2/29');
  });
});

describe('addresses of an earlier boot', () => {
  test('are reclaimed when the range is exhausted, and only those that nothing in the kernel speaks for', async () => {
    const { ip4 } = await attachNew('alive');
    for (const containerId of ['a', 'b', 'c', 'd']) await add(containerId);
    for (const name of addressFiles()) await setBoot(name, OTHER_BOOT);
    await host.run('touch', ['-d', '2001-01-01', `${STORE}/10.1.0.5`]);
    const outcome = await run('ADD', 'new');
    expect(expectResult(outcome).ips?.[0]?.address).toBe('10.1.0.5/29');
    expect(outcome.stderr).toBe(
      'Range set "10.1.0.1-10.1.0.6" is exhausted: reclaiming "10.1.0.5", held by "c" "eth0" since an earlier boot\n',
    );
    const given = [await add('e'), await add('f'), await add('g')];
    expect(given).not.toContain(`${ip4}/29`);
    expect(expectError(await run('ADD', 'h')).code).toBe(100);
  });

  test('are not reclaimed when the reference wrote them', async () => {
    for (const containerId of ['a', 'b', 'c', 'd', 'e']) await add(containerId);
    for (const name of addressFiles())
      await host.run('setfattr', ['-x', 'user.patchbay.boot', `${STORE}/${name}`]);
    expect(expectError(await run('ADD', 'f')).code).toBe(100);
  });

  test('count as free for STATUS', async () => {
    for (const containerId of ['a', 'b', 'c', 'd', 'e']) await add(containerId);
    expect(expectError(await run('STATUS', '', { strictStatus: true })).code).toBe(50);
    await setBoot('10.1.0.4', OTHER_BOOT);
    expectSuccess(await run('STATUS', '', { strictStatus: true }));
  });
});

describe('GC without a list', () => {
  test('frees the addresses of attachments whose host link is gone, and keeps the others', async () => {
    const gone = await attachNew('gone');
    const alive = await attachNew('alive');
    await host.run('ping', ['-c1', '-W2', gone.ip4]);
    await host.run('ip', ['netns', 'delete', 'gone']);
    // The kernel removes the links of a namespace a moment after its name.
    await host.shell('while [ $(ip -o link show type veth | wc -l) -gt 1 ]; do sleep 0.02; done');
    expectSuccess(await host.runPlugin('GC', { config: network() }));
    expect(addressFiles()).toEqual([alive.ip4]);
  });

  test('frees the addresses of an earlier boot, and keeps what another main plugin may be using', async () => {
    await add('a', { type: 'macvlan' });
    await add('b', { type: 'macvlan' });
    await setBoot('10.1.0.3', OTHER_BOOT);
    expectSuccess(await run('GC', '', { type: 'macvlan' }));
    expect(addressFiles()).toEqual(['10.1.0.2']);
  });
});

describe('an unprivileged caller', () => {
  test('gets, checks and frees an address without asking the kernel', async () => {
    // Where such a caller may not go the executable is not either.
    await host.shell('mkdir -m 0777 /run/store');
    copyFileSync(`${pluginDirectory()}/host-local`, host.file('/run/host-local'));
    const config = network({ ipam: { type: 'host-local', dataDir: '/run/store', subnet: '10.1.0.0/24' } });
    for (const verb of ['ADD', 'CHECK', 'DEL'] as const) {
      const { exitCode, stdout } = await host.attempt(
        'setpriv',
        ['--reuid=65534', '--regid=65534', '--clear-groups', '/run/host-local'],
        {
          input: JSON.stringify(config),
          env: {
            CNI_COMMAND: verb,
            CNI_CONTAINERID: 'c1',
            CNI_NETNS: 'x',
            CNI_IFNAME: 'eth0',
            CNI_PATH: '/',
          },
        },
      );
      expect(exitCode, stdout).toBe(0);
    }
    expect(readdirSync(host.file('/run/store/n1')).sort()).toEqual(['last_reserved_ip.0', 'lock']);
  });
});

describe('a store that can’t be written', () => {
  test('is named by STATUS and ADD', async () => {
    await host.shell('mkdir -p /run/store; mount -t tmpfs -o ro tmpfs /run/store');
    const more = { ipam: { type: 'host-local', dataDir: '/run/store', subnet: '10.1.0.0/24' } };
    expect(expectError(await run('STATUS', '', more))).toMatchObject({
      code: 50,
      msg: expect.stringMatching(/"\/run\/store": .*EROFS/),
    });
    expect(expectError(await run('ADD', 'c1', more))).toMatchObject({
      code: 110,
      details: expect.stringMatching(/EROFS/),
    });
    expectSuccess(await run('DEL', 'c1', more));
  });

  test('keeps nothing of an ADD that runs out of space', async () => {
    await host.shell(
      'mkdir -p /run/store; mount -t tmpfs -o size=64k,nr_inodes=10 tmpfs /run/store; mkdir -p /run/store/n1',
    );
    const more = {
      ipam: { type: 'host-local', dataDir: '/run/store', ranges: [[{ subnet: '10.1.0.0/24' }]] },
    };
    let outcome = await run('ADD', 'c0', more);
    for (let number = 1; outcome.exitCode === 0 && number < 10; number++)
      outcome = await run('ADD', `c${number}`, more);
    expect(expectError(outcome)).toMatchObject({ code: 110, details: expect.stringMatching(/ENOSPC/) });
    const files = readdirSync(host.file('/run/store/n1')).filter((name) => name.startsWith('10.'));
    expect(files.length).toBeGreaterThan(0);
    for (const [number] of files.entries()) expectSuccess(await run('DEL', `c${number}`, more));
    expect(readdirSync(host.file('/run/store/n1')).filter((name) => name.startsWith('10.'))).toEqual([]);
  });
});
