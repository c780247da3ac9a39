// Says that what a release is made of is what operators expect: archives like the reference's, checksums, Debian packages
// that come and go, a valid list of components; all of it made of the executables at hand. `npm run release` does the rest.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { archiveName, sha256, writeArchive, writeSums } from '../../build/archive.ts';
import { DEBIAN_PREFIXES, type DebianPrefix, writeDebianPackage } from '../../build/debian-package.ts';
import { findExecutables } from '../../build/install.ts';
import { readReport } from '../../build/package.ts';
import { type Bom, expectValid, makeSbom } from '../../build/sbom.ts';
import { smokeTest } from '../../build/smoke-test.ts';
import { hostTarget } from '../../build/target.ts';
import { listPlugins } from '../../plugins/registry.ts';
import { makeMinimalRoot } from '../support/minimal-root.ts';
import { pluginDirectory } from '../support/run-plugin.ts';

const ROOT = join(import.meta.dirname, '../..');
const MINUTES = 60_000; // milliseconds
const EPOCH = 1_700_000_000; // 2023-11-14 22:13:20 UTC
const made = { target: hostTarget(), version: '9.8.7', epoch: EPOCH, level: 1, compression: 'fast' } as const;

let directory: string;
let archive: string;
let sbom: string;
beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'patchbay-release-'));
  sbom = await makeSbom(made);
  archive = writeArchive({ ...made, to: directory });
}, 5 * MINUTES);
afterAll(() => rmSync(directory, { recursive: true }));

describe('The archive', () => {
  test('has the layout of the reference plugins: every name at the top level, below "./"', () => {
    expect(basename(archive)).toBe(`patchbay-linux-${hostTarget().debian}-v9.8.7.tgz`);
    const names = execFileSync('tar', ['-tzf', archive], { encoding: 'utf8' }).trim().split('\n');
    const files = ['LICENSE', 'README.md', 'third-party-licenses.txt', ...listPlugins()];
    expect(names[0]).toBe('./');
    expect(names.slice(1).sort()).toEqual(files.map((name) => `./${name}`).sort());
  });

  test('holds one file and a hard link for each other name, all of them root’s and of one time', () => {
    const options = ['--numeric-owner', '--full-time', '--utc'];
    const listed = execFileSync('tar', ['-tvzf', archive, ...options], { encoding: 'utf8' });
    const lines = listed.trim().split('\n');
    expect(lines.filter((line) => line.startsWith('h')).length).toBe(listPlugins().length - 1);
    expect(
      lines.filter((line) => line.startsWith('hrwxr-xr-x') || line.startsWith('-rwxr-xr-x')).length,
    ).toBe(listPlugins().length);
    expect(lines.filter((line) => !/^\S+ 0\/0 +\d+ 2023-11-14 22:13:20 /.test(line))).toEqual([]);
  });

  test('is the same when it is made again at another time, in another directory, under another umask', () => {
    const other = join(directory, 'a/directory/of/a/longer/name');
    mkdirSync(other, { recursive: true });
    const before = process.umask(0o077);
    const again = writeArchive({ ...made, to: other });
    process.umask(before);
    expect(sha256(again)).toBe(sha256(archive));
  });

  test('unpacks to executables that work, and that can be installed', () => {
    const unpacked = join(directory, 'unpacked');
    mkdirSync(unpacked);
    execFileSync('tar', ['-xzf', archive, '-C', unpacked]);
    smokeTest(hostTarget(), unpacked);
    const prefix = join(directory, 'opt/cni/bin');
    const options = ['--from', unpacked, '--prefix', prefix];
    const { stdout, stderr } = spawnSync(
      process.execPath,
      ['--disable-warning=ExperimentalWarning', join(ROOT, 'build/install.ts'), ...options],
      { encoding: 'utf8' },
    );
    expect(stderr).toBe('');
    expect(stdout).toContain(`Installed in ${prefix}: ${[...listPlugins()].sort().join(', ')}`);
    expect(readdirSync(prefix).filter((name) => !name.startsWith('.'))).toEqual([...listPlugins()].sort());
    expect(new Set(listPlugins().map((name) => statSync(join(prefix, name)).ino)).size).toBe(1);
  });

  test('is not taken for one where names lead to different files, or to none', () => {
    const mixed = join(directory, 'mixed');
    mkdirSync(mixed);
    expect(() => findExecutables(mixed)).toThrow('There are 0 executables in');
    for (const name of ['bridge', 'portmap']) writeFileSync(join(mixed, name), name, { mode: 0o755 });
    expect(() => findExecutables(mixed)).toThrow('There are 2 executables in');
  });

  test('is checked by sha256sum, which notices a changed byte', () => {
    writeSums(directory, [archive]);
    const check = () =>
      spawnSync('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: directory }).status;
    expect(check()).toBe(0);
    const copy = join(directory, 'sums');
    mkdirSync(copy);
    copyFileSync(join(directory, 'SHA256SUMS'), join(copy, 'SHA256SUMS'));
    writeFileSync(join(copy, archiveName(hostTarget(), '9.8.7')), 'something else');
    const { status } = spawnSync('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: copy });
    expect(status).toBe(1);
  });

  test('carries the licence of Node and of every package in the bundle', () => {
    const notices = execFileSync('tar', ['-xzOf', archive, './third-party-licenses.txt'], {
      encoding: 'utf8',
    });
    for (const name of [`node-linux-${hostTarget().arch}`, ...(readReport()?.packages ?? [])]) {
      expect(notices.split('\n')).toContain(name);
    }
    expect(notices).toContain('Node.js is licensed for use as follows');
  });
});

describe('The list of components', () => {
  test('names the executable, the packages of the bundle, Node, and what Node is made of', async () => {
    const { metadata, components } = JSON.parse(sbom) as Bom;
    expect(metadata.timestamp).toBe('2023-11-14T22:13:20.000Z');
    expect(metadata.component).toMatchObject({
      name: 'patchbay',
      version: '9.8.7',
      hashes: [{ alg: 'SHA-256', content: sha256(join(pluginDirectory(), 'bridge')) }],
    });
    const names = components.map(({ group, name }) => (group === undefined ? name : `${group}/${name}`));
    const packages = readReport()?.packages.map((path) => path.replace(/^.*node_modules\//, '')) ?? [];
    expect(names).toEqual(expect.arrayContaining(['node', ...packages]));
    const node = components.find(({ name }) => name === 'node');
    expect(node?.version).toBe(process.versions.node);
    const libraries = new Map(node?.components?.map(({ name, version }) => [name, version]));
    for (const name of ['openssl', 'uv', 'v8', 'zlib'] as const) {
      expect(libraries.get(name)).toBe(process.versions[name]);
    }
    expect(await makeSbom(made)).toBe(sbom);
  });

  test('is held against the schema of its specification', async () => {
    await expect(expectValid(sbom.replace('"type": "platform"', '"type": "palace"'))).rejects.toThrow(
      'one of the allowed values',
    );
  });
});

describe.each(Object.entries(DEBIAN_PREFIXES) as [DebianPrefix, string][])(
  'The Debian package for %s',
  (prefix, name) => {
    let path: string;
    beforeAll(() => {
      path = writeDebianPackage({ ...made, prefix, to: directory });
    }, 5 * MINUTES);

    test('holds the executables as hard links of root, and the licences', () => {
      const listed = execFileSync('dpkg-deb', ['--contents', path], { encoding: 'utf8' }).trim().split('\n');
      const lines = listed.filter((line) => line.includes(` .${prefix}/`) && !line.startsWith('d'));
      expect(lines.length).toBe(listPlugins().length);
      expect(lines.filter((line) => line.startsWith('hrwxr-xr-x root/root')).length).toBe(lines.length - 1);
      expect(listed.some((line) => line.endsWith(`./usr/share/doc/${name}/copyright`))).toBe(true);
    });

    test('asks for libraries as old as the executables do with', () => {
      const fields = ['Package', 'Version', 'Architecture', 'Depends'];
      const control = execFileSync('dpkg-deb', ['--field', path, ...fields], { encoding: 'utf8' });
      expect(control).toContain(`Package: ${name}\nVersion: 9.8.7\nArchitecture: ${hostTarget().debian}\n`);
      const needed = execFileSync('readelf', ['-VW', join(pluginDirectory(), 'bridge')], {
        encoding: 'utf8',
      });
      const newest = (symbol: string) => {
        const found = [...needed.matchAll(new RegExp(`\\b${symbol}_([0-9.]+)`, 'g'))].map(
          (match) => match[1],
        );
        return found.sort((a = '', b = '') => a.localeCompare(b, 'en', { numeric: true })).at(-1);
      };
      expect(control).toContain(`libc6 (>= ${newest('GLIBC')})`);
      // CXXABI_1.3.11 came with GCC 7, GCC_4.2.0 with 4.2.
      expect([newest('CXXABI'), newest('GCC')]).toEqual(['1.3.11', '4.2.0']);
      expect(control).toContain('libstdc++6 (>= 7)');
      expect(control).toContain('libgcc-s1 (>= 4.2)');
    });

    test('takes the place of other plugins, is never missing meanwhile, and gives the place back', () => {
      const { status, stdout, stderr } = runInRoot(comeAndGo(prefix, name), [path, foreignPackage(prefix)]);
      expect(stderr).toBe('');
      expect(stdout.split(/^--$/m).map((part) => part.trim())).toEqual([
        'bridge of the other package\nportmap of nobody',
        `CNI bridge plugin v${readReport()?.version}`,
        'bridge of the other package, newer\nportmap of nobody\nother of the other package, newer',
        `CNI bridge plugin v${readReport()?.version}`,
        'bridge of the other package, newer\nportmap of nobody',
        'bridge\nother\nportmap',
        'no diversion is left',
      ]);
      expect(status).toBe(0);
    });
  },
);

/** A package of plugins with one name of ours and one of its own, as containernetworking-plugins or kubernetes-cni. */
function foreignPackage(prefix: string): string {
  const versions = ['', ', newer'].map((suffix, index) => {
    const stage = join(directory, 'foreign');
    rmSync(stage, { recursive: true, force: true });
    mkdirSync(join(stage, prefix), { recursive: true });
    mkdirSync(join(stage, 'DEBIAN'));
    for (const name of ['bridge', 'other']) {
      writeFileSync(join(stage, prefix, name), `${name} of the other package${suffix}\n`);
    }
    const control = `Package: other-plugins\nVersion: ${index + 1}\nArchitecture: all\nMaintainer: a <a@b>\nDescription: x\n`;
    writeFileSync(join(stage, 'DEBIAN/control'), control);
    const path = join(directory, `other-plugins_${index + 1}.deb`);
    execFileSync('dpkg-deb', ['--root-owner-group', '-Znone', '--build', stage, path], { stdio: 'pipe' });
    return path;
  });
  return versions[0] ?? '';
}

function comeAndGo(prefix: string, name: string): string {
  const ours = `${name}_9.8.7_${hostTarget().debian}.deb`;
  return `
    set -e
    install() { dpkg --install "/debs/$1" > /dev/null; }
    install other-plugins_1.deb
    echo 'portmap of nobody' > ${prefix}/portmap
    cat ${prefix}/bridge ${prefix}/portmap
    touch /watching
    (while [ -e /watching ]; do [ -e ${prefix}/bridge ] || echo missing >&2; done) &
    install ${ours}
    rm /watching; wait; echo --
    ${prefix}/bridge 2>&1 | head -n 1; echo --
    install other-plugins_2.deb
    cat ${prefix}/bridge.before-patchbay ${prefix}/portmap.before-patchbay ${prefix}/other; echo --
    ${prefix}/bridge 2>&1 | head -n 1; echo --
    dpkg --remove ${name} > /dev/null
    cat ${prefix}/bridge ${prefix}/portmap; echo --
    ls ${prefix}; echo --
    dpkg-divert --list '*patchbay*' | grep . || echo no diversion is left
  `;
}

/** Runs a script in a minimal Debian whose changes are forgotten; the files are in /debs. */
function runInRoot(
  script: string,
  files: readonly string[],
): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  const debs = mkdtempSync(join(directory, 'debs-'));
  for (const file of files) {
    linkSync(file, join(debs, basename(file)));
    const newer = file.replace('_1.deb', '_2.deb');
    if (newer !== file && existsSync(newer)) linkSync(newer, join(debs, basename(newer)));
  }
  const entering = `
    mount -t tmpfs none /mnt
    mkdir /mnt/upper /mnt/work /mnt/root
    mount -t overlay -o "lowerdir=$0,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
    mount -t proc none /mnt/root/proc
    mount --rbind /dev /mnt/root/dev
    mkdir /mnt/root/debs
    mount --bind "$1" /mnt/root/debs
    exec chroot /mnt/root /bin/sh -c "$2"
  `;
  const namespaces = ['--net', '--mount', '--pid', '--fork', '--kill-child'];
  const { status, stdout, stderr } = spawnSync(
    'unshare',
    [...namespaces, 'sh', '-ec', entering, makeMinimalRoot(), debs, script],
    {
      env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', DEBIAN_FRONTEND: 'noninteractive', LC_ALL: 'C' },
      encoding: 'utf8',
    },
  );
  return { status, stdout, stderr };
}
