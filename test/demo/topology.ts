// What a private host looks like after an ADD: read from the kernel with ip and nft, drawn as a tree.
// Called by demo.ts; nothing here comes from what the plugins said.
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import { bold, cyan, dim, print, table } from './terminal.ts';

interface LinkFacts {
  readonly ifname: string;
  readonly ifindex: number;
  readonly link_index?: number;
  readonly master?: string;
  readonly ifalias?: string;
  readonly mtu: number;
  readonly address: string;
  readonly addr_info: readonly {
    readonly local: string;
    readonly prefixlen: number;
    readonly scope: string;
  }[];
}

interface RouteFacts {
  readonly dst: string;
  readonly gateway?: string;
  readonly dev: string;
}

/** Draws the outside, the host with its uplink and bridge, and the sandboxes below the ports they hang on. */
export async function printTopology(
  host: PrivateHost,
  bridge: string,
  outside: Sandbox,
  sandboxes: readonly Sandbox[],
): Promise<void> {
  const links = await linksOf(host);
  const uplink = links.find(({ ifname }) => ifname === 'uplink');
  const bridgeLink = links.find(({ ifname }) => ifname === bridge);
  const ports = links.filter(({ master }) => master === bridge);

  const [outsideLink] = (await linksOf(outside)).filter(({ ifname }) => ifname === 'eth0');
  print(`  ${bold('outside')}   ${cyan('eth0')} ${addressesOf(outsideLink)}`);
  print(`     ${dim('│')}      ${dim('knows no route to any sandbox')}`);
  print(`  ${bold(host.name.padEnd(7))}   ${cyan('uplink')} ${addressesOf(uplink)}`);
  print(`     ${dim('│')}      ${dim(await forwarding(host))}`);
  print(`     ${dim('└─')} ${cyan(bridge)} ${addressesOf(bridgeLink)}`);
  print(`        ${dim(`bridge, mtu ${bridgeLink?.mtu}, ${bridgeLink?.address}`)}`);
  for (const [position, sandbox] of sandboxes.entries()) {
    const isLast = position === sandboxes.length - 1;
    await printSandbox(sandbox, ports, isLast ? ['└─', '  '] : ['├─', '│ ']);
  }
}

/** Prints the verdict maps by which the kernel finds out whom to masquerade, and the chain of one subnet. */
export async function printMasquerade(host: PrivateHost): Promise<void> {
  await printElements(host, 'masquerade');
  const chain = /chain masquerade4-[^{]*\{[^}]*\}/.exec(
    (await host.run('nft', ['list', 'ruleset'])).stdout,
  )?.[0];
  const [first = '', ...rules] = (chain ?? '').split('\n').map((line) => line.trim());
  print(`  ${dim(`${first.replace(' {', ':')} ${rules.filter((rule) => rule !== '}').join('; ')}`)}`);
}

/** Prints the maps by which the kernel finds out where a port leads, and who is masqueraded on the way there. */
export async function printPorts(host: PrivateHost): Promise<void> {
  await printElements(host, 'hostports');
  await printElements(host, 'hairpin');
}

async function printElements(host: PrivateHost, kind: string): Promise<void> {
  const { stdout } = await host.run('nft', ['-j', 'list', 'table', 'inet', 'patchbay']);
  const { nftables } = JSON.parse(stdout) as { nftables: { map?: MapFacts }[] };
  const maps = nftables.flatMap(({ map }) => (map?.name.startsWith(kind) ? [map] : []));
  const rows = maps.flatMap(({ name, elem = [] }) =>
    elem.map(([{ elem: key }, data]) => {
      const target = 'jump' in data ? data.jump.target : spell(data);
      return [cyan(name), spell(key.val), `→ ${target}`, dim(key.comment.replace(/^\w+ \w+, /, ''))];
    }),
  );
  if (rows.length === 0) throw new Error(`There is no element in the ${kind} maps`);
  table(rows);
}

function spell(value: string | Concatenation): string {
  return typeof value === 'string' ? value : value.concat.join(' . ');
}

interface Concatenation {
  readonly concat: readonly (string | number)[];
}

interface MapFacts {
  readonly name: string;
  readonly elem?: readonly [
    { readonly elem: { readonly val: string | Concatenation; readonly comment: string } },
    { readonly jump: { readonly target: string } } | Concatenation,
  ][];
}

async function printSandbox(
  sandbox: Sandbox,
  ports: readonly LinkFacts[],
  [branch, stem]: readonly [string, string],
): Promise<void> {
  const [link] = (await linksOf(sandbox)).filter(({ ifname }) => ifname === 'eth0');
  const port = ports.find(({ ifindex }) => ifindex === link?.link_index);
  const defaults = (await routesOf(sandbox)).filter(({ dst }) => dst === 'default');
  const owner = port?.ifalias?.replace(/^\w+ \w+, /, '') ?? 'nobody';
  const indent = ' '.repeat(8);
  print(`${indent}${dim(branch)} ${cyan(port?.ifname ?? 'no port')}  ${dim(owner)}`);
  print(`${indent}${dim(`${stem}    └─`)} ${bold(sandbox.name)} ${cyan('eth0')} ${addressesOf(link)}`);
  const ways = defaults.map(({ gateway, dev }) => `default via ${gateway} dev ${dev}`);
  print(`${indent}${dim(stem)}       ${dim(ways.join(', '))}`);
}

async function linksOf(place: PrivateHost | Sandbox): Promise<LinkFacts[]> {
  return JSON.parse((await place.run('ip', ['-json', '-details', 'addr'])).stdout) as LinkFacts[];
}

async function routesOf(place: Sandbox): Promise<RouteFacts[]> {
  const { stdout } = await place.run('ip', ['-json', 'route', 'show', 'table', 'all']);
  return JSON.parse(stdout) as RouteFacts[];
}

async function forwarding(host: PrivateHost): Promise<string> {
  const { stdout } = await host.shell(
    'cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding',
  );
  const [ip4, ip6] = stdout.split('\n').map((value) => (value === '1' ? 'on' : 'off'));
  return `forwarding ${ip4} for IPv4, ${ip6} for IPv6`;
}

function addressesOf(link: LinkFacts | undefined): string {
  const addresses = (link?.addr_info ?? []).filter(({ scope }) => scope === 'global');
  return addresses.map(({ local, prefixlen }) => `${local}/${prefixlen}`).join('  ') || 'no address';
}
