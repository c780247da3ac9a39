// containerd alone, on our executables alone: `ctr --cni` of release 1.6, and pods by CRI of both releases.
// Part of `npm run test:runtimes`.
import { rmSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { type Containerd, openContainerd, type Release, runPod } from '../support/containerd.ts';
import { asOne } from '../support/list-runner.ts';
import { usualPlugins } from '../support/network-list.ts';
import type { PrivateHost } from '../support/private-host.ts';
import { attachments, fetchFrom, fetchSoon, traces, waitFor } from '../support/runtime-host.ts';
import { IMAGE } from '../support/runtime-image.ts';
import { addOutside, OUTSIDE } from '../support/traffic.ts';

const PLUGINS = usualPlugins(['10.97.0.0/24', 'fd00:97::/64']);

describe('ctr of containerd 1.6 runs containers', () => {
  test('in the foreground, and DEL without a namespace leaves nothing of them', async () => {
    await using scene = await openContainerd('1.6');
    const { host, ctr } = scene;
    install(host, '1.0.0');
    await ctr('run', '--rm', '--cni', IMAGE, 'earlier', 'true');
    const before = await host.snapshot();

    const ended = ctr('run', '--rm', '--cni', IMAGE, 'web', 'serve');
    const address = await addressOf(host, 'default-web');
    expect(await fetchSoon(host, `http://${address}/`)).not.toBe('');
    await ctr('task', 'kill', 'web');
    await ended.catch((error) => expect(String(error)).toContain('Exit code'));
    expect(traces(before, await host.snapshot())).toEqual([]);
  });

  test('detached, of which no DEL comes, and GC cleans up, even when the cache of results is gone', async () => {
    await using scene = await openContainerd('1.6');
    const { host, ctr } = scene;
    install(host, '1.0.0');
    for (const name of ['one', 'two']) {
      await ctr('run', '-d', '--cni', IMAGE, name, 'serve');
      expect(await fetchSoon(host, `http://${await addressOf(host, `default-${name}`)}/`)).not.toBe('');
      await ctr('task', 'kill', '-s', 'KILL', name);
      await waitFor(async () => (await ctr('task', 'ls')).includes('STOPPED'), { what: 'the end of a task' });
      await ctr('task', 'rm', name);
      await ctr('container', 'rm', name);
      expect(await attachments(host)).not.toEqual([]);
      if (name === 'two') rmSync(host.file('/var/lib/cni/results'), { recursive: true });
      // The newest version that containerd 1.6 takes knows no GC.
      install(host, '1.1.0');
      await host.cnitool('gc', { network: 'pods', netns: '/nowhere', directory: '/opt/cni/bin' });
      install(host, '1.0.0');
      expect(await attachments(host)).toEqual([]);
    }
  });
});

/** The same in one process. */
const ONE = asOne({ cniVersion: '1.1.0', name: 'pods', plugins: PLUGINS }).plugins;

describe.each<readonly [release: Release, version: string, what: string, plugins: readonly object[]]>([
  ['1.6', '1.0.0', 'a list', PLUGINS],
  ['2', '1.1.0', 'a list', PLUGINS],
  ['2', '1.1.0', 'patchbay alone', ONE],
])('CRI of containerd %s with a network at %s of %s runs pods', (release, version, _, plugins) => {
  test('of two families, published, and takes them away as often as it is asked to', async () => {
    await using scene = await openContainerd(release);
    const { host, crictl } = scene;
    const outside = await addOutside(host);
    install(host, version, plugins);
    await waitUntilReady(crictl);
    const ports = [{ container_port: 80, host_port: 8080 }];
    await crictl('rmp', '-f', await runPod(host, crictl, { name: 'earlier', port_mappings: ports }));
    const before = await host.snapshot();

    const pod = await runPod(host, crictl, { name: 'web', port_mappings: ports });
    expect(await fetchSoon(host, 'http://127.0.0.1:8080/')).toBe('web');
    expect(await fetchFrom(outside, `http://${OUTSIDE.host4}:8080/`)).toBe('web');
    expect(await fetchFrom(outside, `http://[${OUTSIDE.host6}]:8080/`)).toBe('web');
    const { status, info } = JSON.parse(await crictl('inspectp', pod)) as PodStatus;
    const addresses = [status.network.ip, ...status.network.additionalIps.map(({ ip }) => ip)];
    expect(addresses.map((address) => address.split(/[.:]/)[0])).toEqual(['10', 'fd00']);
    expect(info.cniResult.Interfaces['lo']?.IPConfigs?.map(({ IP }) => IP)).toEqual(['127.0.0.1', '::1']);
    const [container = ''] = (await crictl('ps', '-q', '--pod', pod)).split('\n');
    for (const to of ['127.0.0.1', '::1', '10.97.0.1', 'fd00:97::1', OUTSIDE.outside4, OUTSIDE.outside6]) {
      await crictl('exec', container, 'ping', '-c', '1', '-W', '3', to);
    }

    await crictl('stopp', pod);
    await crictl('stopp', pod);
    expect(await attachments(host)).toEqual([]);
    await crictl('rmp', pod);
    await crictl('rmp', pod).catch(() => {});
    expect(await fetchFrom(host, 'http://127.0.0.1:8080/')).toBe('');
    expect(traces(before, await host.snapshot())).toEqual([]);
  });
});

describe('CRI of containerd 2', () => {
  test('starts twenty pods at once, each with an address and a port of its own', async () => {
    await using scene = await openContainerd('2');
    const { host, crictl } = scene;
    install(host, '1.1.0');
    await waitUntilReady(crictl);
    const names = Array.from({ length: 20 }, (_, i) => `pod${i}`);
    const pods = await Promise.all(
      names.map((name, i) => {
        const port_mappings = [{ container_port: 80, host_port: 9000 + i }];
        return runPod(host, crictl, { name, port_mappings });
      }),
    );
    const answers = await Promise.all(names.map((_, i) => fetchSoon(host, `http://127.0.0.1:${9000 + i}/`)));
    expect(answers).toEqual(names);
    await Promise.all(pods.map((pod) => crictl('rmp', '-f', pod)));
    expect(await attachments(host)).toEqual([]);
  });

  test('says that the network is not ready, and why, when STATUS fails', async () => {
    await using scene = await openContainerd('2');
    const { host, crictl } = scene;
    install(host, '1.1.0');
    await waitUntilReady(crictl);
    // The store cannot keep its files there.
    const broken = PLUGINS.map((plugin) =>
      plugin.type === 'bridge' ? { ...plugin, ipam: { ...plugin.ipam, dataDir: '/proc' } } : plugin,
    );
    install(host, '1.1.0', broken);
    await waitFor(async () => (await networkCondition(crictl)).status === false, { what: 'the condition' });
    expect((await networkCondition(crictl)).message).toContain('/proc');
  });
});

interface PodStatus {
  readonly status: {
    readonly network: { readonly ip: string; readonly additionalIps: readonly { readonly ip: string }[] };
  };
  readonly info: {
    readonly cniResult: {
      readonly Interfaces: Readonly<
        Record<string, { readonly IPConfigs: readonly { readonly IP: string }[] | null }>
      >;
    };
  };
}

interface Condition {
  readonly type: string;
  readonly status: boolean;
  readonly message: string;
}

function install(host: PrivateHost, cniVersion: string, plugins: readonly object[] = PLUGINS): void {
  const list = { cniVersion, name: 'pods', plugins };
  writeFileSync(host.file('/etc/cni/net.d/10-pods.conflist'), JSON.stringify(list));
}

/** The address that the store has for a container, once it has one. */
async function addressOf(host: PrivateHost, containerId: string): Promise<string> {
  const find = `grep -ls '^${containerId}\\b' /var/lib/cni/networks/pods/10.* || true`;
  let path = '';
  await waitFor(
    async () => {
      path = (await host.shell(find)).stdout;
      return path !== '';
    },
    { what: `an address of ${containerId}` },
  );
  return path.slice(path.lastIndexOf('/') + 1);
}

async function waitUntilReady(crictl: Containerd['crictl']): Promise<void> {
  await waitFor(async () => (await networkCondition(crictl)).status, { what: 'a network that is ready' });
}

async function networkCondition(crictl: Containerd['crictl']): Promise<Condition> {
  const { status } = JSON.parse(await crictl('info')) as { status: { conditions: readonly Condition[] } };
  const found = status.conditions.find(({ type }) => type === 'NetworkReady');
  if (found === undefined) throw new Error('crictl info has no condition "NetworkReady"');
  return found;
}
