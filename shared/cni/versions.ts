// The CNI protocol versions Patchbay speaks, and their order.
// Used by the dispatcher, the result conversion and every plugin definition.
import { decodingFailure, quote } from './error.ts';

/** Every protocol version, oldest first. */
export const CNI_VERSIONS = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;

export type CniVersion = (typeof CNI_VERSIONS)[number];

/** What a config without `cniVersion` means (CNI SPEC 0.1.0 had no such key). */
export const OLDEST_VERSION: CniVersion = '0.1.0';

/** What VERSION answers, and what an error carries when the config's own version is unknown. */
export const NEWEST_VERSION: CniVersion = '1.1.0';

/** The three shapes a result has had, each named after its first version. */
export type ResultFamily = '0.1.0' | '0.3.0' | '1.0.0';

/** Promises that `version` is `minimum` or newer. */
export function isVersionAtLeast(version: CniVersion, minimum: CniVersion): boolean {
  return CNI_VERSIONS.indexOf(version) >= CNI_VERSIONS.indexOf(minimum);
}

/** Tells whether the text is exactly one of the protocol versions (`1.1` and `v1.1.0` are not). */
export function isCniVersion(text: string): text is CniVersion {
  return (CNI_VERSIONS as readonly string[]).includes(text);
}

/** The shape results have at this version. */
export function resultFamilyOf(version: CniVersion): ResultFamily {
  if (isVersionAtLeast(version, '1.0.0')) return '1.0.0';
  return isVersionAtLeast(version, '0.3.0') ? '0.3.0' : '0.1.0';
}

/**
 * Compares a version number as written in a config with a known one: one to three integers between dots,
 * missing parts are 0. Throws `decodingFailure` for anything else, such as `1.0.0-rc1`.
 */
export function isVersionNumberAtLeast(text: string, minimum: CniVersion): boolean {
  if (!/^[+-]?\d+(\.[+-]?\d+){0,2}$/.test(text)) {
    throw decodingFailure(`Cannot read the version number ${quote(text)} in "cniVersion"`);
  }
  const parts = text.split('.').map(Number);
  for (const [position, wanted] of minimum.split('.').map(Number).entries()) {
    const given = parts[position] ?? 0;
    if (given !== wanted) return given > wanted;
  }
  return true;
}
