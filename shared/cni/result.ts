// The result of an ADD in its current shape, CNI 1.1; plugins make and read no other. Encoded for the
// config's version by the dispatcher; parsed from prevResult and from an IPAM plugin's answer.
import { invalidConfig, quote } from './error.ts';
import { decodeResult, encodeShape } from './result-versions.ts';
import { type CniVersion, resultFamilyOf } from './versions.ts';

export interface Dns {
  readonly nameservers?: readonly string[];
  readonly domain?: string;
  readonly search?: readonly string[];
  readonly options?: readonly string[];
}

export interface ResultInterface {
  readonly name: string;
  /** Lower case, colons between the bytes. */
  readonly mac?: string;
  readonly mtu?: number;
  /** Path of the namespace as the runtime gave it; absent for a link of the host. */
  readonly sandbox?: string;
  readonly socketPath?: string;
  readonly pciID?: string;
}

export interface ResultIp {
  /** Address and prefix length, host bits kept: `10.1.0.5/16`. */
  readonly address: string;
  readonly gateway?: string;
  /** Position in `interfaces`. */
  readonly interface?: number;
}

export interface ResultRoute {
  readonly dst: string;
  readonly gw?: string;
  readonly mtu?: number;
  readonly advmss?: number;
  readonly priority?: number;
  readonly table?: number;
  readonly scope?: number;
}

/**
 * What ADD made. Every object may carry more than its type says: keys of a prevResult that we don't know
 * travel along when the object is passed on or spread, and are printed again.
 */
export interface Result {
  readonly interfaces?: readonly ResultInterface[];
  readonly ips?: readonly ResultIp[];
  readonly routes?: readonly ResultRoute[];
  readonly dns?: Dns;
}

/**
 * The JSON text of a result in the shape of `version`: four spaces, no newline at the end, key order and
 * escapes of the reference. Throws `incompatibleVersion` when that shape cannot say it: 0.1.0 and 0.2.0 need
 * an address.
 */
export function encodeResult(result: Result, version: CniVersion): string {
  return encodeShape(result, version);
}

/**
 * A prevResult, from the family of shapes that `version` belongs to. Throws `invalidConfig` naming the field
 * when it is of another family or malformed.
 */
export function parseResult(value: unknown, version: CniVersion): Result {
  const decoded = decodeResult(value, version, 'prevResult');
  if (resultFamilyOf(decoded.version) === resultFamilyOf(version)) return decoded.result;
  throw invalidConfig(
    `Cannot use a prevResult with cniVersion ${quote(decoded.version)} in a config with cniVersion ${quote(version)}`,
    { details: 'Both must be of one family: 0.1.0 and 0.2.0, or 0.3.0 to 0.4.0, or 1.0.0 and 1.1.0' },
  );
}
