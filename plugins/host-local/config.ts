// host-local's part of a network config: range sets, requested addresses, and where the store is.
// Called by dispatch before any verb; nothing here looks at the host.
import { posix } from 'node:path';
import * as v from 'valibot';
import { parseCniArgs } from '../../shared/cni/args.ts';
import { configObject, decode, wholeNumber } from '../../shared/cni/decode.ts';
import { invalidConfig, invalidEnvironment, quote } from '../../shared/cni/error.ts';
import type { ConfigSource } from '../../shared/cni/plugin.ts';
import type { ResultRoute } from '../../shared/cni/result.ts';
import { isVersionAtLeast } from '../../shared/cni/versions.ts';
import { formatCidr, formatIp, type Ip, parseCidr, parseIp } from '../../shared/ip/cidr.ts';
import { canonicalRange, familyOf, findOverlap, formatRangeSet, type Range, type RangeSet } from './range.ts';

/** What ADD, CHECK and STATUS work with. */
export interface HostLocalConfig {
  /** Absolute; the store is the directory of the network's name in it. */
  readonly dataDir: string;
  /** One address is taken from each; the position is the number of the set's pointer file. */
  readonly sets: readonly [RangeSet, ...RangeSet[]];
  /** Addresses the runtime or the user asks for, each once. */
  readonly requested: readonly Ip[];
  readonly routes: readonly ResultRoute[];
  /** Path of a file in the format of resolv.conf(5). */
  readonly resolvConf: string | undefined;
  /** STATUS fails when a set is exhausted, instead of saying so on stderr. */
  readonly strictStatus: boolean;
}

/** What DEL and GC need: addresses are found by their holder, so the ranges do not matter. */
export interface HostLocalTeardown {
  readonly dataDir: string;
}

/** Where the reference plugins keep their stores too. */
export const DEFAULT_DATA_DIR = '/var/lib/cni/networks';

/**
 * Parses a config for ADD, CHECK and STATUS. Throws invalidConfig naming field and value, invalidEnvironment for
 * CNI_ARGS.
 */
export function parseConfig(source: ConfigSource): HostLocalConfig {
  const fields = decode(hostLocalSchema(), source.network.raw, WHERE);
  const { ipam, runtimeConfig, args } = fields;
  const sets = rangeSetsOf(fields);
  refuseOverlap(sets);
  if (!isVersionAtLeast(source.network.cniVersion, '0.3.0'))
    refuseSameFamily(sets, source.network.cniVersion);
  return {
    dataDir: ipam.dataDir || DEFAULT_DATA_DIR,
    sets,
    requested: withoutRepeats([
      ...(runtimeConfig?.ips ?? []),
      ...(args?.cni?.ips ?? []),
      ...fromCniArgs(source.args),
    ]),
    routes: (ipam.routes ?? []).map(toRoute),
    resolvConf: ipam.resolvConf || undefined,
    strictStatus: ipam.strictStatus ?? fields.strictStatus ?? false,
  };
}

/** Understands what it can of a config for DEL and GC; never throws. */
export function parseTeardown(source: ConfigSource): HostLocalTeardown {
  const fields = v.safeParse(teardownSchema(), source.network.raw);
  // A dataDir that no ADD accepts has never been written to.
  return { dataDir: (fields.success && fields.output.ipam?.dataDir) || DEFAULT_DATA_DIR };
}

const WHERE = 'the network configuration';

type Fields = v.InferOutput<ReturnType<typeof hostLocalSchema>>;
type RangeFields = v.InferOutput<ReturnType<typeof rangeSchema>>;

function hostLocalSchema() {
  const rangeSets = () => v.array(v.array(rangeSchema()));
  const ips = () => v.array(requestedIp());
  const ipam = () =>
    configObject({
      subnet,
      rangeStart: ip,
      rangeEnd: ip,
      gateway: ip,
      ranges: rangeSets,
      routes: () => v.array(routeSchema()),
      dataDir,
      resolvConf: v.string,
      strictStatus: v.boolean,
    });
  return configObject(
    {
      strictStatus: v.boolean,
      runtimeConfig: () => configObject({ ipRanges: rangeSets, ips }),
      args: () => configObject({ cni: () => configObject({ ips }) }),
    },
    { ipam },
  );
}

function teardownSchema() {
  const path = () => v.fallback(v.optional(dataDir()), undefined);
  return configObject({
    ipam: () => v.fallback(v.optional(configObject({ dataDir: path })), undefined),
  });
}

function rangeSchema() {
  return configObject({ rangeStart: ip, rangeEnd: ip, gateway: ip }, { subnet });
}

function routeSchema() {
  const u32 = () => wholeNumber({ min: 0, max: MAX_U32 });
  const u8 = () => wholeNumber({ min: 0, max: MAX_U8 });
  return configObject(
    { gw: ip, mtu: u32, advmss: u32, priority: u32, table: u32, scope: u8 },
    { dst: subnet },
  );
}

// The kernel's attributes RTA_PRIORITY, RTA_TABLE and RTAX_* are u32, rtm_scope is a byte.
const MAX_U32 = 0xffff_ffff;
const MAX_U8 = 0xff;

function subnet() {
  const expected = 'a network in CIDR notation such as "10.1.0.0/16"';
  return v.pipe(
    v.string(),
    v.check((text) => parses(parseCidr, text), expected),
    v.transform(parseCidr),
  );
}

// An empty string leaves the field unset.
function ip() {
  return v.pipe(
    v.string(),
    v.check((text) => text === '' || parses(parseIp, text), 'an IP address'),
    v.transform((text) => (text === '' ? undefined : parseIp(text))),
  );
}

function requestedIp() {
  const expected = 'an IP address, with or without a prefix length';
  return v.pipe(
    v.string(),
    v.check((text) => parses(parseRequested, text), expected),
    v.transform(parseRequested),
  );
}

function dataDir() {
  return v.pipe(
    v.string(),
    v.check((path) => path === '' || isStorePath(path), 'an absolute path without ".."'),
    v.transform(normalize),
  );
}

function normalize(path: string): string {
  return path === '' ? '' : posix.normalize(path);
}

// PATH_MAX (linux/limits.h) less what the longest file name below it takes.
const LONGEST_PATH = 4096 - 512;

function isStorePath(path: string): boolean {
  const isShort = Buffer.byteLength(path) <= LONGEST_PATH;
  return isShort && path.startsWith('/') && !path.includes('\0') && !path.split('/').includes('..');
}

function parses(parse: (text: string) => unknown, text: string): boolean {
  try {
    parse(text);
    return true;
  } catch {
    return false;
  }
}

// The prefix length says nothing here: that of the range is the one that counts.
function parseRequested(text: string): Ip {
  return text.includes('/') ? parseCidr(text).ip : parseIp(text);
}

function fromCniArgs(args: string): Ip[] {
  const text = parseCniArgs(args, ['IP']).get('IP');
  if (text === undefined || text === '') return [];
  if (!parses(parseRequested, text)) {
    throw invalidEnvironment(
      `IP=${quote(text)} in CNI_ARGS must be an IP address, with or without a prefix length`,
    );
  }
  return [parseRequested(text)];
}

// The same address often comes by two ways; it is one wish all the same.
function withoutRepeats(ips: readonly Ip[]): Ip[] {
  return [...new Map(ips.map((ip) => [formatIp(ip), ip])).values()];
}

// Position decides which pointer file a set goes by, so the order is that of the reference.
function rangeSetsOf({ ipam, runtimeConfig }: Fields): [RangeSet, ...RangeSet[]] {
  const sets: RangeSet[] = [];
  for (const [index, set] of (runtimeConfig?.ipRanges ?? []).entries()) {
    sets.push(rangeSet(set, `runtimeConfig.ipRanges[${index}]`));
  }
  if (ipam.subnet !== undefined) {
    const { subnet, rangeStart, rangeEnd, gateway } = ipam;
    sets.push([canonicalRange({ subnet, rangeStart, rangeEnd, gateway }, 'ipam')]);
  }
  for (const [index, set] of (ipam.ranges ?? []).entries()) sets.push(rangeSet(set, `ipam.ranges[${index}]`));
  const [first, ...others] = sets;
  if (first === undefined) {
    throw invalidConfig(
      `Field "ipam.ranges" of ${WHERE} is missing: there are no ranges to take an address from`,
    );
  }
  return [first, ...others];
}

function rangeSet(specs: readonly RangeFields[], where: string): RangeSet {
  const ranges = specs.map(({ subnet, rangeStart, rangeEnd, gateway }, index) =>
    canonicalRange({ subnet, rangeStart, rangeEnd, gateway }, `${where}[${index}]`),
  );
  const [first, ...others] = ranges;
  if (first === undefined)
    throw invalidConfig(`Field "${where}" of ${WHERE} must hold a range, it is an empty range set`);
  const stranger = others.find((range) => range.subnet.ip.family !== first.subnet.ip.family);
  if (stranger !== undefined) {
    const both = `${quote(formatCidr(first.subnet))} and ${quote(formatCidr(stranger.subnet))}`;
    throw invalidConfig(
      `Field "${where}" of ${WHERE} mixes address families: ${both}; give each family a range set of its own`,
    );
  }
  return [first, ...others];
}

function refuseOverlap(sets: readonly RangeSet[]): void {
  const overlap = findOverlap(sets);
  if (overlap === undefined) return;
  const [a, b] = overlap;
  const places = a.set === b.set ? `both in range set ${a.set}` : `in range sets ${a.set} and ${b.set}`;
  throw invalidConfig(
    `The ranges ${rangeText(a.range)} and ${rangeText(b.range)} of ${WHERE} overlap (${places})`,
  );
}

function rangeText(range: Range): string {
  return quote(formatRangeSet([range]));
}

// Results of the first two protocol versions have one place for each family.
function refuseSameFamily(sets: readonly RangeSet[], version: string): void {
  for (const family of [4, 6] as const) {
    const count = sets.filter((set) => familyOf(set) === family).length;
    if (count <= 1) continue;
    throw invalidConfig(
      `Field "cniVersion" of ${WHERE} is ${quote(version)}, which can report one IPv${family} address, and there are ${count} IPv${family} range sets`,
    );
  }
}

function toRoute(route: NonNullable<Fields['ipam']['routes']>[number]): ResultRoute {
  const { dst, gw, mtu, advmss, priority, table, scope } = route;
  return {
    dst: formatCidr(dst),
    ...(gw === undefined ? {} : { gw: formatIp(gw) }),
    ...(mtu === undefined ? {} : { mtu }),
    ...(advmss === undefined ? {} : { advmss }),
    ...(priority === undefined ? {} : { priority }),
    ...(table === undefined ? {} : { table }),
    ...(scope === undefined ? {} : { scope }),
  };
}
