// `nat`: source or destination NAT to the address and port that stand in registers.
// Made by lower.ts (destination only), written and read by expr.ts.
import type { Attributes, AttributeWriter } from '../../netlink/attributes.ts';
import {
  NFTA_NAT_FAMILY,
  NFTA_NAT_FLAGS,
  NFTA_NAT_REG_ADDR_MAX,
  NFTA_NAT_REG_ADDR_MIN,
  NFTA_NAT_REG_PROTO_MAX,
  NFTA_NAT_REG_PROTO_MIN,
  NFTA_NAT_TYPE,
} from '../constants.ts';

export interface NatExpr {
  readonly kind: 'nat';
  /** NFT_NAT_SNAT or NFT_NAT_DNAT */
  readonly type: number;
  /** NFPROTO_IPV4 or NFPROTO_IPV6, also in a table of family inet. */
  readonly family: number;
  readonly addrMin: number | undefined;
  readonly addrMax: number | undefined;
  readonly protoMin: number | undefined;
  readonly protoMax: number | undefined;
  /** NF_NAT_RANGE_*, without those that follow from the registers. */
  readonly flags: number | undefined;
}

/**
 *     [ nat dnat ip addr_min reg 1 proto_min reg 9 ]
 *     |00008|--|00001| TYPE           00 00 00 01
 *     |00008|--|00002| FAMILY         00 00 00 02
 *     |00008|--|00003| REG_ADDR_MIN   00 00 00 01
 *     |00008|--|00005| REG_PROTO_MIN  00 00 00 09
 */
export function writeNat(w: AttributeWriter, expr: NatExpr): void {
  w.u32be(NFTA_NAT_TYPE, expr.type);
  w.u32be(NFTA_NAT_FAMILY, expr.family);
  if (expr.addrMin !== undefined) w.u32be(NFTA_NAT_REG_ADDR_MIN, expr.addrMin);
  if (expr.addrMax !== undefined) w.u32be(NFTA_NAT_REG_ADDR_MAX, expr.addrMax);
  if (expr.protoMin !== undefined) w.u32be(NFTA_NAT_REG_PROTO_MIN, expr.protoMin);
  if (expr.protoMax !== undefined) w.u32be(NFTA_NAT_REG_PROTO_MAX, expr.protoMax);
  if (expr.flags !== undefined) w.u32be(NFTA_NAT_FLAGS, expr.flags);
}

/**
 * The expression as it was sent, undefined when a part is missing. The kernel repeats each register as its own
 * maximum and adds the flags that follow from there being registers.
 */
export function readNat(a: Attributes): NatExpr | undefined {
  const type = a.u32be(NFTA_NAT_TYPE);
  const family = a.u32be(NFTA_NAT_FAMILY);
  if (type === undefined || family === undefined) return undefined;
  const addrMin = a.u32be(NFTA_NAT_REG_ADDR_MIN);
  const addrMax = a.u32be(NFTA_NAT_REG_ADDR_MAX);
  const protoMin = a.u32be(NFTA_NAT_REG_PROTO_MIN);
  const protoMax = a.u32be(NFTA_NAT_REG_PROTO_MAX);
  const implied = (addrMin === undefined ? 0 : MAP_IPS) | (protoMin === undefined ? 0 : PROTO_SPECIFIED);
  const flags = (a.u32be(NFTA_NAT_FLAGS) ?? 0) & ~implied;
  return {
    kind: 'nat',
    type,
    family,
    addrMin,
    addrMax: addrMax === addrMin ? undefined : addrMax,
    protoMin,
    protoMax: protoMax === protoMin ? undefined : protoMax,
    flags: flags === 0 ? undefined : flags,
  };
}

/** NF_NAT_RANGE_MAP_IPS and NF_NAT_RANGE_PROTO_SPECIFIED of linux/netfilter/nf_nat.h. */
const MAP_IPS = 1;
const PROTO_SPECIFIED = 2;
