// The image that installs the plugins on a node, and the manifest that has Kubernetes run it everywhere: built by podman on
// a private host without a registry, read by kubectl without a cluster. Part of `npm run test:runtimes`.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { writeArchive } from '../../build/archive.ts';
import { hostTarget } from '../../build/target.ts';
import { listPlugins } from '../../plugins/registry.ts';
import { openPodman, type Podman } from '../support/podman.ts';
import { DISK } from '../support/runtime-host.ts';
import { IMAGE } from '../support/runtime-image.ts';

const ROOT = join(import.meta.dirname, '../..');
const MANIFEST = join(ROOT, 'deploy/kubernetes/daemonset.yaml');
const VERSION = '9.8.7';
const NODE_DIRECTORY = `${DISK}/node/opt/cni/bin`;

describe('The image', () => {
  test('installs the plugins on a node, again and over others, and says when there is nothing to do', async () => {
    await using scene = await openPodman();
    const { host } = scene;
    await buildImage(scene);
    const node = host.file(NODE_DIRECTORY);
    mkdirSync(node, { recursive: true });
    writeFileSync(join(node, 'bridge'), 'an older one', { mode: 0o755 });
    writeFileSync(join(node, 'flannel'), 'somebody else', { mode: 0o755 });
    mkdirSync(join(node, '.patchbay-image-7'));
    writeFileSync(join(node, '.patchbay-image-7/bridge'), 'half of one that was killed');

    expect((await runImage(scene)).split('\n').sort()).toEqual(
      listPlugins()
        .map((name) => `/host/opt/cni/bin/${name}`)
        .sort(),
    );
    expect(readdirSync(node).sort()).toEqual([...listPlugins(), 'flannel'].sort());
    expect(readFileSync(join(node, 'flannel'), 'utf8')).toBe('somebody else');
    expect(new Set(listPlugins().map((name) => statSync(join(node, name)).ino)).size).toBe(1);
    expect(statSync(join(node, 'bridge')).mode & 0o7777).toBe(0o755);
    const { stderr } = await host.attempt(`${NODE_DIRECTORY}/bridge`, []);
    expect(stderr).toContain('CNI bridge plugin v');

    const first = statSync(join(node, 'bridge')).ino;
    expect(await runImage(scene)).toBe('The plugins in /host/opt/cni/bin are up to date');
    await host.run('rm', [`${NODE_DIRECTORY}/portmap`]);
    expect(await runImage(scene)).toContain('/host/opt/cni/bin/portmap');
    expect(statSync(join(node, 'portmap')).ino).not.toBe(first);
  });
});

describe('The manifest', () => {
  test('has no field that Kubernetes does not know, and takes the image that is set', () => {
    // One command reads the objects with their types and drops what these lack, the other takes them as they are.
    const set = ['set', 'image', '--local', '--filename', MANIFEST, 'install=example.org/patchbay:v1'];
    const typed = kubectl([...set, '--output', 'json']);
    const plain = kubectl(['annotate', '--local', '--filename', MANIFEST, 'a=b', '--output', 'json']);
    expect(JSON.stringify(typed)).toContain('"image":"example.org/patchbay:v1"');
    const known = new Set(pathsOf(typed));
    const given = pathsOf(plain).filter((path) => !path.startsWith('.metadata.annotations'));
    expect(given.length).toBeGreaterThan(30);
    expect(given.filter((path) => !known.has(path))).toEqual([]);
  });
});

async function buildImage({ host, podman }: Podman): Promise<void> {
  const context = host.file(`${DISK}/release`);
  mkdirSync(context);
  writeArchive({ target: hostTarget(), version: VERSION, epoch: 0, to: context, level: 1 });
  for (const file of ['deploy/image/Containerfile', 'deploy/image/install.sh']) {
    copyFileSync(join(ROOT, file), join(context, basename(file)));
  }
  const args = [`BASE=${IMAGE}`, `VERSION=${VERSION}`, `TARGETARCH=${hostTarget().debian}`];
  const options = args.flatMap((arg) => ['--build-arg', arg]);
  await podman(
    'build',
    '--quiet',
    '--pull=never',
    '--tag',
    'localhost/patchbay:test',
    ...options,
    `${DISK}/release`,
  );
}

/** As the manifest has it run: nothing may be written but the directory, and no capability is there. */
async function runImage({ podman }: Podman): Promise<string> {
  const rights = ['--read-only', '--cap-drop=all', '--security-opt=no-new-privileges', '--network=none'];
  const mount = `${NODE_DIRECTORY}:/host/opt/cni/bin`;
  return podman('run', '--rm', ...rights, '--volume', mount, 'localhost/patchbay:test');
}

function kubectl(args: readonly string[]): unknown {
  return JSON.parse(
    execFileSync('kubectl', args, { encoding: 'utf8', env: { ...process.env, KUBECONFIG: '/dev/null' } }),
  );
}

/** Where the values of an object are: `.spec.template.spec.hostNetwork`. */
function pathsOf(value: unknown, at = ''): string[] {
  if (typeof value !== 'object' || value === null) return [at];
  return Object.entries(value).flatMap(([key, inner]) => pathsOf(inner, `${at}.${key}`));
}
