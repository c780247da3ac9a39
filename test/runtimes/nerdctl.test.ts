// nerdctl 2 on containerd 2, on our executables alone: its default network and those that users create.
// Part of `npm run test:runtimes`.
import { describe, expect, test } from 'vitest';
import { type Containerd, openContainerd, runPod } from '../support/containerd.ts';
import { installNetwork, readNetwork } from '../support/network-list.ts';
import { expectPublished } from '../support/published-container.ts';
import { attachments, fetchFrom, fetchSoon, traces } from '../support/runtime-host.ts';
import { IMAGE } from '../support/runtime-image.ts';
import { addOutside, OUTSIDE } from '../support/traffic.ts';

describe('nerdctl runs containers', () => {
  test('on its default network, published, and leaves nothing of them', async () => {
    await using scene = await openContainerd('2');
    const { host, nerdctl } = scene;
    await expectPublished({ host, client: nerdctl, gateway: '10.4.0.1', remove: ['rm', '-f'] });
  });

  test('and refuses a port that is taken, naming who has it', async () => {
    await using scene = await openContainerd('2');
    const { host, nerdctl, attemptNerdctl, crictl } = scene;
    await nerdctl('run', '-d', '--name', 'first', '--hostname', 'first', '-p', '8080:80', IMAGE);
    await fetchSoon(host, 'http://127.0.0.1:8080/');
    // A pod of Kubernetes on the same network: nerdctl knows its own ports, we know everybody's.
    const pod = await runPod(host, crictl, {
      name: 'pod',
      port_mappings: [{ container_port: 80, host_port: 8081 }],
    });
    const before = await attachments(host);

    const own = await attemptNerdctl('run', '-d', '--name', 'second', '-p', '8080:80', IMAGE);
    expect([own.exitCode, own.stderr]).toEqual([1, expect.stringContaining('port is already allocated')]);
    const theirs = await attemptNerdctl('run', '-d', '--name', 'third', '-p', '8081:80', IMAGE);
    expect(theirs.exitCode).toBe(1);
    expect(theirs.stderr).toContain('Cannot publish tcp port 8081 (IPv4)');
    expect(theirs.stderr).toContain(`net: bridge, if: eth0, id: ${pod.slice(0, 40)}`);

    await nerdctl('rm', '-f', 'third');
    expect(await attachments(host)).toEqual(before);
    expect(await fetchFrom(host, 'http://127.0.0.1:8080/')).toBe('first');
  });

  test('with ports that it picks itself, none twice, and sets them up anew when they restart', async () => {
    await using scene = await openContainerd('2');
    const { host, nerdctl } = scene;
    const ports: string[] = [];
    for (const name of ['one', 'two']) {
      await nerdctl('run', '-d', '--name', name, '--hostname', name, '-p', '80', IMAGE);
      const [, port = ''] = /80\/tcp -> 0\.0\.0\.0:(\d+)/.exec(await nerdctl('port', name)) ?? [];
      expect(await fetchSoon(host, `http://127.0.0.1:${port}/`)).toBe(name);
      ports.push(port);
    }
    expect(new Set(ports).size).toBe(2);
    await nerdctl('restart', '-t', '1', 'one');
    expect(await fetchSoon(host, `http://127.0.0.1:${ports[0]}/`)).toBe('one');

    await nerdctl('rm', '-f', 'one', 'two');
    expect(await attachments(host)).toEqual([]);
  });

  test('on two networks at once, with addresses and a MAC asked for', async () => {
    await using scene = await openContainerd('2');
    const { host, nerdctl } = scene;
    await nerdctl('network', 'create', '--subnet', '10.91.0.0/24', 'one');
    await nerdctl('network', 'create', '--subnet', '10.92.0.0/24', 'two');
    const both = ['--network', 'one', '--network', 'two', '-p', '8080:80'];
    await nerdctl('run', '-d', '--name', 'web', '--hostname', 'web', ...both, IMAGE);
    expect(await fetchSoon(host, 'http://127.0.0.1:8080/')).toBe('web');
    const addresses = await nerdctl('exec', 'web', 'ip', '-4', 'addr');
    for (const subnet of ['10.91.0', '10.92.0']) {
      const [address = ''] = new RegExp(`${subnet}\\.\\d+`).exec(addresses) ?? [];
      expect(await fetchFrom(host, `http://${address}/`), subnet).toBe('web');
    }
    const wanted = ['--network', 'one', '--ip', '10.91.0.99', '--mac-address', '02:00:5e:00:53:0a'];
    await nerdctl('run', '-d', '--name', 'fixed', '--hostname', 'fixed', ...wanted, IMAGE);
    expect(await fetchSoon(host, 'http://10.91.0.99/')).toBe('fixed');
    expect(await nerdctl('exec', 'fixed', 'cat', '/sys/class/net/eth0/address')).toBe('02:00:5e:00:53:0a');

    await nerdctl('rm', '-f', 'web', 'fixed');
    expect(await attachments(host)).toEqual([]);
    await nerdctl('network', 'rm', 'one', 'two');
  });

  test('on a network that somebody else wrote, of patchbay alone', async () => {
    await using scene = await openContainerd('2');
    const { host, nerdctl } = scene;
    const outside = await addOutside(host);
    installNetwork(host, readNetwork('patchbay.conflist'), '1.0.0');
    const run = ['run', '-d', '--name', 'web', '--hostname', 'web', '--network', 'whole', '-p', '8080:80'];
    await nerdctl(...run, IMAGE);
    await nerdctl('rm', '-f', 'web');
    const before = await host.snapshot();

    await nerdctl(...run, IMAGE);
    expect(await fetchSoon(host, 'http://127.0.0.1:8080/')).toBe('web');
    expect(await fetchFrom(outside, `http://${OUTSIDE.host4}:8080/`)).toBe('web');
    // nerdctl asks for the port on 0.0.0.0.
    const [address6 = ''] = /fd00:95::[0-9a-f]+/.exec(await nerdctl('exec', 'web', 'ip', 'addr')) ?? [];
    expect(await fetchFrom(host, `http://[${address6}]/`)).toBe('web');
    await nerdctl('exec', 'web', 'ping', '-c', '1', '-W', '3', OUTSIDE.outside4);
    await nerdctl('restart', '-t', '1', 'web');
    expect(await fetchSoon(host, 'http://127.0.0.1:8080/')).toBe('web');

    await nerdctl('rm', '-f', 'web');
    expect(await attachments(host)).toEqual([]);
    expect(traces(before, await host.snapshot())).toEqual([]);
  });

  test('on a network of two families', async () => {
    await using scene = await openContainerd('2');
    const { host, nerdctl } = scene;
    const outside = await addOutside(host);
    const subnets = ['--ipv6', '--subnet', '10.93.0.0/24', '--subnet', 'fd00:93::/64'];
    await nerdctl('network', 'create', ...subnets, 'dual');
    await nerdctl(
      'run',
      '-d',
      '--name',
      'web',
      '--hostname',
      'web',
      '--network',
      'dual',
      '-p',
      '8080:80',
      IMAGE,
    );
    expect(await fetchSoon(host, 'http://127.0.0.1:8080/')).toBe('web');
    expect(await fetchFrom(outside, `http://${OUTSIDE.host4}:8080/`)).toBe('web');
    const [address6 = ''] = /fd00:93::[0-9a-f]+/.exec(await nerdctl('exec', 'web', 'ip', 'addr')) ?? [];
    expect(await fetchFrom(host, `http://[${address6}]/`)).toBe('web');

    await nerdctl('rm', '-f', 'web');
    expect(await attachments(host)).toEqual([]);
  });

  test('that may not talk to each other with icc=false, though to those who come by a published port', async () => {
    await using scene = await openContainerd('2');
    const { host, nerdctl } = scene;
    await nerdctl('network', 'create', '--subnet', '10.94.0.0/24', '-o', 'icc=false', 'shy');
    const addresses: string[] = [];
    for (const name of ['one', 'two']) {
      const port = name === 'one' ? ['-p', '8080:80'] : [];
      await nerdctl('run', '-d', '--name', name, '--hostname', name, '--network', 'shy', ...port, IMAGE);
      const [address = ''] = /10\.94\.0\.\d+/.exec(await nerdctl('exec', name, 'ip', 'addr')) ?? [];
      expect(await fetchSoon(host, `http://${address}/`)).toBe(name);
      addresses.push(address);
    }
    expect(await reaches('two', addresses[0] ?? '', nerdctl)).toBe(false);
    expect(await reaches('one', addresses[1] ?? '', nerdctl)).toBe(false);
    expect(await fetchFrom(host, 'http://127.0.0.1:8080/')).toBe('one');

    await nerdctl('rm', '-f', 'one', 'two');
    expect(await attachments(host)).toEqual([]);
  });

  test('on an internal network, which has no way out', async () => {
    await using scene = await openContainerd('2');
    const { host, nerdctl } = scene;
    await addOutside(host);
    await nerdctl('network', 'create', '--internal', '--subnet', '10.95.0.0/24', 'inner');
    for (const [name, ip] of [
      ['one', '10.95.0.11'],
      ['two', '10.95.0.12'],
    ] as const) {
      await nerdctl('run', '-d', '--name', name, '--network', 'inner', '--ip', ip, IMAGE);
    }
    expect(await reaches('one', '10.95.0.12', nerdctl)).toBe(true);
    expect(await reaches('one', OUTSIDE.outside4, nerdctl)).toBe(false);

    await nerdctl('rm', '-f', 'one', 'two');
    expect(await attachments(host)).toEqual([]);
  });

  test('again after everything on the host was killed', async () => {
    await using scene = await openContainerd('2');
    const { host, nerdctl, start } = scene;
    await nerdctl('run', '-d', '--name', 'web', '--hostname', 'web', '-p', '8080:80', IMAGE);
    expect(await fetchSoon(host, 'http://127.0.0.1:8080/')).toBe('web');
    await host.killAll('containerd', 'containerd-shim-runc-v2', 'serve', 'httpd', 'nerdctl');
    expect(await fetchFrom(host, 'http://127.0.0.1:8080/')).toBe('');

    await start();
    await nerdctl('start', 'web');
    expect(await fetchSoon(host, 'http://127.0.0.1:8080/')).toBe('web');
    await nerdctl('rm', '-f', 'web');
    expect(await attachments(host)).toEqual([]);
  });

  test('five at a time, as a composition does', async () => {
    await using scene = await openContainerd('2');
    const { host, nerdctl } = scene;
    await nerdctl('network', 'create', '--subnet', '10.96.0.0/24', 'app');
    const names = ['one', 'two', 'three', 'four', 'five'];
    await Promise.all(
      names.map((name, i) =>
        nerdctl(
          'run',
          '-d',
          '--name',
          name,
          '--hostname',
          name,
          '--network',
          'app',
          '-p',
          `${8001 + i}:80`,
          IMAGE,
        ),
      ),
    );
    const answers = await Promise.all(names.map((_, i) => fetchSoon(host, `http://127.0.0.1:${8001 + i}/`)));
    expect(answers).toEqual(names);
    await Promise.all(names.map((name) => nerdctl('rm', '-f', name)));
    expect(await attachments(host)).toEqual([]);
  });
});

async function reaches(name: string, address: string, nerdctl: Containerd['nerdctl']): Promise<boolean> {
  return nerdctl('exec', name, 'ping', '-c', '1', '-W', '1', address).then(
    () => true,
    () => false,
  );
}
