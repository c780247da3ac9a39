// `fib`: asks the routing tables about an address of the packet and puts the answer into a register.
// Made by lower.ts, written and read by expr.ts.
import type { Attributes, AttributeWriter } from '../../netlink/attributes.ts';
import { NFTA_FIB_DREG, NFTA_FIB_FLAGS, NFTA_FIB_RESULT } from '../constants.ts';

export interface FibExpr {
  readonly kind: 'fib';
  readonly dreg: number;
  /** NFT_FIB_RESULT_* */
  readonly result: number;
  /** NFTA_FIB_F_* */
  readonly flags: number;
}

/**
 *     [ fib daddr type => reg 1 ]
 *     |00008|--|00003| FLAGS   00 00 00 02
 *     |00008|--|00002| RESULT  00 00 00 03
 *     |00008|--|00001| DREG    00 00 00 01
 */
export function writeFib(w: AttributeWriter, expr: FibExpr): void {
  w.u32be(NFTA_FIB_FLAGS, expr.flags);
  w.u32be(NFTA_FIB_RESULT, expr.result);
  w.u32be(NFTA_FIB_DREG, expr.dreg);
}

/** The expression, undefined when a part is missing. */
export function readFib(a: Attributes): FibExpr | undefined {
  const dreg = a.u32be(NFTA_FIB_DREG);
  const result = a.u32be(NFTA_FIB_RESULT);
  const flags = a.u32be(NFTA_FIB_FLAGS);
  if (dreg === undefined || result === undefined || flags === undefined) return undefined;
  return { kind: 'fib', dreg, result, flags };
}
