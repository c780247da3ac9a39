// What publishes a container's ports in the reference's iptables format, and the iptables-restore text that makes,
// replaces or removes it. Called by hostports.ts, pure: text is built from checked names, numbers and formatted
// addresses alone, or repeats what iptables-save printed.

import { invalidConfig } from '../cni/error.ts';
import {
  type Cidr,
  type Family,
  formatCidr,
  formatIp,
  type Ip,
  isUnspecified,
  networkOf,
  parseIp,
} from '../ip/cidr.ts';
import { isLinkName } from '../linux/link-name.ts';
import type { Condition, ConditionList } from '../nftables/conditions.ts';
import { isChainName } from './chain-name.ts';
import { type ChainOwner, hostportsChain, hostportsComment } from './names.ts';
import { describeMissing, keyOf, missingRules, type PlannedRule } from './rules.ts';
import { commentMatch, encodeTable, normalizeSpec, type SavedRule, type SavedTable } from './save-format.ts';

/** A port of the host that leads to a port of the container. */
export interface HostportMapping {
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly hostPort: number;
  readonly containerPort: number;
  /** The only address that is published; undefined or unspecified for every address of `families`. */
  readonly hostIp: Ip | undefined;
  readonly families: readonly Family[];
}

/** What is to be published, and for whom. */
export interface HostportsWish extends ChainOwner {
  /** Host bits kept: address and subnet in one. The first of each family counts. */
  readonly addresses: readonly Cidr[];
  readonly mappings: readonly HostportMapping[];
  /** Whether what comes from this host or the container's own subnet is masqueraded. */
  readonly snat: boolean;
  /** Whether everything is. */
  readonly masqAll: boolean;
  /** 0 to 31: the bit of the packet mark that asks for masquerade. */
  readonly markMasqBit: number;
  /** A chain of somebody else that marks what is to be masqueraded, in place of our own. */
  readonly externalSetMarkChain?: string | undefined;
  /** Alternatives: a packet must fulfil all conditions of one of them, each a different kind. None: any packet will do. */
  readonly conditions4: readonly ConditionList[];
  readonly conditions6: readonly ConditionList[];
}

/** A wish that was found to be expressible in this format. */
export interface HostportsPlan extends HostportsWish {
  readonly chain: string;
  readonly comment: string;
}

/** A port of the host as a listing tells it. */
export interface SavedPort {
  readonly protocol: HostportMapping['protocol'];
  readonly hostPort: number;
  readonly hostIp: undefined;
  /** The container's address. */
  readonly target: Ip;
}

/** A rule that all attachments of a host share. */
interface SharedRule extends PlannedRule {
  /** Where it goes when it is missing. */
  readonly position: 'first' | 'last';
}

const PROTOCOLS = ['tcp', 'udp', 'sctp'] as const;

const SETMARK = 'CNI-HOSTPORT-SETMARK';
const MASQ = 'CNI-HOSTPORT-MASQ';
const DNAT = 'CNI-HOSTPORT-DNAT';

// XT_MULTI_PORTS of linux/netfilter/xt_multiport.h
const PORTS_PER_RULE = 15;

const FULL_PREFIX = { 4: 32, 6: 128 } as const;

/** In the order in which iptables-save prints them. */
const CONDITION_OPTIONS = { saddr: '-s', daddr: '-d', iifname: '-i' } as const;

/**
 * Decides the published ports of one attachment. Throws CniError `invalidConfig` when a part can't be said in this
 * format, Error when a name breaks its grammar.
 */
export function planHostports(wish: HostportsWish): HostportsPlan {
  for (const { hostPort, containerPort } of wish.mappings) {
    expectNumber('host port', hostPort, { from: 1, to: 65535 });
    expectNumber('container port', containerPort, { from: 1, to: 65535 });
  }
  expectNumber('mark bit', wish.markMasqBit, { from: 0, to: 31 });
  const { externalSetMarkChain } = wish;
  if (externalSetMarkChain !== undefined && !isChainName(externalSetMarkChain)) {
    throw invalidConfig(`Cannot write chain ${JSON.stringify(externalSetMarkChain)} into a rule`);
  }
  for (const conditions of wish.conditions4) expectConditions(4, conditions);
  for (const conditions of wish.conditions6) expectConditions(6, conditions);
  const owner = { network: wish.network, containerId: wish.containerId };
  return { ...wish, chain: hostportsChain(owner), comment: hostportsComment(owner) };
}

/**
 * iptables-restore text that publishes the ports of one family on a host where ports are published already. It fails as
 * a whole, changing nothing, where a shared chain or hook is missing or the container has a chain: that spares the usual
 * ADD a look at the table.
 *
 * Equivalent to: `iptables -t nat -N CNI-DN-…`, its rules, and a jump for 15 ports of a protocol.
 */
export function encodeNewChain(plan: HostportsPlan, family: Family): string {
  return encodeTable([
    ...sharedRules(plan).map(({ chain, spec }) => `-C ${chain} ${spec}`),
    `-N ${plan.chain}`,
    ...appendAll(ownRules(plan, family)),
  ]);
}

/**
 * iptables-restore text that publishes the ports of one family whatever a listing holds: missing shared chains, rules and
 * hooks are made, and what an earlier ADD of the container left is replaced. It fails as a whole when another process
 * was quicker to make a chain that the listing lacks.
 */
export function encodeReplacement(plan: HostportsPlan, family: Family, saved: SavedTable): string {
  const missing = missingRules(sharedRules(plan), saved.rules);
  const stale = saved.rules.filter((rule) => rule.target === plan.chain);
  return encodeTable([
    ...sharedChains(plan)
      .filter((chain) => !saved.chains.includes(chain))
      .map((chain) => `-N ${chain}`),
    ...missing.map(({ chain, spec, position }) =>
      position === 'first' ? `-I ${chain} 1 ${spec}` : `-A ${chain} ${spec}`,
    ),
    ...stale.map((rule) => `-D ${rule.chain} ${rule.spec}`),
    `${saved.chains.includes(plan.chain) ? '-F' : '-N'} ${plan.chain}`,
    ...appendAll(ownRules(plan, family)),
  ]);
}

/**
 * The first way in which a listing differs from what a plan wants, as a phrase that follows "In table nat of IPv4";
 * undefined when all is there and nothing is there besides.
 */
export function findDifference(plan: HostportsPlan, family: Family, saved: SavedTable): string | undefined {
  const chains = [...sharedChains(plan), plan.chain];
  const noChain = chains.find((chain) => !saved.chains.includes(chain));
  if (noChain !== undefined) return `chain "${noChain}" is missing`;
  const [noRule] = missingRules(sharedRules(plan), saved.rules);
  if (noRule !== undefined) return describeMissing(noRule);
  const found = saved.rules.filter((rule) => rule.chain === plan.chain);
  const jumps = saved.rules.filter((rule) => rule.target === plan.chain);
  return compareRules(portRules(plan, family), found) ?? compareRules(jumpRules(plan, family), jumps);
}

/**
 * iptables-restore text that removes the chains with all that leads to them; undefined when a listing holds nothing of
 * it. What all attachments share stays: another ADD may be about to use it.
 */
export function encodeRemoval(chains: readonly string[], saved: SavedTable): string | undefined {
  const declared = chains.filter((chain) => saved.chains.includes(chain));
  if (declared.length === 0) return undefined; // nothing can jump to a chain that isn't there
  const jumps = saved.rules.filter(
    ({ chain, target }) => target !== undefined && declared.includes(target) && !declared.includes(chain),
  );
  return encodeTable([
    ...jumps.map((rule) => `-D ${rule.chain} ${rule.spec}`),
    ...declared.map((chain) => `-F ${chain}`),
    ...declared.map((chain) => `-X ${chain}`),
  ]);
}

/** The ports that chains of this format publish, whatever local address they are for. */
export function listPorts(chains: readonly string[], saved: SavedTable): SavedPort[] {
  return saved.rules
    .filter(({ chain, target }) => target === 'DNAT' && chains.includes(chain))
    .flatMap(({ spec }) => {
      const options = normalizeSpec(spec);
      const named = /^-p (\w+)$/m.exec(options)?.[1];
      const protocol = PROTOCOLS.find((name) => name === named);
      const hostPort = Number(/^--dport (\d+)$/m.exec(options)?.[1]);
      const target = findIp(/^--to-destination \[?([0-9a-f.:]+?)\]?:\d+$/m.exec(options)?.[1]);
      return protocol && hostPort && target ? [{ protocol, hostPort, hostIp: undefined, target }] : [];
    });
}

/** Whether a mapping takes ports of a family. */
export function isOfFamily({ hostIp, families }: HostportMapping, family: Family): boolean {
  return families.includes(family) && (hostIp === undefined || hostIp.family === family);
}

/** The container's address in a family. */
export function addressOf(plan: HostportsWish, family: Family): Cidr | undefined {
  return plan.addresses.find(({ ip }) => ip.family === family);
}

/** The address that alone is published, undefined when all are. */
export function specificHostIp({ hostIp }: HostportMapping): Ip | undefined {
  return hostIp === undefined || isUnspecified(hostIp) ? undefined : hostIp;
}

function findIp(text: string | undefined): Ip | undefined {
  try {
    return text === undefined ? undefined : parseIp(text);
  } catch {
    return undefined;
  }
}

function expectNumber(what: string, value: number, range: { from: number; to: number }): void {
  if (Number.isInteger(value) && value >= range.from && value <= range.to) return;
  throw invalidConfig(
    `Cannot write ${what} ${value} into a rule: it is not from ${range.from} to ${range.to}`,
  );
}

function expectConditions(family: Family, conditions: ConditionList): void {
  for (const [index, condition] of conditions.entries()) {
    const { kind } = condition;
    if (conditions.findIndex((other) => other.kind === kind) < index) {
      const option = CONDITION_OPTIONS[kind];
      throw invalidConfig(
        `Cannot write two conditions "${option}" into a rule: iptables takes one of a kind`,
      );
    }
    if ('cidr' in condition && condition.cidr.ip.family !== family) {
      throw invalidConfig(`Cannot write "${formatCidr(condition.cidr)}" into a rule for IPv${family}`);
    }
    if ('name' in condition && !isLinkName(condition.name, { plain: true })) {
      throw invalidConfig(`Cannot write link name ${JSON.stringify(condition.name)} into a rule`);
    }
  }
}

function sharedChains(plan: HostportsPlan): string[] {
  return hasOwnMark(plan) ? [SETMARK, MASQ, DNAT] : [DNAT];
}

function sharedRules(plan: HostportsPlan): SharedRule[] {
  const local = `-m addrtype --dst-type LOCAL -j ${DNAT}`;
  const hooks: SharedRule[] = [
    { chain: 'PREROUTING', spec: local, position: 'last' },
    { chain: 'OUTPUT', spec: local, position: 'last' },
  ];
  if (!hasOwnMark(plan)) return hooks;
  const mark = `0x${(2 ** plan.markMasqBit).toString(16)}`;
  const setMark = `${commentMatch('CNI portfwd masquerade mark')} -j MARK --set-xmark ${mark}/${mark}`;
  return [
    { chain: SETMARK, spec: setMark, position: 'last' },
    { chain: MASQ, spec: `-m mark --mark ${mark}/${mark} -j MASQUERADE`, position: 'last' },
    // Before the masquerade of the container's own connections, which lets those to its own subnet pass.
    {
      chain: 'POSTROUTING',
      spec: `${commentMatch('CNI portfwd requiring masquerade')} -j ${MASQ}`,
      position: 'first',
    },
    ...hooks,
  ];
}

function hasOwnMark({ snat, externalSetMarkChain }: HostportsPlan): boolean {
  return snat && externalSetMarkChain === undefined;
}

// The chain's rules, then the jumps to it.
function ownRules(plan: HostportsPlan, family: Family): PlannedRule[] {
  return [...portRules(plan, family), ...jumpRules(plan, family)];
}

function portRules(plan: HostportsPlan, family: Family): PlannedRule[] {
  const address = addressOf(plan, family);
  if (address === undefined) return [];
  const target = family === 4 ? formatIp(address.ip) : `[${formatIp(address.ip)}]`;
  const markChain = plan.externalSetMarkChain ?? SETMARK;
  const marked = markedSources(plan, address);
  return plan.mappings
    .filter((mapping) => isOfFamily(mapping, family))
    .flatMap((mapping) => {
      const { protocol, hostPort, containerPort } = mapping;
      const hostIp = specificHostIp(mapping);
      const to = hostIp === undefined ? '' : `-d ${formatIp(hostIp)}/${FULL_PREFIX[family]} `;
      const port = `${to}-p ${protocol} -m ${protocol} --dport ${hostPort}`;
      return [
        ...marked.map((from) => `${from}${port} -j ${markChain}`),
        `${port} -j DNAT --to-destination ${target}:${containerPort}`,
      ];
    })
    .map((spec) => ({ chain: plan.chain, spec }));
}

// IPv6 has no 127.0.0.1 to translate: what is from ::1 never leaves the host.
function markedSources({ snat, masqAll }: HostportsPlan, address: Cidr): string[] {
  if (!snat) return [];
  if (masqAll) return [''];
  const subnet = `-s ${formatCidr(networkOf(address))} `;
  return address.ip.family === 4 ? [subnet, '-s 127.0.0.1/32 '] : [subnet];
}

// The reference lists the ports of mappings for the other family too; in the chain nothing comes of them.
function jumpRules(plan: HostportsPlan, family: Family): PlannedRule[] {
  const alternatives = family === 4 ? plan.conditions4 : plan.conditions6;
  const conditions = alternatives.length === 0 ? [''] : alternatives.map(conditionOptions);
  const protocols = [...new Set(plan.mappings.map(({ protocol }) => protocol))].sort();
  return protocols.flatMap((protocol) => {
    const ports = plan.mappings.filter((mapping) => mapping.protocol === protocol);
    const match = `-p ${protocol} ${commentMatch(plan.comment)} -m multiport --dports`;
    return chunk(ports.map(({ hostPort }) => hostPort)).flatMap((some) =>
      conditions.map((condition) => ({
        chain: DNAT,
        spec: `${condition}${match} ${some.join(',')} -j ${plan.chain}`,
      })),
    );
  });
}

function conditionOptions(conditions: ConditionList): string {
  return Object.entries(CONDITION_OPTIONS)
    .flatMap(([kind, option]) => {
      const condition = conditions.find((candidate) => candidate.kind === kind);
      return condition === undefined
        ? []
        : [`${condition.negated ? '! ' : ''}${option} ${conditionValue(condition)} `];
    })
    .join('');
}

function conditionValue(condition: Condition): string {
  if ('cidr' in condition) return formatCidr(networkOf(condition.cidr));
  return condition.isPrefix ? `${condition.name}+` : condition.name;
}

function chunk(ports: readonly number[]): number[][] {
  const chunks: number[][] = [];
  for (let at = 0; at < ports.length; at += PORTS_PER_RULE) chunks.push(ports.slice(at, at + PORTS_PER_RULE));
  return chunks;
}

function appendAll(rules: readonly PlannedRule[]): string[] {
  return rules.map(({ chain, spec }) => `-A ${chain} ${spec}`);
}

// Order counts: of two rules for a port the first wins.
function compareRules(wanted: readonly PlannedRule[], found: readonly SavedRule[]): string | undefined {
  const [missing] = missingRules(wanted, found);
  if (missing !== undefined) return describeMissing(missing);
  const keys = wanted.map(keyOf);
  const surplus = found.find((rule, index) => keyOf(rule) !== keys[index]);
  if (surplus === undefined) return undefined;
  return `chain "${surplus.chain}" has a rule that is not wanted there: "${surplus.spec}"`;
}
