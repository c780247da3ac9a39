// `immediate`: puts a constant into a register; with register 0 and a verdict it is how a rule jumps, drops, accepts.
// Made by lower.ts, written and read by expr.ts.
import type { Attributes, AttributeWriter } from '../../netlink/attributes.ts';
import { NFTA_IMMEDIATE_DATA, NFTA_IMMEDIATE_DREG } from '../constants.ts';
import type { Verdict } from '../objects.ts';
import { readData, writeData } from './data.ts';

export interface ImmediateExpr {
  readonly kind: 'immediate';
  readonly dreg: number;
  readonly data: Uint8Array | Verdict;
}

/**
 *     [ immediate reg 0 return ]
 *     |00008|--|00001| DREG  00 00 00 00
 *     |00016|N-|00002| DATA
 *       |00012|N-|00002| VERDICT
 *         |00008|--|00001| CODE  ff ff ff fb
 */
export function writeImmediate(w: AttributeWriter, expr: ImmediateExpr): void {
  w.u32be(NFTA_IMMEDIATE_DREG, expr.dreg);
  writeData(w, NFTA_IMMEDIATE_DATA, expr.data);
}

/** The expression, undefined when a part is missing. */
export function readImmediate(a: Attributes): ImmediateExpr | undefined {
  const dreg = a.u32be(NFTA_IMMEDIATE_DREG);
  const data = readData(a.nest(NFTA_IMMEDIATE_DATA));
  if (dreg === undefined || data === undefined) return undefined;
  return { kind: 'immediate', dreg, data };
}
