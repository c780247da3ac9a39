// `payload`: loads bytes of the packet itself, counted from the start of one of its headers, into a register.
// Made by lower.ts, written and read by expr.ts.
import type { Attributes, AttributeWriter } from '../../netlink/attributes.ts';
import { NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_LEN, NFTA_PAYLOAD_OFFSET } from '../constants.ts';

export interface PayloadExpr {
  readonly kind: 'payload';
  readonly dreg: number;
  /** NFT_PAYLOAD_*_HEADER */
  readonly base: number;
  readonly offset: number;
  readonly length: number;
}

/**
 *     [ payload load 4b @ network header + 12 => reg 1 ]
 *     |00008|--|00001| DREG    00 00 00 01
 *     |00008|--|00002| BASE    00 00 00 01
 *     |00008|--|00003| OFFSET  00 00 00 0c
 *     |00008|--|00004| LEN     00 00 00 04
 */
export function writePayload(w: AttributeWriter, expr: PayloadExpr): void {
  w.u32be(NFTA_PAYLOAD_DREG, expr.dreg);
  w.u32be(NFTA_PAYLOAD_BASE, expr.base);
  w.u32be(NFTA_PAYLOAD_OFFSET, expr.offset);
  w.u32be(NFTA_PAYLOAD_LEN, expr.length);
}

/** The expression, undefined when a part is missing: then it writes to the packet, which we never do. */
export function readPayload(a: Attributes): PayloadExpr | undefined {
  const dreg = a.u32be(NFTA_PAYLOAD_DREG);
  const base = a.u32be(NFTA_PAYLOAD_BASE);
  const offset = a.u32be(NFTA_PAYLOAD_OFFSET);
  const length = a.u32be(NFTA_PAYLOAD_LEN);
  if (dreg === undefined || base === undefined || offset === undefined || length === undefined)
    return undefined;
  return { kind: 'payload', dreg, base, offset, length };
}
