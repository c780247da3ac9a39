// Says how the set-up of tools looks for programs and what it says of those it cannot install.
// Called by vitest.
import { afterEach, describe, expect, test, vi } from 'vitest';
import { isPresent, setUpTools, TOOLS } from '../../../build/tools.ts';

describe('Looking for a program', () => {
  test('finds a name on PATH', () => {
    expect(isPresent('sh')).toBe(true);
    expect(isPresent('no-such-program')).toBe(false);
  });

  test('finds what is in the sbin directories although PATH does not name them', () => {
    vi.stubEnv('PATH', '/nowhere');
    expect(isPresent('ldconfig')).toBe(true);
    vi.unstubAllEnvs();
  });

  test('takes a path as it stands', () => {
    expect(isPresent('/bin/sh')).toBe(true);
    expect(isPresent('/bin/no-such-program')).toBe(false);
  });
});

describe('A tool that cannot be installed', () => {
  const MISSING = { program: '/nowhere/tool', debianPackage: 'toolbox', purpose: 'this test' };

  afterEach(() => {
    vi.unstubAllEnvs();
    vi.restoreAllMocks();
    process.exitCode = undefined;
  });

  test.each([
    ['is a failure in CI', 'true', 1],
    ['is named and left at that elsewhere', '', undefined],
  ])('%s', (_, ci, exitCode) => {
    vi.stubEnv('CI', ci);
    vi.stubEnv('PATH', '/nowhere');
    vi.spyOn(process, 'getuid').mockReturnValue(1000);
    const error = vi.spyOn(console, 'error').mockImplementation(() => {});
    setUpTools([MISSING]);
    expect(error).toHaveBeenCalledExactlyOnceWith(
      '"/nowhere/tool" is missing (Debian package toolbox), needed for this test',
    );
    expect(process.exitCode).toBe(exitCode);
  });
});

test('every tool says what it is for', () => {
  expect(TOOLS.filter(({ purpose }) => purpose === '')).toEqual([]);
});
