// `masq`: source NAT to the address of the link the packet leaves by.
// Made by lower.ts, written and read by expr.ts.
import type { Attributes, AttributeWriter } from '../../netlink/attributes.ts';
import { NFTA_MASQ_FLAGS, NFTA_MASQ_REG_PROTO_MAX, NFTA_MASQ_REG_PROTO_MIN } from '../constants.ts';

export interface MasqExpr {
  readonly kind: 'masq';
  /** NF_NAT_RANGE_* */
  readonly flags: number | undefined;
  readonly protoMin: number | undefined;
  readonly protoMax: number | undefined;
}

/**
 *     [ masq ]
 *     |00004|N-|00002| NFTA_EXPR_DATA, empty
 */
export function writeMasq(w: AttributeWriter, expr: MasqExpr): void {
  if (expr.flags !== undefined) w.u32be(NFTA_MASQ_FLAGS, expr.flags);
  if (expr.protoMin !== undefined) w.u32be(NFTA_MASQ_REG_PROTO_MIN, expr.protoMin);
  if (expr.protoMax !== undefined) w.u32be(NFTA_MASQ_REG_PROTO_MAX, expr.protoMax);
}

/** The expression. */
export function readMasq(a: Attributes): MasqExpr {
  return {
    kind: 'masq',
    flags: a.u32be(NFTA_MASQ_FLAGS),
    protoMin: a.u32be(NFTA_MASQ_REG_PROTO_MIN),
    protoMax: a.u32be(NFTA_MASQ_REG_PROTO_MAX),
  };
}
