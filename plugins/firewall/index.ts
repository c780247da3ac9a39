// The firewall plugin as a value; the registry knows it by its name.
import { definePlugin } from '../../shared/cni/plugin.ts';
import { CNI_VERSIONS, isVersionAtLeast } from '../../shared/cni/versions.ts';
import { add } from './add.ts';
import { check } from './check.ts';
import { parseConfig, parseTeardown } from './config.ts';
import { del } from './del.ts';
import { gc } from './gc.ts';
import { status } from './status.ts';

/** Lets containers through the host's firewall and keeps bridges apart, chained behind an interface plugin. */
export const firewall = definePlugin({
  name: 'firewall',
  supportedVersions: CNI_VERSIONS.filter((version) => isVersionAtLeast(version, '0.4.0')),
  needs: { sandbox: 'none', programs: 'run' },
  parseConfig,
  parseTeardown,
  add,
  check,
  del,
  status,
  gc,
});
