// A private host on which every call may be made: all that the inputs name is there, a container of another network lives
// on it, and no file of the machine can be written. Opened by black-box.ts.
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { attach } from '../support/attachment.ts';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import { pluginDirectory } from '../support/run-plugin.ts';
import type { Snapshot } from '../support/snapshot.ts';
import type { WireCall, WireEnd } from './black-box-runner.ts';
import { type FuzzedCall, PLUGIN_DIRECTORY } from './inputs/calls.ts';
import { BRIDGE, NETWORK, type PluginName } from './inputs/configs.ts';

export interface FuzzHost extends AsyncDisposable {
  /** Makes the calls one after the other; an ADD that succeeds is followed by its DEL. */
  run(calls: readonly FuzzedCall[]): Promise<readonly WireEnd[]>;
  snapshot(): Promise<Snapshot>;
}

/** Opens a host on which the network of the inputs was in use before. */
export async function openFuzzHost(): Promise<FuzzHost> {
  const host = await openPrivateHost('fuzz');
  await furnish(host);
  await host.shell(PROTECT);
  const runner = startRunner(host);
  const fuzzHost: FuzzHost = {
    run: (calls) => runner.run(calls.map(wire)),
    async snapshot() {
      const lines = await host.snapshot();
      // No state: the index beside the stores, which is made anew at any time, and the locks of the host, which are empty.
      return lines.filter(
        (line) => !line.includes('/.patchbay') && !/ \/run\/patchbay\/\S+\.lock\b/.test(line),
      );
    },
    async [Symbol.asyncDispose]() {
      runner.stop();
      await host.close();
    },
  };
  await prime(fuzzHost);
  return fuzzHost;
}

// `lo` of the sandbox is down, as loopback's DEL leaves it.
async function furnish(host: PrivateHost): Promise<void> {
  await host.addSandbox('fuzzed');
  await host.shell(`
    ip -n fuzzed link set lo down
    ip link add net1 netns fuzzed type veth peer name fuzz-peer
    ip link add not-a-bridge type veth peer name its-peer
    mkdir -p /run/odd /run/fuzz
    echo odd > /run/odd/file
    mkfifo /run/odd/fifo
  `);
  const resident = {
    cniVersion: '1.1.0',
    name: 'resident',
    type: 'bridge',
    bridge: 'br-resident',
    isDefaultGateway: true,
    ipMasq: true,
    macspoofchk: true,
    ipam: { type: 'host-local', ranges: [[{ subnet: '10.68.0.0/24' }], [{ subnet: 'fd00:68::/64' }]] },
  };
  await attach(host, resident, await host.addSandbox('resident'));
}

/** It may lie in /tmp, and is kept in sight. */
const CHECKOUT = join(import.meta.dirname, '../..');

/**
 * Whatever a call names, what it can write to is in memory and goes with the host: every other mount is made read-only in
 * this namespace, and so are the settings of the kernel that no namespace has for itself.
 */
const PROTECT = `
  mkdir /run/checkout
  mount --bind '${CHECKOUT}' /run/checkout
  mount -t tmpfs tmpfs /tmp
  mkdir -p '${CHECKOUT}'
  mount --move /run/checkout '${CHECKOUT}'
  rmdir /run/checkout
  for directory in /proc/sys/*; do
    [ "$directory" = /proc/sys/net ] && continue
    mount --bind "$directory" "$directory"
    mount -o remount,bind,ro "$directory"
  done
  findmnt -rno TARGET | sort -u | while read -r target; do
    case "$target" in
      /run|/run/*|/tmp|/sys/*|/etc|/etc/cni|/var/lib|/var/lib/cni|/proc|/proc/*) ;;
      *) mount -o remount,bind,ro "$target" ;;
    esac
  done
`;

/** As much as a plugin may have of memory that it writes to; they take some 40 MiB. */
const MEMORY_LIMIT = 1024 ** 3;

interface Runner {
  run(calls: readonly WireCall[]): Promise<readonly WireEnd[]>;
  stop(): void;
}

function startRunner(host: PrivateHost): Runner {
  const script = join(import.meta.dirname, 'black-box-runner.ts');
  const node = [process.execPath, '--disable-warning=ExperimentalWarning', script];
  const [program, args] = host.entering('prlimit', [`--data=${MEMORY_LIMIT}`, ...node]);
  const runner: ChildProcess = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  if (runner.stdin === null || runner.stdout === null) throw new Error('The runner has no pipes');
  const { stdin } = runner;
  const lines = createInterface({ input: runner.stdout })[Symbol.asyncIterator]();
  return {
    async run(calls) {
      stdin.write(`${JSON.stringify(calls)}\n`);
      const { value, done } = await lines.next();
      if (done === true) throw new Error(`The runner ended with ${runner.exitCode ?? runner.signalCode}`);
      return JSON.parse(value) as readonly WireEnd[];
    },
    stop: () => void runner.kill('SIGKILL'),
  };
}

function wire({ plugin, env, stdin }: FuzzedCall): WireCall {
  const directory = pluginDirectory();
  const replaced = Object.entries(env).map(([name, value]) => [
    name,
    value.replaceAll(PLUGIN_DIRECTORY, directory),
  ]);
  return {
    file: join(directory, plugin),
    env: Object.fromEntries(replaced) as Record<string, string>,
    stdin: Buffer.from(stdin).toString('base64'),
  };
}

// What stays on purpose is there from now on: bridge, tables, chains, stores, forwarding.
async function prime(host: FuzzHost): Promise<void> {
  const ends = await host.run(PRIMING.map(([plugin, own]) => goodAdd(plugin, own)));
  for (const [position, end] of ends.entries()) {
    if (end.exitCode === 0 && end.undone?.exitCode === 0) continue;
    throw new Error(
      `Cannot prime the host with ${JSON.stringify(PRIMING[position])}: ${JSON.stringify(end)}`,
    );
  }
}

function goodAdd(plugin: PluginName, own: object): FuzzedCall {
  const config = { cniVersion: '1.1.0', name: NETWORK, type: plugin, ...own };
  const ifname = plugin === 'tuning' ? 'net1' : 'eth0';
  return {
    plugin,
    env: {
      CNI_COMMAND: 'ADD',
      CNI_CONTAINERID: 'fuzzed',
      CNI_NETNS: '/run/netns/fuzzed',
      CNI_IFNAME: ifname,
      CNI_PATH: PLUGIN_DIRECTORY,
    },
    stdin: Buffer.from(JSON.stringify(config)),
  };
}

const IPAM = { type: 'host-local', ranges: [[{ subnet: '10.66.0.0/24' }], [{ subnet: 'fd00:66::/64' }]] };
const PREV_RESULT = {
  cniVersion: '1.1.0',
  interfaces: [{ name: 'eth0', sandbox: '/run/netns/fuzzed' }],
  ips: [
    { address: '10.66.0.50/24', interface: 0 },
    { address: 'fd00:66::50/64', interface: 0 },
  ],
};
const PORTS = { portMappings: [{ hostPort: 8080, containerPort: 80 }] };

const PRIMING: readonly (readonly [PluginName, object])[] = [
  ['loopback', {}],
  ['host-local', { ipam: { ...IPAM, dataDir: '/run/fuzz/store' } }],
  [
    'bridge',
    { bridge: BRIDGE, isGateway: true, ipMasq: true, macspoofchk: true, ipspoofchk: true, ipam: IPAM },
  ],
  ['bridge', { bridge: BRIDGE, isGateway: true, ipMasq: true, ipMasqBackend: 'iptables', ipam: IPAM }],
  [
    'portmap',
    { snat: true, runtimeConfig: PORTS, prevResult: PREV_RESULT, conditionsV4: ['-s', '10.0.0.0/8'] },
  ],
  ['portmap', { snat: true, backend: 'iptables', runtimeConfig: PORTS, prevResult: PREV_RESULT }],
  ['firewall', { ingressPolicy: 'isolated', prevResult: PREV_RESULT }],
  ['firewall', { backend: 'iptables', prevResult: PREV_RESULT }],
  ['tuning', { mtu: 1400, sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' }, prevResult: PREV_RESULT }],
  ['tuning', { dataDir: '/run/fuzz/tuning', mtu: 1400, prevResult: PREV_RESULT }],
];
