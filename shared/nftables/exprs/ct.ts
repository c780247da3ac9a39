// `ct`: loads what conntrack knows about the packet's flow (state, status) into a register.
// Made by lower.ts, written and read by expr.ts.
import type { Attributes, AttributeWriter } from '../../netlink/attributes.ts';
import { NFTA_CT_DIRECTION, NFTA_CT_DREG, NFTA_CT_KEY } from '../constants.ts';

export interface CtExpr {
  readonly kind: 'ct';
  readonly key: number;
  readonly dreg: number;
  /** 0 original, 1 reply, for keys that have both. */
  readonly direction: number | undefined;
}

/**
 *     [ ct load status => reg 1 ]
 *     |00008|--|00002| KEY   00 00 00 02
 *     |00008|--|00001| DREG  00 00 00 01
 */
export function writeCt(w: AttributeWriter, expr: CtExpr): void {
  w.u32be(NFTA_CT_KEY, expr.key);
  w.u32be(NFTA_CT_DREG, expr.dreg);
  if (expr.direction !== undefined) w.u8(NFTA_CT_DIRECTION, expr.direction);
}

/** The expression, undefined when a part is missing: then it sets something, which we never do. */
export function readCt(a: Attributes): CtExpr | undefined {
  const key = a.u32be(NFTA_CT_KEY);
  const dreg = a.u32be(NFTA_CT_DREG);
  if (key === undefined || dreg === undefined) return undefined;
  return { kind: 'ct', key, dreg, direction: a.u8(NFTA_CT_DIRECTION) };
}
