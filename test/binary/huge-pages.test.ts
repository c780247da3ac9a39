// Says that the packaged executables ask for huge pages, and do without when the kernel refuses the memory for them.
// Called by vitest.
import { arch } from 'node:process';
import { describe, expect, test } from 'vitest';
import { openPrivateHost } from '../support/private-host.ts';
import { injecting, runTraced, wasInjected } from '../support/strace.ts';

const CALL = { config: {}, containerId: 'c1', netns: '', ifname: 'eth0' };
/** 16 MiB, and 2 to align them. */
const ARENA = 18874368;

describe.skipIf(arch === 'arm64')(
  'The packaged executable (for x86-64: the patch has no code for arm64)',
  () => {
    test('asks the kernel for huge pages, once', async () => {
      await using host = await openPrivateHost();
      const { lines } = await runTraced(host, 'VERSION', CALL, ['-f', '-e', 'trace=madvise']);
      expect(lines.filter((line) => line.includes('MADV_HUGEPAGE'))).toHaveLength(1);
    });

    test('answers when the memory for them is refused', async () => {
      await using host = await openPrivateHost();
      const traced = await runTraced(host, 'VERSION', CALL, ['-e', 'trace=mmap']);
      const at = traced.lines.findIndex((line) => line.includes(`, ${ARENA}, `));
      expect(at).toBeGreaterThan(0);
      const refused = await runTraced(
        host,
        'VERSION',
        CALL,
        injecting('mmap', `error=ENOMEM:when=${at + 1}`),
      );
      expect(wasInjected(refused)).toBe(true);
      expect(refused.lines[at]).toContain(`, ${ARENA}, `);
      expect(refused.stdout).toContain('"supportedVersions"');
      expect(refused.exitCode).toBe(0);
    });
  },
);
