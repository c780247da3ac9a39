// `match` and `target`: what iptables puts into a rule that nf_tables has no expression of its own for, as the structure
// that its extension of the kernel takes. Read by expr.ts, to understand rules of others; we never write one.
import type { Attributes } from '../../netlink/attributes.ts';
import { NFTA_XT_INFO, NFTA_XT_NAME, NFTA_XT_REV } from '../constants.ts';

export interface XtExpr {
  readonly kind: 'xt';
  readonly role: XtRole;
  /** As iptables calls it: `multiport`, `DNAT`. */
  readonly name: string;
  readonly revision: number;
  /** The structure, numbers in the order of this machine unless its header says otherwise. */
  readonly info: Uint8Array;
}

export type XtRole = 'match' | 'target';

/**
 *     [ match name multiport rev 1 ]
 *     |00014|--|00001| NAME  "multiport\0"
 *     |00008|--|00002| REV   00 00 00 01
 *     |00052|--|00003| INFO  01 01 90 1f …
 *
 * Undefined when a part is missing.
 */
export function readXt(role: XtRole, a: Attributes): XtExpr | undefined {
  const name = a.string(NFTA_XT_NAME);
  const revision = a.u32be(NFTA_XT_REV);
  const info = a.bytes(NFTA_XT_INFO);
  if (name === undefined || revision === undefined || info === undefined) return undefined;
  return { kind: 'xt', role, name, revision, info };
}
