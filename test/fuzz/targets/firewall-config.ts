// firewall's config.
import { parseTeardown } from '../../../plugins/firewall/config.ts';
import { configTarget } from '../reading.ts';

export const firewallConfig = configTarget('firewall', 5, { parseTeardown });
