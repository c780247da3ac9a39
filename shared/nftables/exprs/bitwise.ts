// `bitwise`: `dreg = (sreg & mask) ^ xor`, with which prefixes are matched and bits of the mark are set.
// Made by lower.ts, written and read by expr.ts.
import type { Attributes, AttributeWriter } from '../../netlink/attributes.ts';
import {
  NFT_BITWISE_MASK_XOR,
  NFTA_BITWISE_DREG,
  NFTA_BITWISE_LEN,
  NFTA_BITWISE_MASK,
  NFTA_BITWISE_OP,
  NFTA_BITWISE_SREG,
  NFTA_BITWISE_XOR,
} from '../constants.ts';
import { readValue, writeData } from './data.ts';

export interface BitwiseExpr {
  readonly kind: 'bitwise';
  readonly sreg: number;
  readonly dreg: number;
  readonly mask: Uint8Array;
  /** As long as `mask`. */
  readonly xor: Uint8Array;
}

/**
 *     [ bitwise reg 1 = ( reg 1 & 0x000080ff ) ^ 0x00000000 ]
 *     |00008|--|00001| SREG  00 00 00 01
 *     |00008|--|00002| DREG  00 00 00 01
 *     |00008|--|00003| LEN   00 00 00 04
 *     |00012|N-|00004| MASK
 *       |00008|--|00001| VALUE  ff 80 00 00
 *     |00012|N-|00005| XOR
 *       |00008|--|00001| VALUE  00 00 00 00
 *
 * OP is left out: its default is this operation, and kernels before 5.6 do not know it.
 */
export function writeBitwise(w: AttributeWriter, expr: BitwiseExpr): void {
  w.u32be(NFTA_BITWISE_SREG, expr.sreg);
  w.u32be(NFTA_BITWISE_DREG, expr.dreg);
  w.u32be(NFTA_BITWISE_LEN, expr.mask.length);
  writeData(w, NFTA_BITWISE_MASK, expr.mask);
  writeData(w, NFTA_BITWISE_XOR, expr.xor);
}

/** The expression, undefined when a part is missing or it shifts instead. */
export function readBitwise(a: Attributes): BitwiseExpr | undefined {
  const sreg = a.u32be(NFTA_BITWISE_SREG);
  const dreg = a.u32be(NFTA_BITWISE_DREG);
  const mask = readValue(a.nest(NFTA_BITWISE_MASK));
  const xor = readValue(a.nest(NFTA_BITWISE_XOR));
  const op = a.u32be(NFTA_BITWISE_OP) ?? NFT_BITWISE_MASK_XOR;
  if (op !== NFT_BITWISE_MASK_XOR) return undefined;
  if (sreg === undefined || dreg === undefined || mask === undefined || xor === undefined) return undefined;
  return { kind: 'bitwise', sreg, dreg, mask, xor };
}
