// What a plugin says about itself: to a person who runs it bare, and to a runtime that asks for VERSION.
// Called by the dispatcher, and by plugins/version.ts.
import type { AnyPlugin } from './plugin.ts';
import { NEWEST_VERSION } from './versions.ts';

/**
 * The lines for stderr when CNI_COMMAND is unset. Clients look for a semantic version with a leading `v` in
 * the first one (nerdctl refuses what it takes for older than v1.7.1).
 */
export function bannerLines(plugin: AnyPlugin, version: string): readonly string[] {
  const semantic = version.startsWith('v') ? version : `v${version}`;
  return [
    `CNI ${plugin.name} plugin ${semantic}`,
    `CNI protocol versions supported: ${plugin.supportedVersions.join(', ')}`,
  ];
}

/** The answer to VERSION: one compact line, whose `cniVersion` is our newest whatever the config says. */
export function versionAnswer(plugin: AnyPlugin): string {
  const { supportedVersions } = plugin;
  return `${JSON.stringify({ cniVersion: NEWEST_VERSION, supportedVersions })}\n`;
}
