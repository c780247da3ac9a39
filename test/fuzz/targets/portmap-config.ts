// portmap's config with runtimeConfig, and where each mapping leads with the addresses of prevResult.
import { parseConfig, parseTeardown } from '../../../plugins/portmap/config.ts';
import { planMappings } from '../../../plugins/portmap/plan.ts';
import { configTarget } from '../reading.ts';

export const portmapConfig = configTarget('portmap', 12, {
  decide(source, { containerId, ifname }) {
    const config = parseConfig(source);
    const { network } = source;
    planMappings(config, network.prevResult ?? {}, { network: network.name, containerId, ifname });
    return undefined;
  },
  parseTeardown,
});
