// The patchbay plugin as a value; the registry knows it by its name.
import { definePlugin } from '../../shared/cni/plugin.ts';
import { CNI_VERSIONS, isVersionAtLeast } from '../../shared/cni/versions.ts';
import { add } from './add.ts';
import { check, gc, status } from './check.ts';
import { parseConfig, parseTeardown } from './config.ts';
import { convertTool } from './convert.ts';
import { del } from './del.ts';

/** A whole attachment in one executable: bridge, and what usually stands behind it in a list. */
export const patchbay = definePlugin({
  name: 'patchbay',
  supportedVersions: CNI_VERSIONS.filter((version) => isVersionAtLeast(version, '0.4.0')),
  needs: { sandbox: 'enter', programs: 'run' },
  checkNeedsPrevResult: true,
  parseConfig,
  parseTeardown,
  add,
  check,
  del,
  status,
  gc,
  tools: [convertTool],
});
