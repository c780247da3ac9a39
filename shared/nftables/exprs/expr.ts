// One step of a rule's program, whatever its kind: name and data on the wire, one of the files beside this one inside.
// encode.ts writes the list of a rule with it; decode.ts reads one back, keeping the kinds we do not know.
import { type Attributes, type AttributeWriter, readAttributes } from '../../netlink/attributes.ts';
import { NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM } from '../constants.ts';
import { type BitwiseExpr, readBitwise, writeBitwise } from './bitwise.ts';
import { type CmpExpr, readCmp, writeCmp } from './cmp.ts';
import { type CtExpr, readCt, writeCt } from './ct.ts';
import { type FibExpr, readFib, writeFib } from './fib.ts';
import { type ImmediateExpr, readImmediate, writeImmediate } from './immediate.ts';
import { type LookupExpr, readLookup, writeLookup } from './lookup.ts';
import { type MasqExpr, readMasq, writeMasq } from './masq.ts';
import { type MetaExpr, readMeta, writeMeta } from './meta.ts';
import { type NatExpr, readNat, writeNat } from './nat.ts';
import { type PayloadExpr, readPayload, writePayload } from './payload.ts';
import { readXt, type XtExpr } from './xt.ts';

export type Expr = KnownExpr | XtExpr | UnknownExpr;

/** What lower.ts makes. */
export type KnownExpr =
  | BitwiseExpr
  | CmpExpr
  | CtExpr
  | FibExpr
  | ImmediateExpr
  | LookupExpr
  | MasqExpr
  | MetaExpr
  | NatExpr
  | PayloadExpr;

/** An expression of a kind, or in a form, that is not ours: kept as it came. */
export interface UnknownExpr {
  readonly kind: 'unknown';
  readonly name: string;
  readonly data: Uint8Array | undefined;
}

/**
 *     |00036|N-|00001| LIST_ELEM
 *       |00009|--|00001| NAME  "meta\0"
 *       |00020|N-|00002| DATA  …
 */
export function writeExpr(writer: AttributeWriter, expr: KnownExpr): void {
  writer.nest(NFTA_LIST_ELEM, (w) => {
    w.string(NFTA_EXPR_NAME, expr.kind);
    w.nest(NFTA_EXPR_DATA, (inner) => writeKnown(inner, expr));
  });
}

function writeKnown(w: AttributeWriter, expr: KnownExpr): void {
  switch (expr.kind) {
    case 'bitwise':
      writeBitwise(w, expr);
      break;
    case 'cmp':
      writeCmp(w, expr);
      break;
    case 'ct':
      writeCt(w, expr);
      break;
    case 'fib':
      writeFib(w, expr);
      break;
    case 'immediate':
      writeImmediate(w, expr);
      break;
    case 'lookup':
      writeLookup(w, expr);
      break;
    case 'masq':
      writeMasq(w, expr);
      break;
    case 'meta':
      writeMeta(w, expr);
      break;
    case 'nat':
      writeNat(w, expr);
      break;
    case 'payload':
      writePayload(w, expr);
      break;
  }
}

/** Never throws: what cannot be read as one of ours is an unknown expression. */
export function readExpr(attributes: Attributes): Expr {
  const name = attributes.string(NFTA_EXPR_NAME) ?? '';
  const data = attributes.bytes(NFTA_EXPR_DATA);
  return readKnown(name, data) ?? { kind: 'unknown', name, data };
}

function readKnown(name: string, data: Uint8Array | undefined): KnownExpr | XtExpr | undefined {
  if (data === undefined) return undefined;
  try {
    return readNamed(name, readAttributes(data));
  } catch {
    return undefined; // an attribute of another length than ours: a newer form of the expression
  }
}

function readNamed(name: string, a: Attributes): KnownExpr | XtExpr | undefined {
  switch (name) {
    case 'bitwise':
      return readBitwise(a);
    case 'cmp':
      return readCmp(a);
    case 'ct':
      return readCt(a);
    case 'fib':
      return readFib(a);
    case 'immediate':
      return readImmediate(a);
    case 'lookup':
      return readLookup(a);
    case 'masq':
      return readMasq(a);
    case 'meta':
      return readMeta(a);
    case 'nat':
      return readNat(a);
    case 'payload':
      return readPayload(a);
    case 'match':
    case 'target':
      return readXt(name, a);
    default:
      return undefined;
  }
}
