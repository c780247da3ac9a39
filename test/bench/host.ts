// A private host with a worker inside that runs programs and takes their time. Opened by measure.ts, one for each
// lane of a scenario, so that what one implementation leaves in the kernel never slows the other.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { openPrivateHost, type PrivateHost } from '../support/private-host.ts';
import type { Burst, BurstOrder } from './burst.ts';
import type { Answer, Finished, Order, RunOrder } from './host-worker.ts';

export interface BenchHost extends AsyncDisposable {
  /** Runs a program and takes its time, whatever its exit code. */
  run(order: Omit<RunOrder, 'kind'>): Promise<Finished>;
  /** Runs many programs beside each other and takes the time of each. */
  burst(order: Omit<BurstOrder, 'kind'>): Promise<Burst>;
  /** Runs lines of bash and returns what they printed; throws when one fails. */
  shell(script: string): Promise<string>;
  write(files: readonly (readonly [path: string, content: string])[]): Promise<void>;
}

const WORKER = join(import.meta.dirname, 'host-worker.ts');

/**
 * Makes a host, and in it the network namespaces "s1", for the attachment that is measured, and "crowd". A thousand
 * new links that solicit routers on one bridge are a million packets a round: in "crowd" they have no IPv6, or the
 * benchmark would measure that storm. `open` makes the private host.
 */
export async function openBenchHost(
  open: () => Promise<PrivateHost> = () => openPrivateHost('bench'),
): Promise<BenchHost> {
  const host = await open();
  const [program, args] = host.entering(process.execPath, ['--disable-warning=ExperimentalWarning', WORKER]);
  const worker = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  const order = orderer(worker);
  const opened: BenchHost = {
    run: async (call) => (await order({ kind: 'run', ...call })) as Finished,
    burst: async (calls) => (await order({ kind: 'burst', ...calls })) as Burst,
    shell: async (script) => (await order({ kind: 'shell', script })) as string,
    write: async (files) => {
      await order({ kind: 'write', files });
    },
    [Symbol.asyncDispose]: () => close(host, worker),
  };
  await opened.shell(`
    for n in s1 crowd; do ip netns add $n; ip -n $n link set lo up; done
    ip netns exec crowd sysctl -qw net.ipv6.conf.default.disable_ipv6=1
  `);
  return opened;
}

function orderer(worker: ChildProcess): (order: Order) => Promise<unknown> {
  const { stdin, stdout } = worker;
  if (stdin === null || stdout === null) throw new Error('Cannot talk to the worker of a private host');
  const answers = createInterface({ input: stdout })[Symbol.asyncIterator]();
  return async (order) => {
    stdin.write(`${JSON.stringify(order)}\n`);
    const { value, done } = await answers.next();
    if (done === true) throw new Error('The worker of a private host ended before it answered');
    const answer = JSON.parse(value) as Answer;
    if ('error' in answer) throw new Error(answer.error);
    return answer.value;
  };
}

async function close(host: PrivateHost, worker: ChildProcess): Promise<void> {
  if (worker.exitCode === null) {
    const gone = once(worker, 'exit');
    worker.stdin?.end();
    await gone;
  }
  await host.close();
}
