// Lists of plugins as a runtime calls them, one after the other: the chains that the faults tests hurt.
// A new plugin comes under all of these tests by an entry in CHAINED, or, when it makes an interface, by a chain of its own.
import { PORTS } from './chain.ts';
import { isAboutPrograms, isAboutRules, type Point } from './fault-points.ts';
import { IS_FULL } from './fault-scale.ts';
import { asOne } from './list-runner.ts';
import type { BridgeConfig, PluginConfig } from './network-list.ts';
import type { CniResult, PluginCall } from './run-plugin.ts';

type Fields = { readonly [field: string]: unknown };

/** A plugin behind the first, with what the network's list says of it. */
export interface Chained extends Fields {
  readonly type: string;
  /** What `runtimeConfig` it is handed, as in a list. */
  readonly capabilities?: { readonly portMappings?: true };
}

export interface Chain {
  readonly title: string;
  /** The first plugin, which makes the interface. */
  readonly network: PluginConfig & Pick<Chained, 'capabilities'>;
  readonly chained: readonly Chained[];
  readonly ifname: string;
  /** A script that makes the host what this chain is about. */
  readonly prepare?: string;
}

/** An entry of `runtimeConfig.portMappings`. */
interface Mapping {
  readonly hostPort: number;
  readonly containerPort: number;
  readonly protocol: string;
}

const PORTMAP: Chained = { type: 'portmap', capabilities: { portMappings: true } };

const TUNING: Chained = { type: 'tuning', mtu: 1400, sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' } };

/** The plugins behind bridge, each by its own means. */
const CHAINED: readonly Chained[] = [PORTMAP, { type: 'firewall', ingressPolicy: 'same-bridge' }, TUNING];

/** What a host does by default, and a port that is checked: more rules, in one batch, and a port that goes down first. */
export const NATIVE: Chain = {
  title: 'nftables',
  network: { ...PORTS, ipspoofchk: true } satisfies BridgeConfig,
  chained: CHAINED,
  ifname: 'eth0',
};

/** The reference's chains, written and removed by iptables, and a port that is checked for its MAC alone. */
export const IPTABLES: Chain = {
  title: 'iptables',
  network: { ...PORTS, ipMasqBackend: 'iptables', macspoofchk: true } satisfies BridgeConfig,
  chained: [
    { ...PORTMAP, backend: 'iptables' },
    { type: 'firewall', backend: 'iptables', ingressPolicy: 'isolated' },
  ],
  ifname: 'eth0',
};

/** Beside Docker: what the firewall writes elsewhere, and finds again by what it wrote into its own table. */
export const DROPPING: Chain = {
  title: 'FORWARD drops',
  network: PORTS,
  chained: [{ type: 'firewall', ingressPolicy: 'same-bridge' }],
  ifname: 'eth0',
  prepare: 'iptables -P FORWARD DROP; ip6tables -P FORWARD DROP',
};

/** The same as NATIVE in one process. */
export const TOGETHER: Chain = {
  title: 'in one process',
  network: converted(NATIVE),
  chained: [],
  ifname: 'eth0',
};

function converted({ network, chained }: Chain): Chain['network'] {
  const { cniVersion, name } = network;
  const [plugin] = asOne({ cniVersion, name, plugins: [network, ...chained] }).plugins;
  return { ...plugin, cniVersion, name } as Chain['network'];
}

/** The ways in which a node does all of it. */
export const WAYS: readonly Chain[] = [NATIVE, IPTABLES, TOGETHER];

export const CHAINS: readonly Chain[] = [...WAYS, DROPPING];

/** What there is to look at: everything, but of iptables rules and what comes with its first program; the rest is as NATIVE. */
export function shareOf(chain: Chain, points: readonly Point[]): readonly Point[] {
  const program = points.findIndex(isAboutPrograms);
  return chain === IPTABLES && program > 0
    ? points.filter((point, place) => place >= program || isAboutRules(point))
    : points;
}

/** Where a runtime is when the fault strikes: the verb, and the plugin by its place in the chain. */
export interface Stage {
  readonly chain: Chain;
  readonly verb: 'ADD' | 'DEL';
  readonly position: number;
}

/** In the order in which a runtime comes to them. */
export function stagesOf(chain: Chain): Stage[] {
  const positions = [0, ...chain.chained.map((_, index) => index + 1)];
  return [
    ...positions.map((position) => ({ chain, verb: 'ADD' as const, position })),
    ...positions.toReversed().map((position) => ({ chain, verb: 'DEL' as const, position })),
  ];
}

/** All stages of all chains, each under the name that titles show. */
export const STAGES: readonly (readonly [name: string, stage: Stage])[] = CHAINS.flatMap((chain) =>
  stagesOf(chain)
    .filter((stage) => !isSeenElsewhere(stage))
    .map((stage) => [nameOf(stage), stage] as const),
);

/** What goes the same ways in a chain before or behind: bridge beside a chain that drops, DEL of what iptables has. */
function isSeenElsewhere({ chain, verb, position }: Stage): boolean {
  const isFirewall = typeAt(chain, position) === 'firewall';
  return (
    (chain === DROPPING && !isFirewall) || (!IS_FULL && chain === IPTABLES && isFirewall && verb === 'DEL')
  );
}

/** `ADD bridge, iptables`: how titles and messages name a stage. */
export function nameOf({ chain, verb, position }: Stage): string {
  return `${verb} ${typeAt(chain, position)}, ${chain.title}`;
}

export function typeAt(chain: Chain, position: number): string {
  return position === 0 ? chain.network.type : (chain.chained[position - 1]?.type ?? '');
}

/** An attachment as a runtime knows it. */
export interface Known {
  readonly containerId: string;
  readonly netns: string;
  readonly mappings: readonly Mapping[];
  readonly prevResult: CniResult | undefined;
  /** Instead of the plugins under test. */
  readonly directory?: string | undefined;
}

/** The calls of a verb for each plugin of the chain, first plugin first. */
export function callsOf(chain: Chain, known: Known): PluginCall[] {
  const { network, chained, ifname } = chain;
  const { containerId, netns, mappings, prevResult, directory } = known;
  const { cniVersion, name } = network;
  const outcome = prevResult === undefined ? {} : { prevResult };
  const place = { containerId, netns, ifname, ...(directory === undefined ? {} : { directory }) };
  const forAll = network.capabilities?.portMappings ? { runtimeConfig: { portMappings: mappings } } : {};
  return [
    { ...place, plugin: network.type, config: { ...network, ...forAll, ...outcome } },
    ...chained.map((plugin) => {
      const runtimeConfig = plugin.capabilities?.portMappings ? { portMappings: mappings } : {};
      return {
        ...place,
        plugin: plugin.type,
        config: { cniVersion, name, ...plugin, runtimeConfig, ...outcome },
      };
    }),
  ];
}

/** The calls of GC for each plugin of the chain, which keep these containers. */
export function gcCallsOf(
  { network, chained, ifname }: Chain,
  containerIds: readonly string[],
): PluginCall[] {
  const { cniVersion, name } = network;
  const valid = containerIds.map((containerID) => ({ containerID, ifname }));
  const list = { 'cni.dev/valid-attachments': valid };
  return [
    { plugin: network.type, config: { ...network, ...list } },
    ...chained.map((plugin) => ({ plugin: plugin.type, config: { cniVersion, name, ...plugin, ...list } })),
  ];
}
