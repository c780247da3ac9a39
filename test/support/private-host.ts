// A private host: a process that is a whole machine to the plugins, with namespaces and state of its own.
// Binary and end-to-end tests, the demo and the benchmark open one; it vanishes when closed or when they die.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { type CnitoolCall, runCnitool } from './cnitool.ts';
import { type Finished, HOST_PATH, type HostPlace, makePlace, type Place } from './place.ts';
import { type PluginCall, type PluginOutcome, runPlugin, type Verb } from './run-plugin.ts';
import { type Snapshot, takeSnapshot } from './snapshot.ts';

/** A network namespace inside a host; `path` is valid in the host's mount namespace. */
export interface Sandbox extends Place {
  readonly path: string;
  delete(): Promise<void>;
}

export interface PrivateHost extends HostPlace, AsyncDisposable {
  /** Process id, as seen from outside, of the process that holds the host. */
  readonly pid: number;
  addSandbox(name: string): Promise<Sandbox>;
  /** The place whose namespace is at `path`, for namespaces made by other means than `addSandbox`. */
  placeAt(name: string, path: string): Sandbox;
  runPlugin(verb: Verb, call: PluginCall): Promise<PluginOutcome>;
  cnitool(verb: 'add' | 'check' | 'del' | 'gc' | 'status', call: CnitoolCall): Promise<Finished>;
  snapshot(): Promise<Snapshot>;
  close(): Promise<void>;
}

/**
 * Makes a host in some 25 ms: new net, mount, pid, uts and ipc namespaces; /run, /etc/cni and /var/lib/cni
 * empty and in memory; /etc and /var/lib writable without touching the machine's. Forwarding is off and IPv6
 * addresses of new links are usable at once (`accept_dad=0`), so that what a test finds later was done by a
 * plugin. Throws with what the set-up printed when a namespace or a mount is refused.
 */
export async function openPrivateHost(name = 'host'): Promise<PrivateHost> {
  const holder = spawn(
    'unshare',
    ['-nmpui', '--fork', '--mount-proc', '--kill-child', 'bash', '--norc', '-c', INIT, name],
    { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH: HOST_PATH } },
  );
  await expectReady(holder);
  const pid = firstChildOf(holder.pid ?? 0);

  async function close(): Promise<void> {
    if (holder.exitCode !== null || holder.signalCode !== null) return;
    const gone = once(holder, 'exit');
    process.kill(pid, 'SIGKILL');
    await gone;
  }

  function file(path: string): string {
    return `/proc/${pid}/root${path}`;
  }

  function placeAt(sandbox: string, path: string): Sandbox {
    const place = makePlace(sandbox, [...entrance(pid), `--net=${file(path)}`]);
    return {
      ...place,
      path,
      async delete() {
        await host.run('ip', ['netns', 'delete', sandbox]);
      },
    };
  }

  const host: PrivateHost = {
    ...makePlace(name, [...entrance(pid), '--net']),
    pid,
    file,
    placeAt,
    close,
    [Symbol.asyncDispose]: close,
    async addSandbox(sandbox) {
      await host.run('ip', ['netns', 'add', sandbox]);
      const place = placeAt(sandbox, `/run/netns/${sandbox}`);
      await place.run('ip', ['link', 'set', 'lo', 'up']);
      return place;
    },
    runPlugin: (verb, call) => runPlugin(host, verb, call),
    cnitool: (verb, call) => runCnitool(host, verb, call),
    snapshot: () => takeSnapshot(host),
  };
  return host;
}

// The first process of the host. It blocks on its standard input: when the opener dies, however it dies, the
// read ends, the process exits, and the kernel takes every process, link, rule and mount of the host with it.
const INIT = `
  set -e
  hostname "$0"
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/netns /run/lock /run/.overlay/{etc,lib}-{upper,work}
  for d in etc lib; do
    lower=/$d; [ $d = etc ] || lower=/var/lib
    writable=upperdir=/run/.overlay/$d-upper,workdir=/run/.overlay/$d-work
    mount -t overlay -o lowerdir=$lower,$writable overlay $lower
  done
  mkdir -p /etc/cni /var/lib/cni
  mount -t tmpfs -o mode=755 tmpfs /etc/cni
  mount -t tmpfs -o mode=755 tmpfs /var/lib/cni
  mkdir -p /etc/cni/net.d
  mount -t sysfs sysfs /sys
  ip link set lo up
  echo 0 > /proc/sys/net/ipv4/ip_forward
  if [ -d /proc/sys/net/ipv6 ]; then
    echo 0 > /proc/sys/net/ipv6/conf/all/forwarding
    echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad
  fi
  echo ready
  read -r _ || true
`;

async function expectReady(holder: ChildProcess): Promise<void> {
  let said = '';
  let ready = false;
  holder.stderr?.on('data', (chunk) => {
    said += chunk;
  });
  holder.stdout?.on('data', (chunk) => {
    ready ||= String(chunk).includes('ready');
  });
  let failure: Error | undefined;
  holder.once('error', (error) => {
    failure = error;
  });
  for (const deadline = Date.now() + 10_000; !ready; await delay(1)) {
    if (failure) throw new Error('Cannot start unshare (package util-linux)', { cause: failure });
    if (holder.exitCode !== null)
      throw new Error(`Cannot make a private host (root is needed): ${said.trim()}`);
    if (Date.now() > deadline) throw new Error(`The private host is not ready after 10 s: ${said.trim()}`);
  }
}

// `unshare --fork` stays outside the new pid namespace; the host's init is its only child.
function firstChildOf(pid: number): number {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ');
  const child = Number(children[0]);
  if (!child) throw new Error(`Cannot find the init of the private host under process ${pid}`);
  return child;
}

function entrance(pid: number): string[] {
  return [`--target=${pid}`, '--mount', '--uts', '--ipc', '--pid'];
}
