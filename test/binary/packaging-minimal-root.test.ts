// Says that the executables run on the smallest Debian there is, where they must find every library they need, and
// that the README names just those libraries.
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { arch } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { listPlugins } from '../../plugins/registry.ts';
import { makeMinimalRoot } from '../support/minimal-root.ts';
import { pluginDirectory } from '../support/run-plugin.ts';

const ROOT = join(import.meta.dirname, '../..');
const MINUTES = 60_000; // milliseconds

let root: string;
beforeAll(() => {
  root = makeMinimalRoot();
  mkdirSync(join(root, 'opt/cni/bin'), { recursive: true });
  for (const name of listPlugins())
    copyFileSync(join(pluginDirectory(), name), join(root, 'opt/cni/bin', name));
}, 10 * MINUTES);
afterAll(() => rmSync(join(root, 'opt/cni/bin'), { recursive: true }));

describe('In a minimal Debian', () => {
  test('no library is missing', () => {
    const { stdout } = runInside('ldd /opt/cni/bin/bridge');
    expect(stdout).toContain('libc.so.6 => /');
    expect(stdout).not.toContain('not found');
  });

  test.each([...listPlugins()])('%s says who it is', (name) => {
    const { status, stderr } = runInside(`/opt/cni/bin/${name}`);
    expect(stderr).toContain(`CNI ${name} plugin v`);
    expect(status).toBe(0);
  });

  test('a container gets an interface, and loses it again', () => {
    const { status, stdout, stderr } = runInside(LIFE);
    expect(stderr).toBe('');
    const parts = stdout.split(/^--$/m).map((part) => part.trim());
    expect(parts).toEqual([
      expect.stringContaining('"10.22.0.2/24"'),
      expect.stringMatching(/^lo\nminimal0\nveth[0-9a-f]{11}$/),
      'lo\neth0',
      '',
      'lo',
    ]);
    expect(status).toBe(0);
  });
});

describe('The README', () => {
  test('names just the libraries that the loader looks for', () => {
    const readme = readFileSync(join(ROOT, 'README.md'), 'utf8');
    const section = /<!-- libraries -->([\s\S]*?)<!-- \/libraries -->/.exec(readme)?.[1] ?? '';
    const named = [...section.matchAll(/`((?:lib|ld-)[^`]+\.so[^`]*)`/g)].map((match) => match[1] ?? '');
    const needed = execFileSync('readelf', ['--dynamic', '--wide', join(pluginDirectory(), 'bridge')], {
      encoding: 'utf8',
    });
    const asked = [...needed.matchAll(/\(NEEDED\).*\[(.+)\]/g)].map((match) => match[1] ?? '');
    const foreign = arch() === 'x64' ? 'ld-linux-aarch64.so.1' : 'ld-linux-x86-64.so.2';
    expect(named.filter((name) => name !== foreign).sort()).toEqual(asked.sort());
  });
});

// The life of an attachment with nothing but the shell, util-linux and /sys, which is what a minimal Debian has.
const LIFE = `
  set -e
  touch /run/sandbox
  unshare --net=/run/sandbox true
  export CNI_CONTAINERID=c1 CNI_NETNS=/run/sandbox CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin
  config='{"cniVersion": "1.1.0", "name": "n1", "type": "bridge", "bridge": "minimal0", "isDefaultGateway": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.22.0.0/24"}]]}}'
  echo "$config" | CNI_COMMAND=ADD /opt/cni/bin/bridge
  echo; echo --
  list() { nsenter --net=$1 sh -c 'cat /proc/net/dev' | sed -n 's/^ *\\([a-z0-9]*\\):.*/\\1/p'; }
  list /proc/self/ns/net | grep -v sit0
  echo --
  list /run/sandbox
  echo --
  echo "$config" | CNI_COMMAND=DEL /opt/cni/bin/bridge
  echo --
  list /run/sandbox
`;

/** Runs a script with the minimal root as /, in namespaces of its own that end with it. */
function runInside(script: string): { status: number | null; stdout: string; stderr: string } {
  const entering = `
    mount --rbind "$0" "$0"
    mount -t proc none "$0/proc"
    mount -t tmpfs none "$0/run"
    mount -t tmpfs none "$0/var/lib"
    exec chroot "$0" /bin/sh -c "$1"
  `;
  const { status, stdout, stderr } = spawnSync(
    'unshare',
    ['--net', '--mount', '--pid', '--fork', '--kill-child', 'sh', '-ec', entering, root, script],
    { env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' }, encoding: 'utf8' },
  );
  return { status, stdout, stderr };
}
