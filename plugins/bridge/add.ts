// The bridge plugin's ADD: all or nothing. Called by dispatch with a parsed config and a sandbox that is not ours.
import { hostLinkName } from '../../shared/cni/attachment.ts';
import type { AddCall } from '../../shared/cni/plugin.ts';
import type { Result, ResultInterface } from '../../shared/cni/result.ts';
import { Rollback } from '../../shared/cni/rollback.ts';
import type { Link } from '../../shared/rtnetlink/link.ts';
import { openRtnetlink, type Rtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { keepRuleset } from '../../shared/ruleset/open.ts';
import { openSandbox } from '../../shared/sandbox/open.ts';
import { ensureBridge, ensurePromiscuity, findBridge } from './bridge-link.ts';
import type { BridgeConfig } from './config.ts';
import { serveGateways } from './gateway.ts';
import { type Addressing, planAddressing, planLayer2 } from './plan.ts';
import { installRules, planRules } from './rules.ts';
import { configureSandbox } from './sandbox.ts';
import {
  addVethPair,
  bringUp,
  type PairContext,
  refuseExisting,
  type VethPair,
  waitUntilUp,
} from './veth.ts';
import { ensureVlanGateway, lockVlanGateways, removeUnusedVlanGateway } from './vlan-gateway.ts';

/**
 * Attaches the sandbox to the bridge and reports what it made (CNI SPEC 1.1.0, section 2, "ADD").
 * Throws the first error met, after undoing everything this call made; the bridge and what it serves others stay.
 */
export function add(call: AddCall<BridgeConfig>): Result {
  const { config, attachment, log } = call;

  using _ruleset = keepRuleset(); // IPAM looks at it, too
  using netns = openSandbox(call.netns); // a bad CNI_NETNS fails before anything is leased
  using host = openRtnetlink();
  using inside = openRtnetlink({ netns }); // the socket stays there, the thread comes straight back
  refuseExisting(host, inside, attachment, call.netns);
  const found = findBridge(host, config); // a link of another kind is refused before anything is leased, too

  using rollback = new Rollback(log); // declared last, so it runs first: sockets still open
  const plan =
    config.ipamType === undefined
      ? planLayer2(config)
      : leaseAddresses(call, host, config.ipamType, rollback);

  const bridge = ensureBridge(host, found, config, log);
  const { veth, vlanGateway } = joinBridge({ host, inside, netns, bridge, rollback }, call, plan);
  installRules(config, attachment, planRules(config, plan, veth.sandbox.mac), rollback);
  bringUp(host, veth.host); // not before: what is to be checked would pass meanwhile
  if (!config.disableContainerInterface) {
    configureSandbox({ netns, inside, link: veth.sandbox, log }, config, plan);
  }
  if (!config.disableContainerInterface) {
    waitUntilUp(host, veth.host);
  }
  ensurePromiscuity(host, bridge, config);

  const result = describe(call.netns, host.link.get({ index: bridge.index }), { veth, vlanGateway }, plan);
  rollback.commit();
  return result;
}

interface Joined {
  readonly veth: VethPair;
  /** The link with the gateways, when that is not the bridge. */
  readonly vlanGateway: Link | undefined;
}

/**
 * Gateways before the veth: a bridge that serves another network is refused here. The gateway of a VLAN goes with the last
 * port of the VLAN, so no DEL may look while there is a gateway and no port yet.
 */
function joinBridge(context: PairContext, call: AddCall<BridgeConfig>, plan: Addressing): Joined {
  const { config, attachment, log } = call;
  const { host, bridge, rollback } = context;
  const vlan = plan.gateways.length === 0 ? undefined : config.vlans?.id;
  using _lock = vlan === undefined ? undefined : lockVlanGateways();
  let vlanGateway: Link | undefined;
  if (vlan !== undefined) {
    const where = { bridge: bridge.name, vlan };
    rollback.add(`remove the gateway of VLAN ${vlan}`, () => removeUnusedVlanGateway(host, where));
    vlanGateway = ensureVlanGateway(host, bridge, config, vlan, log);
  }
  serveGateways(host, vlanGateway ?? bridge, config, plan);
  return { veth: addVethPair(context, config, attachment, log), vlanGateway };
}

/** The delegate sends its own DEL when its ADD fails, so the undo is armed only for what comes after. */
function leaseAddresses(
  call: AddCall<BridgeConfig>,
  host: Rtnetlink,
  ipamType: string,
  rollback: Rollback,
): Addressing {
  const leases = call.ipam.add(ipamType);
  rollback.add('release the leased addresses', () => releaseUnused(call, host, ipamType));
  return planAddressing(call.config, leases);
}

/** Should the link have survived its own undo, its addresses are still in use: DEL will release them. */
function releaseUnused(call: AddCall<BridgeConfig>, host: Rtnetlink, ipamType: string): void {
  if (host.link.find({ name: hostLinkName(call.attachment) }) === undefined) {
    call.ipam.del(ipamType);
  }
}

/** The bridge is read again: a bridge that somebody else made adopts the MAC of its first port. */
function describe(sandbox: string, bridge: Link, { veth, vlanGateway }: Joined, plan: Addressing): Result {
  const interfaces: ResultInterface[] = [
    { name: bridge.name, mac: bridge.mac },
    { name: veth.host.name, mac: veth.host.mac },
    { name: veth.sandbox.name, mac: veth.sandbox.mac, sandbox },
    ...(vlanGateway === undefined ? [] : [{ name: vlanGateway.name, mac: vlanGateway.mac }]),
  ];
  return { interfaces, ...plan.reported };
}
