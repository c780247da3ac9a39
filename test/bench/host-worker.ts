// The part of the benchmark that lives inside a private host: it reads orders, one JSON object a line, carries them
// out one after the other, and answers in kind. Started by host.ts; synchronous, so nothing runs beside the clock.

import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { type Burst, type BurstOrder, carryOutBurst } from './burst.ts';
import { type Run, spawnTimed } from './spawn.ts';

/** Runs `argv` with `stdin` as its standard input and nothing in its environment but `env`. */
export interface RunOrder {
  readonly kind: 'run';
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly stdin: string;
  /** Milliseconds to rest afterwards: the kernel frees links and rules behind a program's back. */
  readonly settleMs: number;
}

/** Runs lines of bash, stopping at the first that fails, and answers with what they printed. */
export interface ShellOrder {
  readonly kind: 'shell';
  readonly script: string;
}

/** Writes files, making their directories. */
export interface WriteOrder {
  readonly kind: 'write';
  readonly files: readonly (readonly [path: string, content: string])[];
}

export type Order = RunOrder | BurstOrder | ShellOrder | WriteOrder;

export interface Finished extends Run {
  readonly stdout: string;
  readonly stderr: string;
}

export type Answer = { readonly value: unknown } | { readonly error: string };

const DIRECTORY = '/run/bench';
const STREAMS = {
  stdin: `${DIRECTORY}/stdin`,
  stdout: `${DIRECTORY}/stdout`,
  stderr: `${DIRECTORY}/stderr`,
} as const;

if (import.meta.main) serve();

function serve(): void {
  mkdirSync(DIRECTORY, { recursive: true });
  for (const line of linesOf(0)) {
    writeSync(1, `${JSON.stringify(answer(JSON.parse(line) as Order))}\n`);
  }
}

function answer(order: Order): Answer {
  try {
    return { value: carryOut(order) ?? null };
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
}

function carryOut(order: Order): Finished | Burst | string | undefined {
  switch (order.kind) {
    case 'run':
      return run(order);
    case 'burst':
      return carryOutBurst(order, DIRECTORY);
    case 'shell':
      return execFileSync('bash', ['--norc', '-euo', 'pipefail', '-c', order.script], {
        encoding: 'utf8',
        stdio: ['ignore', 'pipe', 'pipe'],
      });
    case 'write':
      for (const [path, content] of order.files) {
        mkdirSync(dirname(path), { recursive: true });
        writeFileSync(path, content);
      }
      return undefined;
  }
}

function run(order: RunOrder): Finished {
  writeFileSync(STREAMS.stdin, order.stdin);
  const timed = spawnTimed(order.argv, order.env, STREAMS);
  const finished = {
    ...timed,
    stdout: readFileSync(STREAMS.stdout, 'utf8'),
    stderr: readFileSync(STREAMS.stderr, 'utf8'),
  };
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, order.settleMs);
  return finished;
}

function* linesOf(fd: number): Generator<string> {
  const chunk = Buffer.alloc(1 << 16);
  let begun: string[] = []; // a line of 200,000 rules is looked through once, not once more with each chunk
  for (let length = readSync(fd, chunk); length > 0; length = readSync(fd, chunk)) {
    const [first = '', ...more] = chunk.toString('utf8', 0, length).split('\n');
    begun.push(first);
    for (const next of more) {
      yield begun.join('');
      begun = [next];
    }
  }
}
