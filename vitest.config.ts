// How vitest finds and runs the four kinds of test: one project a folder of test/.
// Read by vitest, which build/test.ts and the developer start.
import { defineConfig } from 'vitest/config';

const SECOND = 1000;

// Tests that make namespaces run one file at a time: 2 cores, and timings that mean something.
const serial = {
  fileParallelism: false,
  testTimeout: 120 * SECOND,
  hookTimeout: 300 * SECOND,
};

export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 2,
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts', 'test/tidy.test.ts'] } },
      { test: { name: 'kernel', include: ['test/kernel/**/*.test.ts'], ...serial } },
      { test: { name: 'binary', include: ['test/binary/**/*.test.ts'], ...serial } },
      { test: { name: 'e2e', include: ['test/e2e/**/*.test.ts'], ...serial } },
    ],
  },
});
