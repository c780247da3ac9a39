// What lets a container through the chain FORWARD in the reference's iptables format, and keeps bridges apart there, and
// the iptables-restore text that makes or removes it. Called by forward.ts, pure: text is built from checked names and
// formatted addresses alone, or repeats what iptables-save printed.

import { invalidConfig, quote } from '../cni/error.ts';
import { type Family, formatIp, type Ip } from '../ip/cidr.ts';
import { isLinkName } from '../linux/link-name.ts';
import { describeMissing, keyOf, missingRules, type PlannedRule } from './rules.ts';
import { commentMatch, encodeTable, type SavedRule, type SavedTable } from './save-format.ts';

/** What is to be let through, of one attachment. */
export interface ForwardWish {
  readonly addresses: readonly Ip[];
  /** The administrator's chain that comes first; made where there is none. */
  readonly adminChain: string;
  /**
   * With a comment, new connections to ports of the container that this host publishes are let through too. The reference
   * has no such rule: where FORWARD drops, a port that it publishes answers the host alone.
   */
  readonly publishedComment?: string | undefined;
  /** The bridge and its ingress policy; undefined to say nothing of it. */
  readonly ingress?:
    | { readonly bridge: string; readonly policy: 'open' | 'same-bridge' | 'isolated' }
    | undefined;
}

interface SharedRule extends PlannedRule {
  readonly position: 'first' | 'last';
}

const FORWARD = 'CNI-FORWARD';
/** Where packets from a closed bridge are looked at, and where those that leave it go on. */
export const STAGE_1 = 'CNI-ISOLATION-STAGE-1';
export const STAGE_2 = 'CNI-ISOLATION-STAGE-2';

const ALL = 'CNI firewall plugin rules';
const OVERRIDES = 'CNI firewall plugin admin overrides';
const BOTH = 'same-bridge|isolated';

/** The families a wish has addresses of, IPv4 first. */
export function familiesOf({ addresses }: ForwardWish): Family[] {
  return ([4, 6] as const).filter((family) => addresses.some((ip) => ip.family === family));
}

/**
 * iptables-restore text that lets the addresses of one family through on a host where others were let through already. It
 * fails as a whole, changing nothing, where a chain or jump is missing: that spares the usual ADD a look at the table.
 * Only for addresses no rule of the chain speaks of yet, and without a policy.
 */
export function encodeUsualAddition(wish: ForwardWish, family: Family): string {
  return encode([
    ...jumpRules(wish).map(({ chain, spec }) => `-C ${chain} ${spec}`),
    ...addressRules(wish, family).map(({ chain, spec }) => `-A ${chain} ${spec}`),
  ]);
}

/**
 * iptables-restore text that brings a table as listed to what the wish wants, undefined when nothing is missing. Rules of
 * another policy for the bridge go.
 */
export function encodeAddition(wish: ForwardWish, family: Family, saved: SavedTable): string | undefined {
  const late = isClosed(wish) ? lateStageJumps(saved) : [];
  const found = saved.rules.filter((rule) => !late.includes(rule));
  const wanted = [...jumpRules(wish), ...ingressRules(wish), ...addressRules(wish, family)];
  const chains = [FORWARD, wish.adminChain, ...(isClosed(wish) ? [STAGE_1, STAGE_2] : [])];
  const commands = [
    ...chains.filter((chain) => !saved.chains.includes(chain)).map((chain) => `-N ${chain}`),
    ...[...late, ...staleIngress(wish, saved)].map((rule) => `-D ${rule.chain} ${rule.spec}`),
    ...missingRules<PlannedRule | SharedRule>(wanted, found).map((rule) =>
      'position' in rule && rule.position === 'first'
        ? `-I ${rule.chain} 1 ${rule.spec}`
        : `-A ${rule.chain} ${rule.spec}`,
    ),
  ];
  return commands.length === 0 ? undefined : encode(commands);
}

/**
 * The first thing that a wish wants and a listing lacks, or has against it, as a phrase that follows "In table filter of
 * IPv4"; undefined when all is there.
 */
export function findForwardDifference(
  wish: ForwardWish,
  family: Family,
  saved: SavedTable,
): string | undefined {
  const wanted = [...jumpRules(wish), ...addressRules(wish, family), ...ingressRules(wish)];
  const [missing] = missingRules(wanted, saved.rules);
  if (missing !== undefined) {
    return describeMissing(missing);
  }
  const [late] = isClosed(wish) ? lateStageJumps(saved) : [];
  if (late !== undefined) {
    return `chain "FORWARD" accepts packets before it comes to rule "${late.spec}"`;
  }
  const [stale] = staleIngress(wish, saved);
  return stale && `chain "${stale.chain}" has a rule of another policy: "${stale.spec}"`;
}

/**
 * iptables-restore text that removes all rules of this format that let the addresses through, whoever made them, and the
 * ingress rules of bridges that nobody is left on; undefined when a listing holds none. Shared chains and jumps stay:
 * another ADD may be about to use them.
 */
export function encodeForwardRemoval(
  addresses: readonly Ip[],
  bridges: readonly string[],
  family: Family,
  saved: SavedTable,
): string | undefined {
  const doomed = new Set(
    addresses.filter((ip) => ip.family === family).flatMap((ip) => shapesOf(ip).map(keyOf)),
  );
  const rules = saved.rules.filter(
    (rule) =>
      (rule.chain === FORWARD && doomed.has(keyOf(withoutComment(rule)))) ||
      bridges.some((bridge) => isIngressOf(rule, bridge)),
  );
  return rules.length === 0 ? undefined : encode(rules.map((rule) => `-D ${rule.chain} ${rule.spec}`));
}

/** The chain whose rules name addresses; a look at it tells whether there is anything to remove. */
export const FORWARD_CHAIN = FORWARD;

/** Throws CniError `invalidConfig` when the bridge has a name that cannot stand in the text of a rule. */
export function expectPlainBridge({ ingress }: ForwardWish): void {
  if (ingress !== undefined && !isLinkName(ingress.bridge, { plain: true })) {
    throw invalidConfig(
      `Cannot write link ${quote(ingress.bridge)} into a rule of iptables; use the backend "nftables"`,
    );
  }
}

/** The way to the chain, and from it to the administrator's; both at the top, where a rule of others cannot come first. */
function jumpRules({ adminChain }: ForwardWish): SharedRule[] {
  return [
    { chain: 'FORWARD', spec: `${commentMatch(ALL)} -j ${FORWARD}`, position: 'first' },
    { chain: FORWARD, spec: `${commentMatch(OVERRIDES)} -j ${adminChain}`, position: 'first' },
  ];
}

function addressRules({ addresses, publishedComment }: ForwardWish, family: Family): PlannedRule[] {
  return addresses
    .filter((ip) => ip.family === family)
    .flatMap((ip) => {
      const [answers, own, published] = shapesOf(ip);
      const comment = publishedComment === undefined ? '' : `${commentMatch(publishedComment)} `;
      const spec = published.spec.replace('-j ', `${comment}-j `);
      return publishedComment === undefined ? [answers, own] : [answers, own, { ...published, spec }];
    });
}

/** The three rules of an address: answers to it, what it sends, and published ports, the last without its comment. */
function shapesOf(ip: Ip): [PlannedRule, PlannedRule, PlannedRule] {
  const address = `${formatIp(ip)}/${ip.family === 4 ? 32 : 128}`;
  return [
    { chain: FORWARD, spec: `-d ${address} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT` },
    { chain: FORWARD, spec: `-s ${address} -j ACCEPT` },
    { chain: FORWARD, spec: `-d ${address} -m conntrack --ctstate DNAT -j ACCEPT` },
  ];
}

function withoutComment({ chain, spec }: SavedRule): PlannedRule {
  return { chain, spec: spec.replace(/-m comment --comment (?:"(?:[^"\\]|\\.)*"|\S+) ?/, '') };
}

function isClosed({ ingress }: ForwardWish): boolean {
  return ingress !== undefined && ingress.policy !== 'open';
}

/**
 * What keeps a bridge from others: in the order in which they are made, because each goes to the top of its chain. So the
 * rule that drops what stays on an isolated bridge comes to stand before the one that sends the rest on.
 */
function ingressRules({ ingress }: ForwardWish): SharedRule[] {
  if (ingress === undefined || ingress.policy === 'open') {
    return [];
  }
  const { bridge, policy } = ingress;
  const both = commentMatch(ingressComment(BOTH));
  const own = commentMatch(ingressComment(policy));
  const dropInside: SharedRule[] =
    policy === 'isolated'
      ? [{ chain: STAGE_1, spec: `-i ${bridge} -o ${bridge} ${own} -j DROP`, position: 'first' }]
      : [];
  return [
    { chain: 'FORWARD', spec: `${both} -j ${STAGE_1}`, position: 'first' },
    { chain: STAGE_1, spec: `-i ${bridge} ! -o ${bridge} ${own} -j ${STAGE_2}`, position: 'first' },
    ...dropInside,
    { chain: STAGE_1, spec: `${both} -j RETURN`, position: 'last' },
    { chain: STAGE_2, spec: `-o ${bridge} ${both} -j DROP`, position: 'first' },
    { chain: STAGE_2, spec: `${both} -j RETURN`, position: 'last' },
  ];
}

/** Rules for the bridge that another policy brought and this one does not want. */
function staleIngress(wish: ForwardWish, saved: SavedTable): SavedRule[] {
  const { ingress } = wish;
  if (ingress === undefined) {
    return [];
  }
  const wanted = new Set(ingressRules(wish).map(keyOf));
  return saved.rules.filter((rule) => isIngressOf(rule, ingress.bridge) && !wanted.has(keyOf(rule)));
}

/** Jumps to the rules that keep bridges apart which stand behind the one that accepts, or would once that is made. */
function lateStageJumps({ rules }: SavedTable): SavedRule[] {
  const ofForward = rules.filter(({ chain }) => chain === 'FORWARD');
  const accepting = ofForward.findIndex(({ target }) => target === FORWARD);
  return ofForward.filter(({ target }, index) => target === STAGE_1 && index > accepting);
}

function isIngressOf({ chain, spec, comment }: SavedRule, bridge: string): boolean {
  const isOfFormat = [
    ingressComment('same-bridge'),
    ingressComment('isolated'),
    ingressComment(BOTH),
  ].includes(comment ?? '');
  const [option] = [{ [STAGE_1]: '-i', [STAGE_2]: '-o' }[chain]];
  return isOfFormat && option !== undefined && spec.startsWith(`${option} ${bridge} `);
}

function ingressComment(policy: string): string {
  return `${ALL} (ingressPolicy: ${policy})`;
}

function encode(commands: readonly string[]): string {
  return encodeTable(commands, 'filter');
}
