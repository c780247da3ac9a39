// The state of a private host as lines: links, addresses, routes, rules, sysctls, firewall, files, sandboxes.
// Taken through `host.snapshot` before and after: one comparison says that nothing is left, or was touched.
import { lstatSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { HostPlace } from './place.ts';

/** One line for each fact, sorted. */
export type Snapshot = readonly string[];

/**
 * Reads everything a plugin could have changed. Left out, because it moves by itself: handles, counters,
 * timers, interface indexes, carrier and what follows from it, IPv6 link-local addresses and their routes,
 * and the text of `last_reserved_ip.N`, which every ADD moves on.
 */
export async function takeSnapshot(host: HostPlace): Promise<Snapshot> {
  const sections = await listSettledState(host);
  const lines = sections.flatMap(([title, body]) => linesOf(title, body));
  for (const root of ['/run', '/etc/cni', '/var/lib/cni']) lines.push(...fileLines(host, root));
  return lines.sort();
}

const SETTLING_MS = 3000;

// The kernel finishes some work a moment after a verb has ended, and longer after it on a busy machine.
async function listSettledState(host: HostPlace): Promise<Section[]> {
  for (const deadline = Date.now() + SETTLING_MS; ; await delay(10)) {
    const sections = sectionsOf((await host.shell(LIST_STATE)).stdout);
    const isSettled = sections.every(([title, body]) => !title.endsWith(' ip') || hasLocalRoutes(body));
    if (isSettled || Date.now() > deadline) return sections;
  }
}

/**
 * Whether each IPv6 address of a link with carrier has its local route: the kernel adds it in a work queue, also without
 * duplicate address detection (net/ipv6/addrconf.c, addrconf_dad_work).
 */
function hasLocalRoutes(body: string): boolean {
  const facts = body.split('\n').flatMap((json) => {
    const parsed: unknown = JSON.parse(json);
    return Array.isArray(parsed) ? (parsed as Facts[]) : [];
  });
  const routed = new Set(facts.filter(({ type }) => type === 'local').map(({ dev, dst }) => `${dev} ${dst}`));
  return facts
    .filter(({ flags }) => Array.isArray(flags) && flags.includes('LOWER_UP') && flags.includes('UP'))
    .every(({ ifname, addr_info }) =>
      ((addr_info ?? []) as Facts[])
        .filter(({ family, scope }) => family === 'inet6' && scope === 'global')
        .every(({ local, tentative }) => tentative === true || routed.has(`${ifname} ${local}`)),
    );
}

/** What changed from `before` to `after`: `- ` was there, `+ ` is new; empty when nothing did. */
export function difference(before: Snapshot, after: Snapshot): string[] {
  const surplus = new Map<string, number>();
  for (const line of after) surplus.set(line, (surplus.get(line) ?? 0) + 1);
  for (const line of before) surplus.set(line, (surplus.get(line) ?? 0) - 1);
  return [...surplus]
    .filter(([, count]) => count !== 0)
    .map(([line, count]) => `${count > 0 ? '+' : '-'} ${line}`);
}

const IP_BATCH = 'addr show\\nroute show table all\\n';

const LIST_STATE = `
  echo '@@ host ip'; printf '${IP_BATCH}' | ip -d -j -b -
  echo '@@ host rule'; ip rule; ip -6 rule || true
  for name in $(ls /run/netns); do
    echo "@@ $name ip"
    printf '${IP_BATCH}' | ip -n "$name" -d -j -b - 2> /dev/null || echo '"not a namespace"'
  done
  echo '@@ nft'; nft -j list ruleset
  for save in iptables-save ip6tables-save; do
    if command -v $save > /dev/null; then echo "@@ $save"; $save 2> /dev/null; fi
  done
  echo '@@ sysctl'
  grep -s . /proc/sys/net/ipv4/ip_forward \
    /proc/sys/net/ipv4/conf/*/{arp_notify,forwarding,proxy_arp,route_localnet,rp_filter} \
    /proc/sys/net/ipv6/conf/*/{accept_dad,accept_ra,autoconf,disable_ipv6,forwarding} \
    /proc/sys/net/ipv6/conf/*/keep_addr_on_down || true
`;

type Section = readonly [title: string, body: string];

function sectionsOf(text: string): Section[] {
  return text
    .split(/^@@ /m)
    .filter((section) => section !== '')
    .map((section) => {
      const end = section.indexOf('\n');
      return [section.slice(0, end), section.slice(end + 1).trim()];
    });
}

function linesOf(title: string, body: string): string[] {
  if (title === 'nft') return nftLines(body);
  if (title.endsWith(' ip')) return body.split('\n').flatMap((json) => ipLines(title.slice(0, -3), json));
  const lines = body.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  if (title === 'sysctl') return sysctlLines(lines);
  return lines.map((line) => `${title} ${line.replace(/\[\d+:\d+\]/, '[0:0]')}`);
}

// One line for each directory: /proc/sys/net/ipv6/conf/cni0/accept_ra:0 and its neighbours.
function sysctlLines(found: readonly string[]): string[] {
  const directories = new Map<string, string[]>();
  for (const line of found) {
    const [, directory = '', setting = ''] = /^\/proc\/sys\/(.*)\/([^/]*)$/.exec(line) ?? [];
    directories.set(directory, [...(directories.get(directory) ?? []), setting.replace(':', ' ')]);
  }
  return [...directories].map(([directory, settings]) => `host sysctl ${directory} ${settings.join(' ')}`);
}

type Facts = Record<string, unknown>;

// One JSON document for each command of the batch: links with their addresses, then routes.
function ipLines(place: string, json: string): string[] {
  const parsed: unknown = JSON.parse(json);
  if (!Array.isArray(parsed)) return [`${place}: ${json}`];
  return (parsed as Facts[]).flatMap((item) => {
    if ('ifname' in item) return linkLines(place, item);
    return isLinkLocalRoute(item) ? [] : [`${place} route ${fields(item, without('flags'))}`];
  });
}

function linkLines(place: string, link: Facts): string[] {
  const name = String(link['ifname']);
  const addrs = ((link['addr_info'] ?? []) as Facts[]).filter((addr) => !isLinkLocalAddress(addr));
  const info = (link['linkinfo'] ?? {}) as Facts;
  const flags = (link['flags'] as string[]).filter((flag) => flag !== 'LOWER_UP' && flag !== 'NO-CARRIER');
  const kept = fields(
    { ...link, flags },
    only('flags', 'mtu', 'address', 'master', 'ifalias', 'txqlen', 'promiscuity'),
  );
  return [
    `${place} link ${name} ${kept} ${fields(info, without('info_data', 'info_slave_data'))}`,
    ...kindLines(`${place} link ${name} data`, info['info_data'], CHANGING_BRIDGE_DATA),
    ...kindLines(`${place} link ${name} port`, info['info_slave_data'], CHANGING_PORT_DATA),
    ...addrs.map(
      (addr) => `${place} addr ${name} ${fields(addr, without('valid_life_time', 'preferred_life_time'))}`,
    ),
  ];
}

function kindLines(start: string, data: unknown, changing: RegExp): string[] {
  if (typeof data !== 'object' || data === null) return [];
  return [`${start} ${fields(data as Facts, (key) => !changing.test(key))}`];
}

const CHANGING_BRIDGE_DATA = /_timer$|^topology_change|^root_|^bridge_id$/;
const CHANGING_PORT_DATA = /_timer$|^state$|^designated_|^(port_)?(id|no)$|^topology_change|^config_pending$/;

function isLinkLocalAddress(addr: Facts): boolean {
  return addr['family'] === 'inet6' && addr['scope'] === 'link';
}

// fe80::/64, the local route of such an address, and the multicast route that comes with any IPv6 link.
function isLinkLocalRoute(route: Facts): boolean {
  return /^(fe80::|ff00::\/8)/.test(String(route['dst'])) && route['table'] !== undefined;
}

// Elements of sets and maps become lines of their own, so that a difference names the one that is left.
function nftLines(json: string): string[] {
  const { nftables } = JSON.parse(json, maskVolatile) as { nftables: Facts[] };
  return nftables.flatMap((object) => {
    const [kind = '', value] = Object.entries(object)[0] ?? [];
    if (kind === 'metainfo') return [];
    const { elem = [], ...rest } = value as Facts & { elem?: unknown[] };
    const elements = elem.map((item) => `nft element of ${rest['name']}: ${JSON.stringify(item)}`);
    return [`nft ${kind} ${JSON.stringify(rest)}`, ...elements];
  });
}

function maskVolatile(key: string, value: unknown): unknown {
  return key === 'handle' || key === 'packets' || key === 'bytes' || key === 'expires' ? undefined : value;
}

// Everything is in memory and small. Content is shown as JSON text, because the store's separator is CR LF.
function fileLines(host: HostPlace, path: string): string[] {
  if (path === '/run/.overlay' || path === '/run/xtables.lock') return [];
  const here = host.file(path);
  const stat = lstatSync(here);
  const start = `file ${path} ${(stat.mode & 0o7777).toString(8).padStart(4, '0')}`;
  if (stat.isDirectory()) {
    const children = readdirSync(here);
    return [`${start} directory`, ...children.flatMap((name) => fileLines(host, join(path, name)))];
  }
  if (stat.isSymbolicLink()) return [`${start} symlink`];
  if (!stat.isFile()) return [`${start} special`];
  if (/^last_reserved_ip\.\d+$/.test(path.slice(path.lastIndexOf('/') + 1))) return [`${start} pointer`];
  if (path.startsWith('/run/netns/')) return [`${start} namespace`];
  return [`${start} ${JSON.stringify(readFileSync(here, 'latin1'))}`];
}

function only(...keys: string[]): (key: string) => boolean {
  return (key) => keys.includes(key);
}

function without(...keys: string[]): (key: string) => boolean {
  return (key) => !keys.includes(key);
}

function fields(facts: Facts, keep: (key: string) => boolean): string {
  return Object.entries(facts)
    .filter(([key, value]) => keep(key) && JSON.stringify(value) !== '[]')
    .map(([key, value]) => `${key} ${typeof value === 'object' ? JSON.stringify(value) : String(value)}`)
    .join(' ');
}
