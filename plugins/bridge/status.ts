// The bridge plugin's STATUS: can this config serve an ADD now? Called by dispatch; changes nothing.
import { notAvailable } from '../../shared/cni/error.ts';
import type { StatusCall } from '../../shared/cni/plugin.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { findBridge } from './bridge-link.ts';
import type { BridgeConfig } from './config.ts';
import { canFilterVlans, VLAN_NEED } from './port-vlans.ts';
import { expectRulesUsable } from './rules.ts';

/**
 * Returns when an ADD can be expected to work; throws notAvailable (50) naming what is missing, or what the IPAM plugin
 * reports (CNI SPEC 1.1.0, section 2, "STATUS").
 */
export function status(call: StatusCall<BridgeConfig>): void {
  const { config } = call;
  expectBridgeUsable(config);
  expectRulesUsable(config);
  if (config.ipamType !== undefined) {
    call.ipam.status(config.ipamType);
  }
}

function expectBridgeUsable(config: BridgeConfig): void {
  using host = openRtnetlink();
  findBridge(host, config, notAvailable);
  if (config.vlans !== undefined && !canFilterVlans(host)) {
    throw notAvailable(`Field "vlan" or "vlanTrunk" needs ${VLAN_NEED}`);
  }
}
