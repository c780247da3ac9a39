// The plugins in this executable, by the names they are installed under. Called by main.ts to find the one it runs
// as, by the dispatcher for delegates, and by the build, which makes one hard link for each name.
import type { AnyPlugin } from '../shared/cni/plugin.ts';
import { bridge } from './bridge/index.ts';
import { firewall } from './firewall/index.ts';
import { hostLocal } from './host-local/index.ts';
import { loopback } from './loopback/index.ts';
import { portmap } from './portmap/index.ts';
import { tuning } from './tuning/index.ts';

const PLUGINS: ReadonlyMap<string, AnyPlugin> = new Map(
  [bridge, firewall, hostLocal, loopback, portmap, tuning].map((plugin) => [plugin.name, plugin]),
);

/** The plugin of that name. */
export function findPlugin(name: string): AnyPlugin | undefined {
  return PLUGINS.get(name);
}

/** The names of all plugins. */
export function listPlugins(): readonly string[] {
  return [...PLUGINS.keys()];
}
