// What the benchmark measures: each scenario is a handful of lanes that run the same verbs side by side.
// Called by bench.ts; figures and limits refer to scenarios and lanes by the names given here.

import { type Implementation, type NetworkShape, type PortMapping, portsFrom } from './network.ts';
import type { Prefill } from './prefill.ts';

/**
 * The verbs of one round, in order, and the executable they are asked of; "bridge, once" has each verb once; "chain" is
 * four of them in a row, or patchbay in their place, by cnitool, "connections" a client's work.
 */
export type Cycle =
  | 'bridge'
  | 'bridge, once'
  | 'host-local'
  | 'portmap'
  | 'patchbay'
  | 'chain'
  | 'connections'
  | 'VERSION';

export interface Lane {
  readonly name:
    | 'ours'
    | 'ours, one process'
    | 'reference'
    | 'ours, empty node'
    | 'ours, 1 port'
    | 'ours, 100 ports'
    | 'ours, 1 mapping'
    | 'empty program'
    | 'bare calls in C';
  readonly implementation: Implementation;
  readonly shape: NetworkShape;
  readonly prefill: Prefill;
}

export interface Scenario {
  readonly name: string;
  readonly cycle: Cycle;
  readonly lanes: readonly Lane[];
  /** How many rounds for each the user asks for: cheap verbs can have more. */
  readonly roundsFactor: number;
}

export interface Contestants {
  readonly ours: Implementation;
  readonly reference: Implementation;
  /** An empty program packaged like ours; undefined when it wasn't built. */
  readonly empty: Implementation | undefined;
  /** Debian's package has no nftables backend. */
  readonly referenceHasNftables: boolean;
  /** Whether the calls of a verb can be made in C. */
  readonly hasCompiler: boolean;
}

const NOTHING: Prefill = { attachments: 0, portsEach: 0, networks: 1, stored: 0, foreignRules: 0 };
const CROWD: Prefill = { ...NOTHING, attachments: 1000, networks: 4 };
const CROWDED_BRIDGE: Prefill = { ...NOTHING, attachments: 1000 };
const CROWD_WITH_PORTS: Prefill = { ...CROWD, portsEach: 2 };
const FULL_STORE: Prefill = { ...NOTHING, stored: 20_000 };
const FOREIGN_RULES: Prefill = { ...NOTHING, foreignRules: 20_000 };

const FIRST_PORT = 20_000;
const TWO_PORTS = portsFrom(FIRST_PORT, 2, ['tcp', 'udp']);

export const NAMES = {
  version: 'VERSION',
  plain4: 'IPv4',
  masq4: 'IPv4, ipMasq',
  plain46: 'dual stack',
  masq46: 'dual stack, ipMasq',
  masq4Nft: 'IPv4, ipMasq, both on nftables',
  masq46Nft: 'dual stack, ipMasq, both on nftables',
  masq46Iptables: 'dual stack, ipMasq, both on iptables',
  crowd: 'IPv4, ipMasq, 1,000 attachments on four bridges',
  crowdedBridge: 'IPv4, ipMasq, 1,000 attachments on one bridge',
  store: 'IPv4, 20,000 stored addresses',
  hostLocal: 'host-local alone',
  hostLocalFull: 'host-local alone, 20,000 stored addresses',
  portmap4: 'portmap, IPv4, 2 ports',
  portmap46: 'portmap, dual stack, 2 ports',
  portmap4Nft: 'portmap, IPv4, 2 ports, both on nftables',
  portmapPorts: 'portmap, IPv4, 1,000 ports',
  portmapCrowd: 'portmap, IPv4, 2 ports, 1,000 attachments with 2 ports each',
  portmapForeign: 'portmap, IPv4, 2 ports, 20,000 foreign iptables rules',
  chain4: 'chain as nerdctl writes it, IPv4, 2 ports',
  chain46: 'chain as nerdctl writes it, dual stack, 2 ports',
  patchbay4: 'patchbay alone, IPv4, 2 ports',
  patchbay46: 'patchbay alone, dual stack, 2 ports',
  limitBridge: 'beside the limit: bridge, IPv4, ipMasq',
  limitPatchbay: 'beside the limit: patchbay, IPv4, 2 ports',
  connections: 'portmap, IPv4, 1,000 new connections at 2,000 mappings',
} as const;

/** What is measured besides time, under names of its own. */
export const FOOTPRINTS = [
  { name: 'programs and memory', plugin: 'bridge', shape: shapeOf('IPv4', 'default') },
  { name: 'portmap, programs and memory', plugin: 'portmap', shape: shapeOf('IPv4', 'default', TWO_PORTS) },
] as const;

/** All scenarios that these contestants can run. */
export function scenariosOf(contestants: Contestants): Scenario[] {
  const { ours, reference } = contestants;

  function lane(name: Lane['name'], shape: NetworkShape, prefill: Prefill): Lane {
    return { name, implementation: name === 'reference' ? reference : ours, shape, prefill };
  }

  function duel(name: string, shape: NetworkShape, prefill = NOTHING, cycle: Cycle = 'bridge'): Scenario {
    const lanes = [lane('ours', shape, prefill), lane('reference', shape, prefill)];
    const empty = prefill === NOTHING ? [] : [lane('ours, empty node', shape, NOTHING)];
    return { name, cycle, lanes: [...lanes, ...empty], roundsFactor: 1 };
  }

  const plain4 = shapeOf('IPv4', 'off');
  const masq4 = shapeOf('IPv4', 'default');
  const nftables = [
    duel(NAMES.masq4Nft, shapeOf('IPv4', 'nftables')),
    duel(NAMES.masq46Nft, shapeOf('dual stack', 'nftables')),
    duel(NAMES.masq46Iptables, shapeOf('dual stack', 'iptables')),
  ];
  const portmapNftables = [
    duel(NAMES.portmap4Nft, shapeOf('IPv4', 'nftables', TWO_PORTS), NOTHING, 'portmap'),
  ];
  return [
    versionScenario(contestants),
    duel(NAMES.plain4, plain4),
    duel(NAMES.masq4, masq4),
    duel(NAMES.plain46, shapeOf('dual stack', 'off')),
    duel(NAMES.masq46, shapeOf('dual stack', 'default')),
    ...(contestants.referenceHasNftables ? nftables : []),
    duel(NAMES.crowd, masq4, CROWD),
    duel(NAMES.crowdedBridge, masq4, CROWDED_BRIDGE),
    duel(NAMES.store, plain4, FULL_STORE),
    duel(NAMES.hostLocal, plain4, NOTHING, 'host-local'),
    duel(NAMES.hostLocalFull, plain4, FULL_STORE, 'host-local'),
    duel(NAMES.portmap4, shapeOf('IPv4', 'default', TWO_PORTS), NOTHING, 'portmap'),
    duel(NAMES.portmap46, shapeOf('dual stack', 'default', TWO_PORTS), NOTHING, 'portmap'),
    ...(contestants.referenceHasNftables ? portmapNftables : []),
    ...portmapScenarios(ours),
    ...chainScenarios(contestants),
    ...patchbayScenarios(contestants),
    ...limitScenarios(contestants),
  ];
}

function shapeOf(
  families: NetworkShape['families'],
  ipMasq: NetworkShape['ipMasq'],
  ports: readonly PortMapping[] = [],
): NetworkShape {
  return { families, ipMasq, ports };
}

// Where ours is held against itself.
function portmapScenarios(ours: Implementation): Scenario[] {
  function lane(name: Lane['name'], ports: readonly PortMapping[], prefill = NOTHING): Lane {
    return { name, implementation: ours, shape: shapeOf('IPv4', 'default', ports), prefill };
  }

  // UDP is the dearer of the two: its flows are looked for in connection tracking.
  const ladder = (count: number) => portsFrom(FIRST_PORT, count, ['udp']);
  const onePort = portsFrom(FIRST_PORT, 1, ['tcp']);
  return [
    {
      name: NAMES.portmapPorts,
      cycle: 'portmap',
      lanes: [
        lane('ours', ladder(1000)),
        lane('ours, 100 ports', ladder(100)),
        lane('ours, 1 port', ladder(1)),
      ],
      roundsFactor: 1,
    },
    ...(
      [
        [NAMES.portmapCrowd, CROWD_WITH_PORTS],
        [NAMES.portmapForeign, FOREIGN_RULES],
      ] as const
    ).map(([name, prefill]) => ({
      name,
      cycle: 'portmap' as const,
      lanes: [lane('ours', TWO_PORTS, prefill), lane('ours, empty node', TWO_PORTS)],
      roundsFactor: 1,
    })),
    {
      name: NAMES.connections,
      cycle: 'connections',
      lanes: [lane('ours', onePort, CROWD_WITH_PORTS), lane('ours, 1 mapping', onePort)],
      roundsFactor: 1,
    },
  ];
}

// By cnitool, whose own start is a part of it for both.
function chainScenarios({ ours, reference }: Contestants): Scenario[] {
  return (
    [
      [NAMES.chain4, 'IPv4'],
      [NAMES.chain46, 'dual stack'],
    ] as const
  ).map(([name, families]) => {
    const shape = shapeOf(families, 'default', TWO_PORTS);
    return {
      name,
      cycle: 'chain',
      lanes: [
        { name: 'ours', implementation: ours, shape, prefill: NOTHING },
        { name: 'ours, one process', implementation: ours, shape, prefill: NOTHING },
        { name: 'reference', implementation: reference, shape, prefill: NOTHING },
      ],
      roundsFactor: 1,
    };
  });
}

/** The whole attachment without a client, beside the floor. */
function patchbayScenarios({ ours, empty }: Contestants): Scenario[] {
  return (
    [
      [NAMES.patchbay4, 'IPv4'],
      [NAMES.patchbay46, 'dual stack'],
    ] as const
  ).map(([name, families]) => {
    const shape = shapeOf(families, 'default', TWO_PORTS);
    const lanes: Lane[] = [{ name: 'ours', implementation: ours, shape, prefill: NOTHING }];
    if (empty !== undefined)
      lanes.push({ name: 'empty program', implementation: empty, shape, prefill: NOTHING });
    return { name, cycle: 'patchbay', lanes, roundsFactor: 1 };
  });
}

/** Ours, what starting alone costs, and the system calls alone. */
function limitScenarios({ ours, empty, hasCompiler }: Contestants): Scenario[] {
  if (empty === undefined || !hasCompiler) return [];
  return (
    [
      [NAMES.limitBridge, 'bridge, once', shapeOf('IPv4', 'default')],
      [NAMES.limitPatchbay, 'patchbay', shapeOf('IPv4', 'default', TWO_PORTS)],
    ] as const
  ).map(([name, cycle, shape]) => ({
    name,
    cycle,
    lanes: [
      { name: 'ours', implementation: ours, shape, prefill: NOTHING },
      { name: 'empty program', implementation: empty, shape, prefill: NOTHING },
      { name: 'bare calls in C', implementation: ours, shape, prefill: NOTHING },
    ],
    roundsFactor: 1,
  }));
}

function versionScenario({ ours, reference, empty }: Contestants): Scenario {
  const shape = shapeOf('IPv4', 'off');
  const lanes: Lane[] = [
    { name: 'ours', implementation: ours, shape, prefill: NOTHING },
    { name: 'reference', implementation: reference, shape, prefill: NOTHING },
  ];
  if (empty !== undefined)
    lanes.push({ name: 'empty program', implementation: empty, shape, prefill: NOTHING });
  return { name: NAMES.version, cycle: 'VERSION', lanes, roundsFactor: 3 };
}
