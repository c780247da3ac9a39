// Published ports as they are in the kernel: elements of four maps, and rules with conditions.
// Read by hostports.ts to decide what a change does, and by nobody to decide alone: facts go with the generation.
import { type Owner, ownerIn } from '../cni/attachment.ts';
import { type Family, type Ip, ipFromBytes } from '../ip/cidr.ts';
import { readConditions, readPort } from '../nftables/conditions.ts';
import { protocolOf, splitConcatenation } from '../nftables/datatypes.ts';
import { decodeExprs } from '../nftables/decode.ts';
import type { ElementFact, ElementFilter, Nftables, RuleFact } from '../nftables/nftables.ts';
import { DYNAMIC, HOSTIPPORTS, HOSTPORTS } from './hostports-table.ts';
import type { HostPort, PortClaim } from './port-overlap.ts';

/** A port of this host that leads to a port of a container. */
export interface PublishedPort extends HostPort {
  readonly target: Ip;
  readonly targetPort: number;
}

/** A published port as the kernel has it. What a rule says of local addresses is among its conditions. */
export interface HeldPort extends PublishedPort, PortClaim {
  readonly owner: Owner | undefined;
  readonly comment: string;
  /** What publishes it, to be deleted. */
  readonly node: ElementFact | RuleFact;
}

/** What everybody publishes. The filter is for elements: rules are few. Reads four maps and two chains. */
export function listHostports(nft: Nftables, filter: ElementFilter = {}): HeldPort[] {
  return [...listPortElements(nft, filter), ...listPortRules(nft)].flatMap((node) => decodeHeld(node) ?? []);
}

/** The elements of the maps of both families, also those that no port can be read from. */
export function listPortElements(nft: Nftables, filter: ElementFilter = {}): ElementFact[] {
  return ([4, 6] as const).flatMap((family) => [
    ...nft.listElements(HOSTPORTS[family], filter),
    ...nft.listElements(HOSTIPPORTS[family], filter),
  ]);
}

/** The rules that belong to attachments: one for each port and alternative of conditions, and the fallbacks. */
export function listPortRules(nft: Nftables): RuleFact[] {
  return DYNAMIC.flatMap(({ table, name }) => nft.listRules({ table, chain: name }));
}

/** The port that an element or rule publishes; undefined for one that cannot be ours. */
export function decodeHeld(node: ElementFact | RuleFact): HeldPort | undefined {
  const port = node.kind === 'rule' ? decodeRule(node) : decodeElement(node);
  if (port === undefined) return undefined;
  return { ...port, owner: ownerIn(node.comment ?? ''), comment: node.comment ?? 'nobody', node };
}

type DecodedPort = PublishedPort & PortClaim;

function decodeElement(found: ElementFact): DecodedPort | undefined {
  for (const family of [4, 6] as const) {
    if (found.set.name === HOSTPORTS[family].name) return decodeFields(found, family, 'any');
    if (found.set.name === HOSTIPPORTS[family].name) return decodeFields(found, family, 'one');
  }
  return undefined;
}

function decodeFields(found: ElementFact, family: Family, scope: 'any' | 'one'): DecodedPort | undefined {
  const maps = scope === 'any' ? HOSTPORTS : HOSTIPPORTS;
  const key = splitConcatenation(maps[family].key, found.key);
  const fields = maps[family].data;
  if (key === undefined || fields === 'verdict' || !(found.data instanceof Uint8Array)) {
    return undefined;
  }
  const [target, targetPort] = splitConcatenation(fields, found.data) ?? [];
  const [number, hostPort] = scope === 'any' ? key : key.slice(1);
  const protocol = protocolOf(number?.[0]);
  if (protocol === undefined || hostPort === undefined || target === undefined || targetPort === undefined) {
    return undefined;
  }
  return {
    family,
    protocol,
    hostIp: scope === 'any' || key[0] === undefined ? undefined : ipFromBytes(key[0]),
    hostPort: portIn(hostPort),
    target: ipFromBytes(target),
    targetPort: portIn(targetPort),
    conditions: [],
  };
}

/** The end of a rule sets address and port; what stands before is compared. */
function decodeRule(found: RuleFact): DecodedPort | undefined {
  const exprs = decodeExprs(found.program);
  const [target, targetPort] = exprs.flatMap((expr) =>
    expr.kind === 'immediate' && expr.data instanceof Uint8Array ? [expr.data] : [],
  );
  const { protocol, port: hostPort } = readPort(exprs);
  if (protocol === undefined || hostPort === undefined || targetPort?.length !== 2) return undefined;
  if (target?.length !== 4 && target?.length !== 16) return undefined;
  const family = target.length === 4 ? 4 : 6;
  return {
    family,
    protocol,
    hostIp: undefined,
    hostPort,
    target: ipFromBytes(target),
    targetPort: portIn(targetPort),
    conditions: [readConditions(exprs, family)],
  };
}

function portIn(bytes: Uint8Array): number {
  return ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0);
}
