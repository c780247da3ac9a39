// A network list called as a runtime calls it: every plugin with what the list and the runtime say, one after the other.
// Used by the tests of patchbay, which must be the same as the list of plugins that it stands for.
import { convert } from '../../plugins/patchbay/convert.ts';
import { findPlugin } from '../../plugins/registry.ts';
import type { Fields, Mapping } from './chain.ts';
import { expectDone } from './place.ts';
import type { PrivateHost, Sandbox } from './private-host.ts';
import { type CniResult, expectResult, type PluginCall, type PluginOutcome } from './run-plugin.ts';

export interface ListEntry extends Fields {
  readonly type: string;
  readonly capabilities?: Readonly<Record<string, boolean>>;
}

export interface List {
  readonly cniVersion: string;
  readonly name: string;
  readonly plugins: readonly ListEntry[];
}

/** A list of the four plugins, with something to do for each. */
export const CHAIN: List = {
  cniVersion: '1.1.0',
  name: 'whole',
  plugins: [
    {
      type: 'bridge',
      bridge: 'cni-whole0',
      isDefaultGateway: true,
      ipMasq: true,
      hairpinMode: true,
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.95.0.0/24' }], [{ subnet: 'fd00:95::/64' }]] },
      capabilities: { ips: true },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
    { type: 'firewall', ingressPolicy: 'same-bridge' },
    { type: 'tuning', mtu: 1400, sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' } },
  ],
};

/** The same as one plugin: what `patchbay convert` makes of it. */
export function asOne(list: List): List {
  return JSON.parse(convert(Buffer.from(JSON.stringify(list)), findPlugin).stdout) as List;
}

/** The list with other fields for its bridge, and for the plugins of these types. */
export function withFields(list: List, changes: Readonly<Record<string, Fields>>): List {
  return { ...list, plugins: list.plugins.map((entry) => ({ ...entry, ...changes[entry.type] })) };
}

export const MAPPINGS: readonly Mapping[] = [
  { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
  { hostPort: 5353, containerPort: 53, protocol: 'udp' },
];

/** What the runtime knows of an attachment. */
export interface Known {
  readonly sandbox: Sandbox;
  readonly prevResult?: CniResult;
  readonly portMappings?: readonly Mapping[];
  /** Of the plugins, those under test unless said otherwise. */
  readonly directory?: string;
}

/** The calls of a list, first plugin first. */
export function callsOfList(list: List, known: Known): PluginCall[] {
  const { sandbox, portMappings = MAPPINGS, directory } = known;
  const place = {
    containerId: sandbox.name,
    netns: sandbox.path,
    ifname: 'eth0',
    ...(directory && { directory }),
  };
  return list.plugins.map((entry) => ({
    ...place,
    plugin: entry.type,
    config: configOf(list, entry, portMappings, known),
  }));
}

function configOf(
  { cniVersion, name }: List,
  { capabilities, ...fields }: ListEntry,
  portMappings: readonly Mapping[],
  { prevResult }: Known,
): Fields {
  const runtimeConfig = capabilities?.['portMappings'] ? { runtimeConfig: { portMappings } } : {};
  return { cniVersion, name, ...fields, ...runtimeConfig, ...(prevResult && { prevResult }) };
}

/** ADD of the whole list; throws when any of it fails. Gives the last result. */
export async function addList(host: PrivateHost, list: List, known: Known): Promise<CniResult> {
  let result: CniResult | undefined;
  for (const position of list.plugins.keys()) {
    const call = callsOfList(list, { ...known, ...(result && { prevResult: result }) })[
      position
    ] as PluginCall;
    result = expectResult(await host.runPlugin('ADD', call));
  }
  return result as CniResult;
}

/** CHECK of the whole list. Gives the first outcome that is no success, or the last. */
export async function checkList(host: PrivateHost, list: List, known: Known): Promise<PluginOutcome> {
  let outcome: PluginOutcome | undefined;
  for (const call of callsOfList(list, known)) {
    outcome = await host.runPlugin('CHECK', call);
    if (outcome.exitCode !== 0) break;
  }
  return outcome as PluginOutcome;
}

/** DEL of the whole list, last plugin first; throws when any of it fails. */
export async function delList(host: PrivateHost, list: List, known: Known): Promise<void> {
  for (const call of callsOfList(list, known).reverse()) expectDone(await host.runPlugin('DEL', call));
}

/** GC of the whole list that keeps these containers; without containers the runtime says nothing about it. */
export async function gcList(host: PrivateHost, list: List, kept?: readonly string[]): Promise<void> {
  const valid = kept?.map((containerID) => ({ containerID, ifname: 'eth0' }));
  for (const entry of list.plugins) {
    const config = {
      ...configOf(list, entry, [], {} as Known),
      ...(valid && { 'cni.dev/valid-attachments': valid }),
    };
    expectDone(await host.runPlugin('GC', { plugin: entry.type, config }));
  }
}
