// What the structures of iptables' own matches and targets say, as far as anybody of ours asks. Called by those who look
// for ports that others publish; pure. Numbers are in the order of this machine unless a header says otherwise.
import type { Family } from '../ip/cidr.ts';
import { decodeText, HOST_LITTLE_ENDIAN, viewOf } from '../netlink/bytes.ts';
import type { Expr } from './exprs/expr.ts';
import type { XtExpr, XtRole } from './exprs/xt.ts';

/** The text of `-m comment`, linux/netfilter/xt_comment.h. */
export function readXtComment(exprs: readonly Expr[]): string | undefined {
  const found = find(exprs, 'match', ['comment']);
  return found && decodeText(found.info);
}

/**
 * The ports of `-m multiport --dports`, none when it asks for something else: struct xt_multiport_v1 of
 * linux/netfilter/xt_multiport.h, with `flags`, `count` and 15 ports; revision 0 begins alike.
 */
export function readXtMultiport(exprs: readonly Expr[]): number[] {
  const info = find(exprs, 'match', ['multiport'])?.info;
  const ports = Array.from({ length: info?.[1] ?? 0 }, (_, index) => u16(info, 2 + 2 * index));
  return info?.[0] === XT_MULTIPORT_DESTINATION ? ports.filter((port) => port !== undefined) : [];
}

const XT_MULTIPORT_DESTINATION = 1;

/** Where the range of destination ports begins in struct xt_tcp, xt_udp (xt_tcpudp.h) and xt_sctp_info (xt_sctp.h). */
const DESTINATION_PORTS: Readonly<Record<string, number>> = { tcp: 4, udp: 4, sctp: 0 };

/** The port of `-m tcp --dport`, of udp and sctp likewise; undefined for several. */
export function readXtPort(exprs: readonly Expr[]): number | undefined {
  const found = find(exprs, 'match', Object.keys(DESTINATION_PORTS));
  const at = DESTINATION_PORTS[found?.name ?? ''] ?? 0;
  const port = u16(found?.info, at);
  return port === u16(found?.info, at + 2) ? port : undefined;
}

/**
 * The address of `-j DNAT --to-destination`: struct nf_nat_range of linux/netfilter/nf_nat.h, `flags` and then the range
 * of addresses, 16 bytes each. Revision 0, which is of IPv4 alone, counts its ranges first.
 */
export function readXtDnat(exprs: readonly Expr[], family: Family): Uint8Array | undefined {
  const found = find(exprs, 'target', ['DNAT']);
  const at = found?.revision === 0 ? 8 : 4;
  const address = found?.info.subarray(at, at + ADDRESS_BYTES[family]);
  return address?.length === ADDRESS_BYTES[family] ? address : undefined;
}

const ADDRESS_BYTES: Readonly<Record<Family, 4 | 16>> = { 4: 4, 6: 16 };

function find(exprs: readonly Expr[], role: XtRole, names: readonly string[]): XtExpr | undefined {
  const found = exprs.find((expr) => expr.kind === 'xt' && expr.role === role && names.includes(expr.name));
  return found?.kind === 'xt' ? found : undefined;
}

function u16(bytes: Uint8Array | undefined, at: number): number | undefined {
  if (bytes === undefined || bytes.length < at + 2) return undefined;
  return viewOf(bytes).getUint16(at, HOST_LITTLE_ENDIAN);
}
