// How vitest finds and runs the kinds of test: one project a folder of test/.
// Read by vitest, which build/test.ts and the developer start.
import { defineConfig } from 'vitest/config';

const SECOND = 1000;

// Tests that make namespaces run one file at a time: two cores, and times that mean something.
const serial = {
  fileParallelism: false,
  testTimeout: 120 * SECOND,
  hookTimeout: 300 * SECOND,
};

export default defineConfig({
  test: {
    projects: [
      // A busy machine may take its time.
      project('unit', { include: ['test/unit/**/*.test.ts', 'test/tidy.test.ts'], testTimeout: 60 * SECOND }),
      project('kernel', serial),
      project('binary', serial),
      project('fuzz', serial),
      project('e2e', serial),
      project('runtimes', serial),
      project('faults', serial),
    ],
  },
});

function project(name: string, options: object) {
  return {
    test: {
      name,
      include: [`test/${name}/**/*.test.ts`],
      pool: 'forks' as const,
      // A warning that node:ffi is experimental would stand between the lines of every file that loads it.
      execArgv: ['--disable-warning=ExperimentalWarning'],
      // One project after the other.
      sequence: {
        groupOrder: ['unit', 'kernel', 'binary', 'fuzz', 'e2e', 'runtimes', 'faults'].indexOf(name),
      },
      ...options,
    },
  };
}
