// The programs that tests, demo and benchmark need beside npm's packages: named in one place, installed where that
// is possible. Run by bootstrap.mjs with --tools, and by hand: `node build/tools.ts`.
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, globSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, delimiter, join } from 'node:path';
import { isHost, TARGETS } from './target.ts';

/** A program, the Debian package that brings it, and what cannot be done without it. */
export interface Tool {
  readonly program: string;
  readonly debianPackage: string;
  readonly purpose: string;
  /** What the package would have the machine run: tests run it on private hosts alone. */
  readonly services?: readonly string[];
}

export const TOOLS: readonly Tool[] = [
  {
    program: 'ip',
    debianPackage: 'iproute2',
    purpose: 'every kernel test, as the judge of links and routes',
  },
  { program: 'nft', debianPackage: 'nftables', purpose: 'every kernel test, as the judge of rules' },
  { program: 'iptables', debianPackage: 'iptables', purpose: 'the iptables backend' },
  { program: 'unshare', debianPackage: 'util-linux', purpose: 'private hosts' },
  { program: 'mount', debianPackage: 'mount', purpose: 'private hosts' },
  { program: 'ping', debianPackage: 'iputils-ping', purpose: 'packets that flow' },
  { program: 'curl', debianPackage: 'curl', purpose: 'the demo, which fetches a page' },
  { program: 'tcpdump', debianPackage: 'tcpdump', purpose: 'captures' },
  { program: 'conntrack', debianPackage: 'conntrack', purpose: 'looking at translated connections' },
  { program: 'ethtool', debianPackage: 'ethtool', purpose: 'looking at links' },
  { program: 'getfattr', debianPackage: 'attr', purpose: 'looking at the address store' },
  { program: 'sysctl', debianPackage: 'procps', purpose: 'private hosts' },
  { program: 'strace', debianPackage: 'strace', purpose: 'fixtures, and counting system calls' },
  { program: 'strip', debianPackage: 'binutils', purpose: 'packaging' },
  { program: 'debootstrap', debianPackage: 'debootstrap', purpose: 'the minimal root' },
  {
    program: 'dockerd',
    debianPackage: 'docker.io',
    purpose: 'published ports beside Docker',
    services: ['docker.service', 'docker.socket', 'containerd.service'],
  },
  {
    program: 'firewalld',
    debianPackage: 'firewalld',
    purpose: 'containers beside firewalld',
    services: ['firewalld.service'],
  },
  { program: 'dbus-daemon', debianPackage: 'dbus-daemon', purpose: 'the bus of firewalld' },
  { program: 'busctl', debianPackage: 'systemd', purpose: 'asking firewalld' },
  { program: 'git', debianPackage: 'git', purpose: 'the revision stamped into the executables' },
  {
    program: '/usr/lib/cni/host-local',
    debianPackage: 'containernetworking-plugins',
    purpose: 'the reference plugins',
  },
];

/** What test/runtimes needs besides; installed for that target alone. */
export const RUNTIMES: readonly Tool[] = [
  { program: 'podman', debianPackage: 'podman', purpose: 'scenarios of podman' },
  { program: 'containerd', debianPackage: 'containerd', purpose: 'scenarios of containerd 1.6' },
  { program: 'runc', debianPackage: 'runc', purpose: 'containers of every runtime' },
  { program: 'conmon', debianPackage: 'conmon', purpose: 'containers of podman' },
  { program: 'busybox', debianPackage: 'busybox-static', purpose: 'the image that containers run' },
  {
    program: 'kubectl',
    debianPackage: 'kubernetes-client',
    purpose: 'reading the manifest as Kubernetes does',
  },
];

/** Of Node before it is packaged, and of Debian: their packages for cross compilers end in the machine's name. */
const LIBRARIES = {
  'libc.so.6': 'libc6',
  'libstdc++.so.6': 'libstdc++6',
  'libgcc_s.so.1': 'libgcc-s1',
  'libatomic.so.1': 'libatomic1',
};

/** What a release needs besides, for the machine that this one is not. */
export const RELEASE: readonly Tool[] = [
  { program: 'dpkg-deb', debianPackage: 'dpkg', purpose: 'Debian packages' },
  { program: 'lintian', debianPackage: 'lintian', purpose: 'checking Debian packages' },
  ...TARGETS.filter((target) => !isHost(target)).flatMap(({ debian, triplet, emulator }) => [
    { program: emulator, debianPackage: 'qemu-user-static', purpose: `running programs for ${debian}` },
    {
      program: `${triplet}-strip`,
      debianPackage: `binutils-${triplet.replace('_', '-')}`,
      purpose: `packaging for ${debian}`,
    },
    ...Object.entries(LIBRARIES).map(([library, debianPackage]) => ({
      program: `/usr/${triplet}/lib/${library}`,
      debianPackage: `${debianPackage}-${debian}-cross`,
      purpose: `running programs for ${debian}`,
    })),
  ]),
];

/** The client of the CNI project that end-to-end tests drive the plugins with. */
export const CNITOOL = 'github.com/containernetworking/cni/cnitool@v1.3.0';

const ROOT = join(import.meta.dirname, '..');
const CNITOOL_PATH = join(ROOT, '.cache/bin/cnitool');

/** The newest release of the reference plugins, beside the older one of Debian's package. */
export const REFERENCE_RELEASE = 'v1.9.1';

/** Where that release is, once it was built. */
export const REFERENCE_DIRECTORY = join(ROOT, '.cache', `reference-${REFERENCE_RELEASE}`);

const REFERENCE_MODULE = 'github.com/containernetworking/plugins';
const REFERENCE_PLUGINS = [
  'main/bridge',
  'main/loopback',
  'ipam/host-local',
  'meta/firewall',
  'meta/portmap',
  'meta/tuning',
];

/** The module that pins the runtimes which no Debian release has: containerd 2, nerdctl, crictl, CRI-O's library. */
const CLIENTS = join(ROOT, 'test/clients');

// Without what no test uses, nor what needs a C compiler.
const CLIENT_FLAGS = [
  '-trimpath',
  '-buildvcs=false',
  '-tags=no_ipfs,no_btrfs,no_devmapper,no_zfs,no_tracing,no_rdt',
  '-ldflags=-s -w -X github.com/containerd/nerdctl/v2/pkg/version.Version=v2.3.5',
];

if (import.meta.main) {
  setUpTools();
  setUpCnitool();
  if (!hasReference() && !setUpReference()) {
    complain(
      `The reference plugins ${REFERENCE_RELEASE} cannot be built: tests that compare with them are skipped`,
    );
  }
  if (process.argv.includes('--runtimes')) {
    setUpTools(RUNTIMES);
    setUpClients();
  }
  if (process.argv.includes('--release')) setUpTools(RELEASE);
}

/** Where `setUpClients` puts what it builds from the pinned sources: a directory for each state of them. */
export function clientDirectory(): string {
  const sum = createHash('sha256').update(CLIENT_FLAGS.join(' '));
  for (const file of globSync('**/*.{mod,sum,go}', { cwd: CLIENTS }).sort()) {
    sum.update(`\n${file}\n`).update(readFileSync(join(CLIENTS, file)));
  }
  return join(ROOT, '.cache', `clients-${sum.digest('hex').slice(0, 12)}`);
}

/**
 * Installs the tools of `wanted` that are missing when this is root on Debian. What cannot be installed is named on
 * stderr with its package; with CI=true it also ends the process with exit code 1.
 */
export function setUpTools(wanted: readonly Tool[] = TOOLS): void {
  const missing = wanted.filter(({ program }) => !isPresent(program));
  if (missing.length > 0 && process.getuid?.() === 0 && isPresent('apt-get')) aptInstall(missing);
  for (const { program, debianPackage, purpose } of missing.filter((tool) => !isPresent(tool.program))) {
    complain(`"${program}" is missing (Debian package ${debianPackage}), needed for ${purpose}`);
  }
}

/** Builds cnitool into .cache/bin when Go is there. Without Go its tests are skipped, or fail with CI=true. */
function setUpCnitool(): void {
  const stamp = `${CNITOOL_PATH}-${CNITOOL.replace(/.*@/, '')}`;
  if (existsSync(CNITOOL_PATH) && existsSync(stamp)) return;
  const go = findGo();
  if (go === undefined) {
    complain('"cnitool" is missing, and without Go it cannot be built: tests that drive it are skipped');
    return;
  }
  console.log(`Building ${CNITOOL} …`);
  const directory = join(ROOT, '.cache/bin');
  mkdirSync(directory, { recursive: true });
  const env = { ...process.env, GOBIN: `${directory}/new`, CGO_ENABLED: '0' };
  const { status } = spawnSync(go, ['install', CNITOOL], { env, stdio: 'inherit' });
  if (status !== 0) {
    complain(`"go install ${CNITOOL}" failed`);
    return;
  }
  renameSync(`${directory}/new/cnitool`, stamp);
  rmSync(`${directory}/new`, { recursive: true });
  rmSync(CNITOOL_PATH, { force: true });
  execFileSync('ln', [stamp, CNITOOL_PATH]);
}

/** Builds the pinned clients into .cache, some minutes on two cores, once. */
function setUpClients(): void {
  const directory = clientDirectory();
  if (existsSync(directory)) return;
  const go = findGo();
  if (go === undefined) {
    complain('containerd 2, nerdctl and crictl are missing, and without Go they cannot be built');
    return;
  }
  console.log('Building containerd 2, nerdctl and crictl …');
  const started = performance.now();
  const fresh = `${directory}.${process.pid}`;
  const args = ['build', ...CLIENT_FLAGS, '-o', `${fresh}/`, 'tool', './ocicni'];
  const env = { ...process.env, GOFLAGS: '', CGO_ENABLED: '0' };
  const { status } = spawnSync(go, args, { cwd: CLIENTS, env, stdio: 'inherit' });
  if (status !== 0) {
    complain(`"go build" of the clients in test/clients failed (it needs the Go that their go.mod names)`);
    return;
  }
  renameSync(fresh, directory);
  console.log(`Built them in ${((performance.now() - started) / 1000).toFixed(0)} s`);
}

function findGo(): string | undefined {
  return findProgram('go') ?? ['/usr/local/go/bin/go'].find((path) => existsSync(path));
}

/** Whether all plugins of that release are there. */
export function hasReference(): boolean {
  return REFERENCE_PLUGINS.every((path) => existsSync(join(REFERENCE_DIRECTORY, basename(path))));
}

/** Builds the reference plugins into .cache when Go is there; false when it is not, or fails. */
export function setUpReference(): boolean {
  const go = findGo();
  if (go === undefined) return false;
  console.log(`Building the reference plugins ${REFERENCE_RELEASE} …`);
  const stamp = `-X ${REFERENCE_MODULE}/pkg/utils/buildversion.BuildVersion=${REFERENCE_RELEASE}`;
  const packages = REFERENCE_PLUGINS.map(
    (path) => `${REFERENCE_MODULE}/plugins/${path}@${REFERENCE_RELEASE}`,
  );
  const env = { ...process.env, GOBIN: REFERENCE_DIRECTORY, GOFLAGS: '', CGO_ENABLED: '0' };
  const build = spawnSync(go, ['install', '-ldflags', `-s -w ${stamp}`, ...packages], {
    env,
    stdio: 'inherit',
  });
  return build.status === 0;
}

function aptInstall(tools: readonly Tool[]): void {
  const packages = [...new Set(tools.map((tool) => tool.debianPackage))];
  console.log(`Installing the Debian packages ${packages.join(', ')} …`);
  using _ = denyServices(tools.flatMap(({ services = [] }) => services));
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const install = ['install', '-y', '-qq', '--no-install-recommends', ...packages];
  // A machine image has no package lists, or old ones that name versions no longer there: update only then.
  if (spawnSync('apt-get', install, { env, stdio: ['ignore', 'ignore', 'ignore'] }).status === 0) return;
  spawnSync('apt-get', ['update', '-qq'], { env, stdio: ['ignore', 'ignore', 'inherit'] });
  spawnSync('apt-get', install, { env, stdio: ['ignore', 'ignore', 'inherit'] });
}

// A package with a daemon starts it unless this program, asked by invoke-rc.d(8), says no with exit code 101; and it has
// the machine start it from then on, where a Docker daemon of the machine's own would change its rules.
function denyServices(services: readonly string[]): Disposable {
  const path = '/usr/sbin/policy-rc.d';
  const isOurs = !existsSync(path);
  if (isOurs) writeFileSync(path, '#!/bin/sh\nexit 101\n', { mode: 0o755 });
  return {
    [Symbol.dispose]() {
      if (isOurs) rmSync(path);
      if (services.length > 0 && isPresent('systemctl')) {
        spawnSync('systemctl', ['disable', ...services], { stdio: 'ignore' });
      }
    },
  };
}

/** Whether a program is there: one with a slash as that file, any other on PATH or in the sbin directories. */
export function isPresent(program: string): boolean {
  return program.includes('/') ? existsSync(program) : findProgram(program) !== undefined;
}

function findProgram(name: string): string | undefined {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  return directories.map((directory) => join(directory, name)).find((path) => existsSync(path));
}

function complain(message: string): void {
  console.error(message);
  if (process.env['CI'] === 'true') process.exitCode = 1;
}
