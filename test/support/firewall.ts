// Attachments that the firewall plugin lets through, behind bridge and portmap as a runtime calls them.
// Used by the binary tests of firewall on top of chain.ts.
import type { Attached } from './attachment.ts';
import { type Fields, type Published, unpublish } from './chain.ts';
import { type BridgeConfig, readNetwork } from './network-list.ts';
import type { PrivateHost } from './private-host.ts';
import { expectResult, expectSuccess, type PluginCall, type PluginOutcome, type Verb } from './run-plugin.ts';

/** The example network of `conf/` with a firewall. */
export const WALLED: BridgeConfig = readNetwork('bridge-firewall.conflist').config;

/** The call of firewall for an attachment that bridge has made; without fields its policy is "open". */
export function wallCallOf(attached: Attached, fields: Fields = {}): PluginCall {
  const { cniVersion, name } = attached.call.config as BridgeConfig;
  const config = { cniVersion, name, type: 'firewall', prevResult: attached.result, ...fields };
  return { ...attached.call, plugin: 'firewall', config };
}

/** ADDs the firewall to an attachment; throws when that fails. Gives what it wrote on stderr. */
export async function admit(host: PrivateHost, attached: Attached, fields: Fields = {}): Promise<string> {
  const outcome = await host.runPlugin('ADD', wallCallOf(attached, fields));
  expectResult(outcome);
  return outcome.stderr;
}

/** Runs a verb of the firewall for an attachment. */
export function runFirewall(
  host: PrivateHost,
  verb: Verb,
  attached: Attached,
  fields: Fields = {},
): Promise<PluginOutcome> {
  return host.runPlugin(verb, wallCallOf(attached, fields));
}

/** DELs the whole chain, last plugin first; throws when any of it fails. */
export async function dismiss(host: PrivateHost, published: Published, fields: Fields = {}): Promise<void> {
  expectSuccess(await runFirewall(host, 'DEL', published, fields));
  await unpublish(host, published);
}
