// Between the current result and the shapes of older protocol versions, both ways.
// Used by result.ts and by the delegate, which reads what an IPAM plugin of any version answers.
import type { Result } from './result.ts';
import type { CniVersion } from './versions.ts';

/** See `encodeResult`. */
export function encodeShape(result: Result, version: CniVersion): string {
  throw new Error(`unwritten ${String(result)} ${version}`);
}

/** A result as some plugin printed it. */
export function decodeResult(value: unknown, version: CniVersion, where: string): Result {
  throw new Error(`unwritten ${String(value)} ${version} ${where}`);
}
