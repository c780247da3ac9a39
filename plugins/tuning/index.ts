// The tuning plugin as a value; the registry knows it by its name.
import { definePlugin } from '../../shared/cni/plugin.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { add } from './add.ts';
import { check } from './check.ts';
import { parseConfig, parseTeardown } from './config.ts';
import { del } from './del.ts';
import { gc } from './gc.ts';
import { status } from './status.ts';

/** Sets sysctls of a sandbox and properties of its link, chained behind an interface plugin. */
export const tuning = definePlugin({
  name: 'tuning',
  supportedVersions: CNI_VERSIONS,
  needs: { sandbox: 'enter', programs: 'none' },
  parseConfig,
  parseTeardown,
  add,
  check,
  del,
  status,
  gc,
});
