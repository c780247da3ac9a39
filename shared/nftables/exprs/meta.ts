// `meta`: loads something known about the packet (mark, link names, protocol) into a register, or sets it from one.
// Made by lower.ts, written and read by expr.ts.
import type { Attributes, AttributeWriter } from '../../netlink/attributes.ts';
import { NFTA_META_DREG, NFTA_META_KEY, NFTA_META_SREG } from '../constants.ts';

/** Exactly one of `dreg` (load) and `sreg` (set). */
export interface MetaExpr {
  readonly kind: 'meta';
  readonly key: number;
  readonly dreg: number | undefined;
  readonly sreg: number | undefined;
}

/**
 *     [ meta load nfproto => reg 1 ]     |00008|--|00002| KEY   00 00 00 0f
 *                                        |00008|--|00001| DREG  00 00 00 01
 *     [ meta set mark with reg 1 ]       |00008|--|00002| KEY   00 00 00 03
 *                                        |00008|--|00003| SREG  00 00 00 01
 */
export function writeMeta(w: AttributeWriter, expr: MetaExpr): void {
  w.u32be(NFTA_META_KEY, expr.key);
  if (expr.dreg !== undefined) w.u32be(NFTA_META_DREG, expr.dreg);
  if (expr.sreg !== undefined) w.u32be(NFTA_META_SREG, expr.sreg);
}

/** The expression, undefined when a part is missing. */
export function readMeta(a: Attributes): MetaExpr | undefined {
  const key = a.u32be(NFTA_META_KEY);
  const dreg = a.u32be(NFTA_META_DREG);
  const sreg = a.u32be(NFTA_META_SREG);
  if (key === undefined || (dreg === undefined) === (sreg === undefined)) return undefined;
  return { kind: 'meta', key, dreg, sreg };
}
