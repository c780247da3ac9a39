// The main job done for real and shown: two sandboxes on a bridge, the world outside, a published port, nothing left
// behind.
// Run by `npm run demo` after the build; the exit code is not 0 if anything did not hold.
import { type Attached, withPrevResult } from '../support/attachment.ts';
import { openCapture } from '../support/capture.ts';
import { portCallOf } from '../support/chain.ts';
import { readNetwork } from '../support/network-list.ts';
import type { Place } from '../support/place.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from '../support/private-host.ts';
import {
  expectResult,
  expectSuccess,
  type PluginCall,
  pluginDirectory,
  type Verb,
} from '../support/run-plugin.ts';
import { serve } from '../support/service.ts';
import { difference } from '../support/snapshot.ts';
import { addOutside, OUTSIDE } from '../support/traffic.ts';
import { bold, dim, fails, heading, holds, print, took } from './terminal.ts';
import { printMasquerade, printPorts, printTopology } from './topology.ts';

const { config, file } = readNetwork('bridge-portmap.conflist');

/** What the runtime asks for: port 8080 of the host leads to port 80 of the first container. */
const MAPPINGS = [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }];

try {
  await showEverything();
} catch (error) {
  fails(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}

async function showEverything(): Promise<void> {
  print(bold('Patchbay: container networks by CNI plugins that talk to the kernel themselves'));
  print(dim(`plugins  ${pluginDirectory()}/{bridge,host-local,portmap}`));
  print(dim(`network  conf/${file}`));

  await using host = await openPrivateHost('host');
  const outside = await addOutside(host);

  heading('A first container comes and goes');
  const earlier = await host.addSandbox('earlier');
  const first = await add(
    host,
    earlier,
    'makes bridge, gateway addresses, nftables table and store, which stay',
  );
  const firstPorts = portCallOf(first, MAPPINGS);
  await run(host, 'ADD', firstPorts, 'publishes port 8080; maps and hooks for that stay as well');
  await run(host, 'DEL', firstPorts, 'takes the port back');
  await run(host, 'DEL', withPrevResult(first), 'removes the attachment');
  await earlier.delete();
  const [left, right] = [await host.addSandbox('left'), await host.addSandbox('right')];
  const before = await host.snapshot();

  heading('Two containers come');
  await run(host, 'STATUS', { config }, 'this config can serve an ADD');
  const here = await add(host, left);
  const there = await add(host, right);
  heading('Topology, as ip shows it');
  await printTopology(host, config.bridge, outside, [left, right]);
  heading('Masquerade maps, as nft shows them');
  await printMasquerade(host);
  heading('Packets');
  await showNeighbours(left, right, here, there);
  await showOutside(left, outside, here);

  heading('A port is published');
  const ports = portCallOf(here, MAPPINGS);
  await run(host, 'ADD', ports, 'port 8080 of the host → port 80 of left');
  await printPorts(host);
  await showPage({ host, outside, left, right });

  heading('They are checked, and go');
  await run(host, 'CHECK', withPrevResult(here), 'everything ADD made is there');
  await run(host, 'CHECK', withPrevResult(there), 'everything ADD made is there');
  await run(host, 'CHECK', ports, 'hooks, rules and each port are there');
  await run(host, 'DEL', ports, 'portmap first, as runtimes do');
  await run(host, 'DEL', withPrevResult(here), 'with sandbox and result, as runtimes do');
  await run(host, 'DEL', { ...there.call, netns: '' }, 'with neither');
  await run(host, 'DEL', { ...there.call, netns: '' }, 'again: nothing to do, no error');

  heading('What is left of them');
  const after = await host.snapshot();
  const changes = difference(before, after);
  for (const change of changes) fails(change);
  if (changes.length > 0) throw new Error('The host is not what it was before');
  holds('nothing', `${after.length} facts compared: links, addresses, routes, rules, sysctls, files`);
}

async function add(host: PrivateHost, sandbox: Sandbox, remark?: string): Promise<Attached> {
  const call = { config, containerId: sandbox.name, netns: sandbox.path, ifname: 'eth0' };
  const outcome = await host.runPlugin('ADD', call);
  const result = expectResult(outcome);
  const ips = (result.ips ?? []).map(({ address }) => address);
  took('ADD', sandbox.name, outcome.ms, remark ?? ips.join('  '));
  const [ip4 = '', ip6 = ''] = ips.map((address) => address.replace(/\/.*/, ''));
  return { call, result, ip4, ip6 };
}

async function run(host: PrivateHost, verb: Verb, call: PluginCall, remark: string): Promise<void> {
  const outcome = await host.runPlugin(verb, call);
  expectSuccess(outcome);
  took(verb, call.containerId ?? '', outcome.ms, remark);
}

async function showNeighbours(left: Sandbox, right: Sandbox, here: Attached, there: Attached): Promise<void> {
  holds('left → right over IPv4', await pingTime(left, there.ip4));
  holds('left → right over IPv6', await pingTime(left, there.ip6));
  holds('right → left over IPv4', await pingTime(right, here.ip4));
  holds('right → left over IPv6', await pingTime(right, here.ip6));
}

async function showOutside(left: Sandbox, outside: Sandbox, here: Attached): Promise<void> {
  await using capture = await openCapture(outside, 'eth0', 'icmp or icmp6');
  holds('left → outside over IPv4', await pingTime(left, OUTSIDE.outside4));
  holds('left → outside over IPv6', await pingTime(left, OUTSIDE.outside6));
  const seen = [
    await capture.waitFor(new RegExp(`${OUTSIDE.host4} > ${OUTSIDE.outside4}: ICMP echo request`)),
    await capture.waitFor(new RegExp(`${OUTSIDE.host6} > ${OUTSIDE.outside6}: ICMP6, echo request`)),
  ];
  print(`\n  ${dim('tcpdump outside:')}`);
  for (const line of seen) print(`    ${line}`);
  if (capture.lines.some((line) => line.includes(here.ip4) || line.includes(here.ip6))) {
    throw new Error('The outside saw the address of a sandbox');
  }
  holds(
    'the outside sees the host only',
    `${OUTSIDE.host4} for ${here.ip4}, ${OUTSIDE.host6} for ${here.ip6}`,
  );
}

/** Fetches a page from the container by the host's addresses, and sees who it takes the client for. */
async function showPage({
  host,
  outside,
  left,
  right,
}: Readonly<Record<'host' | 'outside' | 'left' | 'right', Place>>) {
  await using _service = await serve(left, [
    { transport: 'tcp4', port: 80 },
    { transport: 'tcp6', port: 80 },
  ]);
  const clients: readonly (readonly [string, Place, string])[] = [
    ['outside', outside, OUTSIDE.host4],
    ['outside', outside, `[${OUTSIDE.host6}]`],
    ['the host', host, '127.0.0.1'],
    ['the host', host, `[${OUTSIDE.host6}]`],
    ['its neighbour', right, OUTSIDE.host4],
    ['its neighbour', right, `[${OUTSIDE.host6}]`],
    ['the container itself', left, OUTSIDE.host4],
    ['the container itself', left, `[${OUTSIDE.host6}]`],
  ];
  for (const [who, place, address] of clients) {
    const url = `http://${address}:8080/`;
    const { stdout } = await place.run('curl', [
      '--silent',
      '--show-error',
      '--fail',
      '--max-time',
      '3',
      url,
    ]);
    const [name, client = ''] = stdout.trim().split(' ');
    if (name !== 'left') throw new Error(`${url} should be served by left, and said: ${stdout}`);
    holds(`${who} fetches it`, `${url} sees ${client}`);
    const isOwn = client === OUTSIDE.outside4 || client === OUTSIDE.outside6;
    if (isOwn !== (place === outside)) throw new Error(`The container takes ${who} for ${client}`);
  }
}

async function pingTime(from: Place, address: string): Promise<string> {
  const { stdout } = await from.run('ping', ['-n', '-c', '1', '-i', '0.3', '-w', '3', address]);
  const time = /time=([\d.]+) ms/.exec(stdout)?.[1];
  if (time === undefined) throw new Error(`${address} did not answer`);
  return `${address} answers in ${time} ms`;
}
