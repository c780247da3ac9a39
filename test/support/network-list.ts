// The example networks of conf/, and what a container runtime makes of such a list before it calls a plugin.
// Used by the binary and end-to-end tests and the demo, so that every example is a tested one.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PrivateHost } from './private-host.ts';

type JsonObject = { readonly [key: string]: unknown };

export interface Range {
  readonly subnet: string;
  readonly rangeStart?: string;
  readonly rangeEnd?: string;
  readonly gateway?: string;
}

/** The fields of a bridge config that tests ask about. */
export interface BridgeConfig extends JsonObject {
  readonly cniVersion: string;
  readonly name: string;
  readonly type: string;
  readonly bridge: string;
  readonly isGateway?: boolean;
  readonly isDefaultGateway?: boolean;
  readonly ipMasq?: boolean;
  readonly portIsolation?: boolean;
  readonly mtu?: number;
  readonly ipam?: JsonObject & { readonly ranges: readonly (readonly Range[])[]; readonly dataDir?: string };
}

/** The config of a plugin behind the first. */
export interface PluginConfig extends JsonObject {
  readonly cniVersion: string;
  readonly name: string;
  readonly type: string;
}

export interface NetworkList {
  readonly file: string;
  readonly name: string;
  /**
   * The config of the list's first plugin, with name and version put in, as it arrives on stdin. Where that is patchbay,
   * `facts` tells more: its fields for the bridge stand in a part of their own.
   */
  readonly config: BridgeConfig;
  /** The same as a config of bridge. */
  readonly facts: BridgeConfig;
  /** The configs of the plugins that are chained behind it, likewise. */
  readonly chained: readonly PluginConfig[];
  /** The list as text, at its own version. */
  readonly text: string;
}

const DIRECTORY = join(import.meta.dirname, '../../conf');

/** All example networks, in the order in which a runtime would list them. */
export function listNetworks(): NetworkList[] {
  const files = readdirSync(DIRECTORY).filter((file) => file.endsWith('.conflist'));
  return files.sort().map(readNetwork);
}

/** One example network by its file name, such as `10-bridge.conflist`. */
export function readNetwork(file: string): NetworkList {
  const text = readFileSync(join(DIRECTORY, file), 'utf8');
  const list = JSON.parse(text) as { cniVersion: string; name: string; plugins: JsonObject[] };
  const { cniVersion, name, plugins } = list;
  const [config, ...chained] = plugins.map((plugin) => ({ cniVersion, name, ...plugin }) as PluginConfig);
  if (config === undefined) throw new Error(`"${file}" should list a plugin`);
  return { file, name, config: config as BridgeConfig, facts: factsOf(config), chained, text };
}

function factsOf(config: PluginConfig): BridgeConfig {
  const { bridge, ...others } = config;
  return { ...others, ...(config.type === 'patchbay' ? (bridge as object) : { bridge }) } as BridgeConfig;
}

/** Whether a network can be used at a version: patchbay and firewall speak the newer ones. */
export function speaks({ config, chained }: NetworkList, version: string): boolean {
  const types = [config, ...chained].map(({ type }) => type);
  return version >= '0.4.0' || !types.some((type) => type === 'patchbay' || type === 'firewall');
}

/** Puts a network, at another version if asked, where the clients of this host look for it. */
export function installNetwork(
  host: PrivateHost,
  network: NetworkList,
  version = network.config.cniVersion,
): void {
  const list = { ...(JSON.parse(network.text) as JsonObject), cniVersion: version };
  writeFileSync(host.file(`/etc/cni/net.d/${network.file}`), JSON.stringify(list));
}

type UsualPlugin = JsonObject & { readonly type: string; readonly ipam?: JsonObject };

/** The plugins of a network as runtimes configure it: dual stack, a way out, ports; of tuning what is asked for. */
export function usualPlugins(
  [subnet4, subnet6]: readonly [string, string],
  tuning: JsonObject = {},
): readonly UsualPlugin[] {
  const ipam = { type: 'host-local', ranges: [[{ subnet: subnet4 }], [{ subnet: subnet6 }]] };
  return [
    { type: 'bridge', bridge: 'cni0', isDefaultGateway: true, ipMasq: true, hairpinMode: true, ipam },
    { type: 'portmap', capabilities: { portMappings: true } },
    { type: 'firewall' },
    { type: 'tuning', ...tuning },
  ];
}

/** Writes the resolver file that one of the examples reads. */
export function installResolvConf(host: PrivateHost): void {
  writeFileSync(host.file('/etc/cni/resolv.conf'), 'nameserver 198.51.100.53\nsearch example.org\n');
}

/** First range of each address family that the network hands out. */
export function familiesOf(config: BridgeConfig): { readonly family: 4 | 6; readonly range: Range }[] {
  return (config.ipam?.ranges ?? []).flatMap(([range]) =>
    range === undefined ? [] : [{ family: range.subnet.includes(':') ? (6 as const) : (4 as const), range }],
  );
}
