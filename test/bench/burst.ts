// Many programs at once: clients that make one call after the other, all of them beside each other.
// Called by the benchmark's worker inside a private host.
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { type Ended, findEnded, type Started, start, waitForAny } from './spawn.ts';

/** One program of a burst, as in `RunOrder`. `label` names it in the answer. */
export interface Call {
  readonly label: string;
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: string;
}

export interface BurstOrder {
  readonly kind: 'burst';
  /** What each client runs, in this order. All clients start together. */
  readonly clients: readonly (readonly Call[])[];
  /** A file with the process id of a daemon that works for the clients: its processor time counts, too. */
  readonly daemon?: string | undefined;
  /** Looks at the memory of the processes whose executables lie below this directory, which disturbs the times. */
  readonly watch?: string | undefined;
}

export interface Burst {
  /** From the first start to the last end. */
  readonly wallMs: number;
  readonly daemonCpuMs: number;
  readonly calls: readonly Finished[];
  /** Of each look at least one of the programs was there for. */
  readonly looks: readonly Look[];
}

interface Finished {
  readonly label: string;
  readonly wallMs: number;
  readonly cpuMs: number;
  /** What a call that failed has said. */
  readonly failure?: string;
}

/** Memory of the processes that were there at one moment, MB (10⁶ bytes), and of all of them. */
export interface Look {
  readonly processes: number;
  readonly rssMb: number;
  readonly pssMb: number;
}

const PAUSE_MS = 4;

/** Runs them all. A call that fails is told by its `failure`, and its client goes on. */
export function carryOutBurst({ clients, daemon, watch }: BurstOrder, directory: string): Burst {
  const running = new Map<number, { client: number; call: Call; next: number } & Started>();
  const calls: Finished[] = [];
  const looks: Look[] = [];
  const before = cpuOfDaemon(daemon);
  const first = process.hrtime.bigint();

  function startNext(client: number, position: number): void {
    const call = clients[client]?.[position];
    if (call === undefined) return;
    const streams = streamsOf(directory, client);
    writeFileSync(streams.stdin, call.stdin);
    const started = start(call.argv, call.env, streams);
    running.set(started.pid, { ...started, client, call, next: position + 1 });
  }

  function finish({ pid, ended, cpuMs, exitCode }: Ended): void {
    const run = running.get(pid);
    if (run === undefined) return;
    running.delete(pid);
    const wallMs = Number(ended - run.started) / 1e6;
    const failure = exitCode === 0 ? {} : { failure: `${exitCode}: ${saidBy(directory, run.client)}` };
    calls.push({ label: run.call.label, wallMs, cpuMs, ...failure });
    startNext(run.client, run.next);
  }

  for (const client of clients.keys()) startNext(client, 0);
  while (running.size > 0) {
    const ended = watch === undefined ? waitForAny() : findEnded();
    if (ended !== undefined) finish(ended);
    else if (watch !== undefined) {
      const look = lookAt(watch);
      if (look.processes > 0) looks.push(look);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
    }
  }
  const wallMs = Number(process.hrtime.bigint() - first) / 1e6;
  return { wallMs, daemonCpuMs: cpuOfDaemon(daemon) - before, calls, looks };
}

/** Processor time of the process and of what it has waited for, in milliseconds; the kernel counts in hundredths. */
export function cpuOfDaemon(file: string | undefined): number {
  if (file === undefined) return 0;
  const stat = readFileSync(`/proc/${readFileSync(file, 'utf8').trim()}/stat`, 'utf8');
  // The second field is a name in parentheses, and may hold anything; utime is number 14, proc(5).
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) * 10;
}

function streamsOf(directory: string, client: number) {
  const path = `${directory}/client-${client}`;
  return { stdin: `${path}-stdin`, stdout: `${path}-stdout`, stderr: `${path}-stderr` };
}

function saidBy(directory: string, client: number): string {
  const { stdout, stderr } = streamsOf(directory, client);
  return `${readFileSync(stdout, 'utf8')}${readFileSync(stderr, 'utf8')}`.trim();
}

function lookAt(directory: string): Look {
  const memory = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => memoryOf(pid, directory));
  return {
    processes: memory.length,
    rssMb: memory.reduce((sum, { rss }) => sum + rss, 0),
    pssMb: memory.reduce((sum, { pss }) => sum + pss, 0),
  };
}

// A process may end at any moment.
function memoryOf(pid: string, directory: string): { rss: number; pss: number }[] {
  try {
    if (!readlinkSync(`/proc/${pid}/exe`).startsWith(`${directory}/`)) return [];
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
    const field = (name: string) =>
      (Number(new RegExp(`^${name}: +(\\d+) kB`, 'm').exec(rollup)?.[1] ?? 0) * 1024) / 1e6;
    return [{ rss: field('Rss'), pss: field('Pss') }];
  } catch {
    return [];
  }
}
