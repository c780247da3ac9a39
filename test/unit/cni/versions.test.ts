// Order and spelling of protocol versions.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import {
  CNI_VERSIONS,
  type CniVersion,
  isCniVersion,
  isVersionAtLeast,
  isVersionNumberAtLeast,
  resultFamilyOf,
} from '../../../shared/cni/versions.ts';

describe('versions', () => {
  test('are ordered from 0.1.0 to 1.1.0', () => {
    for (const [position, version] of CNI_VERSIONS.entries()) {
      for (const [other, minimum] of CNI_VERSIONS.entries()) {
        expect(isVersionAtLeast(version, minimum), `${version} >= ${minimum}`).toBe(position >= other);
        expect(isVersionNumberAtLeast(version, minimum), `${version} >= ${minimum}`).toBe(position >= other);
      }
    }
  });

  test('are known by their exact text alone', () => {
    expect(CNI_VERSIONS.every(isCniVersion)).toBe(true);
    for (const text of ['', '1.1', 'v1.1.0', '1.1.0 ', '01.1.0', '1.2.0', '9.9.9'])
      expect(isCniVersion(text)).toBe(false);
  });

  test.each<[string, CniVersion, boolean]>([
    ['1', '1.0.0', true],
    ['1', '1.1.0', false],
    ['1.1', '1.1.0', true],
    ['0.4', '0.4.0', true],
    ['0', '0.4.0', false],
    ['9.0.0', '1.1.0', true],
    ['0.10.0', '0.4.0', true],
    ['00.4.0', '0.4.0', true],
    ['-1', '0.4.0', false],
    ['+1.0.0', '1.0.0', true],
  ])('compare as numbers: %s against %s is %s', (text, minimum, expected) => {
    expect(isVersionNumberAtLeast(text, minimum)).toBe(expected);
  });

  test.each(['1.0.0-rc1', 'v1.0.0', '1.0.0.0', '1..0', '.', 'one', '--1.0.0', '1.0.0 ', ' 1'])(
    'cannot be compared when written as "%s"',
    (text) => {
      expect(() => isVersionNumberAtLeast(text, '0.4.0')).toThrow(
        expect.objectContaining({ code: 6, message: expect.stringContaining(JSON.stringify(text)) }),
      );
    },
  );

  test.each([
    ['0.1.0', '0.1.0'],
    ['0.2.0', '0.1.0'],
    ['0.3.0', '0.3.0'],
    ['0.3.1', '0.3.0'],
    ['0.4.0', '0.3.0'],
    ['1.0.0', '1.0.0'],
    ['1.1.0', '1.0.0'],
  ] as const)('%s has results of the family of %s', (version, family) => {
    expect(resultFamilyOf(version)).toBe(family);
  });
});
