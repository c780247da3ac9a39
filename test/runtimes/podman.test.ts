// podman 4 with its CNI backend, on our executables alone: default and own networks, addresses, ports, isolation.
// Part of `npm run test:runtimes`.
import { describe, expect, test } from 'vitest';
import { openPodman, type Podman } from '../support/podman.ts';
import { expectPublished } from '../support/published-container.ts';
import { attachments, fetchFrom, fetchSoon } from '../support/runtime-host.ts';
import { IMAGE } from '../support/runtime-image.ts';
import { addOutside, OUTSIDE } from '../support/traffic.ts';

describe('podman runs containers', () => {
  test('on its default network, published, and leaves nothing of them', async () => {
    await using scene = await openPodman();
    const { host, podman } = scene;
    await expectPublished({ host, client: podman, gateway: '10.88.0.1', remove: ['rm', '-f', '-t', '0'] });
  });

  test('on a network of two families, with addresses and a MAC asked for', async () => {
    await using scene = await openPodman();
    const { host, podman } = scene;
    const subnets = ['--subnet', '10.81.0.0/24', '--ipv6', '--subnet', 'fd00:81::/64'];
    await podman('network', 'create', ...subnets, '-o', 'mtu=1400', 'dual');
    const wanted = ['--ip', '10.81.0.77', '--ip6', 'fd00:81::77', '--mac-address', '02:00:5e:00:53:09'];
    await podman(
      'run',
      '-d',
      '--name',
      'web',
      '--hostname',
      'web',
      '--network',
      'dual',
      ...wanted,
      '-p',
      '80:80',
      IMAGE,
    );
    for (const address of ['10.81.0.77', '[fd00:81::77]', '127.0.0.1', '[fd00:81::1]']) {
      expect(await fetchSoon(host, `http://${address}/`), address).toBe('web');
    }
    const link = await podman('exec', 'web', 'ip', 'link', 'show', 'eth0');
    expect(link).toContain('mtu 1400');
    expect(link).toContain('02:00:5e:00:53:09');

    await podman('rm', '-f', '-t', '0', 'web');
    expect(await attachments(host)).toEqual([]);
    await podman('network', 'rm', 'dual');
  });

  test('and takes them from network to network, and sets them up anew, while they run', async () => {
    await using scene = await openPodman();
    const { host, podman } = scene;
    await podman('network', 'create', '--subnet', '10.82.0.0/24', 'one');
    await podman('network', 'create', '--subnet', '10.83.0.0/24', 'two');
    await podman(
      'run',
      '-d',
      '--name',
      'web',
      '--hostname',
      'web',
      '--network',
      'one',
      '-p',
      '8080:80',
      IMAGE,
    );
    const first = await addressOf('web', 'one', podman);
    expect(await fetchSoon(host, `http://${first}/`)).toBe('web');
    const attached = await attachments(host);

    await podman('network', 'connect', '--ip', '10.83.0.9', 'two', 'web');
    expect(await fetchFrom(host, 'http://10.83.0.9/')).toBe('web');
    expect(await fetchFrom(host, 'http://127.0.0.1:8080/')).toBe('web');
    await podman('network', 'disconnect', 'two', 'web');
    expect(await fetchFrom(host, 'http://10.83.0.9/')).toBe('');
    expect(await attachments(host)).toEqual(attached);

    const mac = await podman('exec', 'web', 'cat', '/sys/class/net/eth0/address');
    await podman('network', 'reload', 'web');
    expect(await podman('exec', 'web', 'cat', '/sys/class/net/eth0/address')).toBe(mac);
    expect(await fetchFrom(host, 'http://127.0.0.1:8080/')).toBe('web');

    await podman('rm', '-f', '-t', '0', 'web');
    expect(await attachments(host)).toEqual([]);
  });

  test('isolated from other networks, not from their neighbours nor from whom they publish to', async () => {
    await using scene = await openPodman();
    const { host, podman } = scene;
    await podman('network', 'create', '--subnet', '10.84.0.0/24', '-o', 'isolate=true', 'blue');
    await podman('network', 'create', '--subnet', '10.85.0.0/24', '-o', 'isolate=true', 'red');
    for (const [name, network, ip] of [
      ['b1', 'blue', '10.84.0.11'],
      ['b2', 'blue', '10.84.0.12'],
      ['r1', 'red', '10.85.0.11'],
    ] as const) {
      const port = name === 'b1' ? ['-p', '8080:80'] : [];
      await podman(
        'run',
        '-d',
        '--name',
        name,
        '--hostname',
        name,
        '--network',
        network,
        '--ip',
        ip,
        ...port,
        IMAGE,
      );
      expect(await fetchSoon(host, `http://${ip}/`)).toBe(name);
    }
    expect(await reaches('b2', '10.84.0.11', podman)).toBe(true);
    expect(await reaches('r1', '10.84.0.11', podman)).toBe(false);
    expect(await reaches('b1', '10.85.0.11', podman)).toBe(false);
    expect(await fetchFrom(host, 'http://127.0.0.1:8080/')).toBe('b1');

    await podman('rm', '-f', '-t', '0', 'b1', 'b2', 'r1');
    expect(await attachments(host)).toEqual([]);
  });

  test('that publish a range of fifty ports, each of which answers', async () => {
    await using scene = await openPodman();
    const { host, podman } = scene;
    const ports = '20000-20049';
    const serve = 'for p in $(seq 20000 20049); do echo $p > /www/$p; httpd -p $p -h /www; done; sleep 1000';
    await podman('run', '-d', '--name', 'many', '-p', `${ports}:${ports}`, IMAGE, 'sh', '-c', serve);
    await fetchSoon(host, 'http://127.0.0.1:20049/20049');
    const urls = Array.from({ length: 50 }, (_, i) => `http://127.0.0.1:${20000 + i}/${20000 + i}`);
    const answers = await fetchFrom(host, ...urls);
    expect(answers.split('\n')).toEqual(Array.from({ length: 50 }, (_, i) => `${20000 + i}`));

    await podman('rm', '-f', '-t', '0', 'many');
    expect(await attachments(host)).toEqual([]);
  });

  test('on an internal network, which has no way out', async () => {
    await using scene = await openPodman();
    const { host, podman } = scene;
    await addOutside(host);
    await podman('network', 'create', '--internal', '--subnet', '10.86.0.0/24', 'inner');
    for (const [name, ip] of [
      ['one', '10.86.0.11'],
      ['two', '10.86.0.12'],
    ] as const) {
      await podman('run', '-d', '--name', name, '--hostname', name, '--network', 'inner', '--ip', ip, IMAGE);
    }
    expect(await reaches('one', '10.86.0.12', podman)).toBe(true);
    expect(await reaches('one', OUTSIDE.outside4, podman)).toBe(false);
    expect(await podman('exec', 'one', 'ip', 'route')).not.toContain('default');

    await podman('rm', '-f', '-t', '0', 'one', 'two');
    expect(await attachments(host)).toEqual([]);
  });
});

async function addressOf(name: string, network: string, podman: Podman['podman']): Promise<string> {
  const format = `{{(index .NetworkSettings.Networks "${network}").IPAddress}}`;
  return podman('inspect', '-f', format, name);
}

async function reaches(name: string, address: string, podman: Podman['podman']): Promise<boolean> {
  return podman('exec', name, 'ping', '-c', '1', '-W', '1', address).then(
    () => true,
    () => false,
  );
}
