// What a packet must be like, as values: read from the expressions of a rule, whoever wrote it, made into statements of
// ours, and compared. Called by those who publish ports under conditions, or find ports that others publish.
import { type Cidr, contains, type Family, type Ip, ipFromBytes } from '../ip/cidr.ts';
import {
  NFT_CMP_EQ,
  NFT_CMP_NEQ,
  NFT_META_IIFNAME,
  NFT_META_L4PROTO,
  NFT_PAYLOAD_NETWORK_HEADER,
  NFT_PAYLOAD_TRANSPORT_HEADER,
} from './constants.ts';
import { type Protocol, protocolOf } from './datatypes.ts';
import type { Expr } from './exprs/expr.ts';
import { iifname, ip, ip6, type Statement } from './statements.ts';

/** One condition. Host bits of a network are zero. */
export type Condition =
  | { readonly kind: 'saddr' | 'daddr'; readonly cidr: Cidr; readonly negated: boolean }
  | {
      readonly kind: 'iifname';
      /** The name of a link, or with `isPrefix` the beginning of one. */
      readonly name: string;
      readonly isPrefix: boolean;
      readonly negated: boolean;
    };

/** Conditions that must all hold. */
export type ConditionList = readonly Condition[];

/** `ip saddr 192.0.2.0/24`, `iifname != "eth*"` */
export function conditionStatement(condition: Condition, family: Family): Statement {
  const { negated } = condition;
  if (condition.kind !== 'iifname') {
    const field = (family === 4 ? ip : ip6)[condition.kind];
    return negated ? field.isNot(condition.cidr) : field.is(condition.cidr);
  }
  if (condition.isPrefix) return iifname.startsWith(condition.name, { negated });
  return negated ? iifname.isNot(condition.name) : iifname.is(condition.name);
}

/**
 * Whether no packet fulfils both lists. Sure of what it says: where two lists are apart for a reason that takes more than
 * one condition of each to see, they count as lists that a packet may fulfil.
 */
export function areExclusive(one: ConditionList, other: ConditionList): boolean {
  return one.some((a) => other.some((b) => contradict(a, b)));
}

/** The conditions in a rule for packets of a family. What is no `Condition` is left out: the rule may take less. */
export function readConditions(exprs: readonly Expr[], family: Family): Condition[] {
  return readComparisons(exprs).flatMap((comparison) => conditionIn(comparison, family) ?? []);
}

/** What `meta l4proto` and `th dport` of a rule must be. */
export function readPort(exprs: readonly Expr[]): { protocol?: Protocol; port?: number } {
  const port: { protocol?: Protocol; port?: number } = {};
  for (const { place, mask, negated, data } of readComparisons(exprs)) {
    if (negated || mask !== undefined) continue;
    const protocol = place === `meta ${NFT_META_L4PROTO}` ? protocolOf(data[0]) : undefined;
    if (protocol !== undefined) port.protocol = protocol;
    if (place === `payload ${NFT_PAYLOAD_TRANSPORT_HEADER} 2` && data.length === 2) port.port = u16be(data);
  }
  return port;
}

function contradict(a: Condition, b: Condition): boolean {
  if (a.negated && b.negated) return false;
  const [wanted, other] = a.negated ? [b, a] : [a, b];
  if (other.negated) return isWithin(wanted, other);
  return wanted.kind === other.kind && !isWithin(wanted, other) && !isWithin(other, wanted);
}

/** Whether all that fulfils one condition fulfils another, negations aside; false for those of different kinds. */
function isWithin(narrow: Condition, wide: Condition): boolean {
  if (narrow.kind === 'iifname' && wide.kind === 'iifname') {
    if (wide.isPrefix) return narrow.name.startsWith(wide.name);
    return !narrow.isPrefix && narrow.name === wide.name;
  }
  if (narrow.kind === 'iifname' || wide.kind === 'iifname' || narrow.kind !== wide.kind) return false;
  return narrow.cidr.prefix >= wide.cidr.prefix && contains(wide.cidr, narrow.cidr.ip);
}

/** A place of the packet, or something known about it, held against a constant. */
interface Comparison {
  /** `payload <base> <offset>` or `meta <key>` */
  readonly place: string;
  readonly mask: Uint8Array | undefined;
  readonly negated: boolean;
  readonly data: Uint8Array;
}

// A rule loads, masks perhaps, and compares, one after the other; registers are not followed any further.
function readComparisons(exprs: readonly Expr[]): Comparison[] {
  const comparisons: Comparison[] = [];
  let loaded: Pick<Comparison, 'place' | 'mask'> | undefined;
  for (const expr of exprs) {
    if (expr.kind === 'payload') {
      loaded = { place: `payload ${expr.base} ${expr.offset}`, mask: undefined };
    } else if (expr.kind === 'meta') {
      loaded = expr.dreg === undefined ? undefined : { place: `meta ${expr.key}`, mask: undefined };
    } else if (expr.kind === 'bitwise') {
      loaded = loaded && isZero(expr.xor) ? { ...loaded, mask: expr.mask } : undefined;
    } else if (expr.kind === 'cmp' && loaded !== undefined) {
      const { op, data } = expr;
      if (op === NFT_CMP_EQ || op === NFT_CMP_NEQ)
        comparisons.push({ ...loaded, negated: op === NFT_CMP_NEQ, data });
    } else {
      loaded = undefined;
    }
  }
  return comparisons;
}

/** Where the headers of linux/ip.h and linux/ipv6.h have their addresses. */
const PLACES: Readonly<Record<string, { readonly kind: 'saddr' | 'daddr'; readonly family: Family }>> = {
  [`payload ${NFT_PAYLOAD_NETWORK_HEADER} 12`]: { kind: 'saddr', family: 4 },
  [`payload ${NFT_PAYLOAD_NETWORK_HEADER} 16`]: { kind: 'daddr', family: 4 },
  [`payload ${NFT_PAYLOAD_NETWORK_HEADER} 8`]: { kind: 'saddr', family: 6 },
  [`payload ${NFT_PAYLOAD_NETWORK_HEADER} 24`]: { kind: 'daddr', family: 6 },
};

function conditionIn({ place, mask, negated, data }: Comparison, family: Family): Condition | undefined {
  if (place === `meta ${NFT_META_IIFNAME}` && mask === undefined) {
    const end = data.indexOf(0);
    const name = Buffer.from(end < 0 ? data : data.subarray(0, end)).toString();
    return { kind: 'iifname', name, isPrefix: end < 0, negated };
  }
  const field = PLACES[place];
  const prefix = prefixOf(mask, data);
  if (field?.family !== family || prefix === undefined) return undefined;
  const address = addressOf(data, family);
  return address && { kind: field.kind, cidr: { ip: address, prefix }, negated };
}

/** The length of a prefix that is compared by whole bytes or by a mask; undefined for a mask with a hole. */
function prefixOf(mask: Uint8Array | undefined, data: Uint8Array): number | undefined {
  if (mask === undefined) return 8 * data.length;
  const bits = Array.from(mask, (byte) => byte.toString(2).padStart(8, '0')).join('');
  return /^1*0*$/.test(bits) ? bits.lastIndexOf('1') + 1 : undefined;
}

function addressOf(data: Uint8Array, family: Family): Ip | undefined {
  const bytes = new Uint8Array(family === 4 ? 4 : 16);
  if (data.length > bytes.length) return undefined;
  bytes.set(data);
  return ipFromBytes(bytes);
}

function u16be(bytes: Uint8Array): number {
  return ((bytes[0] ?? 0) << 8) | (bytes[1] ?? 0);
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}
