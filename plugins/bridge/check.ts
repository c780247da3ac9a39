// The bridge plugin's CHECK: compares what the kernel holds with what ADD reported, and names the first difference.
// Called by dispatch with a prevResult; reads only, changes nothing.
import { hostLinkName } from '../../shared/cni/attachment.ts';
import { checkFailed, invalidConfig } from '../../shared/cni/error.ts';
import type { CheckCall } from '../../shared/cni/plugin.ts';
import type { Result, ResultInterface } from '../../shared/cni/result.ts';
import { formatCidr, formatIp, ipEquals } from '../../shared/ip/cidr.ts';
import { readSysctl } from '../../shared/linux/sysctl.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import { openRtnetlink, type Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { openSandbox } from '../../shared/sandbox/open.ts';
import { expectBridge } from './bridge-link.ts';
import type { BridgeConfig } from './config.ts';
import { FORWARDING } from './gateway.ts';
import { type Addressing, type PlannedRoute, planAddressing, planLayer2 } from './plan.ts';
import { expectVlans } from './port-vlans.ts';
import { expectInstalled, planRules } from './rules.ts';
import { vlanGatewayName } from './vlan-plan.ts';

/** include/uapi/linux/rtnetlink.h, RT_TABLE_MAIN. */
const MAIN_TABLE = 254;

/**
 * Returns when everything ADD made is still there; throws checkFailed (107) naming what is missing or different, with
 * the value found (CNI SPEC 1.1.0, section 2, "CHECK"). Additions by later plugins of the chain are tolerated.
 */
export function check(call: CheckCall<BridgeConfig>): void {
  const { config, attachment, network } = call;
  const reported = expectReported(network.prevResult, attachment.ifname, call.netns);
  if (config.ipamType !== undefined) {
    call.ipam.check(config.ipamType);
  }
  const plan = config.ipamType === undefined ? planLayer2(config) : planAddressing(config, reported.leases);

  using netns = openSandbox(call.netns);
  using host = openRtnetlink();
  using inside = openRtnetlink({ netns });

  const bridge = expectBridgeLink(host, config);
  const link = expectSandboxLink(inside, reported.sandboxLink, config);
  const hostEnd = expectHostEnd(host, call, reported.result, { bridge, link });
  expectAddresses(inside, link, plan);
  for (const route of plan.routes) {
    expectRoute(inside, link, route);
  }
  expectGateways(host, servedLink(host, bridge, config, plan), plan);
  expectInstalled(config, attachment, planRules(config, plan, link.mac), hostEnd.name);
}

interface Reported {
  readonly result: Result;
  readonly sandboxLink: ResultInterface;
  /** The part of prevResult that is ours: addresses of the sandbox link, and the routes. */
  readonly leases: Result;
}

function expectReported(prevResult: Result | undefined, ifname: string, netns: string): Reported {
  if (prevResult === undefined) {
    throw invalidConfig('CHECK needs the result of ADD as "prevResult", and the config has none');
  }
  const interfaces = prevResult.interfaces ?? [];
  const index = interfaces.findIndex(({ name, sandbox }) => name === ifname && sandbox);
  const sandboxLink = interfaces[index];
  if (sandboxLink === undefined) {
    throw checkFailed(`Field "prevResult" lists no interface "${ifname}" inside a sandbox`);
  }
  if (sandboxLink.sandbox !== netns) {
    throw checkFailed(
      `Field "prevResult" has link "${ifname}" in sandbox "${sandboxLink.sandbox}", but CNI_NETNS is "${netns}"`,
    );
  }
  const ips = (prevResult.ips ?? []).filter((ip) => ip.interface === undefined || ip.interface === index);
  return { result: prevResult, sandboxLink, leases: { ips, routes: prevResult.routes ?? [] } };
}

function expectBridgeLink(host: Rtnetlink, config: BridgeConfig): Link {
  const bridge = host.link.find({ name: config.bridge });
  if (bridge === undefined) {
    throw checkFailed(`Bridge "${config.bridge}" does not exist`);
  }
  expectBridge(bridge);
  expect(bridge.isUp, `Bridge "${bridge.name}" is down`);
  expect(!config.promiscMode || bridge.isPromiscuous, `Bridge "${bridge.name}" is not promiscuous`);
  return bridge;
}

function expectSandboxLink(inside: Rtnetlink, reported: ResultInterface, config: BridgeConfig): Link {
  const link = inside.link.find({ name: reported.name });
  if (link === undefined) {
    throw checkFailed(`Link "${reported.name}" does not exist in sandbox "${reported.sandbox}"`);
  }
  expect(
    link.kind === 'veth',
    `Link "${link.name}" in the sandbox is of kind "${link.kind}" instead of "veth"`,
  );
  const mac = reported.mac?.toLowerCase();
  expect(
    !mac || mac === link.mac,
    `Link "${link.name}" in the sandbox has MAC "${link.mac}" instead of "${mac}"`,
  );
  expect(config.disableContainerInterface || link.isUp, `Link "${link.name}" in the sandbox is down`);
  return link;
}

/** Ours by name; an attachment that other plugins made is found by the name in its result. */
function expectHostEnd(
  host: Rtnetlink,
  { config, attachment }: CheckCall<BridgeConfig>,
  reported: Result,
  { bridge, link }: { bridge: Link; link: Link },
): Link {
  const names = (reported.interfaces ?? []).filter(({ sandbox }) => !sandbox).map(({ name }) => name);
  const candidates = new Set([hostLinkName(attachment), ...names.filter((name) => name !== config.bridge)]);
  const hostEnd = [...candidates]
    .map((name) => host.link.find({ name }))
    .find((found) => found?.kind === 'veth');
  if (hostEnd === undefined) {
    throw checkFailed(`Host link "${hostLinkName(attachment)}" does not exist`);
  }
  const { name } = hostEnd;
  expect(
    hostEnd.peerIndex === link.index && link.peerIndex === hostEnd.index,
    `Host link "${name}" is not the peer of "${link.name}" in the sandbox`,
  );
  expect(hostEnd.master === bridge.index, `Host link "${name}" is not a port of bridge "${bridge.name}"`);
  expect(hostEnd.isUp, `Host link "${name}" is down`);
  expectPort(name, 'hairpin mode', hostEnd.port?.hairpin ?? false, config.hairpinMode);
  if (config.portIsolation) {
    expectPort(name, 'isolation', hostEnd.port?.isolated ?? false, true); // firewall isolates ports as well
  }
  if (config.vlans !== undefined) {
    expectVlans(host, hostEnd, bridge, config.vlans);
  }
  if (config.macSpoofCheck && name === hostLinkName(attachment)) {
    expectPort(name, 'learning', hostEnd.port?.learning ?? false, false);
  }
  return hostEnd;
}

function expectPort(link: string, what: string, found: boolean, wanted: boolean): void {
  expect(
    found === wanted,
    `Bridge port "${link}" has ${what} ${found ? 'on' : 'off'} instead of ${wanted ? 'on' : 'off'}`,
  );
}

function expectAddresses(inside: Rtnetlink, link: Link, plan: Addressing): void {
  const present = inside.addr.list({ index: link.index }).map(({ address }) => formatCidr(address));
  for (const { address } of plan.addresses) {
    const wanted = formatCidr(address);
    expect(
      present.includes(wanted),
      `Link "${link.name}" lacks address "${wanted}"; it has ${present.map((text) => `"${text}"`).join(', ') || 'none'}`,
    );
  }
}

function expectRoute(inside: Rtnetlink, link: Link, wanted: PlannedRoute): void {
  const table = wanted.table ?? MAIN_TABLE;
  const family = wanted.dst.ip.family;
  const sameDst = inside.route.list({ family, table, oif: link.index }).filter(({ dst }) => {
    return dst.prefix === wanted.dst.prefix && ipEquals(dst.ip, wanted.dst.ip);
  });
  const dst = formatCidr(wanted.dst);
  expect(sameDst.length > 0, `Route to "${dst}" by link "${link.name}" does not exist in table ${table}`);
  const gateways = sameDst.map(({ gw }) => (gw === undefined ? 'none' : formatIp(gw)));
  const gw = wanted.gw === undefined ? 'none' : formatIp(wanted.gw);
  expect(gateways.includes(gw), `Route to "${dst}" has gateway ${gateways.join(', ')} instead of ${gw}`);
}

/** What holds the gateway addresses: the bridge, or the link of its VLAN. */
function servedLink(host: Rtnetlink, bridge: Link, config: BridgeConfig, plan: Addressing): Link {
  if (config.vlans?.id === undefined || plan.gateways.length === 0) {
    return bridge;
  }
  const name = vlanGatewayName(bridge.name, config.vlans.id);
  const gateway = host.link.find({ name });
  if (gateway === undefined) {
    throw checkFailed(`Link "${name}" with the gateway of VLAN ${config.vlans.id} does not exist`);
  }
  expect(gateway.isUp, `Link "${name}" is down`);
  return gateway;
}

function expectGateways(host: Rtnetlink, bridge: Link, plan: Addressing): void {
  const present = host.addr.list({ index: bridge.index }).map(({ address }) => formatCidr(address));
  for (const gateway of plan.gateways) {
    const wanted = formatCidr(gateway);
    expect(present.includes(wanted), `Link "${bridge.name}" lacks gateway address "${wanted}"`);
  }
  for (const family of plan.forwarded) {
    expect(
      readSysctl(FORWARDING[family]) !== '0',
      `Sysctl "${FORWARDING[family]}" is 0, so nothing is forwarded`,
    );
  }
}

function expect(holds: boolean, difference: string): void {
  if (!holds) {
    throw checkFailed(difference);
  }
}
