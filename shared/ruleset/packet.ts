// What a rule would do to a packet of which only a part is known: the judge of rules that others wrote.
// Used by forward-path.ts for each rule a packet comes to; the ruleset is asked for elements of sets alone.

import { type Family, type Ip, ipToBytes } from '../ip/cidr.ts';
import {
  NFPROTO_IPV4,
  NFPROTO_IPV6,
  NFT_CMP_EQ,
  NFT_CMP_NEQ,
  NFT_CT_STATE,
  NFT_CT_STATUS,
  NFT_LOOKUP_F_INV,
  NFT_META_IIFNAME,
  NFT_META_NFPROTO,
  NFT_META_OIFNAME,
  NFT_PAYLOAD_NETWORK_HEADER,
  NFT_REG_VERDICT,
  NFT_REG32_00,
} from '../nftables/constants.ts';
import { ifnameBytes, markBytes } from '../nftables/datatypes.ts';
import type { Expr, UnknownExpr } from '../nftables/exprs/expr.ts';
import type { XtExpr } from '../nftables/exprs/xt.ts';
import type { Nftables } from '../nftables/nftables.ts';
import type { TableRef, Verdict } from '../nftables/objects.ts';

/** What is known of a packet; the rest may be anything. */
export interface Packet {
  readonly family: Family;
  readonly iifname?: string | undefined;
  readonly oifname?: string | undefined;
  readonly saddr?: Ip | undefined;
  readonly daddr?: Ip | undefined;
  /** Bits of NF_CT_STATE_BIT, of which one is set. */
  readonly ctState: number;
  /** Bits of enum ip_conntrack_status. */
  readonly ctStatus: number;
}

/** Bits of `ctState` and `ctStatus`; linux/netfilter/nf_conntrack_common.h. */
export const CT_STATE_NEW = 1 << 3;
export const CT_STATUS_DNAT = 1 << 5;

/** What a rule does: whether the packet fits it, `undefined` when that hangs on something unknown, and the verdict. */
export interface Effect {
  readonly fits: boolean | undefined;
  /** Undefined for a rule that decides nothing. */
  readonly verdict: Verdict | undefined;
}

const NO_EFFECT: Effect = { fits: false, verdict: undefined };
const DROP: Verdict = { kind: 'verdict', code: 'drop', chain: undefined };

/** Judges one rule of a table, expression by expression. */
export function judgeRule(nft: Nftables, table: TableRef, exprs: readonly Expr[], packet: Packet): Effect {
  const registers = new Map<number, Uint8Array>();
  let fits: boolean | undefined = true;
  for (const expr of exprs) {
    const step = judgeExpr(nft, table, expr, packet, registers);
    if (step === false) {
      return NO_EFFECT;
    }
    if (step === undefined) {
      fits = undefined;
    } else if (step !== true) {
      return { fits, verdict: step };
    }
  }
  return { fits, verdict: undefined };
}

type Step = boolean | undefined | Verdict;

function judgeExpr(
  nft: Nftables,
  table: TableRef,
  expr: Expr,
  packet: Packet,
  registers: Map<number, Uint8Array>,
): Step {
  switch (expr.kind) {
    case 'meta':
      return expr.dreg === undefined ? true : load(registers, expr.dreg, metaOf(packet, expr.key));
    case 'ct':
      return load(registers, expr.dreg, expr.direction === undefined ? ctOf(packet, expr.key) : undefined);
    case 'payload': {
      const isNetwork = expr.base === NFT_PAYLOAD_NETWORK_HEADER;
      return load(registers, expr.dreg, isNetwork ? headerOf(packet, expr.offset, expr.length) : undefined);
    }
    case 'bitwise': {
      const source = registers.get(offsetOf(expr.sreg));
      const { mask, xor } = expr;
      return load(
        registers,
        expr.dreg,
        source?.map((byte, index) => (byte & (mask[index] ?? 0)) ^ (xor[index] ?? 0)),
      );
    }
    case 'cmp':
      return compare(registers.get(offsetOf(expr.sreg)), expr.op, expr.data);
    case 'lookup': {
      const key = registers.get(offsetOf(expr.sreg));
      return lookUp(nft, table, key, expr);
    }
    case 'immediate':
      if (expr.data instanceof Uint8Array) return load(registers, expr.dreg, expr.data);
      return expr.data;
    case 'fib':
      return load(registers, expr.dreg, undefined);
    case 'masq':
    case 'nat':
      return true;
    case 'xt':
      return judgeXt(expr, packet);
    case 'unknown':
      return judgeUnknown(expr);
  }
}

/** A register by its place in bytes: four of 16 and sixteen of 4 bytes share them. */
function offsetOf(register: number): number {
  return register >= NFT_REG32_00 ? 4 * (register - NFT_REG32_00) : 16 * (register - 1);
}

function load(registers: Map<number, Uint8Array>, dreg: number, bytes: Uint8Array | undefined): true {
  if (bytes === undefined) registers.delete(offsetOf(dreg));
  else registers.set(offsetOf(dreg), bytes);
  return true;
}

function metaOf(packet: Packet, key: number): Uint8Array | undefined {
  switch (key) {
    case NFT_META_IIFNAME:
      return packet.iifname === undefined ? undefined : ifnameBytes(packet.iifname);
    case NFT_META_OIFNAME:
      return packet.oifname === undefined ? undefined : ifnameBytes(packet.oifname);
    case NFT_META_NFPROTO:
      return Uint8Array.of(packet.family === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
    default:
      return undefined;
  }
}

function ctOf(packet: Packet, key: number): Uint8Array | undefined {
  if (key === NFT_CT_STATE) return markBytes(packet.ctState);
  if (key === NFT_CT_STATUS) return markBytes(packet.ctStatus);
  return undefined;
}

/** struct iphdr and struct ipv6hdr: where the two addresses stand. */
const ADDRESSES: Readonly<Record<Family, { readonly saddr: number; readonly daddr: number }>> = {
  4: { saddr: 12, daddr: 16 },
  6: { saddr: 8, daddr: 24 },
};

function headerOf(packet: Packet, offset: number, length: number): Uint8Array | undefined {
  const places = ADDRESSES[packet.family];
  for (const field of ['saddr', 'daddr'] as const) {
    const address = packet[field];
    const bytes = address === undefined ? undefined : ipToBytes(address);
    const start = offset - places[field];
    if (bytes !== undefined && start >= 0 && start + length <= bytes.length) {
      return bytes.subarray(start, start + length);
    }
  }
  return undefined;
}

function compare(value: Uint8Array | undefined, op: number, data: Uint8Array): boolean | undefined {
  if (value === undefined || value.length < data.length) return undefined;
  if (op !== NFT_CMP_EQ && op !== NFT_CMP_NEQ) return undefined;
  const isEqual = Buffer.compare(value.subarray(0, data.length), data) === 0;
  return op === NFT_CMP_EQ ? isEqual : !isEqual;
}

function lookUp(
  nft: Nftables,
  table: TableRef,
  key: Uint8Array | undefined,
  { set, dreg, flags }: Extract<Expr, { kind: 'lookup' }>,
): Step {
  if (key === undefined) return undefined;
  let found: ReturnType<Nftables['findElement']>;
  try {
    found = nft.findElement({ table, name: set }, key);
  } catch {
    return undefined; // a key of several fields, of which we know one
  }
  if (dreg === NFT_REG_VERDICT) {
    return found?.data === undefined || found.data instanceof Uint8Array ? false : found.data;
  }
  const isInverted = ((flags ?? 0) & NFT_LOOKUP_F_INV) !== 0;
  return dreg === undefined ? (found !== undefined) !== isInverted : undefined;
}

/** What counts, logs or marks lets the packet go on; what is not known may match or not. */
const NEUTRAL = ['counter', 'log', 'notrack', 'flow_offload', 'objref', 'dup', 'last'];

function judgeUnknown({ name }: UnknownExpr): Step {
  if (name === 'reject') return DROP;
  return NEUTRAL.includes(name) ? true : undefined;
}

/** Targets other than these mark or log, or send the packet where no rule of this table follows. */
function judgeXt(xt: XtExpr, packet: Packet): Step {
  if (xt.role === 'target') return xt.name === 'REJECT' || xt.name === 'DROP' ? DROP : true;
  if (xt.name === 'comment') return true;
  return xt.name === 'conntrack' ? judgeConntrack(xt, packet) : undefined;
}

/**
 * `-m conntrack --ctstate …`: struct xt_conntrack_mtinfo2 and 3 of linux/netfilter/xt_conntrack.h, whose flags and state
 * stand behind eight addresses, two times and five ports.
 */
function judgeConntrack({ revision, info }: XtExpr, packet: Packet): boolean | undefined {
  if (revision < 2 || info.length < STATUS_AT) return undefined;
  const view = new DataView(info.buffer, info.byteOffset, info.length);
  const [flags, inverted, states] = [FLAGS_AT, FLAGS_AT + 2, FLAGS_AT + 4].map((at) =>
    view.getUint16(at, LITTLE),
  );
  if (((flags ?? 0) & ~XT_CONNTRACK_STATE_ALIAS) !== XT_CONNTRACK_STATE) return undefined;
  const bits =
    (packet.ctState === CT_STATE_NEW ? XT_STATE_NEW : 0) |
    (packet.ctStatus & CT_STATUS_DNAT ? XT_STATE_DNAT : 0);
  const isOfState = ((states ?? 0) & bits) !== 0;
  return isOfState !== (((inverted ?? 0) & XT_CONNTRACK_STATE) !== 0);
}

const FLAGS_AT = 8 * 16 + 2 * 4 + 5 * 2;
const STATUS_AT = FLAGS_AT + 6;
const XT_CONNTRACK_STATE = 1 << 0;
const XT_CONNTRACK_STATE_ALIAS = 1 << 13;
/** XT_CONNTRACK_STATE_BIT(IP_CT_NEW), XT_CONNTRACK_STATE_DNAT */
const XT_STATE_NEW = 1 << 3;
const XT_STATE_DNAT = 1 << 7;
/** The struct is in the byte order of this machine. */
const LITTLE = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1;
