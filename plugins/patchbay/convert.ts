// A list of plugins as one patchbay plugin: the same fields in other places, and what of it cannot be taken over.
// Called by `patchbay convert`; pure, and no part of any verb.
import { isJsonObject, type JsonObject, parseJson, pickKeys, splitKeys } from '../../shared/cni/decode.ts';
import { invalidConfig, quote } from '../../shared/cni/error.ts';
import { parseHeader, parseNetworkConfig, parseVersion } from '../../shared/cni/network-config.ts';
import type { Call } from '../../shared/cni/plugin.ts';
import type { Tool, ToolAnswer } from '../../shared/cni/tool.ts';
import { CNI_VERSIONS, isVersionNumberAtLeast, NEWEST_VERSION } from '../../shared/cni/versions.ts';
import { parseConfig, STAGES, type StageName } from './config.ts';
import { readStages } from './stage.ts';

export const convertTool: Tool = {
  name: 'convert',
  help: [
    'patchbay convert < chain.conflist > patchbay.conflist',
    '  Turns a list of bridge, portmap, firewall and tuning into one with patchbay, which does the same in one process.',
    '  Says on standard error what it could not take over, and what it changed besides.',
  ],
  run: convert,
};

/** What a version below this cannot be served with. */
const OLDEST = '0.4.0';

/**
 * The list on `input` with one patchbay in the place of the plugins that it stands for; a single plugin's config becomes a
 * list. Throws decodingFailure for what is no JSON object, and invalidConfig for a list that patchbay cannot express, or
 * that ADD would refuse.
 */
export function convert(input: Buffer, registry: Call<unknown>['registry']): ToolAnswer {
  const given = parseJson(input, 'the network list on stdin');
  if (!isJsonObject(given))
    throw invalidConfig(`The network list must be a JSON object, not ${quote(given)}`);
  const remarks: string[] = [];
  const remark = (line: string) => void remarks.push(line);
  const list = raiseVersion(asList(given, remark), remark);
  const entries = entriesOf(list);
  const { taken, left } = divide(entries, remark);
  const patchbay = join(taken, remark);
  expectUsable(list, patchbay, registry);
  const plugins = [patchbay, ...left.map(({ raw }) => raw)];
  // In the place of the old one, among whatever else the list says.
  const converted = Object.fromEntries(
    Object.entries(list).map(([key, value]) => [key, isPlugins(list, key) ? plugins : value]),
  );
  return { stdout: `${JSON.stringify(converted, null, 2)}\n`, remarks };
}

/** What the entry of a list holds besides the plugin's own fields. */
const OUTSIDE = [
  'type',
  'name',
  'cniVersion',
  'prevResult',
  'capabilities',
  'ipam',
  'dns',
  'args',
  'runtimeConfig',
  'log',
] as const;

interface Entry {
  readonly type: string;
  readonly raw: JsonObject;
  readonly known: { readonly [K in (typeof OUTSIDE)[number]]?: unknown };
  /** The plugin's own fields. */
  readonly own: JsonObject;
}

/** An entry of a plugin that patchbay stands for. */
interface Taken extends Entry {
  readonly stage: StageName;
}

type Remark = (line: string) => void;

// libcni reads a config without "plugins" as a list of one (ConfListFromConf).
function asList(given: JsonObject, remark: Remark): JsonObject {
  const { plugins, type, name, cniVersion } = pickKeys(given, ['plugins', 'type', 'name', 'cniVersion']);
  if (plugins !== undefined || type === undefined) return given;
  remark('A single plugin became a list: name the file .conflist');
  return {
    ...(cniVersion !== undefined && { cniVersion }),
    ...(name !== undefined && { name }),
    plugins: [given],
  };
}

function isPlugins(list: JsonObject, key: string): boolean {
  return Object.hasOwn(list, 'plugins') ? key === 'plugins' : key.toLowerCase() === 'plugins';
}

/** Lists may name several versions (`cniVersions`), of which the runtime takes the newest. */
function raiseVersion(list: JsonObject, remark: Remark): JsonObject {
  const { cniVersion, cniVersions } = pickKeys(list, ['cniVersion', 'cniVersions']);
  const all = [cniVersion, ...(Array.isArray(cniVersions) ? cniVersions : [])];
  const isServed = all.some((version) => typeof version === 'string' && isRecent(version));
  if (isServed) return list;
  remark(
    `Raised "cniVersion" from ${quote(cniVersion ?? 'none')} to "${OLDEST}", the oldest that patchbay speaks`,
  );
  const { rest } = splitKeys(list, ['cniVersion', 'cniVersions']);
  return { cniVersion: OLDEST, ...rest };
}

function isRecent(version: string): boolean {
  return /^\d+(\.\d+){0,2}$/.test(version) && isVersionNumberAtLeast(version, OLDEST);
}

function entriesOf(list: JsonObject): Entry[] {
  const { plugins } = pickKeys(list, ['plugins']);
  if (!Array.isArray(plugins) || plugins.length === 0) {
    throw invalidConfig('Field "plugins" of the network list must be a list with a plugin in it');
  }
  return plugins.map((raw: unknown, position) => {
    const where = `"plugins[${position}]" of the network list`;
    if (!isJsonObject(raw)) throw invalidConfig(`Field ${where} must be an object, not ${quote(raw)}`);
    const { known, rest: own = {} } = splitKeys(raw, OUTSIDE);
    const { type } = known;
    if (typeof type !== 'string')
      throw invalidConfig(`Field "type" of ${where} must be a string, not ${quote(type)}`);
    return { type, raw, known, own };
  });
}

interface Division {
  /** Each plugin once, bridge first. */
  readonly taken: readonly Taken[];
  readonly left: readonly Entry[];
}

// The plugins behind bridge change nothing that another one of them reads, so their order says nothing; other people's
// plugins may read what these make.
function divide(entries: readonly Entry[], remark: Remark): Division {
  const [first] = entries;
  if (first?.type !== 'bridge') {
    throw invalidConfig(
      `The network list begins with ${quote(first?.type)}; patchbay stands for lists that begin with "bridge"`,
    );
  }
  const taken: Taken[] = [];
  const left: Entry[] = [];
  for (const entry of entries) {
    const stage = STAGES.find((name) => name === entry.type);
    if (stage === 'bridge' && entry !== first) {
      throw invalidConfig('The network list makes two attachments by "bridge"; patchbay makes one');
    }
    if (stage !== undefined && !taken.some((other) => other.stage === stage)) {
      const passed = left.map(({ type }) => quote(type)).join(', ');
      if (passed !== '') remark(`"${stage}" came behind ${passed} in the list and is before it now`);
      taken.push({ ...entry, stage });
    } else {
      const why = stage === undefined ? 'is no part of patchbay' : 'is in the list twice';
      remark(`Plugin ${quote(entry.type)} ${why}: it stays in the list, behind patchbay`);
      left.push(entry);
    }
  }
  return { taken, left };
}

function join(taken: readonly Taken[], remark: Remark): JsonObject {
  const fieldsOf = (name: StageName) => taken.find(({ stage }) => stage === name)?.own;
  const [bridge] = taken;
  const { ipam, dns } = bridge?.known ?? {};
  for (const entry of taken) remarkLosses(entry, remark);
  const capabilities = mergeCapabilities(taken);
  const args = takeOut('args', taken, remark);
  const runtimeConfig = takeOut('runtimeConfig', taken, remark);
  const log = takeOut('log', taken, remark);
  if (runtimeConfig !== undefined && capabilities !== undefined) {
    const next = 'remove one of them';
    throw invalidConfig(
      `The network list has "runtimeConfig" and "capabilities": a runtime would replace what stands there for all plugins; ${next}`,
    );
  }
  const [, ...behind] = STAGES;
  return {
    type: 'patchbay',
    bridge: fieldsOf('bridge'),
    ...(ipam !== undefined && { ipam }),
    ...(dns !== undefined && { dns }),
    ...Object.fromEntries(behind.flatMap((name) => (fieldsOf(name) ? [[name, fieldsOf(name)]] : []))),
    ...(args !== undefined && { args }),
    ...(runtimeConfig !== undefined && { runtimeConfig }),
    ...(capabilities !== undefined && { capabilities }),
    ...(log !== undefined && { log }),
  };
}

/** A runtime puts name, version and result in itself; nobody but bridge reads the two about addresses. */
function remarkLosses({ stage, known }: Taken, remark: Remark): void {
  const ignored = stage === 'bridge' ? (['prevResult'] as const) : (['prevResult', 'ipam', 'dns'] as const);
  for (const field of ignored) {
    if (known[field] !== undefined) remark(`Left out "${field}" of "${stage}", which does nothing there`);
  }
}

function mergeCapabilities(taken: readonly Taken[]): JsonObject | undefined {
  const merged = new Map<string, boolean>();
  for (const { stage, known } of taken) {
    const { capabilities } = known;
    if (capabilities === undefined) continue;
    if (!isJsonObject(capabilities)) {
      throw invalidConfig(`Field "capabilities" of "${stage}" must be an object, not ${quote(capabilities)}`);
    }
    for (const [name, value] of Object.entries(capabilities)) {
      merged.set(name, merged.get(name) === true || value === true);
    }
  }
  return merged.size === 0 ? undefined : Object.fromEntries(merged);
}

/** A field that stands once for all plugins: where several have it, they have to say the same. */
function takeOut(field: 'args' | 'runtimeConfig' | 'log', taken: readonly Taken[], remark: Remark): unknown {
  const [first, ...others] = taken.filter(({ known }) => known[field] !== undefined);
  if (first === undefined) return undefined;
  const value = first.known[field];
  const other = others.find(({ known }) => JSON.stringify(known[field]) !== JSON.stringify(value));
  if (other !== undefined) {
    throw invalidConfig(
      `Field "${field}" says one thing for "${first.stage}" and another for "${other.stage}"; patchbay has one for all`,
    );
  }
  remark(`Field "${field}" of "${first.stage}" holds for all plugins of patchbay now`);
  return value;
}

/** The list may have been refused as a list, too; better now than at the first container. */
function expectUsable(list: JsonObject, patchbay: JsonObject, registry: Call<unknown>['registry']): void {
  const { name } = pickKeys(list, ['name']);
  const header = parseHeader(Buffer.from(JSON.stringify({ ...patchbay, cniVersion: NEWEST_VERSION, name })));
  const network = parseNetworkConfig(header, parseVersion(header.raw, 'ADD', CNI_VERSIONS), 'ADD');
  readStages({ registry }, parseConfig({ network, args: '', command: 'ADD' }).stages);
}
