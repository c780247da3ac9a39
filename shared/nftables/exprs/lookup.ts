// `lookup`: finds the key in a register in a set or map; a map's data goes to a register, a verdict map's is obeyed.
// Made by lower.ts, written and read by expr.ts.
import type { Attributes, AttributeWriter } from '../../netlink/attributes.ts';
import { NFTA_LOOKUP_DREG, NFTA_LOOKUP_FLAGS, NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG } from '../constants.ts';

export interface LookupExpr {
  readonly kind: 'lookup';
  readonly sreg: number;
  readonly set: string;
  /** Where the data goes: a register, NFT_REG_VERDICT; undefined for a set. */
  readonly dreg: number | undefined;
  /** NFT_LOOKUP_F_INV, or undefined. */
  readonly flags: number | undefined;
}

/**
 *     [ lookup reg 1 set masquerade4 dreg 0 ]
 *     |00008|--|00002| SREG  00 00 00 01
 *     |00008|--|00003| DREG  00 00 00 00
 *     |00016|--|00001| SET   "masquerade4\0"
 *
 * nft adds SET_ID, by which the kernel would find an anonymous set of the same batch; ours all have names.
 */
export function writeLookup(w: AttributeWriter, expr: LookupExpr): void {
  w.u32be(NFTA_LOOKUP_SREG, expr.sreg);
  if (expr.dreg !== undefined) w.u32be(NFTA_LOOKUP_DREG, expr.dreg);
  w.string(NFTA_LOOKUP_SET, expr.set);
  if (expr.flags !== undefined) w.u32be(NFTA_LOOKUP_FLAGS, expr.flags);
}

/** The expression as it was sent (the kernel tells flags of 0 too), undefined when a part is missing. */
export function readLookup(a: Attributes): LookupExpr | undefined {
  const sreg = a.u32be(NFTA_LOOKUP_SREG);
  const set = a.string(NFTA_LOOKUP_SET);
  if (sreg === undefined || set === undefined) return undefined;
  const flags = a.u32be(NFTA_LOOKUP_FLAGS) || undefined;
  return { kind: 'lookup', sreg, set, dreg: a.u32be(NFTA_LOOKUP_DREG), flags };
}
