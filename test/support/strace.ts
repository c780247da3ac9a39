// Runs one packaged plugin under strace: which system calls it makes, and what it does when one of them fails.
// Called by the binary tests that count calls, look at their order, or inject faults.
import { existsSync, readFileSync, rmSync } from 'node:fs';
import type { Finished } from './place.ts';
import type { PrivateHost } from './private-host.ts';
import { encodeConfig, environmentOf, executableOf, type PluginCall, type Verb } from './run-plugin.ts';

export interface Traced extends Finished {
  /** What strace wrote, a system call a line. */
  readonly lines: readonly string[];
}

const OUTPUT = '/run/strace-output';
const STDOUT = '/run/strace-stdout';

/**
 * Runs a verb under strace with these options besides `-o`. A plugin that a signal killed has the exit code of a shell,
 * 128 and the signal's number.
 */
export async function runTraced(
  host: PrivateHost,
  verb: Verb,
  call: PluginCall,
  options: readonly string[],
): Promise<Traced> {
  const output = host.file(OUTPUT);
  // strace dies of the signal its tracee died of; bash makes an exit code of it. A file for standard output has a name.
  const script = [
    '--norc',
    '-c',
    `"$@" > ${STDOUT}; code=$?; cat ${STDOUT}; rm ${STDOUT}; exit $code`,
    'bash',
  ];
  const program = ['strace', '-o', OUTPUT, ...options, executableOf(call)];
  const finished = await host.attempt('bash', [...script, ...program], {
    env: environmentOf(verb, call),
    input: encodeConfig(call.config),
  });
  const text = existsSync(output) ? readFileSync(output, 'utf8') : '';
  rmSync(output, { force: true });
  return { ...finished, lines: text.split('\n').filter((line) => line !== '') };
}

/** Options that trace one system call and inject a fault into it, such as `error=EIO:when=3`. */
export function injecting(call: string, fault: string): string[] {
  return ['-e', `trace=${call}`, '-e', `inject=${call}:${fault}`];
}

/** Whether the fault came to pass, or the call was never made that often. */
export function wasInjected({ lines }: Traced): boolean {
  return lines.some((line) => /\(INJECTED\)|killed by SIGKILL/.test(line));
}
