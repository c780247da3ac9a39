// Attachments with published ports: bridge and portmap called one after the other, as a runtime calls a list.
// Used by the tests and the demo of portmap on top of attachment.ts.
import { type Attached, attach, detach } from './attachment.ts';
import { type BridgeConfig, readNetwork } from './network-list.ts';
import type { PrivateHost, Sandbox } from './private-host.ts';
import { expectResult, expectSuccess, type PluginCall, type PluginOutcome, type Verb } from './run-plugin.ts';

export type Fields = { readonly [field: string]: unknown };

/** An entry of `runtimeConfig.portMappings`. */
export interface Mapping {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol?: string;
  readonly hostIP?: string;
}

/** An attachment whose ports are published. */
export interface Published extends Attached {
  /** What portmap's ADD was called with. */
  readonly portCall: PluginCall;
  /** What portmap's ADD wrote on stderr. */
  readonly said: string;
}

/** The example network of `conf/` that the tests of published ports use. */
export const PORTS: BridgeConfig = readNetwork('bridge-portmap.conflist').config;

/** Where the plugins of a call come from, and what else differs from a usual one. */
export interface ChainOptions {
  /** The network, `PORTS` unless said otherwise. */
  readonly network?: BridgeConfig;
  /** More fields for portmap. */
  readonly portmap?: Fields;
  /** Directory of both plugins. */
  readonly directory?: string;
  readonly containerId?: string;
  readonly ifname?: string;
}

/** ADDs a sandbox to the network and publishes ports of it; throws when either fails. */
export async function publish(
  host: PrivateHost,
  sandbox: Sandbox,
  mappings: readonly Mapping[],
  options: ChainOptions = {},
): Promise<Published> {
  const { network = PORTS, portmap, ...more } = options;
  return publishFor(host, await attach(host, network, sandbox, more), mappings, portmap);
}

/** Publishes ports of a sandbox that is on the network already; throws when ADD fails. */
export async function publishFor(
  host: PrivateHost,
  attached: Attached,
  mappings: readonly Mapping[],
  portmap: Fields = {},
): Promise<Published> {
  const portCall = portCallOf(attached, mappings, portmap);
  const outcome = await host.runPlugin('ADD', portCall);
  expectResult(outcome);
  return { ...attached, portCall, said: outcome.stderr };
}

/** The call of portmap for an attachment that bridge has made. */
export function portCallOf(
  attached: Attached,
  mappings: readonly Mapping[],
  portmap: Fields = {},
): PluginCall {
  const { cniVersion, name } = attached.call.config as BridgeConfig;
  const runtimeConfig = { portMappings: mappings };
  const config = {
    cniVersion,
    name,
    type: 'portmap',
    runtimeConfig,
    prevResult: attached.result,
    ...portmap,
  };
  return { ...attached.call, plugin: 'portmap', config };
}

/** The same call with other fields; `undefined` takes one away. */
export function changed(portCall: PluginCall, fields: Fields): PluginCall {
  return { ...portCall, config: { ...(portCall.config as Fields), ...fields } };
}

/** The same call by the plugins under test, whoever's ADD it was. */
export function byOurs({ directory: _, ...call }: PluginCall): PluginCall {
  return call;
}

/** Runs a verb of portmap for a published attachment. */
export function runPortmap(
  host: PrivateHost,
  verb: Verb,
  { portCall }: Published,
  fields: Fields = {},
): Promise<PluginOutcome> {
  return host.runPlugin(verb, changed(portCall, fields));
}

/** DELs portmap, then bridge, as a runtime does; throws when either fails. */
export async function unpublish(host: PrivateHost, published: Published): Promise<void> {
  expectSuccess(await host.runPlugin('DEL', published.portCall));
  await detach(host, published);
}
