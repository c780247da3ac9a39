// The portmap plugin's part of a network config: one typed value, or an error that names the field.
// Called by dispatch before any verb; nothing here looks at the host.
import * as v from 'valibot';
import { configObject, decode, pickKeys, wholeNumber } from '../../shared/cni/decode.ts';
import { invalidConfig, quote } from '../../shared/cni/error.ts';
import type { ConfigSource } from '../../shared/cni/plugin.ts';
import { chainName } from '../../shared/iptables/chain-name.ts';
import type { ConditionList } from '../../shared/nftables/conditions.ts';
import { findOverlap } from '../../shared/ruleset/port-overlap.ts';
import { findRepeatedKind, parseConditions, type TokenSource } from './conditions.ts';
import { describeMapping, hostPortsOf, type PortMapping, portMappingSchema } from './port-mapping.ts';

export type Backend = 'nftables' | 'iptables';

/** What ADD, CHECK and STATUS work with. */
export interface PortmapConfig {
  readonly backend: Backend;
  /** Hairpin and loopback traffic is masqueraded, so that it finds its way back. */
  readonly snat: boolean;
  /** All published traffic is masqueraded; never without `snat`. */
  readonly masqAll: boolean;
  /** 0 to 31, the bit of the packet mark that asks for masquerading; backend iptables only. */
  readonly markMasqBit: number;
  /** A chain of someone else that sets the mark; backend iptables only. */
  readonly externalSetMarkChain: string | undefined;
  /** A packet must fulfil one of the lists; any packet does when there is none. */
  readonly conditions4: readonly ConditionList[];
  readonly conditions6: readonly ConditionList[];
  /** None of them overlaps another. */
  readonly mappings: readonly PortMapping[];
}

/** What DEL and GC can do with: they find ports by their owner, so what was published does not matter. */
export interface PortmapTeardown {
  /** Where to look first; what ADD was told may have been another. */
  readonly backend: Backend;
}

/** As the reference plugin; Kubernetes uses 14 and 15. */
const DEFAULT_MARK_BIT = 13;

/** Parses a config for ADD, CHECK and STATUS. Throws invalidConfig (7) naming field and value. */
export function parseConfig(source: ConfigSource): PortmapConfig {
  const fields = decode(portmapSchema(), source.network.raw, WHERE);
  refuseContradictions(fields);
  const mappings = fields.runtimeConfig?.portMappings ?? [];
  refuseOverlap(mappings);
  const backend = fields.backend || impliedBackend(fields);
  const snat = fields.snat ?? true;
  return {
    backend,
    snat,
    masqAll: snat && (fields.masqAll ?? false),
    markMasqBit: fields.markMasqBit ?? DEFAULT_MARK_BIT,
    externalSetMarkChain: fields.externalSetMarkChain || undefined,
    conditions4: conditionsOf(fields.conditionsV4, { field: 'conditionsV4', family: 4 }, backend),
    conditions6: conditionsOf(fields.conditionsV6, { field: 'conditionsV6', family: 6 }, backend),
    mappings,
  };
}

/** Understands what it can of a config for DEL and GC; never throws. */
export function parseTeardown(source: ConfigSource): PortmapTeardown {
  const { backend, ...marks } = pickKeys(source.network.raw, [
    'backend',
    'markMasqBit',
    'externalSetMarkChain',
  ]);
  return { backend: backend === 'nftables' || backend === 'iptables' ? backend : impliedBackend(marks) };
}

const WHERE = 'the network configuration';

type PortmapFields = v.InferOutput<ReturnType<typeof portmapSchema>>;

function portmapSchema() {
  const tokens = () => v.array(v.string());
  return configObject({
    backend: () => v.picklist(['', 'nftables', 'iptables']),
    snat: v.boolean,
    masqAll: v.boolean,
    markMasqBit: () => wholeNumber({ min: 0, max: 31 }),
    externalSetMarkChain: chainName,
    conditionsV4: tokens,
    conditionsV6: tokens,
    runtimeConfig: () => configObject({ portMappings: () => v.array(portMappingSchema()) }),
  });
}

// Only iptables has marks and chains of others: whoever sets these fields depends on them.
function impliedBackend({ markMasqBit, externalSetMarkChain }: Marks): Backend {
  return markMasqBit !== undefined || (externalSetMarkChain ?? '') !== '' ? 'iptables' : 'nftables';
}

interface Marks {
  readonly markMasqBit?: unknown;
  readonly externalSetMarkChain?: unknown;
}

function refuseContradictions({ backend, markMasqBit, externalSetMarkChain }: PortmapFields): void {
  if (markMasqBit !== undefined && externalSetMarkChain) {
    const both = `${markMasqBit} and ${quote(externalSetMarkChain)}`;
    throw invalidConfig(
      `Fields "markMasqBit" and "externalSetMarkChain" of ${WHERE} exclude each other, they are ${both}; remove one`,
    );
  }
  if (backend !== 'nftables') return;
  for (const [field, value] of Object.entries({ markMasqBit, externalSetMarkChain })) {
    if (value === undefined || value === '') continue;
    throw invalidConfig(
      `Field "${field}" of ${WHERE} is ${quote(value)}, which needs the backend "iptables", and field "backend" is ` +
        '"nftables"; remove one of them',
    );
  }
}

function refuseOverlap(mappings: readonly PortMapping[]): void {
  const ports = mappings.flatMap((mapping, position) =>
    hostPortsOf(mapping).map((port) => ({ ...port, mapping, position })),
  );
  const overlap = findOverlap(ports);
  if (overlap === undefined) return;
  const [first, second] = [overlap.earlier, overlap.later].map(
    ({ mapping, position }) =>
      `${quote(`runtimeConfig.portMappings[${position}]`)} (${describeMapping(mapping)})`,
  );
  throw invalidConfig(`Fields ${first} and ${second} of ${WHERE} publish the same port; remove one of them`);
}

function conditionsOf(
  tokens: readonly string[] | undefined,
  source: TokenSource,
  backend: Backend,
): readonly ConditionList[] {
  const lists = parseConditions(tokens ?? [], source);
  const repeated =
    backend === 'iptables' ? lists.map(findRepeatedKind).find((kind) => kind !== undefined) : undefined;
  if (repeated === undefined) return lists;
  throw invalidConfig(
    `Field "${source.field}" of ${WHERE} asks for "${repeated}" more than once: ${quote(tokens)}; a rule of iptables ` +
      'takes it once, the backend "nftables" as often as you like',
  );
}
