// Published ports as map elements: one per mapping under constant rules, one per address for the way back.
// Called by portmap. Everything of an attachment is found by the owner in its comments.
import {
  type Attachment,
  type HostLink,
  isOfContainer,
  type Owner,
  ownerComment,
  ownerHash,
  ownerHashIn,
  ownerIn,
} from '../cni/attachment.ts';
import { type CniError, checkFailed, portConflict } from '../cni/error.ts';
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
import { type ConditionList, conditionStatement } from '../nftables/conditions.ts';
import { concatenate, portBytes, protocolBytes } from '../nftables/datatypes.ts';
import type { ElementFact, ElementFilter, Nftables } from '../nftables/nftables.ts';
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
import { dnatTo, ip, ip6, jump, l4proto, th } from '../nftables/statements.ts';
import { commitGuarded } from './commit.ts';
import { expectElement, isSameElement, planOwnedRemoval, replaceElement } from './elements.ts';
import { expectChain, expectRules, inWords, type TableView, viewTable, wordsOf } from './expect-rules.ts';
import {
  decodeHeld,
  type HeldPort,
  listHostports,
  listPortElements,
  listPortRules,
  type PublishedPort,
} from './hostports-held.ts';
import {
  CONDITIONAL,
  DYNAMIC,
  FALLBACK,
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
import { areInEachOthersWay, type HostPort, type PortClaim, portKey } from './port-overlap.ts';
import { FORMAT, formatIn, TABLE } from './table.ts';

/** All that an attachment publishes. */
export interface PortsWish {
  readonly attachment: Attachment;
  readonly link: HostLink;
  readonly ports: readonly PublishedPort[];
  /** Container addresses, and whose redirected packets to them get the host's address. */
  readonly hairpins: readonly { readonly address: Cidr; readonly from: 'subnet' | 'anywhere' }[];
  /** Alternatives, one of which a packet must fulfil besides; none for most. */
  readonly conditions: Readonly<Record<Family, readonly ConditionList[]>>;
}

/** A port that somebody publishes in a format of their own. */
export interface ForeignPort extends PortClaim {
  /** The container's address, where it can be told. */
  readonly target: Ip | undefined;
  /** Whose it is and where, as the end of a sentence: `to "net: n1, id: c1" in iptables`. */
  readonly holder: string;
  /** The container's id, where it can be told. */
  readonly containerId: string | undefined;
}

/** What others hold, and who of them lives. */
export interface Holders<F extends ForeignPort> {
  readonly isAlive: (owner: Owner) => boolean;
  /** Those that share a port with the wish are enough; none of this owner's. */
  readonly foreign: readonly F[];
}

/** Ports that change hands, with the commands that make it so. */
export interface Takeover<F extends ForeignPort> {
  readonly commands: readonly Command[];
  /** A line for each port that somebody else loses. */
  readonly lines: readonly string[];
  /** All ports that go, also those of an earlier ADD of this owner. */
  readonly removed: readonly PublishedPort[];
  /** Those of other formats that lead to an address this attachment was leased; who knows the format removes them. */
  readonly superseded: readonly F[];
}

/**
 * Commands that publish the ports of both families. What the same owner published before is replaced; so is what leads
 * to an address this attachment was just leased, and what a dead owner holds. To be committed under the generation read
 * before. Throws portConflict naming port and holder when a living owner has one of them, unless that is the same
 * container on another network: its first attachment keeps the port, and this one has it when the first is gone.
 */
export function planHostportsAddition<F extends ForeignPort>(
  nft: Nftables,
  wish: PortsWish,
  holders: Holders<F>,
): Takeover<F> {
  const base = nft.findChain(PREROUTING);
  const held = base === undefined ? [] : listConcerned(nft, wish);
  const wished = wishedPorts(wish);
  const kept = findKept(held, wished);
  const takeover = planTakeover(wish, held, holders, kept);
  const taken = keysOfSiblings(wish, held, takeover.removed);
  const missing = wished.plain.filter(({ element }) => !kept.has(elementKey(element)));
  return {
    ...takeover,
    commands: [
      ...planHostportsTable(base),
      ...planHairpins(nft, wish),
      ...planStaleHairpins(nft, wish, held),
      ...takeover.commands,
      ...missing.map(({ element, fallback }) => add(taken.has(elementKey(element)) ? fallback : element)),
      ...wished.conditional.map(add),
    ],
  };
}

/**
 * As `planHostportsAddition` for those who publish the ports in another format: nothing is added, and what this owner
 * published here goes.
 */
export function planHostportsHandover<F extends ForeignPort>(
  nft: Nftables,
  wish: PortsWish,
  holders: Holders<F>,
): Takeover<F> {
  const own = ownerHash(wish.attachment);
  const isOwn = (owner: Owner) => owner.ownerHash === own;
  const hairpins = planOwnedRemoval(nft, [HAIRPIN[4], HAIRPIN[6]], isOwn, { commentPrefix: own });
  const takeover = planTakeover(wish, listConcerned(nft, wish), holders, new Map());
  return { ...takeover, commands: [...takeover.commands, ...hairpins] };
}

/** Whether anybody ever published a port on this host through this table: for those who would rather not read its maps. */
export function hasHostportsTable(nft: Nftables): boolean {
  return nft.findChain(PREROUTING) !== undefined;
}

/**
 * Commands that delete all that owners picked by `isDoomed` publish: elements, hairpins, rules; and the ports that
 * are gone then. The filter may leave out elements that are none of theirs.
 */
export function planHostportsRemoval(
  nft: Nftables,
  isDoomed: (owner: Owner) => boolean,
  filter: ElementFilter = {},
): { readonly commands: Command[]; readonly removed: PublishedPort[] } {
  const isOf = ({ comment }: { readonly comment: string | undefined }) => {
    const owner = ownerIn(comment ?? '');
    return owner !== undefined && isDoomed(owner);
  };
  const doomed = [...listPortElements(nft, filter), ...listPortRules(nft)].filter(isOf);
  return {
    commands: [...doomed.map(delete_), ...planOwnedRemoval(nft, [HAIRPIN[4], HAIRPIN[6]], isDoomed, filter)],
    removed: doomed.flatMap((node) => decodeHeld(node) ?? []),
  };
}

/**
 * Makes sure that neighbours cannot reach 127.0.0.0/8 of this host: for those who set `route_localnet` without
 * publishing ports through this table, who do so next.
 */
export function ensureLoopbackGuard(nft: Nftables): void {
  commitGuarded(nft, (nft) => (nft.findChain(GUARD) === undefined ? planGuard() : []), { when: 'alone' });
}

/** Has the kernel judge the constant part of the table without keeping it. Throws what it refuses. */
export function tryHostportsTable(nft: Nftables): void {
  nft.commit(planHostportsTable(undefined), { dryRun: true });
}

/** What the wish may have to replace, or may be refused for. */
function listConcerned(nft: Nftables, wish: PortsWish): HeldPort[] {
  return listHostports(nft, { containing: tracesOf(wish) });
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
      if (!DYNAMIC.includes(chain)) {
        expectRules(view, chain, rules);
      }
    }
  }
  const { plain, conditional } = wishedPorts(wish);
  for (const { port, element, fallback } of plain) {
    if (!hasRule(view, fallback)) {
      expectElement(nft, element, describePort(port));
    }
  }
  expectConditional(view, conditional);
  for (const { element, chain, rules } of wishedHairpins(wish)) {
    expectElement(nft, element, `the hairpin of address "${formatIp(ipFromBytes(element.key))}"`);
    expectChain(view, chain);
    expectRules(view, chain, rules);
  }
}

/** `tcp port 8080 (IPv4)` or `tcp port 8080 of 192.0.2.7`, as messages name a published port. */
export function describePort({ family, protocol, hostIp, hostPort }: HostPort): string {
  const where = hostIp === undefined ? ` (IPv${family})` : ` of ${formatIp(hostIp)}`;
  return `${protocol} port ${hostPort}${where}`;
}

/** Which ports go, and why; throws when one that is in the way has to stay. `kept` are elements that are right as they are. */
function planTakeover<F extends ForeignPort>(
  wish: PortsWish,
  held: readonly HeldPort[],
  { isAlive, foreign }: Holders<F>,
  kept: ReadonlyMap<string, ElementFact>,
): Takeover<F> {
  const { containerId } = wish.attachment;
  const own = ownerHash(wish.attachment);
  const leased = leasedAddresses(wish);
  const isLeased = (target: Ip | undefined) => target !== undefined && leased.has(formatIp(target));
  const wanted = Map.groupBy(claimsOf(wish), portKey);
  const findRival = (port: PortClaim) =>
    wanted.get(portKey(port))?.find((claim) => areInEachOthersWay(claim, port));

  const removed = held.filter(({ owner, node }) => owner?.ownerHash === own && !isKept(node, kept));
  const lines: string[] = [];
  for (const port of held) {
    if (port.owner?.ownerHash === own) continue;
    const rival = findRival(port);
    const isDead = port.owner !== undefined && !isAlive(port.owner);
    if (isLeased(port.target)) {
      lines.push(describeLoss(port, leasedAnew(port.target)));
    } else if (rival !== undefined && isDead) {
      lines.push(describeLoss(port, 'the host link of its container is gone'));
    } else if (rival !== undefined && !isOfContainer(port.comment, containerId)) {
      throw conflict(rival, port, `to "${describeHolder(port)}"`);
    } else continue;
    removed.push(port);
  }
  const superseded: F[] = [];
  for (const port of foreign) {
    const rival = findRival(port);
    if (rival === undefined || port.containerId === containerId) continue;
    if (!isLeased(port.target)) throw conflict(rival, port, port.holder);
    superseded.push(port);
    lines.push(`Removed ${describePort(port)} that belonged ${port.holder}: ${leasedAnew(port.target)}`);
  }
  return { commands: removed.map(({ node }) => delete_(node)), lines, removed, superseded };
}

/** The elements that other attachments of the same container keep: of strangers nothing is left in the way. */
function keysOfSiblings(
  { attachment }: PortsWish,
  held: readonly HeldPort[],
  removed: readonly PublishedPort[],
): Set<string> {
  const own = ownerHash(attachment);
  return new Set(
    held.flatMap((port) =>
      port.node.kind === 'element' && port.owner?.ownerHash !== own && !removed.includes(port)
        ? [elementKey(port.node)]
        : [],
    ),
  );
}

function claimsOf({ ports, conditions }: PortsWish): PortClaim[] {
  return ports.map((port) => ({ ...port, conditions: conditions[port.family] }));
}

function conflict(wanted: PortClaim, held: PortClaim, holder: string): CniError {
  const conditions = [wanted, held].some((port) => port.conditions.length > 0)
    ? ', and a packet may fulfil the conditions of both'
    : '';
  return portConflict(
    `Cannot publish ${describePort(wanted)}: ${describePort(held)} belongs ${holder}${conditions}; choose another host port or remove that container`,
  );
}

function leasedAddresses({ hairpins, ports }: PortsWish): Set<string> {
  return new Set(
    [...hairpins.map(({ address }) => address.ip), ...ports.map(({ target }) => target)].map(formatIp),
  );
}

function describeLoss(port: HeldPort, why: string): string {
  return `Removed ${describePort(port)} of "${port.comment}": ${why}`;
}

function leasedAnew(target: Ip | undefined): string {
  return `its address ${target === undefined ? '' : formatIp(target)} was leased anew`;
}

/** The words of the comment without the hashes: `net: n1, if: eth0, id: c1`. */
function describeHolder({ comment }: HeldPort): string {
  const words = comment.indexOf('net: ');
  return words < 0 ? comment : comment.slice(words);
}

/** The elements of the wish that are there already and right, by their keys. */
function findKept(held: readonly HeldPort[], { plain }: WishedPorts): Map<string, ElementFact> {
  const found = new Map(
    held.flatMap(({ node }) => (node.kind === 'element' ? [[elementKey(node), node] as const] : [])),
  );
  return new Map(
    plain.flatMap(({ element }) => {
      const key = elementKey(element);
      const same = found.get(key);
      return same !== undefined && isSameElement(same, element) ? [[key, same] as const] : [];
    }),
  );
}

function isKept(node: HeldPort['node'], kept: ReadonlyMap<string, ElementFact>): boolean {
  return node.kind === 'element' && kept.has(elementKey(node));
}

function elementKey({ set, key }: ElementFact | Element): string {
  return `${set.name} ${Buffer.from(key).toString('hex')}`;
}

interface WishedPorts {
  readonly plain: readonly {
    readonly port: PublishedPort;
    readonly element: Element;
    /** In the place of the element while the container has the port by another network. */
    readonly fallback: Rule;
  }[];
  /** For families with conditions: a rule of their own, for a map cannot tell one packet from another. */
  readonly conditional: readonly Rule[];
}

function wishedPorts({ attachment, link, ports, conditions }: PortsWish): WishedPorts {
  const comment = ownerComment(attachment, link);
  const isPlain = ({ target }: PublishedPort) => conditions[target.family].length === 0;
  return {
    plain: ports.filter(isPlain).map((port) => ({
      port,
      element: portElement(port, comment),
      fallback: portRule(FALLBACK, port, [], comment),
    })),
    conditional: ports
      .filter((port) => !isPlain(port))
      .flatMap((port) =>
        conditions[port.target.family].map((alternative) =>
          portRule(CONDITIONAL, port, alternative, comment),
        ),
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

function portRule(chain: Chain, port: PublishedPort, conditions: ConditionList, comment: string): Rule {
  const daddr = port.target.family === 4 ? ip.daddr : ip6.daddr;
  const statements = [
    ...conditions.map((condition) => conditionStatement(condition, port.family)),
    ...(port.hostIp === undefined ? [] : [daddr.is(port.hostIp)]),
    l4proto.is(port.protocol),
    th.dport.is(port.hostPort),
    dnatTo(port.target, port.targetPort),
  ];
  return rule({ chain, statements, comment });
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

/** An earlier ADD of this owner may have had another address, or have asked for masquerading. */
function planStaleHairpins(nft: Nftables, wish: PortsWish, held: readonly HeldPort[]): Command[] {
  const own = ownerHash(wish.attachment);
  const wanted = new Set(wish.hairpins.map(({ address }) => formatIp(address.ip)));
  const earlier = held
    .filter(({ owner, target }) => owner?.ownerHash === own && !wanted.has(formatIp(target)))
    .map(({ target }) => [formatIp(target), target] as const);
  return [...new Map(earlier).values()].flatMap((ip) => {
    const found = nft.findElement(HAIRPIN[ip.family], ipToBytes(ip));
    return found !== undefined && ownerHashIn(found.comment ?? '') === own ? [delete_(found)] : [];
  });
}

function expectConditional(view: TableView, wished: readonly Rule[]): void {
  const missing = wished.find((rule) => !hasRule(view, rule));
  if (missing !== undefined) {
    const words = wordsOf(missing);
    throw checkFailed(`Chain "${CONDITIONAL.name}" of table "inet patchbay" lacks the rule "${words}"`);
  }
}

function hasRule(view: TableView, wished: Rule): boolean {
  const owner = ownerHashIn(wished.comment ?? '');
  const found = (view.rules.get(wished.chain.name) ?? []).filter(
    ({ comment }) => ownerHashIn(comment ?? '') === owner,
  );
  return found.some((fact) => inWords(fact) === wordsOf(wished));
}
