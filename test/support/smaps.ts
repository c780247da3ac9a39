// The memory of a Node that has just started, as the kernel tells it. Used by the tests of the patches that ask for huge pages.
import { execFileSync } from 'node:child_process';

/** A mapping of proc(5)'s smaps: addresses, bytes in memory, and the kernel's flags, such as "hg" for MADV_HUGEPAGE. */
export interface Mapping {
  readonly name: string;
  readonly begin: number;
  readonly end: number;
  readonly resident: number;
  readonly flags: readonly string[];
}

/** The mappings of the Node at `program`, by address, with an empty environment. */
export function readMaps(program: string): Mapping[] {
  const script = `process.stdout.write(require('node:fs').readFileSync('/proc/self/smaps', 'latin1'))`;
  const smaps = execFileSync(program, ['-e', script], { encoding: 'latin1', env: {} });
  return smaps.split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m).map((text) => {
    const [, begin = '', end = '', name = ''] =
      /^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)$/m.exec(text) ?? [];
    return {
      name,
      begin: Number.parseInt(begin, 16),
      end: Number.parseInt(end, 16),
      resident: Number(/^Rss: +(\d+) kB$/m.exec(text)?.[1]) * 1024,
      flags: (/^VmFlags: (.*)$/m.exec(text)?.[1] ?? '').trim().split(' '),
    };
  });
}

/** Those for which huge pages were asked. */
export function askedFor(maps: readonly Mapping[]): Mapping[] {
  return maps.filter(({ flags }) => flags.includes('hg'));
}
