// What a step throws, for tests that look at more of an error than its message. Used by the unit tests.

/** The error that the step throws. Throws Error when it throws none. */
export function caught(step: () => unknown): unknown {
  try {
    step();
  } catch (error) {
    return error;
  }
  throw new Error('Nothing was thrown');
}
