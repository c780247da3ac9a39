// Between the current result and the shapes of all protocol versions, both ways.
// Used by result.ts and by the delegate, which reads what an IPAM plugin of any version answers.
import type { JsonObject } from './decode.ts';
import { encodeJson } from './encode.ts';
import { incompatibleVersion } from './error.ts';
import { Fields, type Item } from './fields.ts';
import type { Dns, Result, ResultInterface, ResultIp, ResultRoute } from './result.ts';
import {
  CNI_VERSIONS,
  type CniVersion,
  isCniVersion,
  type ResultFamily,
  resultFamilyOf,
} from './versions.ts';

/** A result, and the version whose shape it had. */
export interface DecodedResult {
  readonly version: CniVersion;
  readonly result: Result;
}

/** See `encodeResult`. */
export function encodeShape(result: Result, version: CniVersion): string {
  return encodeJson(ENCODERS[resultFamilyOf(version)](result, version));
}

/**
 * A result as some plugin printed it; without `cniVersion` it has the shape of `assumed`. `where` names it in
 * errors. Throws `invalidConfig` for an unknown version and for whatever does not fit its shape.
 */
export function decodeResult(value: unknown, assumed: CniVersion, where: string): DecodedResult {
  const item = { value, place: { where, path: '' } };
  const given = new Fields(item, ['cniVersion']).text('cniVersion', VERSION_WORDS, isCniVersion);
  const version = given !== undefined && isCniVersion(given) ? given : assumed;
  return { version, result: DECODERS[resultFamilyOf(version)](item) };
}

/** The result without the keys we don't know, for those who made it into something of their own. */
export function withoutUnknownKeys(result: Result): Result {
  return {
    ...(result.interfaces && { interfaces: result.interfaces.map(forget) }),
    ...(result.ips && { ips: result.ips.map(forget) }),
    ...(result.routes && { routes: result.routes.map(forget) }),
    ...(result.dns && { dns: forget(result.dns) }),
  };
}

// Unknown keys travel under a symbol: it survives a spread, and a key of theirs can't pass for one of ours
// (an "ips" in a 0.2.0 prevResult is as unknown there as any other word).
const UNKNOWN = Symbol('unknown keys');
interface Carrier {
  readonly [UNKNOWN]?: JsonObject;
}

const VERSION_WORDS = `one of the CNI versions ${CNI_VERSIONS.join(', ')}`;

const ENCODERS: Readonly<Record<ResultFamily, (result: Result, version: CniVersion) => object>> = {
  '0.1.0': encodeFirst,
  '0.3.0': encodeMiddle,
  '1.0.0': encodeCurrent,
};
const DECODERS: Readonly<Record<ResultFamily, (item: Item) => Result>> = {
  '0.1.0': decodeFirst,
  '0.3.0': (item) =>
    decodeLists(item, ['name', 'mac', 'sandbox'], ['version', 'interface', 'address', 'gateway']),
  '1.0.0': (item) =>
    decodeLists(
      item,
      ['name', 'mac', 'mtu', 'sandbox', 'socketPath', 'pciID'],
      ['interface', 'address', 'gateway'],
    ),
};

// 0.1.0 and 0.2.0: one address a family, each with its own routes.
function encodeFirst(result: Result, cniVersion: CniVersion): object {
  const ip4 = result.ips?.find((ip) => isIpv4(ip.address));
  const ip6 = result.ips?.find((ip) => !isIpv4(ip.address));
  if (ip4 === undefined && ip6 === undefined) {
    throw incompatibleVersion(
      `Cannot print a result without an IP address in CNI version ${cniVersion}: set "cniVersion" to 0.3.0 or newer`,
    );
  }
  const routes = result.routes ?? [];
  const encodeIp = (ip: ResultIp | undefined, ofFamily: readonly ResultRoute[]) =>
    ip &&
    inOrder(ip, {
      ip: ip.address,
      gateway: ip.gateway,
      routes: list(ofFamily, (route) => inOrder(route, { dst: route.dst, gw: route.gw })),
    });
  return inOrder(result, {
    cniVersion,
    ip4: encodeIp(
      ip4,
      routes.filter((route) => isIpv4(route.dst)),
    ),
    ip6: encodeIp(
      ip6,
      routes.filter((route) => !isIpv4(route.dst)),
    ),
    dns: encodeDns(result.dns, inOrder) ?? {},
  });
}

// 0.3.0 to 0.4.0: lists, addresses with their family, dns always there.
function encodeMiddle(result: Result, cniVersion: CniVersion): object {
  return inOrder(result, {
    cniVersion,
    interfaces: list(result.interfaces, (link) =>
      inOrder(link, { name: link.name, mac: link.mac, sandbox: link.sandbox }),
    ),
    ips: list(result.ips, (ip) =>
      inOrder(ip, {
        version: isIpv4(ip.address) ? '4' : '6',
        interface: ip.interface,
        address: ip.address,
        gateway: ip.gateway,
      }),
    ),
    routes: list(result.routes, (route) => encodeRoute(route, inOrder)),
    dns: encodeDns(result.dns, inOrder) ?? {},
  });
}

// 1.0.0 and 1.1.0: keys in alphabetical order everywhere, as the reference's encoder sorts them.
function encodeCurrent(result: Result, cniVersion: CniVersion): object {
  return alphabetical(result, {
    cniVersion,
    dns: encodeDns(result.dns, alphabetical),
    interfaces: list(result.interfaces, (link) =>
      alphabetical(link, {
        name: link.name,
        mac: link.mac,
        mtu: link.mtu === 0 ? undefined : link.mtu,
        sandbox: link.sandbox,
        socketPath: link.socketPath,
        pciID: link.pciID,
      }),
    ),
    ips: list(result.ips, (ip) =>
      alphabetical(ip, { address: ip.address, gateway: ip.gateway, interface: ip.interface }),
    ),
    routes: list(result.routes, (route) => encodeRoute(route, alphabetical)),
  });
}

type Arrange = (source: object, known: JsonObject) => object;

// `table` and `scope` are the two whose 0 means something.
function encodeRoute(route: ResultRoute, arrange: Arrange): object {
  return arrange(route, {
    dst: route.dst,
    gw: route.gw,
    mtu: route.mtu === 0 ? undefined : route.mtu,
    advmss: route.advmss === 0 ? undefined : route.advmss,
    priority: route.priority === 0 ? undefined : route.priority,
    table: route.table,
    scope: route.scope,
  });
}

function encodeDns(dns: Dns | undefined, arrange: Arrange): object | undefined {
  if (dns === undefined) return undefined;
  const encoded = arrange(dns, {
    nameservers: list(dns.nameservers, (text) => text),
    domain: dns.domain,
    search: list(dns.search, (text) => text),
    options: list(dns.options, (text) => text),
  });
  return Object.keys(encoded).length === 0 ? undefined : encoded;
}

function inOrder(source: object, known: JsonObject): object {
  return Object.fromEntries([...presentEntries(known), ...Object.entries(unknownKeysOf(source) ?? {})]);
}

function alphabetical(source: object, known: JsonObject): object {
  const entries = Object.entries(inOrder(source, known));
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

// Empty strings and lists are left out like absent ones; only the name of a link is always printed.
function presentEntries(object: JsonObject): [string, unknown][] {
  return Object.entries(object).filter(
    ([key, value]) => value !== undefined && (value !== '' || key === 'name'),
  );
}

function list<T, U>(items: readonly T[] | undefined, encode: (item: T) => U): U[] | undefined {
  return items === undefined || items.length === 0 ? undefined : items.map(encode);
}

function decodeFirst(item: Item): Result {
  const fields = new Fields(item, ['cniVersion', 'ip4', 'ip6', 'dns']);
  const ips: ResultIp[] = [];
  const routes: ResultRoute[] = [];
  for (const key of ['ip4', 'ip6'] as const) {
    const given = fields.item(key);
    if (given === undefined) continue;
    const ip = new Fields(given, ['ip', 'gateway', 'routes']);
    const expected = key === 'ip4' ? IPV4_CIDR : IPV6_CIDR;
    const address = ip.requiredText(
      'ip',
      expected,
      (text) => isCidr(text) && isIpv4(text) === (key === 'ip4'),
    );
    ips.push(carry(ip, { address, gateway: ip.text('gateway', IP, isIp) }));
    routes.push(...ip.items('routes').map((route) => decodeRoute(route, ['dst', 'gw'])));
  }
  return carry(fields, { ips: filled(ips), routes: filled(routes), dns: decodeDns(fields.item('dns')) });
}

// What 0.3.0 to 1.1.0 have in common; they differ in the keys that count as known.
function decodeLists(item: Item, linkKeys: readonly LinkKey[], ipKeys: readonly IpKey[]): Result {
  const fields = new Fields(item, ['cniVersion', 'interfaces', 'ips', 'routes', 'dns']);
  return carry(fields, {
    interfaces: filled(fields.items('interfaces').map((link) => decodeInterface(link, linkKeys))),
    ips: filled(fields.items('ips').map((ip) => decodeIp(ip, ipKeys))),
    routes: filled(fields.items('routes').map((route) => decodeRoute(route, ROUTE_KEYS))),
    dns: decodeDns(fields.item('dns')),
  });
}

type LinkKey = keyof ResultInterface;
type IpKey = keyof ResultIp | 'version';
type RouteKey = keyof ResultRoute;
const ROUTE_KEYS: readonly RouteKey[] = ['dst', 'gw', 'mtu', 'advmss', 'priority', 'table', 'scope'];

function decodeInterface(item: Item, keys: readonly LinkKey[]): ResultInterface {
  const fields = new Fields(item, keys);
  return carry(fields, {
    name: fields.text('name') ?? '',
    mac: fields.text('mac'),
    mtu: fields.count('mtu'),
    sandbox: fields.text('sandbox'),
    socketPath: fields.text('socketPath'),
    pciID: fields.text('pciID'),
  });
}

function decodeIp(item: Item, keys: readonly IpKey[]): ResultIp {
  const fields = new Fields(item, keys);
  // 0.3.0 to 0.4.0 say the family in words as well; the address decides.
  fields.text('version');
  return carry(fields, {
    address: fields.requiredText('address', CIDR, isCidr),
    gateway: fields.text('gateway', IP, isIp),
    interface: fields.count('interface'),
  });
}

function decodeRoute(item: Item, keys: readonly RouteKey[]): ResultRoute {
  const fields = new Fields(item, keys);
  return carry(fields, {
    dst: fields.requiredText('dst', CIDR, isCidr),
    gw: fields.text('gw', IP, isIp),
    mtu: fields.count('mtu'),
    advmss: fields.count('advmss'),
    priority: fields.count('priority'),
    table: fields.count('table'),
    scope: fields.count('scope'),
  });
}

function decodeDns(item: Item | undefined): Dns | undefined {
  if (item === undefined) return undefined;
  const fields = new Fields(item, ['nameservers', 'domain', 'search', 'options']);
  const dns = carry<Dns, string>(fields, {
    nameservers: fields.texts('nameservers'),
    domain: fields.text('domain'),
    search: fields.texts('search'),
    options: fields.texts('options'),
  });
  return Reflect.ownKeys(dns).length === 0 ? undefined : dns;
}

// A value without its absent fields, with the unknown keys of its source.
function carry<T extends object, K extends string>(
  fields: Fields<K>,
  value: { readonly [P in keyof T]: T[P] | undefined },
): T {
  const present = Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined));
  // Only absent fields were dropped, and only optional ones can be absent.
  return (fields.rest === undefined ? present : { ...present, [UNKNOWN]: fields.rest }) as T;
}

function unknownKeysOf(source: Carrier): JsonObject | undefined {
  return source[UNKNOWN];
}

function forget<T extends object>(value: T): T {
  const { [UNKNOWN]: _, ...known } = value as T & Carrier;
  return known as unknown as T;
}

function filled<T>(items: readonly T[]): readonly T[] | undefined {
  return items.length === 0 ? undefined : items;
}

const IP = 'an IP address';
const CIDR = 'an IP address with prefix length';
const IPV4_CIDR = 'an IPv4 address with prefix length';
const IPV6_CIDR = 'an IPv6 address with prefix length';

// An IPv4-mapped IPv6 address is an IPv4 address in another spelling.
function isIpv4(address: string): boolean {
  return !address.includes(':') || /^::[fF]+:\d+\./.test(address);
}

// The shape only: whoever computes with an address parses it with shared/ip, which is not below this layer.
// Patterns without flags and counted repeats, because each is compiled anew in every process.
function isIp(text: string): boolean {
  if (text.includes(':')) return text.length <= IPV6_LENGTH && /^[0-9a-fA-F:.]+$/.test(text);
  const octets = text.split('.');
  return octets.length === 4 && octets.every((octet) => isNumber(octet, 255));
}

function isCidr(text: string): boolean {
  const slash = text.indexOf('/');
  const ip = text.slice(0, slash);
  return slash > 0 && isNumber(text.slice(slash + 1), ip.includes(':') ? 128 : 32) && isIp(ip);
}

// The longest spelling: ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255
const IPV6_LENGTH = 45;

function isNumber(text: string, limit: number): boolean {
  return text.length <= 3 && /^\d+$/.test(text) && Number(text) <= limit;
}
