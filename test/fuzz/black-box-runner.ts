// Runs calls of the packaged executables one after the other, from inside a private host: entering one for each call
// would take longer than the call. Started by fuzz-host.ts; a JSON line of calls in, a JSON line of ends out.
import { spawnSync } from 'node:child_process';
import { createInterface } from 'node:readline';

/** A call ready to be made. */
export interface WireCall {
  readonly file: string;
  readonly env: Readonly<Record<string, string>>;
  /** Base64. */
  readonly stdin: string;
}

export interface WireEnd {
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
  /** The end of the DEL that followed an ADD that succeeded. */
  readonly undone?: WireEnd;
}

/** Longer than any wait of a plugin, locks included. */
const DEADLINE_MS = 30_000;
/** More than a plugin has to say. */
const OUTPUT_LIMIT = 4 * 1024 * 1024;

if (import.meta.main) {
  for await (const line of createInterface({ input: process.stdin })) {
    const calls = JSON.parse(line) as readonly WireCall[];
    process.stdout.write(`${JSON.stringify(calls.map(runAndUndo))}\n`);
  }
}

function runAndUndo(call: WireCall): WireEnd {
  const end = run(call);
  if (call.env['CNI_COMMAND'] !== 'ADD' || end.exitCode !== 0) return end;
  return { ...end, undone: run({ ...call, env: { ...call.env, CNI_COMMAND: 'DEL' } }) };
}

function run({ file, env, stdin }: WireCall): WireEnd {
  const { status, signal, stdout, stderr } = spawnSync(file, [], {
    env: { PATH: process.env['PATH'], ...env },
    input: Buffer.from(stdin, 'base64'),
    timeout: DEADLINE_MS,
    killSignal: 'SIGKILL',
    maxBuffer: OUTPUT_LIMIT,
    encoding: 'utf8',
  });
  return { exitCode: status, signal, stdout, stderr };
}
