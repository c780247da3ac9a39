// A verb's system calls as strace wrote them down, with the bytes that were sent and received.
// Called by translate.ts and limit.ts, pure.

/** One system call. `args` is what stands between the parentheses. */
export interface RecordedCall {
  readonly name: string;
  readonly args: string;
  /** Undefined when the call failed. */
  readonly result: number | undefined;
  /** Of `-e write=all` and `-e read=all`. */
  readonly bytes: Buffer;
}

/** Options of strace with which a recording is made. */
export const RECORDING = ['-s', '1000000', '-e', 'write=all', '-e', 'read=all'] as const;

/** What a program does for itself: memory, waiting for threads of its own, giving up rights. */
const OWN = /^(mmap|munmap|mprotect|madvise|brk|futex|exit_group|sched_yield|capget|capset|prctl|getpid)$/;

/**
 * The calls of a verb: from the first look at its config to its end. Throws Error when the recording does not hold a
 * reading of standard input, with which every verb begins.
 */
export function parseRecording(lines: readonly string[]): RecordedCall[] {
  const calls: RecordedCall[] = [];
  for (const line of lines) {
    const dumped = /^ \| [0-9a-f]{5,} {2}(.{49})/.exec(line)?.[1];
    const last = calls.at(-1);
    if (dumped !== undefined && last !== undefined) {
      const bytes = Buffer.from(dumped.replaceAll(' ', ''), 'hex');
      calls[calls.length - 1] = { ...last, bytes: Buffer.concat([last.bytes, bytes]) };
      continue;
    }
    const call = /^(\w+)\((.*)\) += (-?\d+|\?)/.exec(line);
    if (call === null) continue;
    const [, name = '', args = '', text = ''] = call;
    const result = Number(text) >= 0 ? Number(text) : undefined;
    calls.push({ name, args, result, bytes: Buffer.alloc(0) });
  }
  const first = calls.findIndex(({ name, args }) => name === 'read' && args.startsWith('0,'));
  if (first < 0) throw new Error('The recording has no reading of standard input');
  return calls.slice(first).filter(({ name }) => !OWN.test(name));
}
