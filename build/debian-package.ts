// Makes Debian packages of the executables, by Debian's own dpkg-deb; the same files give the same bytes. Called by
// release.ts, and by the tests for the executables at hand.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  globSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { listPlugins } from '../plugins/registry.ts';
import { NOTICES, stageExecutables } from './archive.ts';
import { distOf } from './package.ts';
import type { Target } from './target.ts';

/** Where a package puts the executables, and so its name: two packages of one name would replace each other. */
export const DEBIAN_PREFIXES = {
  '/opt/cni/bin': 'patchbay',
  '/usr/lib/cni': 'patchbay-usr-lib-cni',
} as const;

export type DebianPrefix = keyof typeof DEBIAN_PREFIXES;

export interface DebianPackageOptions {
  readonly target: Target;
  readonly version: string;
  readonly prefix: DebianPrefix;
  /** Seconds since 1970 that every file gets as its time, and the changelog as its date. */
  readonly epoch: number;
  /** Directory that the package is made in. */
  readonly to: string;
  /** dpkg-deb's compression: what a release takes, or what is done at once. */
  readonly compression?: 'best' | 'fast';
}

/** Returns the path of the package, named as Debian names them. */
export function writeDebianPackage(options: DebianPackageOptions): string {
  const { target, version, prefix, epoch, to, compression = 'best' } = options;
  const name = DEBIAN_PREFIXES[prefix];
  const stage = join(to, `.stage-${name}-${target.debian}`);
  const path = join(to, `${name}_${version}_${target.debian}.deb`);
  rmSync(stage, { recursive: true, force: true });
  try {
    const executables = join(stage, prefix);
    mkdirSync(executables, { recursive: true });
    stageExecutables(target, executables);
    writeDocuments(stage, options);
    writeControl(stage, options);
    normalize(stage, epoch);
    // One thread: how many there are would show in the blocks of the compressed file.
    const compressed = compression === 'best' ? ['-Zxz', '-z2', '--threads-max=1'] : ['-Znone'];
    execFileSync('dpkg-deb', ['--root-owner-group', ...compressed, '--build', stage, path], {
      env: { PATH: process.env['PATH'], SOURCE_DATE_EPOCH: String(epoch), LC_ALL: 'C', TZ: 'UTC' },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
  return path;
}

const MAINTAINER = 'Patchbay maintainers <patchbay@localhost>';

function writeDocuments(stage: string, { target, version, prefix, epoch }: DebianPackageOptions): void {
  const name = DEBIAN_PREFIXES[prefix];
  const notices = readFileSync(join(distOf(target), NOTICES), 'utf8');
  const changelog = `${name} (${version}) unstable; urgency=medium

  * A release of Patchbay; what changed is in its CHANGELOG.md.

 -- ${MAINTAINER}  ${rfc5322(epoch)}
`;
  const directory = join('usr/share/doc', name);
  put(stage, `${directory}/copyright`, COPYRIGHT + notices);
  put(stage, `${directory}/changelog`, changelog);
  execFileSync('gzip', ['-n', '-9', join(stage, directory, 'changelog')]);
  put(stage, `usr/share/lintian/overrides/${name}`, lintianOverrides(name, prefix));
}

const COPYRIGHT = `Patchbay: CNI plugins that talk to the kernel themselves.

Licensed under the Apache License, Version 2.0; on Debian systems its text is in
/usr/share/common-licenses/Apache-2.0.

The executables hold a Node.js runtime and the packages below, under these terms:


`;

// A date as `date -R` prints it, and Debian's changelogs hold.
function rfc5322(epoch: number): string {
  return new Date(epoch * 1000).toUTCString().replace('GMT', '+0000');
}

function writeControl(stage: string, { target, version, prefix }: DebianPackageOptions): void {
  const name = DEBIAN_PREFIXES[prefix];
  const files = listFiles(stage);
  const size = Math.ceil(files.reduce((total, file) => total + lstatSync(file).size, 0) / 1024);
  // One file under many names takes its room once.
  const links = (listPlugins().length - 1) * lstatSync(join(stage, prefix, 'bridge')).size;
  const control = `Package: ${name}
Version: ${version}
Architecture: ${target.debian}
Maintainer: ${MAINTAINER}
Installed-Size: ${size - Math.floor(links / 1024)}
Depends: ${DEPENDS}
Suggests: containerd, podman
Section: net
Priority: optional
Description: CNI plugins that talk to the kernel themselves
 Executables that container runtimes call to connect containers to networks:
 ${listPlugins().join(', ')}.
 .
 They are installed in ${prefix}. Plugins of the same names that are there
 already, of another package or of none, are kept beside them by dpkg-divert
 with the suffix "${DIVERTED}", and get their names back when this package
 is removed.
`;
  const sums = files.map((file) => {
    const digest = createHash('md5').update(readFileSync(file)).digest('hex');
    return `${digest}  ${file.slice(stage.length + 1)}\n`;
  });
  put(stage, 'DEBIAN/control', control);
  put(stage, 'DEBIAN/md5sums', sums.join(''));
  put(stage, 'DEBIAN/preinst', preinst(name, prefix), 0o755);
  put(stage, 'DEBIAN/postrm', postrm(name, prefix), 0o755);
}

/** By the newest versions of symbols in the executables, which a test compares: glibc 2.28, GCC 7. */
const DEPENDS = 'libc6 (>= 2.28), libgcc-s1 (>= 4.2) | libgcc1 (>= 1:4.2), libstdc++6 (>= 7)';

const DIVERTED = '.before-patchbay';

// Diverted without --rename, and linked instead: a runtime finds a plugin under each name until dpkg puts ours there.
function preinst(name: string, prefix: string): string {
  return `#!/bin/sh
set -e
case "$1" in
  install|upgrade)
    for plugin in ${listPlugins().join(' ')}; do
      path="${prefix}/$plugin"
      [ "$(dpkg-divert --listpackage "$path")" != ${name} ] || continue
      if [ -e "$path" ] || [ -L "$path" ]; then
        ln -f -P "$path" "$path${DIVERTED}"
      fi
      dpkg-divert --quiet --package ${name} --divert "$path${DIVERTED}" --no-rename --add "$path"
    done
    ;;
esac
`;
}

function postrm(name: string, prefix: string): string {
  return `#!/bin/sh
set -e
case "$1" in
  remove|abort-install|disappear)
    for plugin in ${listPlugins().join(' ')}; do
      path="${prefix}/$plugin"
      [ "$(dpkg-divert --listpackage "$path")" = ${name} ] || continue
      # What an aborted installation left at its old name is the same file as the diverted one.
      if [ "$path" -ef "$path${DIVERTED}" ]; then rm -f "$path${DIVERTED}"; fi
      if [ -e "$path" ]; then
        dpkg-divert --quiet --package ${name} --no-rename --remove "$path"
      else
        dpkg-divert --quiet --package ${name} --rename --remove "$path"
      fi
    done
    ;;
esac
`;
}

function lintianOverrides(name: string, prefix: DebianPrefix): string {
  const reasons = [
    '# The executables hold their own Node.js, with the libraries that it is released with, at a fixed address.',
    `${name}: embedded-library *`,
    `${name}: hardening-no-pie *`,
    '# The licences of what is inside ask for their very text.',
    `${name}: copyright-file-contains-full-apache-2-license`,
    `${name}: old-fsf-address-in-copyright-file`,
    '# A package of its own makers, not of the distribution.',
    `${name}: initial-upload-closes-no-bugs`,
    `${name}: bogus-mail-host *`,
    `${name}: bogus-mail-host-in-debian-changelog *`,
    ...(prefix.startsWith('/opt')
      ? ['# Where container runtimes look.', `${name}: dir-or-file-in-opt *`]
      : []),
  ];
  return `${reasons.join('\n')}\n`;
}

function put(stage: string, path: string, text: string, mode = 0o644): void {
  const file = join(stage, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
  chmodSync(file, mode);
}

function listFiles(stage: string): string[] {
  return globSync('**/*', { cwd: stage })
    .map((path) => join(stage, path))
    .filter((path) => lstatSync(path).isFile())
    .sort();
}

// Neither the umask nor the time of the build may show.
function normalize(stage: string, epoch: number): void {
  for (const path of ['', ...globSync('**/*', { cwd: stage })].map((found) => join(stage, found))) {
    if (lstatSync(path).isDirectory()) chmodSync(path, 0o755);
    lutimesSync(path, epoch, epoch);
  }
}
