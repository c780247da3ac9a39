// The loopback plugin as a value; the registry knows it by its name.
import { definePlugin } from '../../shared/cni/plugin.ts';
import { CNI_VERSIONS } from '../../shared/cni/versions.ts';
import { add } from './add.ts';
import { check } from './check.ts';
import { del } from './del.ts';

/**
 * Sets the link `lo` of a sandbox up. It has no field of its own, needs nothing of the host, and keeps nothing: STATUS is
 * always good, and what GC could collect went with the sandbox.
 */
export const loopback = definePlugin({
  name: 'loopback',
  supportedVersions: CNI_VERSIONS,
  needs: { sandbox: 'enter', programs: 'none' },
  parseConfig: () => undefined,
  parseTeardown: () => undefined,
  add,
  check,
  del,
  status: () => {},
  gc: () => {},
});
