// Attachments as tests think of them: one sandbox on one network, with its addresses at hand.
// Used by the topology and lifecycle tests and the demo on top of `host.runPlugin`.
import type { BridgeConfig } from './network-list.ts';
import type { PrivateHost, Sandbox } from './private-host.ts';
import { type CniResult, expectResult, expectSuccess, type PluginCall } from './run-plugin.ts';

export interface Attached {
  /** What ADD was called with; the same call serves DEL. */
  readonly call: PluginCall;
  readonly result: CniResult;
  /** The first address of each family without its prefix, '' when there is none. */
  readonly ip4: string;
  readonly ip6: string;
}

/** ADDs a sandbox to a network, as the container of its name unless said otherwise; throws when ADD fails. */
export async function attach(
  host: PrivateHost,
  config: BridgeConfig,
  sandbox: Sandbox,
  more: Partial<PluginCall> = {},
): Promise<Attached> {
  const plugin = config.type;
  const call = { plugin, config, containerId: sandbox.name, netns: sandbox.path, ifname: 'eth0', ...more };
  const result = expectResult(await host.runPlugin('ADD', call));
  const ips = (result.ips ?? []).map(({ address }) => address.split('/')[0] ?? '');
  return {
    call,
    result,
    ip4: ips.find((ip) => !ip.includes(':')) ?? '',
    ip6: ips.find((ip) => ip.includes(':')) ?? '',
  };
}

/** The same attachment's config for CHECK and DEL: a runtime hands the result of ADD back. */
export function withPrevResult({ call, result }: Attached): PluginCall {
  return { ...call, config: { ...(call.config as BridgeConfig), prevResult: result } };
}

/** DELs an attachment with its result; throws when DEL fails. */
export async function detach(host: PrivateHost, attached: Attached): Promise<void> {
  expectSuccess(await host.runPlugin('DEL', withPrevResult(attached)));
}
