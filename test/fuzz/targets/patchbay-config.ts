// patchbay's config, which holds those of four plugins.
import { parseTeardown } from '../../../plugins/patchbay/config.ts';
import { configTarget } from '../reading.ts';

export const patchbayConfig = configTarget('patchbay', 6, { parseTeardown });
