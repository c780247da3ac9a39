// The host-local plugin: addresses from ranges of this host, kept in a directory.
// Listed in plugins/registry.ts.
import { definePlugin } from '../../shared/cni/plugin.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { add } from './add.ts';
import { check } from './check.ts';
import { parseConfig, parseTeardown } from './config.ts';
import { del } from './del.ts';
import { gc } from './gc.ts';
import { status } from './status.ts';

export const hostLocal = definePlugin({
  name: 'host-local',
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
