// The patchbay plugin's part of a network config: the plugins it stands for, each with the config that it would have had
// in a list. Called by dispatch before any verb; nothing here looks at the host.
import { isJsonObject, type JsonObject, pickKeys, splitKeys } from '../../shared/cni/decode.ts';
import { invalidConfig, quote } from '../../shared/cni/error.ts';
import type { NetworkConfig } from '../../shared/cni/network-config.ts';
import type { ConfigSource } from '../../shared/cni/plugin.ts';

/** In the order of a list: ADD goes down, DEL goes up. */
export const STAGES = ['bridge', 'portmap', 'firewall', 'tuning'] as const;
export type StageName = (typeof STAGES)[number];

/** One plugin and what it is told. */
export interface Stage {
  readonly name: StageName;
  readonly source: ConfigSource;
}

/** What ADD, CHECK and STATUS work with; never empty, the first is bridge. */
export interface PatchbayConfig {
  readonly stages: readonly Stage[];
}

/** What DEL and GC work with: all plugins, whether the config names them still or not. */
export type PatchbayTeardown = PatchbayConfig;

/** Parses a config for ADD, CHECK and STATUS. Throws invalidConfig (7) naming the key. The plugins read their own parts. */
export function parseConfig(source: ConfigSource): PatchbayConfig {
  const picked = pickKeys(source.network.raw, STAGES);
  if (picked.bridge === undefined) {
    throw invalidConfig(`Field "bridge" of ${WHERE} is missing: it holds what "bridge" would have in a list`);
  }
  const stages = STAGES.flatMap((name) => {
    const fields = picked[name];
    if (fields === undefined) return [];
    if (!isJsonObject(fields)) {
      throw invalidConfig(`Field "${name}" of ${WHERE} must be an object, not ${quote(fields)}`);
    }
    refuseMisplaced(name, fields);
    return [openStage(name, fields, source)];
  });
  return { stages };
}

/** Understands what it can of a config for DEL and GC; never throws. */
export function parseTeardown(source: ConfigSource): PatchbayTeardown {
  const picked = pickKeys(source.network.raw, STAGES);
  const stages = STAGES.map((name) => {
    const fields = picked[name];
    return openStage(name, isJsonObject(fields) ? fields : {}, source);
  });
  return { stages };
}

const WHERE = 'the network configuration';

/** What belongs to the network and not to one plugin: written once, beside the plugins. */
const COMMON = ['cniVersion', 'name', 'args', 'runtimeConfig', 'prevResult'] as const;
/** As COMMON, for the plugin that asks for addresses. */
const ADDRESSING = ['ipam', 'dns'] as const;

/** What a runtime reads in the entry of a list, and what is said of a call as a whole. */
const OF_THE_ENTRY = ['capabilities', 'log'] as const;

/** Somebody who moves a list into this form may forget that these stand outside. */
function refuseMisplaced(name: StageName, fields: JsonObject): void {
  const { known } = splitKeys(fields, [...COMMON, ...ADDRESSING, ...OF_THE_ENTRY]);
  const [misplaced] = Object.keys(known);
  if (misplaced !== undefined) {
    throw invalidConfig(
      `Field "${misplaced}" of "${name}" stands in the wrong place; move it out, beside "${name}"`,
    );
  }
}

function openStage(name: StageName, fields: JsonObject, source: ConfigSource): Stage {
  const { network } = source;
  const common = pickKeys(network.raw, name === 'bridge' ? [...COMMON, ...ADDRESSING] : COMMON);
  const raw = { ...fields, ...common, type: name };
  const own: NetworkConfig = { ...network, type: name, raw, textPath: [name] };
  return { name, source: { ...source, network: own } };
}

/** The stage as it is called behind the ones before it, whose result it is told. */
export function behind({ source }: Stage, prevResult: NetworkConfig['prevResult']): ConfigSource {
  return { ...source, network: { ...source.network, prevResult } };
}
