// Runs the bundled program in this process, again and again under a `process` of its own, then writes the code caches
// of what was compiled for it. Started by code-cache.ts under Node, flags and snapshot of the executables.
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { Script } from 'node:vm';
import { openRtnetlink } from '../shared/rtnetlink/rtnetlink.ts';
import type { Program } from './bundle.ts';
import type { WarmUpCall, WarmUpOrder, WarmUpReport } from './code-cache.ts';
import { requireUnderEmulation } from './emulated-calls.ts';

/** A script, compiled apart from all others of the same source, so that its cache holds what it alone has run. */
interface Warm {
  readonly file: string;
  readonly source: string;
  readonly script: Script;
  readonly run: Program;
}

/** By plugin. */
type Programs = ReadonlyMap<string, Readonly<Record<Verb, Warm>>>;

interface Attachment {
  readonly plugins: string;
  readonly netns: string;
  readonly containerId: string;
}

/** Thrown in the place of the end of the process. */
class Exit extends Error {
  readonly exitCode: number;

  constructor(exitCode: number) {
    super(`Exit ${exitCode}`);
    this.exitCode = exitCode;
  }
}

const STDIN = 0;
const STDOUT = 1;
const VERBS = ['VERSION', 'STATUS', 'ADD', 'CHECK', 'GC', 'DEL'] as const;
type Verb = (typeof VERBS)[number];

const CONFIG = {
  cniVersion: '1.1.0',
  name: 'warm-up',
  // A number that is kept as written, which a MAC address can look like: what is random must not decide over what
  // is compiled, or no two builds are the same.
  oddNumber: 1.5,
  type: 'bridge',
  bridge: 'warmup0',
  isDefaultGateway: true,
  ipMasq: true,
  hairpinMode: true,
  ipam: {
    type: 'host-local',
    ranges: [[{ subnet: '10.22.0.0/24' }], [{ subnet: 'fd00:22::/64' }]],
    routes: [{ dst: '10.23.0.0/16' }],
  },
};

const PORT_MAPPINGS = [
  { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
  { hostPort: 8053, containerPort: 53, protocol: 'udp' },
];

/** Runs one verb of a plugin for the attachment whose life it is; `more` are fields of the config. */
type Run = (verb: Verb, more: object, plugin: string) => WarmUpCall;

const order = JSON.parse(process.argv[2] ?? '') as WarmUpOrder;
const requireForProgram = order.isEmulated ? requireUnderEmulation(require) : require;
const calls: WarmUpCall[] = [];

main();

function main(): void {
  const modules = loadModules();
  // Bytecode that has not run for a while is thrown away, and what is not there is not cached; scripts of one source
  // share their bytecode through the compilation cache.
  setFlagsFromString('--no-flush-bytecode');
  setFlagsFromString('--no-compilation-cache');
  const libraries = order.libraries.map((name) => compile(name, 'library'));
  for (const library of libraries) library.run(requireForProgram, process);
  const names = order.plugins.length === 0 ? ['empty'] : order.plugins;
  const programs = new Map(names.map((name) => [name, compileForVerbs(name)]));
  const version = order.version === undefined ? [] : [compile(order.version, 'VERSION')];
  for (const [name, { VERSION }] of programs) {
    for (const program of [VERSION, ...version]) runProgram(program, name, { CNI_COMMAND: 'VERSION' }, '');
  }
  if (order.host === 'private') runAttachments(programs);
  // Flags are part of a cache: it is refused unless they are what they are at run time.
  setFlagsFromString('--flush-bytecode');
  setFlagsFromString('--compilation-cache');
  const verbs = [...programs.values()].flatMap((program) => Object.values(program));
  const files = [...libraries, ...version, ...verbs].map(writeCache);
  const report: WarmUpReport = { files, calls, modules };
  writeFileSync(join(order.directory, 'report.json'), JSON.stringify(report));
}

// Those of Node's modules that calls load at some time, from code caches, which is to say under the flags of the executables.
// A wrong label is no failure to V8: it compiles, at every start.
function loadModules(): string[] {
  require('node:ffi');
  for (const name of order.libraries) {
    const library = compile(name, 'library').run(require, process) as typeof import('execa');
    library.execaSync('true');
  }
  const { internalBinding } = require('internal/test/binding') as {
    internalBinding: (id: 'builtins') => {
      getCacheUsage: () => Record<'compiledWithCache' | 'compiledWithoutCache', ReadonlySet<string>>;
    };
  };
  const { compiledWithCache, compiledWithoutCache } = internalBinding('builtins').getCacheUsage();
  const compiled = [...compiledWithoutCache];
  if (compiled.length > 0) throw new Error(`V8 refuses Node's code caches of ${compiled.join(', ')}`);
  return [...compiledWithCache].sort();
}

function compileForVerbs(name: string): Record<Verb, Warm> {
  return Object.fromEntries(VERBS.map((verb) => [verb, compile(name, verb)])) as Record<Verb, Warm>;
}

function compile(name: string, cache: string): Warm {
  const source = readFileSync(join(order.directory, `${name}.js`), 'latin1');
  const script = new Script(source, { filename: `${name}.cjs` });
  return { file: `${name}.${cache}`, source, script, run: script.runInThisContext() as Program };
}

function writeCache({ file, source, script }: Warm): string {
  const cachedData = script.createCachedData();
  writeFileSync(join(order.directory, file), cachedData);
  const again = new Script(source, { filename: 'again.cjs', cachedData });
  if (again.cachedDataRejected) throw new Error(`V8 refuses the code cache "${file}" it has just made`);
  return file;
}

// Two rounds: the first ADD makes what is shared, the second finds it there.
function runAttachments(programs: Programs): void {
  using host = openRtnetlink();
  const plugins = join(order.directory, 'plugins');
  mkdirSync(plugins);
  const lo = host.link.get({ name: 'lo' });
  host.link.set(lo.index, { up: true });
  // Leads to the inode of this process (the emulator's, under emulation), so the delegate is run in process, as it is in
  // the installed executables.
  for (const plugin of order.plugins) symlinkSync('/proc/self/exe', join(plugins, plugin));
  for (const containerId of ['first', 'second']) {
    const netns = join('/run', containerId);
    writeFileSync(netns, '');
    execFileSync('unshare', [`--net=${netns}`, 'true']);
    runLife(programs, { plugins, netns, containerId });
  }
}

function runLife(programs: Programs, { plugins, netns, containerId }: Attachment): void {
  const env = {
    CNI_CONTAINERID: containerId,
    CNI_NETNS: netns,
    CNI_IFNAME: 'eth0',
    CNI_PATH: plugins,
    PATH: process.env['PATH'],
  };
  const run = (verb: Verb, more: object = {}, plugin = 'bridge') => {
    const program = programs.get(plugin)?.[verb];
    if (program === undefined) throw new Error(`There is no program of plugin "${plugin}" to warm up`);
    const config = JSON.stringify({ ...CONFIG, ...more });
    return runProgram(program, plugin, { ...env, CNI_COMMAND: verb }, config);
  };
  const valid = { 'cni.dev/valid-attachments': [{ containerID: containerId, ifname: 'eth0' }] };
  run('STATUS');
  const { exitCode, stdout } = run('ADD');
  const prevResult = exitCode === 0 ? (JSON.parse(stdout) as object) : undefined;
  run('CHECK', { prevResult });
  run('GC', valid);
  if (order.plugins.includes('portmap')) runPorts(run, { prevResult, valid });
  if (order.plugins.includes('firewall')) runFirewall(run, { prevResult, valid });
  if (order.plugins.includes('tuning')) runTuning(run, { prevResult, valid });
  if (order.plugins.includes('loopback')) {
    for (const verb of ['STATUS', 'ADD', 'CHECK', 'GC', 'DEL'] as const) run(verb, {}, 'loopback');
  }
  run('DEL', { prevResult });
  if (order.plugins.includes('patchbay')) runTogether(run, valid);
  run('STATUS', {}, 'host-local');
  const leased = run('ADD', {}, 'host-local');
  run(
    'CHECK',
    { prevResult: leased.exitCode === 0 ? (JSON.parse(leased.stdout) as object) : undefined },
    'host-local',
  );
  run('GC', valid, 'host-local');
  run('DEL', {}, 'host-local');
}

// One process for a whole list: everything at once, in a script of its own.
function runTogether(run: Run, valid: object): void {
  const { bridge, isDefaultGateway, ipMasq, hairpinMode } = CONFIG;
  const config = {
    type: 'patchbay',
    bridge: { bridge, isDefaultGateway, ipMasq, hairpinMode },
    portmap: {},
    firewall: { ingressPolicy: 'same-bridge' },
    tuning: {},
    runtimeConfig: { portMappings: PORT_MAPPINGS },
  };
  run('STATUS', config, 'patchbay');
  sendToPort();
  const { exitCode, stdout } = run('ADD', config, 'patchbay');
  const prevResult = exitCode === 0 ? (JSON.parse(stdout) as object) : undefined;
  run('CHECK', { ...config, prevResult }, 'patchbay');
  run('GC', { ...config, ...valid }, 'patchbay');
  sendToPort();
  run('DEL', { ...config, prevResult }, 'patchbay');
}

// Begins a flow to the UDP port, at the gateway's address, which ADD and DEL have the kernel forget. Without it there would be
// flows at times, as links that come up send something, and at times none; then fewer functions run.
function sendToPort(): void {
  execFileSync('bash', ['--norc', '-c', 'echo > /dev/udp/10.22.0.1/8053']);
}

function runPorts(
  run: Run,
  { prevResult, valid }: { readonly prevResult: object | undefined; readonly valid: object },
): void {
  const config = { prevResult, runtimeConfig: { portMappings: PORT_MAPPINGS } };
  run('STATUS', config, 'portmap');
  sendToPort();
  run('ADD', config, 'portmap');
  run('CHECK', config, 'portmap');
  run('GC', valid, 'portmap');
  sendToPort();
  run('DEL', config, 'portmap');
}

function runFirewall(
  run: Run,
  { prevResult, valid }: { readonly prevResult: object | undefined; readonly valid: object },
): void {
  const config = { prevResult, ingressPolicy: 'same-bridge' };
  run('STATUS', config, 'firewall');
  run('ADD', config, 'firewall');
  run('CHECK', config, 'firewall');
  run('GC', valid, 'firewall');
  run('DEL', config, 'firewall');
}

function runTuning(
  run: Run,
  { prevResult, valid }: { readonly prevResult: object | undefined; readonly valid: object },
): void {
  const settings = {
    sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' },
    mac: '02:00:00:00:00:01',
    mtu: 1400,
    promisc: true,
    allmulti: true,
    txQLen: 500,
  };
  const config = { prevResult, ...settings };
  run('ADD', { prevResult }, 'tuning');
  run('CHECK', { prevResult }, 'tuning');
  run('DEL', { prevResult }, 'tuning');
  run('STATUS', config, 'tuning');
  run('ADD', config, 'tuning');
  run('CHECK', config, 'tuning');
  run('GC', valid, 'tuning');
  run('DEL', config, 'tuning');
}

/** Runs the program once, with files in the places of stdin and stdout. */
function runProgram(
  program: Warm,
  plugin: string,
  env: Readonly<Record<string, string | undefined>>,
  stdin: string,
): WarmUpCall {
  const name = `${plugin} ${env['CNI_COMMAND']}`;
  const input = join(order.directory, 'stdin');
  const output = join(order.directory, 'stdout');
  writeFileSync(input, stdin);
  replaceDescriptor(STDIN, () => openSync(input, 'r'));
  replaceDescriptor(STDOUT, () => openSync(output, 'w'));
  let exitCode = -1;
  try {
    program.run(requireForProgram, makeProcess(plugin, env));
  } catch (error) {
    if (!(error instanceof Exit)) throw new Error(`The warm-up call "${name}" crashed`, { cause: error });
    exitCode = error.exitCode;
  }
  const call = { name, exitCode, stdout: readFileSync(output, 'utf8') };
  calls.push(call);
  return call;
}

function makeProcess(plugin: string, env: Readonly<Record<string, string | undefined>>): NodeJS.Process {
  return Object.create(process, {
    execPath: { value: join('/', plugin) },
    argv0: { value: plugin },
    env: { value: env },
    exit: {
      value: (code: number) => {
        throw new Exit(code);
      },
    },
  }) as NodeJS.Process;
}

// The kernel gives the lowest free number to what is opened next, and stdin and stdout are the lowest.
function replaceDescriptor(fd: number, open: () => number): void {
  closeSync(fd);
  if (open() !== fd) throw new Error(`Cannot put a file in the place of descriptor ${fd}`);
}
