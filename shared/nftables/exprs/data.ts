// The value expressions and set elements carry: bytes for a register, or a verdict. `struct nft_data` of the kernel.
// Written and read by cmp, bitwise and immediate here, and by the element parts of encode.ts and decode.ts.
import type { Attributes, AttributeWriter } from '../../netlink/attributes.ts';
import {
  NF_ACCEPT,
  NF_DROP,
  NFT_BREAK,
  NFT_CONTINUE,
  NFT_GOTO,
  NFT_JUMP,
  NFT_RETURN,
  NFTA_DATA_VALUE,
  NFTA_DATA_VERDICT,
  NFTA_VERDICT_CHAIN,
  NFTA_VERDICT_CODE,
} from '../constants.ts';
import type { Verdict } from '../objects.ts';

/**
 *     value                          verdict
 *     |00012|N-|00003| <type>        |00024|N-|00002| <type>
 *       |00008|--|00001| VALUE         |00020|N-|00002| VERDICT
 *       | 0a 16 00 02 |                  |00008|--|00001| CODE    ff ff ff fd (jump)
 *                                        |00006|--|00002| CHAIN   "c\0"
 */
export function writeData(writer: AttributeWriter, type: number, data: Uint8Array | Verdict): void {
  writer.nest(type, (w) => {
    if (data instanceof Uint8Array) w.bytes(NFTA_DATA_VALUE, data);
    else writeVerdict(w, data);
  });
}

function writeVerdict(writer: AttributeWriter, verdict: Verdict): void {
  writer.nest(NFTA_DATA_VERDICT, (w) => {
    w.u32be(NFTA_VERDICT_CODE, CODES[verdict.code] >>> 0);
    if (verdict.chain !== undefined) w.string(NFTA_VERDICT_CHAIN, verdict.chain);
  });
}

/** The verdict codes of linux/netfilter.h and enum nft_verdicts. */
const CODES: Readonly<Record<Verdict['code'], number>> = {
  drop: NF_DROP,
  accept: NF_ACCEPT,
  continue: NFT_CONTINUE,
  break: NFT_BREAK,
  jump: NFT_JUMP,
  goto: NFT_GOTO,
  return: NFT_RETURN,
};

/** The data in a nest, undefined when there is none or it is of a kind we do not know (queue, stolen). */
export function readData(attributes: Attributes | undefined): Uint8Array | Verdict | undefined {
  const value = attributes?.bytes(NFTA_DATA_VALUE);
  if (value !== undefined) return value;
  const verdict = attributes?.nest(NFTA_DATA_VERDICT);
  const code = verdict?.u32be(NFTA_VERDICT_CODE);
  if (verdict === undefined || code === undefined) return undefined;
  return verdictOf(code, verdict.string(NFTA_VERDICT_CHAIN));
}

/** The verdict with a code as it stands on the wire, undefined when it is none of ours. */
export function verdictOf(code: number, chain: string | undefined): Verdict | undefined {
  const name = codeName(code | 0);
  return name && { kind: 'verdict', code: name, chain };
}

/** Like `readData`, for places that cannot hold a verdict. */
export function readValue(attributes: Attributes | undefined): Uint8Array | undefined {
  return attributes?.bytes(NFTA_DATA_VALUE);
}

function codeName(code: number): Verdict['code'] | undefined {
  switch (code) {
    case NF_DROP:
      return 'drop';
    case NF_ACCEPT:
      return 'accept';
    case NFT_CONTINUE:
      return 'continue';
    case NFT_BREAK:
      return 'break';
    case NFT_JUMP:
      return 'jump';
    case NFT_GOTO:
      return 'goto';
    case NFT_RETURN:
      return 'return';
    default:
      return undefined;
  }
}
