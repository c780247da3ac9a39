// The plugins in the executables, by the names they are installed under. Called by main.ts to find the one it runs as,
// by the dispatcher for delegates, and by the build, which makes one hard link and one script for each name: a script
// holds its own plugin and those it runs in process, for what is not there does not have to be read at every start.
import type { AnyPlugin } from '../shared/cni/plugin.ts';
import { bridge } from './bridge/index.ts';
import { firewall } from './firewall/index.ts';
import { hostLocal } from './host-local/index.ts';
import { loopback } from './loopback/index.ts';
import { patchbay } from './patchbay/index.ts';
import { portmap } from './portmap/index.ts';
import { tuning } from './tuning/index.ts';

const PLUGINS: ReadonlyMap<string, AnyPlugin> = new Map(
  [bridge, firewall, hostLocal, loopback, patchbay, portmap, tuning].map((plugin) => [plugin.name, plugin]),
);

/** Plugins that a plugin may run in process, where it finds them installed beside it. Others it starts as programs. */
export const DELEGATES: Readonly<Record<string, readonly string[]>> = {
  bridge: ['host-local'],
  patchbay: ['bridge', 'host-local', 'portmap', 'firewall', 'tuning'],
};

/** The plugin of that name. */
export function findPlugin(name: string): AnyPlugin | undefined {
  return PLUGINS.get(name);
}

/** The names of all plugins. */
export function listPlugins(): readonly string[] {
  return [...PLUGINS.keys()];
}
