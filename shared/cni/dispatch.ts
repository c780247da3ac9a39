// The life of one call: environment, stdin, versions, the plugin's verb, and what to print.
// Called by main.ts; the delegate runs our own IPAM plugins through the same steps.
import type { AnyPlugin } from './plugin.ts';

/** Everything a call takes from the process. */
export interface DispatchIo {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Called once at most; never for VERSION and the bare run. */
  readonly readStdin: () => Buffer;
  /** Writes one line to stderr. */
  readonly log: (line: string) => void;
  /** The plugins this executable holds, by name. */
  readonly registry: (name: string) => AnyPlugin | undefined;
  /** Path of the running executable, compared by inode with what is found on CNI_PATH. */
  readonly ownExecutable: string;
  /** Semantic version of Patchbay, with or without the leading `v`. */
  readonly version: string;
}

/** What the process prints on stdout and exits with; stderr has gone through `log` already. */
export interface Outcome {
  readonly stdout: string;
  readonly exitCode: 0 | 1;
}

/** Runs the call the environment asks for. Never throws: what goes wrong is printed as a CNI error. */
export function dispatch(plugin: AnyPlugin, io: DispatchIo): Outcome {
  throw new Error(`unwritten ${plugin.name} ${io.version}`);
}
