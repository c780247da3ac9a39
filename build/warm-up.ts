// Runs the bundled program in this process, again and again under a `process` of its own, then writes the code cache
// of everything that was compiled for it. Started by code-cache.ts under the Node and the flags of the executables.
import { execFileSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { Script } from 'node:vm';
import type { Program } from './bundle.ts';
import type { WarmUpCall, WarmUpOrder } from './code-cache.ts';

const STDIN = 0;
const STDOUT = 1;
const FILENAME = 'patchbay.cjs';

/** Thrown in the place of the end of the process. */
class Exit extends Error {
  readonly exitCode: number;

  constructor(exitCode: number) {
    super(`Exit ${exitCode}`);
    this.exitCode = exitCode;
  }
}

const order = JSON.parse(process.argv[2] ?? '') as WarmUpOrder;
const source = readFileSync(order.program, 'latin1');
const require = createRequire(import.meta.url);
const calls: WarmUpCall[] = [];

main();

function main(): void {
  // Bytecode that has not run for a while is thrown away, and what is not there is not cached. The flags must be as
  // they were when the cache is made, or it is refused.
  setFlagsFromString('--no-flush-bytecode');
  const script = new Script(source, { filename: FILENAME });
  const program = script.runInThisContext() as Program;
  if (order.plugins.length === 0) runProgram(program, 'empty', { CNI_COMMAND: 'VERSION' }, '');
  for (const plugin of order.plugins) runProgram(program, plugin, { CNI_COMMAND: 'VERSION' }, '');
  if (order.kernel === 'private') runAttachments(program);
  setFlagsFromString('--flush-bytecode');
  const cache = script.createCachedData();
  writeFileSync(order.cache, cache);
  if (new Script(source, { filename: FILENAME, cachedData: cache }).cachedDataRejected) {
    throw new Error('V8 refuses the code cache it has just made');
  }
  writeFileSync(order.report, JSON.stringify(calls));
}

// The lives of attachments, as far as the registry's plugins go: each plugin that takes part is run by its name.
function runAttachments(program: Program): void {
  const plugins = join(order.directory, 'plugins');
  mkdirSync(plugins);
  // Leads to the inode of this process, so the delegate is run in process, as it is in the installed executables.
  for (const plugin of order.plugins) symlinkSync(process.execPath, join(plugins, plugin));
  for (const round of ['first', 'second']) {
    const netns = join('/run', round);
    writeFileSync(netns, '');
    execFileSync('unshare', [`--net=${netns}`, 'true']);
    runLife(program, { plugins, netns, containerId: round });
  }
}

function runLife(
  program: Program,
  { plugins, netns, containerId }: { plugins: string; netns: string; containerId: string },
): void {
  const config = {
    cniVersion: '1.1.0',
    name: 'warm-up',
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
  const env = {
    CNI_CONTAINERID: containerId,
    CNI_NETNS: netns,
    CNI_IFNAME: 'eth0',
    CNI_PATH: plugins,
    PATH: process.env['PATH'],
  };
  const run = (verb: string, more: object = {}, plugin = 'bridge') =>
    runProgram(program, plugin, { ...env, CNI_COMMAND: verb }, JSON.stringify({ ...config, ...more }));
  run('STATUS');
  const result = run('ADD');
  const prevResult = result.exitCode === 0 ? (JSON.parse(result.stdout) as object) : undefined;
  run('CHECK', { prevResult });
  run('GC', { 'cni.dev/valid-attachments': [{ containerID: containerId, ifname: 'eth0' }] });
  run('DEL', { prevResult });
  run('ADD', {}, 'host-local');
  run('DEL', {}, 'host-local');
}

/** Runs the program once, with files in the places of stdin and stdout. */
function runProgram(
  program: Program,
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
    program(require, makeProcess(plugin, env));
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
