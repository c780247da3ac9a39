// What the benchmark measures: each scenario is a handful of lanes that run the same verbs side by side.
// Called by bench.ts; figures and limits refer to scenarios and lanes by the names given here.

import type { Implementation, NetworkShape } from './network.ts';
import type { Prefill } from './prefill.ts';

/** The verbs of one round, in order, and the executable they are asked of. */
export type Cycle = 'bridge' | 'host-local' | 'VERSION';

export interface Lane {
  readonly name: 'ours' | 'reference' | 'ours, empty node' | 'empty program';
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
}

const NOTHING: Prefill = { attachments: 0, networks: 1, stored: 0 };
const CROWD: Prefill = { attachments: 1000, networks: 4, stored: 0 };
const CROWDED_BRIDGE: Prefill = { attachments: 1000, networks: 1, stored: 0 };
const FULL_STORE: Prefill = { attachments: 0, networks: 1, stored: 20_000 };

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
} as const;

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

  const nftables = contestants.referenceHasNftables
    ? [
        duel(NAMES.masq4Nft, { families: 'IPv4', ipMasq: 'nftables' }),
        duel(NAMES.masq46Nft, { families: 'dual stack', ipMasq: 'nftables' }),
        duel(NAMES.masq46Iptables, { families: 'dual stack', ipMasq: 'iptables' }),
      ]
    : [];
  const plain4: NetworkShape = { families: 'IPv4', ipMasq: 'off' };
  return [
    versionScenario(contestants),
    duel(NAMES.plain4, plain4),
    duel(NAMES.masq4, { families: 'IPv4', ipMasq: 'default' }),
    duel(NAMES.plain46, { families: 'dual stack', ipMasq: 'off' }),
    duel(NAMES.masq46, { families: 'dual stack', ipMasq: 'default' }),
    ...nftables,
    duel(NAMES.crowd, { families: 'IPv4', ipMasq: 'default' }, CROWD),
    duel(NAMES.crowdedBridge, { families: 'IPv4', ipMasq: 'default' }, CROWDED_BRIDGE),
    duel(NAMES.store, plain4, FULL_STORE),
    duel(NAMES.hostLocal, plain4, NOTHING, 'host-local'),
    duel(NAMES.hostLocalFull, plain4, FULL_STORE, 'host-local'),
  ];
}

function versionScenario({ ours, reference, empty }: Contestants): Scenario {
  const shape: NetworkShape = { families: 'IPv4', ipMasq: 'off' };
  const lanes: Lane[] = [
    { name: 'ours', implementation: ours, shape, prefill: NOTHING },
    { name: 'reference', implementation: reference, shape, prefill: NOTHING },
  ];
  if (empty !== undefined)
    lanes.push({ name: 'empty program', implementation: empty, shape, prefill: NOTHING });
  return { name: NAMES.version, cycle: 'VERSION', lanes, roundsFactor: 3 };
}
