// Published ports as map elements: one per mapping under constant rules, one per address for the way back.
// Called by portmap. Everything of an attachment is found by the owner in its comments.
import {
  type Attachment,
  type HostLink,
  type Owner,
  ownerComment,
  ownerHash,
  ownerHashIn,
  ownerIn,
} from '../cni/attachment.ts';
import { checkFailed, portConflict } from '../cni/error.ts';
import {
  type Cidr,
  type Family,
  formatCidr,
  formatIp,
  type Ip,
  ipFromBytes,
  ipToBytes,
  networkOf,
} from '../ip/cidr.ts';
import {
  concatenate,
  type Protocol,
  portBytes,
  protocolBytes,
  splitConcatenation,
} from '../nftables/datatypes.ts';
import { decodeExprs } from '../nftables/decode.ts';
import type { ElementFact, ElementFilter, Nftables, RuleFact } from '../nftables/nftables.ts';
import {
  add,
  type Chain,
  type Command,
  delete_,
  type Element,
  element,
  type Rule,
  rule,
} from '../nftables/objects.ts';
import { dnatTo, ip, ip6, jump, l4proto, type Statement, th } from '../nftables/statements.ts';
import { commitGuarded } from './commit.ts';
import { expectElement, isSameElement, planOwnedRemoval, replaceElement } from './elements.ts';
import { expectChain, expectRules, inWords, type TableView, viewTable, wordsOf } from './expect-rules.ts';
import {
  CONDITIONAL,
  GUARD,
  HAIRPIN,
  HOSTIPPORTS,
  HOSTPORTS,
  hairpinAllChain,
  hairpinChain,
  hostportsRules,
  PREROUTING,
  planGuard,
  planHostportsTable,
} from './hostports-table.ts';
import { FORMAT, formatIn, TABLE } from './table.ts';

/** A port of this host that leads to a port of a container. */
export interface PublishedPort {
  readonly protocol: Protocol;
  /** One local address; undefined for all of the target's family. */
  readonly hostIp: Ip | undefined;
  readonly hostPort: number;
  readonly target: Ip;
  readonly targetPort: number;
}

/** All that an attachment publishes. */
export interface PortsWish {
  readonly attachment: Attachment;
  readonly link: HostLink;
  readonly ports: readonly PublishedPort[];
  /** Container addresses, and whose redirected packets to them get the host's address. */
  readonly hairpins: readonly { readonly address: Cidr; readonly from: 'subnet' | 'anywhere' }[];
  /** Alternatives, one of which a packet must match besides; none for most. */
  readonly conditions: Readonly<Record<Family, readonly (readonly Statement[])[]>>;
}

/** A published port as the kernel has it, with what deletes it. */
export interface HeldPort extends PublishedPort {
  readonly owner: Owner | undefined;
  readonly comment: string;
  readonly element: ElementFact;
}

/** A port as a rule with conditions publishes it. What it says of local addresses is taken for a condition. */
export interface ConditionalPort extends PublishedPort {
  readonly owner: Owner | undefined;
  readonly comment: string;
  readonly rule: RuleFact;
}

/**
 * Publishes the ports, in one batch for both families. What the same owner published before is replaced; so is what
 * leads to an address this attachment was just leased, and what a dead owner holds: those are returned, one line each.
 * Throws portConflict naming port and holder when a living owner has one of them.
 */
export function addHostports(nft: Nftables, wish: PortsWish, isAlive: (owner: Owner) => boolean): string[] {
  let replaced: string[] = [];
  commitGuarded(nft, () => {
    const base = nft.findChain(PREROUTING);
    const held = base === undefined ? [] : listHostports(nft, { containing: tracesOf(wish) });
    const removals = planReplacements(wish, held, isAlive);
    const misled = base === undefined ? [] : findMisled(nft, wish);
    replaced = [...removals, ...misled].map(
      ({ port, why }) => `Removed ${describePort(port)} of "${port.comment}": ${why}`,
    );
    return [
      ...planHostportsTable(base),
      ...planHairpins(nft, wish),
      ...planConditionalRemoval(nft, (owner) => owner.ownerHash === ownerHash(wish.attachment)),
      ...misled.map(({ port }) => delete_(port.rule)),
      ...planPorts(
        wish,
        held,
        removals.map(({ port }) => port),
      ),
    ];
  });
  return replaced;
}

/**
 * For those who publish in another format: throws portConflict when a living owner has one of the ports in this table.
 */
export function expectNoConflict(nft: Nftables, wish: PortsWish, isAlive: (owner: Owner) => boolean): void {
  planReplacements(wish, listHostports(nft), isAlive);
}

/**
 * Makes sure that neighbours cannot reach 127.0.0.0/8 of this host: for those who set `route_localnet` without
 * publishing ports through this table.
 */
export function ensureLoopbackGuard(nft: Nftables): void {
  commitGuarded(nft, () => (nft.findChain(GUARD) === undefined ? planGuard() : []));
}

/** Has the kernel judge the constant part of the table without keeping it. Throws what it refuses. */
export function tryHostportsTable(nft: Nftables): void {
  nft.commit(planHostportsTable(undefined), { dryRun: true });
}

/** What everybody publishes, or those that the filter lets through. Reads four maps. */
export function listHostports(nft: Nftables, filter: ElementFilter = {}): HeldPort[] {
  return ([4, 6] as const).flatMap((family) => [
    ...nft.listElements(HOSTPORTS[family], filter).flatMap((found) => decodePort(found, family, 'any') ?? []),
    ...nft
      .listElements(HOSTIPPORTS[family], filter)
      .flatMap((found) => decodePort(found, family, 'one') ?? []),
  ]);
}

/**
 * Bytes that an element must hold to concern the wish: its owner, an address it was leased, a port it wants. Undefined
 * for so many ports that looking for each would cost more than decoding all.
 */
function tracesOf({ attachment, hairpins, ports }: PortsWish): Uint8Array[] | undefined {
  if (ports.length > MANY_PORTS) {
    return undefined;
  }
  const addresses = [...hairpins.map(({ address }) => address.ip), ...ports.map(({ target }) => target)];
  return [
    Buffer.from(ownerHash(attachment)),
    ...new Map(addresses.map((ip) => [formatIp(ip), ipToBytes(ip)])).values(),
    ...ports.map(({ protocol, hostPort }) =>
      concatenate(PORT_KEY, [protocolBytes(protocol), portBytes(hostPort)]),
    ),
  ];
}

const MANY_PORTS = 16;
const PORT_KEY = ['inet_proto', 'inet_service'] as const;

/** What everybody publishes to packets that fulfil conditions. Reads one chain. */
export function listConditionalPorts(nft: Nftables): ConditionalPort[] {
  return listConditional(nft).flatMap((found) => decodeConditional(found) ?? []);
}

/**
 * Commands that delete all that owners picked by `isDoomed` publish: elements, hairpins, rules with conditions. The filter
 * may leave out elements that are none of theirs.
 */
export function planHostportsRemoval(
  nft: Nftables,
  held: readonly HeldPort[],
  isDoomed: (owner: Owner) => boolean,
  filter: ElementFilter = {},
): Command[] {
  const isOf = ({ comment }: { readonly comment: string | undefined }) => {
    const owner = ownerIn(comment ?? '');
    return owner !== undefined && isDoomed(owner);
  };
  return [
    ...held.filter(isOf).map((port) => delete_(port.element)),
    ...planOwnedRemoval(nft, [HAIRPIN[4], HAIRPIN[6]], isDoomed, filter),
    ...planConditionalRemoval(nft, isDoomed),
  ];
}

/**
 * Throws checkFailed unless hooks, rules and each mapping are as ADD left them, naming the first that is missing or
 * different.
 */
export function expectHostports(nft: Nftables, wish: PortsWish): void {
  const view = viewTable(nft, TABLE);
  const base = expectChain(view, PREROUTING);
  if (formatIn(base.comment) <= FORMAT) {
    for (const [chain, rules] of hostportsRules()) {
      expectChain(view, chain);
      if (chain !== CONDITIONAL) {
        expectRules(view, chain, rules);
      }
    }
  }
  const { plain, conditional } = wishedPorts(wish);
  for (const { port, element } of plain) {
    expectElement(nft, element, describePort(port));
  }
  expectConditional(view, conditional);
  for (const { element, chain, rules } of wishedHairpins(wish)) {
    expectElement(nft, element, `the hairpin of address "${formatIp(ipFromBytes(element.key))}"`);
    expectChain(view, chain);
    expectRules(view, chain, rules);
  }
}

/** `tcp port 8080` or `tcp port 8080 of 192.0.2.7`, as messages name a published port. */
export function describePort({ protocol, hostIp, hostPort, target }: PublishedPort): string {
  const where = hostIp === undefined ? ` (IPv${target.family})` : ` of ${formatIp(hostIp)}`;
  return `${protocol} port ${hostPort}${where}`;
}

interface Replacement {
  readonly port: HeldPort;
  readonly why: string;
}

/** Which ports of others go, and why; throws when one that is in the way has to stay. */
function planReplacements(
  wish: PortsWish,
  held: readonly HeldPort[],
  isAlive: (owner: Owner) => boolean,
): Replacement[] {
  const own = ownerHash(wish.attachment);
  const leased = leasedAddresses(wish);
  // A port with conditions shares it with others: which of them a packet fits is not ours to decide.
  const exclusive = wish.ports.filter(({ target }) => wish.conditions[target.family].length === 0);
  const wanted = Map.groupBy(exclusive, portKey);
  return held.flatMap((port): Replacement[] => {
    if (port.owner?.ownerHash === own) {
      return [];
    }
    if (leased.has(formatIp(port.target))) {
      return [{ port, why: leasedAnew(port) }];
    }
    const inTheWay = wanted.get(portKey(port))?.find((candidate) => shareAddress(candidate, port));
    if (inTheWay === undefined) {
      return [];
    }
    if (port.owner === undefined || isAlive(port.owner)) {
      throw portConflict(
        `Cannot publish ${describePort(inTheWay)}: ${describePort(port)} belongs to "${describeHolder(port)}"; choose another host port or remove that container`,
      );
    }
    return [{ port, why: 'the host link of its container is gone' }];
  });
}

/** Rules with conditions that lead what was meant for another container to an address this attachment has now. */
function findMisled(
  nft: Nftables,
  wish: PortsWish,
): { readonly port: ConditionalPort; readonly why: string }[] {
  const own = ownerHash(wish.attachment);
  const leased = leasedAddresses(wish);
  return listConditionalPorts(nft)
    .filter(({ owner, target }) => owner?.ownerHash !== own && leased.has(formatIp(target)))
    .map((port) => ({ port, why: leasedAnew(port) }));
}

function leasedAddresses({ hairpins, ports }: PortsWish): Set<string> {
  return new Set(
    [...hairpins.map(({ address }) => address.ip), ...ports.map(({ target }) => target)].map(formatIp),
  );
}

function leasedAnew({ target }: PublishedPort): string {
  return `its address ${formatIp(target)} was leased anew`;
}

function portKey({ target, protocol, hostPort }: PublishedPort): string {
  return `${target.family} ${protocol} ${hostPort}`;
}

/** One of them is for all addresses, or both are for the same. */
function shareAddress(one: PublishedPort, other: PublishedPort): boolean {
  return one.hostIp === undefined || other.hostIp === undefined || one.hostIp.value === other.hostIp.value;
}

/** The words of the comment without the hashes: `net: n1, if: eth0, id: c1`. */
function describeHolder({ comment }: HeldPort): string {
  const words = comment.indexOf('net: ');
  return words < 0 ? comment : comment.slice(words);
}

/** Old elements of this owner and of those replaced go, wished ones come; what is there already and right stays. */
function planPorts(wish: PortsWish, held: readonly HeldPort[], replaced: readonly HeldPort[]): Command[] {
  const own = ownerHash(wish.attachment);
  const { plain, conditional } = wishedPorts(wish);
  const mine = new Map(
    held
      .filter(({ owner }) => owner?.ownerHash === own)
      .map((port) => [elementKey(port.element), port.element]),
  );
  const kept = new Set<ElementFact>();
  const missing = plain.filter(({ element }) => {
    const found = mine.get(elementKey(element));
    if (found === undefined || !isSameElement(found, element)) {
      return true;
    }
    kept.add(found);
    return false;
  });
  const stale = [...mine.values()].filter((element) => !kept.has(element));
  return [
    ...[...replaced.map(({ element }) => element), ...stale].map(delete_),
    ...missing.map(({ element }) => add(element)),
    ...conditional.map(add),
  ];
}

function elementKey({ set, key }: ElementFact | Element): string {
  return `${set.name} ${Buffer.from(key).toString('hex')}`;
}

interface WishedPorts {
  readonly plain: readonly { readonly port: PublishedPort; readonly element: Element }[];
  /** For families with conditions: a rule of their own, for a map cannot tell one packet from another. */
  readonly conditional: readonly Rule[];
}

function wishedPorts({ attachment, link, ports, conditions }: PortsWish): WishedPorts {
  const comment = ownerComment(attachment, link);
  const isPlain = ({ target }: PublishedPort) => conditions[target.family].length === 0;
  return {
    plain: ports.filter(isPlain).map((port) => ({ port, element: portElement(port, comment) })),
    conditional: ports
      .filter((port) => !isPlain(port))
      .flatMap((port) =>
        conditions[port.target.family].map((alternative) => conditionalRule(port, alternative, comment)),
      ),
  };
}

function portElement(
  { protocol, hostIp, hostPort, target, targetPort }: PublishedPort,
  comment: string,
): Element {
  const key = [protocolBytes(protocol), portBytes(hostPort)];
  const data = [ipToBytes(target), portBytes(targetPort)];
  return hostIp === undefined
    ? element({ map: HOSTPORTS[target.family], key, data, comment })
    : element({ map: HOSTIPPORTS[target.family], key: [ipToBytes(hostIp), ...key], data, comment });
}

function conditionalRule(port: PublishedPort, conditions: readonly Statement[], comment: string): Rule {
  const daddr = port.target.family === 4 ? ip.daddr : ip6.daddr;
  const statements = [
    ...conditions,
    ...(port.hostIp === undefined ? [] : [daddr.is(port.hostIp)]),
    l4proto.is(port.protocol),
    th.dport.is(port.hostPort),
    dnatTo(port.target, port.targetPort),
  ];
  return rule({ chain: CONDITIONAL, statements, comment });
}

function planConditionalRemoval(nft: Nftables, isDoomed: (owner: Owner) => boolean): Command[] {
  return listConditional(nft)
    .filter(({ comment }) => {
      const owner = ownerIn(comment ?? '');
      return owner !== undefined && isDoomed(owner);
    })
    .map(delete_);
}

function listConditional(nft: Nftables): RuleFact[] {
  return nft.listRules({ table: CONDITIONAL.table, chain: CONDITIONAL.name });
}

/** The end of a rule is `conditionalRule`'s: protocol and port compared, then address and port set. */
function decodeConditional(found: RuleFact): ConditionalPort | undefined {
  const exprs = decodeExprs(found.program);
  const [protocol, hostPort] = exprs.flatMap((expr) => (expr.kind === 'cmp' ? [expr.data] : [])).slice(-2);
  const [target, targetPort] = exprs.flatMap((expr) =>
    expr.kind === 'immediate' && expr.data instanceof Uint8Array ? [expr.data] : [],
  );
  const name = PROTOCOLS.find((candidate) => protocolBytes(candidate)[0] === protocol?.[0]);
  if (name === undefined || hostPort?.length !== 2 || targetPort?.length !== 2) return undefined;
  if (target?.length !== 4 && target?.length !== 16) return undefined;
  return {
    protocol: name,
    hostIp: undefined,
    hostPort: portIn(hostPort),
    target: ipFromBytes(target),
    targetPort: portIn(targetPort),
    owner: ownerIn(found.comment ?? ''),
    comment: found.comment ?? 'nobody',
    rule: found,
  };
}

interface WishedHairpin {
  readonly element: Element;
  readonly chain: Chain;
  readonly rules: readonly Rule[];
}

function wishedHairpins({ attachment, link, hairpins }: PortsWish): WishedHairpin[] {
  const comment = ownerComment(attachment, link);
  return hairpins.map(({ address, from }) => {
    const subnet = networkOf(address);
    const { family } = address.ip;
    const name = `hairpin${family}-${formatCidr(subnet).replaceAll(':', '-')}`;
    const target = from === 'anywhere' ? hairpinAllChain() : hairpinChain(subnet, name);
    const key = [ipToBytes(address.ip)];
    return { ...target, element: element({ map: HAIRPIN[family], key, data: jump(target.chain), comment }) };
  });
}

/** The chain where it is missing, and the element in the place of whatever is there under the leased address. */
function planHairpins(nft: Nftables, wish: PortsWish): Command[] {
  return wishedHairpins(wish).flatMap(({ element, chain, rules }) => {
    const makeChain = nft.findChain(chain) === undefined ? [add(chain), ...rules.map(add)] : [];
    return [...makeChain, ...replaceElement(nft, element)];
  });
}

/** Undefined for an element that cannot be ours: another length, or a protocol we do not publish. */
function decodePort(found: ElementFact, family: Family, scope: 'any' | 'one'): HeldPort | undefined {
  const maps = scope === 'any' ? HOSTPORTS : HOSTIPPORTS;
  const key = splitConcatenation(maps[family].key, found.key);
  const fields = maps[family].data;
  if (key === undefined || fields === 'verdict' || !(found.data instanceof Uint8Array)) {
    return undefined;
  }
  const [target, targetPort] = splitConcatenation(fields, found.data) ?? [];
  const [protocol, hostPort] = scope === 'any' ? key : key.slice(1);
  const name = PROTOCOLS.find((candidate) => protocolBytes(candidate)[0] === protocol?.[0]);
  if (name === undefined || hostPort === undefined || target === undefined || targetPort === undefined) {
    return undefined;
  }
  return {
    protocol: name,
    hostIp: scope === 'any' || key[0] === undefined ? undefined : ipFromBytes(key[0]),
    hostPort: portIn(hostPort),
    target: ipFromBytes(target),
    targetPort: portIn(targetPort),
    owner: ownerIn(found.comment ?? ''),
    comment: found.comment ?? 'nobody',
    element: found,
  };
}

const PROTOCOLS: readonly Protocol[] = ['tcp', 'udp', 'sctp'];

function portIn(bytes: Uint8Array): number {
  return ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0);
}

function expectConditional(view: TableView, wished: readonly Rule[]): void {
  if (wished.length === 0) {
    return;
  }
  const found = (view.rules.get(CONDITIONAL.name) ?? []).map((fact) => ({
    owner: ownerHashIn(fact.comment ?? ''),
    words: inWords(fact),
  }));
  for (const rule of wished) {
    const owner = ownerHashIn(rule.comment ?? '');
    const words = wordsOf(rule);
    if (!found.some((fact) => fact.owner === owner && fact.words === words)) {
      throw checkFailed(`Chain "${CONDITIONAL.name}" of table "inet patchbay" lacks the rule "${words}"`);
    }
  }
}
