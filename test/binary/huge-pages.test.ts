// Says that the packaged executables ask for huge pages, and do without when the kernel refuses the memory for them.
// Called by vitest.
import { arch } from 'node:process';
import { describe, expect, test } from 'vitest';
import { openPrivateHost } from '../support/private-host.ts';
import { injecting, runTraced, wasInjected } from '../support/strace.ts';

const CALL = { config: {}, containerId: 'c1', netns: '', ifname: 'eth0' };
/** What V8 gets: 16 MiB, and 2 to align them. And what malloc gets and gives back, with its header, so that it keeps more. */
const MAPPINGS = { V8: 18874368, malloc: 16781312 };

describe.skipIf(arch === 'arm64')(
  'The packaged executable (for x86-64: the patches have no code for arm64)',
  () => {
    test('asks the kernel for huge pages, once for V8 and once for malloc', async () => {
      await using host = await openPrivateHost();
      const { lines } = await runTraced(host, 'VERSION', CALL, ['-f', '-e', 'trace=madvise']);
      const sizes = lines.flatMap((line) => /, (\d+), MADV_HUGEPAGE/.exec(line)?.[1] ?? []);
      expect(sizes).toEqual(['8388608', '16777216']);
    });

    test.each(Object.entries(MAPPINGS))('answers when %s is refused the memory for them', async (_, size) => {
      await expectAnswerWithout('mmap', `, ${size}, `);
    });

    test('answers when the kernel has none', async () => {
      await expectAnswerWithout('madvise', 'MADV_HUGEPAGE');
    });
  },
);

/** VERSION is right although the first call of that kind whose line holds `text` has failed. */
async function expectAnswerWithout(call: string, text: string): Promise<void> {
  await using host = await openPrivateHost();
  const traced = await runTraced(host, 'VERSION', CALL, ['-e', `trace=${call}`]);
  const at = traced.lines.findIndex((line) => line.includes(text));
  expect(at).toBeGreaterThanOrEqual(0);
  const injection = injecting(call, `error=ENOMEM:when=${at + 1}`);
  const refused = await runTraced(host, 'VERSION', CALL, injection);
  expect(wasInjected(refused)).toBe(true);
  expect(refused.lines[at]).toContain(text);
  expect(refused.stdout).toContain('"supportedVersions"');
  expect(refused.exitCode).toBe(0);
}
