// A private host on which container runtimes run: with control groups, an /opt/cni/bin that holds the plugins under test
// and nothing else, and a disk in memory. Opened by the tests in test/runtimes.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { clientDirectory } from '../../build/tools.ts';
import { expectDone, HOST_PATH, type Place } from './place.ts';
import { openPrivateHost, type PrivateHost } from './private-host.ts';
import { pluginDirectory } from './run-plugin.ts';
import { imageArchive } from './runtime-image.ts';
import { difference, type Snapshot } from './snapshot.ts';

export interface RuntimeHost extends PrivateHost {
  /** Starts a daemon that lives until it is killed or the host goes, and waits until this file is there. */
  daemon(name: string, argv: readonly string[], options: DaemonOptions): Promise<void>;
  /** Kills processes of the host by the name of their program, all at once, as a crash would. */
  killAll(...programs: readonly string[]): Promise<void>;
}

export interface DaemonOptions {
  /** The daemon is there when this file is: a socket, say. */
  readonly until: string;
  readonly env?: Readonly<Record<string, string>>;
}

/** Where runtimes keep images and containers: a file system in memory, on which overlays can be made. */
export const DISK = '/srv';

/** The images of runtime-image.ts, as a path of the host. */
export const ARCHIVE = `${DISK}/images.tar`;

/** Clients that no Debian release has, first in PATH where a test asks for them. */
export const CLIENT_PATH = `${clientDirectory()}:${HOST_PATH}`;

/** A host with these plugins; closing it removes its containers' control groups, too. */
export async function openRuntimeHost(plugins = pluginDirectory()): Promise<RuntimeHost> {
  const host = await openPrivateHost();
  // What hybrid set-ups mount as "unified" makes crun refuse to work and runc has no use for.
  await host.shell(`
    umount /sys
    mkdir /run/cgroup
    mount --rbind /sys/fs/cgroup /run/cgroup
    mount -t sysfs sysfs /sys
    mount --move /run/cgroup /sys/fs/cgroup
    rmdir /run/cgroup
    umount -l /sys/fs/cgroup/unified 2> /dev/null || true
    mkdir /run/.overlay/opt-{upper,work}
    mount -t overlay -o lowerdir=/opt,upperdir=/run/.overlay/opt-upper,workdir=/run/.overlay/opt-work overlay /opt
    mkdir -p /opt/cni/bin
    mount --bind ${plugins} /opt/cni/bin
    mount -t tmpfs tmpfs ${DISK}
    cp ${imageArchive()} ${ARCHIVE}
  `);
  async function close(): Promise<void> {
    await host.close();
    removeControlGroups();
  }
  return {
    ...host,
    close,
    [Symbol.asyncDispose]: close,
    async daemon(name: string, argv: readonly string[], { until, env = {} }: DaemonOptions) {
      const log = `${DISK}/${name}.log`;
      const script = 'log=$0; "$@" > "$log" 2>&1 < /dev/null &';
      rmSync(host.file(until), { force: true }); // of one that was killed
      expectDone(
        await host.attempt('bash', ['--norc', '-c', script, log, ...argv], {
          env: { PATH: HOST_PATH, ...env },
        }),
      );
      await waitFor(() => existsSync(host.file(until)), {
        what: `${name} to make ${until}`,
        log: () => readFileSync(host.file(log), 'utf8'),
      });
    },
    async killAll(...programs: readonly string[]) {
      await host.attempt('pkill', ['-KILL', '-x', programs.map((name) => name.slice(0, 15)).join('|')]);
    },
  };
}

/** Waits until something is so; throws after 20 s, with the log. */
export async function waitFor(
  isSo: () => boolean | Promise<boolean>,
  { what, log = () => '' }: { readonly what: string; readonly log?: () => string },
): Promise<void> {
  for (const deadline = Date.now() + 20_000; !(await isSo()); await delay(10)) {
    if (Date.now() > deadline) throw new Error(`Waited 20 s for ${what}\n${log().slice(-4000)}`);
  }
}

/** What a place fetches from there, a line for each; '' when nothing answers within three seconds. */
export async function fetchFrom(from: Place, ...urls: readonly string[]): Promise<string> {
  const { stdout } = await from.attempt('curl', ['-s', '-g', '-m', '3', ...urls]);
  return stdout.trim();
}

/** As `fetchFrom`, until a service that just started answers; throws when it never does. */
export async function fetchSoon(host: Place, url: string): Promise<string> {
  let answer = '';
  await waitFor(
    async () => {
      answer = await fetchFrom(host, url);
      return answer !== '';
    },
    { what: `an answer from ${url}` },
  );
  return answer;
}

/**
 * What differs on the host apart from the runtimes' own files: links, addresses, routes, rules, sysctls, namespaces, and
 * everything below /var/lib/cni and /run that is no runtime's.
 */
export function traces(before: Snapshot, after: Snapshot): string[] {
  return difference(before, after).filter((line) => !RUNTIME_FILES.test(line));
}

const RUNTIME_FILES =
  /^[-+] file \/(run\/(containerd|runc|crun|libpod|lock|containers|netns|systemd|nri)|etc\/cni\/net\.d\/[^/]*\.lock)\b/;

/**
 * What a host holds of attachments, whoever made them: veth links, elements of maps and sets, rules that speak of one
 * address, stored addresses, cached results and namespaces. Empty when no container is left, on any network.
 */
export async function attachments(host: PrivateHost): Promise<string[]> {
  const lines = await host.snapshot();
  return lines.filter((line) => ATTACHMENT.some((pattern) => pattern.test(line)));
}

const ATTACHMENT = [
  /^host link (?!uplink|lan\b).* info_kind veth/,
  /^nft element of /,
  /^ip6?tables-save -A .*(\/32|\/128|--dport|CNI-DN-|CNI-[0-9a-f]{24})/,
  /^file \/var\/lib\/cni\/networks\/[^.][^/]*\/[0-9a-f]+[.:]/,
  /^file \/var\/lib\/cni\/results\/./,
  /^file \/run\/netns\/(?!outside|lan-host)/,
];

// They outlive the processes in them. Only empty ones can be removed, so a runtime of the machine keeps its own.
function removeControlGroups(): void {
  const names = ['k8s.io', 'default', 'libpod_parent'].flatMap((name) => [
    '-o',
    '-path',
    `/sys/fs/cgroup/*/${name}/*`,
    '-o',
    '-path',
    `/sys/fs/cgroup/*/${name}`,
  ]);
  spawnSync(
    'find',
    [
      '/sys/fs/cgroup',
      '-mindepth',
      '2',
      '-depth',
      '-type',
      'd',
      '(',
      ...names.slice(1),
      ')',
      '-exec',
      'rmdir',
      '{}',
      ';',
    ],
    { stdio: 'ignore' },
  );
}
