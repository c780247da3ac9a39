// A place where programs run: a private host or one of its sandboxes, entered with nsenter.
// Made by private-host.ts; tests and the demo see it as the host and the sandboxes they were given.
import { execa } from 'execa';

/** Where a host looks for programs; the machine's own PATH is not passed on. */
export const HOST_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

export interface Finished {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly input?: string | Uint8Array;
  readonly env?: Readonly<Record<string, string | undefined>>;
}

/** Where programs run: a private host, or one sandbox of it. */
export interface Place {
  readonly name: string;
  /** Runs a program; an exit code other than 0 throws with everything the program said. */
  run(program: string, args?: readonly string[], options?: RunOptions): Promise<Finished>;
  /** Runs a program and returns whatever came of it. */
  attempt(program: string, args?: readonly string[], options?: RunOptions): Promise<Finished>;
  /** Runs lines of bash, stopping at the first that fails. */
  shell(script: string): Promise<Finished>;
  /** The command line that enters this place and runs `program` there. */
  entering(program: string, args: readonly string[]): [string, string[]];
}

/** A place with files of its own. */
export interface HostPlace extends Place {
  /** Where this process finds a file of the host: `/etc/cni/x` becomes `/proc/<pid>/root/etc/cni/x`. */
  file(path: string): string;
}

/** The same, if the program ended well; throws with everything it said otherwise. */
export function expectDone(finished: Finished): Finished {
  if (finished.exitCode === 0) return finished;
  throw new Error(`Exit code ${finished.exitCode}: ${[finished.stdout, finished.stderr].join('\n').trim()}`);
}

/** What the program said on stderr, if it failed with exit code 1; throws otherwise. */
export function expectRefused(finished: Finished): string {
  if (finished.exitCode === 1) return finished.stderr;
  throw new Error(`Exit code ${finished.exitCode} instead of 1: ${finished.stdout}`);
}

/** A place entered by `nsenter` with these arguments. */
export function makePlace(name: string, enter: readonly string[]): Place {
  const place: Place = {
    name,
    entering: (program, args) => ['nsenter', [...enter, '--', program, ...args]],
    async run(program, args = [], options = {}) {
      const finished = await place.attempt(program, args, options);
      if (finished.exitCode === 0) return finished;
      const said = [finished.stdout, finished.stderr].filter((text) => text !== '').join('\n');
      throw new Error(
        `"${[program, ...args].join(' ')}" in ${name} exited with ${finished.exitCode}: ${said}`,
      );
    },
    async attempt(program, args = [], options = {}) {
      const [command, commandArgs] = place.entering(program, args);
      const { exitCode, stdout, stderr, cause, signal } = await execa(command, commandArgs, {
        reject: false,
        extendEnv: false,
        env: { PATH: HOST_PATH, ...options.env },
        ...(options.input === undefined ? { stdin: 'ignore' } : { input: options.input }),
      });
      if (exitCode === undefined)
        throw new Error(`"${program}" did not end by itself (${signal})`, { cause });
      return { exitCode, stdout, stderr };
    },
    // bash takes a socket on stdin for a remote shell and would read ~/.bashrc, hence --norc everywhere.
    shell: (script) => place.run('bash', ['--norc', '-euo', 'pipefail', '-c', script]),
  };
  return place;
}
