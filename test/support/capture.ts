// A packet capture in a host or sandbox, as the lines that tcpdump prints.
// Opened by `host.capture` and `sandbox.capture` where a test or the demo must show what went over a link.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import { HOST_PATH, type Place } from './place.ts';

export interface Capture extends AsyncDisposable {
  /** What was captured so far, one packet a line. */
  readonly lines: readonly string[];
  /** The first line that matches; throws with all lines after 3 s without one. */
  waitFor(pattern: RegExp): Promise<string>;
  close(): Promise<void>;
}

/** Starts tcpdump on `link`, unbuffered and without name look-ups, and returns once it listens. */
export async function openCapture(place: Place, link: string, filter: string): Promise<Capture> {
  const args = ['-n', '-l', '-q', '-t', '--immediate-mode', '-i', link, filter];
  const [program, programArgs] = place.entering('bash', [
    '--norc',
    '-c',
    WHILE_STDIN_IS_OPEN,
    'tcpdump',
    ...args,
  ]);
  const dump = spawn(program, programArgs, { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH: HOST_PATH } });
  let output = '';
  let said = '';
  dump.stdout.on('data', (chunk) => {
    output += chunk;
  });
  dump.stderr.on('data', (chunk) => {
    said += chunk;
  });

  async function close(): Promise<void> {
    if (dump.exitCode !== null || dump.signalCode !== null) return;
    const gone = once(dump, 'exit');
    dump.stdin.end();
    await gone;
  }

  for (const deadline = Date.now() + 5000; !said.includes('listening on'); await delay(2)) {
    if (dump.exitCode !== null || Date.now() > deadline) {
      await close();
      throw new Error(`tcpdump does not listen on "${link}" in ${place.name}: ${said.trim()}`);
    }
  }
  const capture: Capture = {
    get lines() {
      return output.split('\n').filter((line) => line !== '');
    },
    close,
    [Symbol.asyncDispose]: close,
    async waitFor(pattern) {
      for (const deadline = Date.now() + 3000; ; await delay(5)) {
        const line = capture.lines.find((candidate) => pattern.test(candidate));
        if (line !== undefined) return line;
        if (Date.now() > deadline) {
          throw new Error(`No packet on "${link}" in ${place.name} matches ${pattern}, only:\n${output}`);
        }
      }
    },
  };
  return capture;
}

// A signal for nsenter does not reach the program it started, a closed pipe does.
const WHILE_STDIN_IS_OPEN = `
  "$0" "$@" </dev/null &
  read -r _
  kill $!
`;
