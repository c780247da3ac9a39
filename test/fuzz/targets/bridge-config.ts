// bridge's config, and the addressing that is planned from it and from what IPAM may have leased.
import { parseConfig, parseTeardown } from '../../../plugins/bridge/config.ts';
import { planAddressing, planLayer2 } from '../../../plugins/bridge/plan.ts';
import { configTarget } from '../reading.ts';

export const bridgeConfig = configTarget('bridge', 12, {
  decide(source) {
    const config = parseConfig(source);
    const leases = source.network.prevResult;
    const plan = leases === undefined ? planLayer2(config) : planAddressing(config, leases);
    return { interfaces: [], ...plan.reported };
  },
  parseTeardown,
});
