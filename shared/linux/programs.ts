// Where a program of the host is, for those who start one. Called by shared/iptables and shared/firewalld.
import { accessSync, constants } from 'node:fs';

/** Where distributions install programs. Not PATH: what a root process runs is not for its environment to say. */
export const PROGRAM_DIRECTORIES: readonly string[] = [
  '/usr/sbin',
  '/sbin',
  '/usr/bin',
  '/bin',
  '/usr/local/sbin',
  '/usr/local/bin',
  '/run/current-system/sw/bin',
];

/** The path of the first of these names that is installed, undefined when none is. */
export function findProgram(...names: readonly string[]): string | undefined {
  return names
    .flatMap((name) => PROGRAM_DIRECTORIES.map((directory) => `${directory}/${name}`))
    .find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
