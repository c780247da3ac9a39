// `cmp`: compares a register with a constant; the rule ends here for this packet when the comparison fails.
// Made by lower.ts, written and read by expr.ts.
import type { Attributes, AttributeWriter } from '../../netlink/attributes.ts';
import { NFTA_CMP_DATA, NFTA_CMP_OP, NFTA_CMP_SREG } from '../constants.ts';
import { readValue, writeData } from './data.ts';

export interface CmpExpr {
  readonly kind: 'cmp';
  readonly sreg: number;
  /** NFT_CMP_* */
  readonly op: number;
  /** As many bytes of the register are compared. */
  readonly data: Uint8Array;
}

/**
 *     [ cmp eq reg 1 0x0100007f ]
 *     |00008|--|00001| SREG  00 00 00 01
 *     |00008|--|00002| OP    00 00 00 00
 *     |00012|N-|00003| DATA
 *       |00008|--|00001| VALUE  7f 00 00 01
 */
export function writeCmp(w: AttributeWriter, expr: CmpExpr): void {
  w.u32be(NFTA_CMP_SREG, expr.sreg);
  w.u32be(NFTA_CMP_OP, expr.op);
  writeData(w, NFTA_CMP_DATA, expr.data);
}

/** The expression, undefined when a part is missing. */
export function readCmp(a: Attributes): CmpExpr | undefined {
  const sreg = a.u32be(NFTA_CMP_SREG);
  const op = a.u32be(NFTA_CMP_OP);
  const data = readValue(a.nest(NFTA_CMP_DATA));
  if (sreg === undefined || op === undefined || data === undefined) return undefined;
  return { kind: 'cmp', sreg, op, data };
}
