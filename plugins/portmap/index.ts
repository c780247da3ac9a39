// The portmap plugin as a value; the registry knows it by its name.
import { definePlugin } from '../../shared/cni/plugin.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { add } from './add.ts';
import { check } from './check.ts';
import { parseConfig, parseTeardown } from './config.ts';
import { del } from './del.ts';
import { gc } from './gc.ts';
import { status } from './status.ts';

/** Publishes ports of containers on the host, chained behind an interface plugin. */
export const portmap = definePlugin({
  name: 'portmap',
  supportedVersions: CNI_VERSIONS,
  needs: { sandbox: 'none', programs: 'run' },
  parseConfig,
  parseTeardown,
  add,
  check,
  del,
  status,
  gc,
});
