// The machines that executables are made for, and how this one runs programs of another. Called by whatever makes
// executables; packages for the machine at hand need nothing of it but names.
import { arch } from 'node:os';

export interface Target {
  /** As Node and npm say it. */
  readonly arch: 'x64' | 'arm64';
  /** As Debian and Go say it, and so the names of archives. */
  readonly debian: 'amd64' | 'arm64';
  /** As compilers say it: the prefix of Debian's cross tools, and the directory of its cross libraries. */
  readonly triplet: string;
  /** The user emulation of Debian's qemu-user-static. */
  readonly emulator: string;
}

export const TARGETS: readonly Target[] = [
  { arch: 'x64', debian: 'amd64', triplet: 'x86_64-linux-gnu', emulator: 'qemu-x86_64-static' },
  { arch: 'arm64', debian: 'arm64', triplet: 'aarch64-linux-gnu', emulator: 'qemu-aarch64-static' },
];

/** This machine. Throws Error on one that no executables are made for. */
export function hostTarget(): Target {
  const target = TARGETS.find((candidate) => candidate.arch === arch());
  if (target === undefined) throw new Error(`No executables are made for "${arch()}"`);
  return target;
}

export function isHost(target: Target): boolean {
  return target.arch === arch();
}

/** The command that runs a program of that machine here: itself, or itself under emulation. */
export function runnable(target: Target, [program = '', ...args]: readonly string[]): string[] {
  if (isHost(target)) return [program, ...args];
  // The libraries are Debian's for cross compilers.
  return [target.emulator, '-L', `/usr/${target.triplet}`, program, ...args];
}
