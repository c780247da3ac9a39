// Expressions as `nft --debug=netlink` prints them, so that a rule of ours and one of nft's can be compared line by line.
// Only tests and people who debug call it. Source: libnftnl 1.2.4 (Debian bookworm), src/expr/*.c, *_snprintf.
import { HOST_LITTLE_ENDIAN, viewOf } from '../netlink/bytes.ts';
import {
  NFPROTO_IPV4,
  NFT_FIB_RESULT_ADDRTYPE,
  NFT_FIB_RESULT_OIF,
  NFT_FIB_RESULT_OIFNAME,
  NFT_NAT_SNAT,
  NFTA_FIB_F_DADDR,
  NFTA_FIB_F_IIF,
  NFTA_FIB_F_MARK,
  NFTA_FIB_F_OIF,
  NFTA_FIB_F_PRESENT,
  NFTA_FIB_F_SADDR,
} from './constants.ts';
import type { Expr } from './exprs/expr.ts';
import type { FibExpr } from './exprs/fib.ts';
import type { NatExpr } from './exprs/nat.ts';
import type { Verdict } from './objects.ts';

/** One line for each expression: `[ payload load 4b @ network header + 12 => reg 1 ]`. */
export function formatExprs(exprs: readonly Expr[]): string[] {
  return exprs.map((expr) => `[ ${formatExpr(expr)} ]`);
}

function formatExpr(expr: Expr): string {
  switch (expr.kind) {
    case 'bitwise':
      return `bitwise reg ${expr.dreg} = ( reg ${expr.sreg} & ${words(expr.mask)} ) ^ ${words(expr.xor)}`;
    case 'cmp':
      return `cmp ${named(CMP_OPS, expr.op)} reg ${expr.sreg} ${words(expr.data)}`;
    case 'ct':
      return `ct load ${named(CT_KEYS, expr.key)} => reg ${expr.dreg}${expr.direction === undefined ? '' : `, dir ${named(['original', 'reply'], expr.direction)}`}`;
    case 'fib':
      return formatFib(expr);
    case 'immediate':
      return `immediate reg ${expr.dreg} ${formatData(expr.data)}`;
    case 'lookup':
      return `lookup reg ${expr.sreg} set ${expr.set}${optional('dreg', expr.dreg)}${hex(expr.flags)}`;
    case 'masq':
      return `masq${optional('proto_min reg', expr.protoMin)}${optional('proto_max reg', expr.protoMax)}${hex(expr.flags, 'flags ')}`;
    case 'meta':
      return expr.dreg === undefined
        ? `meta set ${named(META_KEYS, expr.key)} with reg ${expr.sreg}`
        : `meta load ${named(META_KEYS, expr.key)} => reg ${expr.dreg}`;
    case 'nat':
      return formatNat(expr);
    case 'payload':
      return `payload load ${expr.length}b @ ${named(BASES, expr.base)} header + ${expr.offset} => reg ${expr.dreg}`;
    case 'xt':
      return `${expr.role} name ${expr.name} rev ${expr.revision}`;
    case 'unknown':
      return `${expr.name} ?`;
  }
}

function formatFib(expr: FibExpr): string {
  const flags = FIB_FLAGS.flatMap(([bit, name]) => ((expr.flags & bit) === 0 ? [] : [name])).join(' . ');
  const present = (expr.flags & NFTA_FIB_F_PRESENT) === 0 ? '' : ' present';
  return `fib ${flags} ${FIB_RESULTS[expr.result] ?? '?'}${present} => reg ${expr.dreg}`;
}

function formatNat(expr: NatExpr): string {
  const type = expr.type === NFT_NAT_SNAT ? 'snat' : 'dnat';
  const family = expr.family === NFPROTO_IPV4 ? 'ip' : 'ip6';
  const registers =
    optional('addr_min reg', expr.addrMin) +
    optional('addr_max reg', expr.addrMax) +
    optional('proto_min reg', expr.protoMin) +
    optional('proto_max reg', expr.protoMax);
  return `nat ${type} ${family}${registers}${hex(expr.flags, 'flags ')}`;
}

function formatData(data: Uint8Array | Verdict): string {
  if (data instanceof Uint8Array) return words(data);
  return data.chain === undefined ? data.code : `${data.code} -> ${data.chain}`;
}

/** Registers as the numbers this machine sees in them, 32 bits each. */
function words(bytes: Uint8Array): string {
  const padded = new Uint8Array(Math.max(4, (bytes.length + 3) & ~3));
  padded.set(bytes);
  const view = viewOf(padded);
  const numbers: string[] = [];
  for (let offset = 0; offset < padded.length; offset += 4) {
    numbers.push(`0x${view.getUint32(offset, HOST_LITTLE_ENDIAN).toString(16).padStart(8, '0')}`);
  }
  return numbers.join(' ');
}

function optional(label: string, register: number | undefined): string {
  return register === undefined ? '' : ` ${label} ${register}`;
}

function hex(flags: number | undefined, label = ''): string {
  return flags === undefined ? '' : ` ${label}0x${flags.toString(16)}`;
}

function named(names: readonly string[], number: number): string {
  return names[number] ?? String(number);
}

const CMP_OPS = ['eq', 'neq', 'lt', 'lte', 'gt', 'gte'];
const BASES = ['link', 'network', 'transport', 'inner'];
const CT_KEYS = ['state', 'direction', 'status', 'mark', 'secmark', 'expiration', 'helper', 'l3protocol'];
const META_KEYS =
  'len protocol priority mark iif oif iifname oifname iiftype oiftype skuid skgid nftrace rtclassid secmark nfproto l4proto'.split(
    ' ',
  );
const FIB_RESULTS: Readonly<Record<number, string>> = {
  [NFT_FIB_RESULT_OIF]: 'oif',
  [NFT_FIB_RESULT_OIFNAME]: 'oifname',
  [NFT_FIB_RESULT_ADDRTYPE]: 'type',
};
const FIB_FLAGS: readonly (readonly [number, string])[] = [
  [NFTA_FIB_F_SADDR, 'saddr'],
  [NFTA_FIB_F_DADDR, 'daddr'],
  [NFTA_FIB_F_MARK, 'mark'],
  [NFTA_FIB_F_IIF, 'iif'],
  [NFTA_FIB_F_OIF, 'oif'],
];
