// Two private network namespaces for a kernel test: one that plays the host, one that plays a sandbox.
// Kernel tests open a pair, let our code work on it by path, and look at it with the real tools.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { type Netns, openNetns, withNetns } from '../../shared/linux/netns.ts';
import { type Nftables, openNftables } from '../../shared/nftables/nftables.ts';

/** A namespace, alive until disposed of or until this process dies. */
export interface TestNetns extends Disposable {
  /** For CNI_NETNS and openNetns; a link the kernel follows, as runtimes pass it. */
  readonly path: string;
  /** Opened by our own code. */
  readonly netns: Netns;
  /** Runs a tool in there and gives its stdout. Throws with everything it said when it fails. */
  run(program: string, ...args: string[]): string;
  /** The same for tools that print JSON; empty output is an empty list. */
  json(program: string, ...args: string[]): unknown;
  /** Runs it with text on stdin. */
  feed(input: string, program: string, ...args: string[]): string;
  /** Exit code and output, whatever they are. */
  attempt(program: string, ...args: string[]): { exitCode: number; stdout: string; stderr: string };
}

export interface Sandboxes extends Disposable {
  readonly host: TestNetns;
  readonly sandbox: TestNetns;
}

/** A pair of namespaces with nothing in them but a loopback link that is down. Needs root. */
export function sandbox(): Sandboxes {
  const host = openTestNetns();
  try {
    const inner = openTestNetns();
    return {
      host,
      sandbox: inner,
      [Symbol.dispose]() {
        inner[Symbol.dispose]();
        host[Symbol.dispose]();
      },
    };
  } catch (error) {
    host[Symbol.dispose]();
    throw error;
  }
}

/** Runs our code inside a namespace, as a plugin runs it on its host, with nf_tables opened there. */
export function insideWithNftables<T>({ netns }: TestNetns, work: (nft: Nftables) => T): T {
  const run = (): unknown => {
    using nft = openNftables();
    return work(nft);
  };
  return withNetns(netns, run) as T;
}

/** One namespace, held by a process that ends when its stdin closes: however this process dies, nothing stays. */
export function openTestNetns(): TestNetns {
  const holder = spawn('unshare', ['--net', 'cat'], { stdio: ['pipe', 'ignore', 'inherit'] });
  holder.on('error', () => {}); // told by waitUntilUnshared, synchronously
  const path = `/proc/${waitUntilUnshared(holder)}/ns/net`;
  const netns = openNetns(path);

  const attempt = (input: string, program: string, args: readonly string[]) => {
    const result = spawnSync('nsenter', [`--net=${path}`, '--', program, ...args], {
      input,
      encoding: 'utf8',
    });
    if (result.error !== undefined) throw result.error;
    return { exitCode: result.status ?? -1, stdout: result.stdout, stderr: result.stderr };
  };
  const run = (input: string, program: string, args: readonly string[]) => {
    const { exitCode, stdout, stderr } = attempt(input, program, args);
    if (exitCode !== 0)
      throw new Error(`"${program} ${args.join(' ')}" exited with ${exitCode}: ${stdout}${stderr}`);
    return stdout;
  };

  return {
    path,
    netns,
    run: (program, ...args) => run('', program, args),
    json: (program, ...args) => JSON.parse(run('', program, args) || '[]'),
    feed: (input, program, ...args) => run(input, program, args),
    attempt: (program, ...args) => attempt('', program, args),
    [Symbol.dispose]() {
      netns[Symbol.dispose]();
      holder.stdin?.destroy();
      holder.kill('SIGKILL');
    },
  };
}

/** The namespace is a new one as soon as the process shows another than ours. */
function waitUntilUnshared(holder: ChildProcess): number {
  const { pid } = holder;
  if (pid === undefined) throw new Error('Cannot start "unshare": util-linux is needed');
  const own = readlinkSync('/proc/self/ns/net');
  const deadline = Date.now() + 5000;
  while (Date.now() < deadline) {
    if (namespaceOf(pid) !== own) return pid;
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1);
  }
  throw new Error('Cannot unshare a network namespace: root is needed');
}

/** A process that ended already (permission denied) shows no namespace any more: then ours, so the wait goes on. */
function namespaceOf(pid: number): string {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return readlinkSync('/proc/self/ns/net');
  }
}
