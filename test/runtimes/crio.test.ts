// CRI-O's half that calls CNI plugins, its library ocicni, on our executables alone, with the calls CRI-O makes of it:
// STATUS and GC when it starts, ADD and a CHECK at once for a pod, DEL when the pod stops. Part of `npm run test:runtimes`.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { clientDirectory } from '../../build/tools.ts';
import { usualPlugins } from '../support/network-list.ts';
import { expectDone, expectRefused, type Finished } from '../support/place.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import { attachments, openRuntimeHost } from '../support/runtime-host.ts';
import { onAllTransports, serve, whoAnswers } from '../support/service.ts';
import { difference } from '../support/snapshot.ts';

const PLUGINS = usualPlugins(['10.98.0.0/24', 'fd00:98::/64'], {
  sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' },
});

test.each(['0.4.0', '1.0.0', '1.1.0'])(
  'CRI-O runs pods on a network at %s, and starts over',
  async (cniVersion) => {
    await using host = await openRuntimeHost();
    const list = { cniVersion, name: 'pods', plugins: PLUGINS };
    writeFileSync(host.file('/etc/cni/net.d/10-pods.conflist'), JSON.stringify(list));
    const sandboxes = await Promise.all(['one', 'two'].map((name) => host.addSandbox(name)));
    const [one, two] = sandboxes.map(podOf);
    for (const sandbox of sandboxes) await serve(sandbox, onAllTransports(80));
    expectDone(await ocicni(host, 'start', []));
    expectDone(await ocicni(host, 'run', [one]));
    expectDone(await ocicni(host, 'stop', [one]));
    const before = await host.snapshot();

    const printed = expectDone(await ocicni(host, 'run', [one, two])).stdout;
    expect(printed).toContain('10.98.0.');
    expect(printed).toContain('fd00:98::');
    expect(await whoAnswers(host, 'tcp4', '127.0.0.1', 8001)).toBe('one');
    expect(await whoAnswers(host, 'tcp4', '127.0.0.1', 8002)).toBe('two');

    // It starts anew and knows of one pod only: the other was lost while it was away.
    expectDone(await ocicni(host, 'start', [one]));
    expect(await whoAnswers(host, 'tcp4', '127.0.0.1', 8001)).toBe('one');
    expect(await whoAnswers(host, 'tcp4', '127.0.0.1', 8002)).toBe('');
    expect(expectRefused(await ocicni(host, 'run', [one]))).not.toBe('');
    expect(await whoAnswers(host, 'tcp4', '127.0.0.1', 8001)).toBe('one');

    expectDone(await ocicni(host, 'stop', [one]));
    expectDone(await ocicni(host, 'stop', [one, two]));
    expect((await attachments(host)).filter((line) => !line.includes('/run/netns/'))).toEqual([]);
    expect(difference(before, await host.snapshot())).toEqual([]);
  },
);

function podOf({ name, path }: Sandbox): object {
  const id = Buffer.from(name.padEnd(32, '0')).toString('hex');
  const port = { hostPort: name === 'one' ? 8001 : 8002, containerPort: 80, protocol: 'tcp', hostIP: '' };
  return {
    Name: name,
    Namespace: 'default',
    ID: id,
    UID: `uid-${name}`,
    NetNS: path,
    RuntimeConfig: { pods: { PortMappings: [port] } },
  };
}

function ocicni(
  host: PrivateHost,
  verb: 'start' | 'run' | 'stop',
  pods: readonly unknown[],
): Promise<Finished> {
  const program = join(clientDirectory(), 'ocicni');
  const args = [verb, '/etc/cni/net.d', '/opt/cni/bin', '/var/lib/cni'];
  return host.attempt(program, args, { input: JSON.stringify(pods) });
}
