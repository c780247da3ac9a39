// Turns the statements of a rule into the expressions the kernel runs: the one place that picks registers.
// encode.ts calls it for each rule; the order and the registers are nft's own, so that `nft list` understands them.
import { align } from '../netlink/bytes.ts';
import {
  NFPROTO_IPV4,
  NFPROTO_IPV6,
  NFT_CMP_EQ,
  NFT_CMP_NEQ,
  NFT_LOOKUP_F_INV,
  NFT_META_MARK,
  NFT_META_NFPROTO,
  NFT_META_PROTOCOL,
  NFT_NAT_DNAT,
  NFT_REG_1,
  NFT_REG_2,
  NFT_REG_VERDICT,
  NFT_REG32_00,
} from './constants.ts';
import { type Datatype, datatypeFacts, markBytes } from './datatypes.ts';
import type { KnownExpr } from './exprs/expr.ts';
import type { TableFamily } from './objects.ts';
import type { Load, MapLookup, Statement, Test } from './statements.ts';

/**
 * The program of a rule in a table of `family`. Pure.
 * Throws when a statement cannot stand there: an IPv6 match in a table of IPv4, a `dnat` to something without address.
 */
export function lowerStatements(statements: readonly Statement[], family: TableFamily): KnownExpr[] {
  const program: Program = {
    exprs: [],
    family,
    protocol: family === 'ip' || family === 'ip6' ? family : undefined,
  };
  for (const statement of statements) lowerStatement(program, statement);
  return program.exprs;
}

interface Program {
  readonly exprs: KnownExpr[];
  readonly family: TableFamily;
  /** The network protocol every packet has that comes this far. */
  protocol: 'ip' | 'ip6' | undefined;
}

function lowerStatement(program: Program, statement: Statement): void {
  const { exprs } = program;
  switch (statement.kind) {
    case 'match':
      lowerMatch(program, statement.load, statement.test);
      break;
    case 'in': {
      loadKey(program, statement.loads);
      const flags = statement.negated ? NFT_LOOKUP_F_INV : undefined;
      exprs.push({ kind: 'lookup', sreg: NFT_REG_1, set: statement.set, dreg: undefined, flags });
      break;
    }
    case 'vmap':
      loadKey(program, statement.loads);
      exprs.push(lookupInto(NFT_REG_VERDICT, statement.map));
      break;
    case 'dnat':
      lowerDnat(program, statement.protocol, statement.target);
      break;
    case 'dnat-to':
      lowerDnatTo(program, statement.address, statement.port);
      break;
    case 'masquerade':
      exprs.push({ kind: 'masq', flags: undefined, protoMin: undefined, protoMax: undefined });
      break;
    case 'set-mark':
      lowerSetMark(program, statement.mask, statement.xor);
      break;
    case 'verdict':
      exprs.push({ kind: 'immediate', dreg: NFT_REG_VERDICT, data: statement });
      break;
  }
}

function lowerMatch(program: Program, load: Load, test: Test): void {
  const { exprs } = program;
  const op = test.op === 'eq' ? NFT_CMP_EQ : NFT_CMP_NEQ;
  requireProtocol(program, load);
  // Of a packet no more is read than is compared. A link name is read whole: that is how `meta` gives it.
  exprs.push(loadInto(NFT_REG_1, load.kind === 'payload' ? { ...load, length: test.bytes.length } : load));
  if (test.mask !== undefined) {
    const xor = new Uint8Array(test.mask.length);
    exprs.push({ kind: 'bitwise', sreg: NFT_REG_1, dreg: NFT_REG_1, mask: test.mask, xor });
  }
  exprs.push({ kind: 'cmp', sreg: NFT_REG_1, op, data: test.bytes });
}

function lowerSetMark(program: Program, mask: number, xor: number): void {
  const { exprs } = program;
  if (mask === 0) {
    exprs.push({ kind: 'immediate', dreg: NFT_REG_1, data: markBytes(xor) });
  } else {
    exprs.push({ kind: 'meta', key: NFT_META_MARK, dreg: NFT_REG_1, sreg: undefined });
    const masks = { mask: markBytes(mask), xor: markBytes(xor) };
    exprs.push({ kind: 'bitwise', sreg: NFT_REG_1, dreg: NFT_REG_1, ...masks });
  }
  exprs.push({ kind: 'meta', key: NFT_META_MARK, dreg: undefined, sreg: NFT_REG_1 });
}

/** The map's data replaces the key from register 1 on: the address first, the port in the next free 32 bits. */
function lowerDnat(program: Program, protocol: 'ip' | 'ip6', target: MapLookup): void {
  const { loads, map } = target;
  const fields: readonly Datatype[] = map.data === 'verdict' ? [] : map.data;
  const [address, port] = fields;
  const portFits = port === undefined || port === 'inet_service';
  if (address !== (protocol === 'ip' ? 'ipv4_addr' : 'ipv6_addr') || !portFits || fields.length > 2) {
    throw new Error(`Cannot dnat ${protocol} to what map "${map.name}" holds`);
  }
  loadKey(program, loads);
  program.exprs.push(lookupInto(NFT_REG_1, map.name));
  program.exprs.push({
    kind: 'nat',
    type: NFT_NAT_DNAT,
    family: protocol === 'ip' ? NFPROTO_IPV4 : NFPROTO_IPV6,
    addrMin: NFT_REG_1,
    addrMax: undefined,
    protoMin: port === undefined ? undefined : registerAt(datatypeFacts(address).length),
    protoMax: undefined,
    flags: undefined,
  });
}

/** As nft lays it out: the address in register 1, the port in register 2. */
function lowerDnatTo(program: Program, address: Uint8Array, port: Uint8Array): void {
  program.exprs.push({ kind: 'immediate', dreg: NFT_REG_1, data: address });
  program.exprs.push({ kind: 'immediate', dreg: NFT_REG_2, data: port });
  program.exprs.push({
    kind: 'nat',
    type: NFT_NAT_DNAT,
    family: address.length === 4 ? NFPROTO_IPV4 : NFPROTO_IPV6,
    addrMin: NFT_REG_1,
    addrMax: undefined,
    protoMin: NFT_REG_2,
    protoMax: undefined,
    flags: undefined,
  });
}

function lookupInto(dreg: number, map: string): KnownExpr {
  return { kind: 'lookup', sreg: NFT_REG_1, set: map, dreg, flags: undefined };
}

/** Loads the fields of a key side by side from register 1 on, each from a 32-bit boundary. */
function loadKey(program: Program, loads: readonly Load[]): void {
  let offset = 0;
  for (const load of loads) requireProtocol(program, load); // first: that takes register 1 too
  for (const load of loads) {
    program.exprs.push(loadInto(registerAt(offset), load));
    offset += align(load.length);
  }
  if (offset > REGISTERS_BYTES)
    throw new Error(`Cannot load a key of ${offset} bytes, ${REGISTERS_BYTES} at most`);
}

/** NFT_REG32_COUNT * NFT_REG32_SIZE */
const REGISTERS_BYTES = 64;

/**
 * The number of the register at a byte offset. The 64 bytes have two names, four registers of 16 bytes (1 to 4) and
 * sixteen of 4 bytes (8 to 23); nft and the kernel's dump use the first where both would do.
 */
function registerAt(offset: number): number {
  return offset % 16 === 0 ? NFT_REG_1 + offset / 16 : NFT_REG32_00 + offset / 4;
}

function loadInto(dreg: number, load: Load): KnownExpr {
  switch (load.kind) {
    case 'payload':
      return { kind: 'payload', dreg, base: load.base, offset: load.offset, length: load.length };
    case 'meta':
      return { kind: 'meta', key: load.key, dreg, sreg: undefined };
    case 'ct':
      return { kind: 'ct', key: load.key, dreg, direction: undefined };
    case 'fib':
      return { kind: 'fib', dreg, result: load.result, flags: load.flags };
  }
}

/**
 * Before the first read of an IPv4 or IPv6 header in a table that sees both, a test that the packet has one. nft
 * writes it so and leaves it out when it lists the rule.
 */
function requireProtocol(program: Program, load: Load): void {
  if (load.kind !== 'payload' || load.protocol === undefined || load.protocol === program.protocol) return;
  const { family, exprs } = program;
  if (program.protocol !== undefined)
    throw new Error(`Cannot match ${load.protocol} in a rule for ${program.protocol}`);
  const isIpv4 = load.protocol === 'ip';
  if (family === 'inet') {
    const data = Uint8Array.of(isIpv4 ? NFPROTO_IPV4 : NFPROTO_IPV6);
    exprs.push({ kind: 'meta', key: NFT_META_NFPROTO, dreg: NFT_REG_1, sreg: undefined });
    exprs.push({ kind: 'cmp', sreg: NFT_REG_1, op: NFT_CMP_EQ, data });
  } else {
    const data = isIpv4 ? Uint8Array.of(0x08, 0x00) : Uint8Array.of(0x86, 0xdd); // ETH_P_IP, ETH_P_IPV6
    exprs.push({ kind: 'meta', key: NFT_META_PROTOCOL, dreg: NFT_REG_1, sreg: undefined });
    exprs.push({ kind: 'cmp', sreg: NFT_REG_1, op: NFT_CMP_EQ, data });
  }
  program.protocol = load.protocol;
}
