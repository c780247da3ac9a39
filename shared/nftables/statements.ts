// The statements of a rule, written so that they read like nft: `ip.saddr.vmap(MASQUERADE4)`, `iifname.isNot('lo')`,
// `dnat('ip', concat(l4proto, th.dport).map(HOSTPORTS4))`. Plain data without registers: lower.ts makes expressions.
import type { Cidr, Ip } from '../ip/cidr.ts';
import { ipToBytes } from '../ip/cidr.ts';
import {
  NFPROTO_IPV4,
  NFPROTO_IPV6,
  NFT_CT_STATE,
  NFT_CT_STATUS,
  NFT_FIB_RESULT_ADDRTYPE,
  NFT_META_IIFNAME,
  NFT_META_L4PROTO,
  NFT_META_MARK,
  NFT_META_NFPROTO,
  NFT_META_OIFNAME,
  NFT_META_PROTOCOL,
  NFT_PAYLOAD_LL_HEADER,
  NFT_PAYLOAD_NETWORK_HEADER,
  NFT_PAYLOAD_TRANSPORT_HEADER,
  NFTA_FIB_F_DADDR,
  NFTA_FIB_F_SADDR,
} from './constants.ts';
import {
  type AnyProtocol,
  ifnameBytes,
  markBytes,
  portBytes,
  protocolBytes,
  type RawField,
  rawFieldParts,
} from './datatypes.ts';
import type { NftMap, NftSet, Verdict } from './objects.ts';

/** What a selector reads from the packet: `length` bytes from one place. */
export type Load =
  | {
      readonly kind: 'payload';
      readonly base: number;
      readonly offset: number;
      readonly length: number;
      /** The network protocol the bytes belong to; in other packets they mean something else. */
      readonly protocol: 'ip' | 'ip6' | undefined;
    }
  | { readonly kind: 'meta'; readonly key: number; readonly length: number }
  | { readonly kind: 'ct'; readonly key: number; readonly length: number }
  | { readonly kind: 'fib'; readonly result: number; readonly flags: number; readonly length: number };

export type Statement =
  | { readonly kind: 'match'; readonly load: Load; readonly test: Test }
  | { readonly kind: 'in'; readonly loads: readonly Load[]; readonly set: string; readonly negated: boolean }
  | { readonly kind: 'vmap'; readonly loads: readonly Load[]; readonly map: string }
  | { readonly kind: 'dnat'; readonly protocol: 'ip' | 'ip6'; readonly target: MapLookup }
  | { readonly kind: 'dnat-to'; readonly address: Uint8Array; readonly port: Uint8Array }
  | { readonly kind: 'masquerade' }
  | { readonly kind: 'set-mark'; readonly mask: number; readonly xor: number }
  | Verdict;

/** How the bytes read are judged; `mask` is applied first. `bytes` may be a prefix of what the load reads. */
export interface Test {
  readonly op: 'eq' | 'neq';
  readonly mask: Uint8Array | undefined;
  readonly bytes: Uint8Array;
}

export interface MapLookup {
  readonly loads: readonly Load[];
  readonly map: NftMap;
}

/** One or several places of the packet side by side: the left-hand side of a statement. */
export class Selector {
  readonly loads: readonly Load[];

  constructor(loads: readonly Load[]) {
    this.loads = loads;
  }

  /** `… vmap @map`: the map says where the packet goes; nothing happens when it holds no such key. */
  vmap(map: NftMap): Statement {
    return Object.freeze({ kind: 'vmap', loads: this.loads, map: map.name });
  }

  /** `… map @map`, as the argument of `dnat`. */
  map(map: NftMap): MapLookup {
    return Object.freeze({ loads: this.loads, map });
  }

  /** `… @set` */
  in(set: NftSet): Statement {
    return Object.freeze({ kind: 'in', loads: this.loads, set: set.name, negated: false });
  }

  /** `… != @set` */
  notIn(set: NftSet): Statement {
    return Object.freeze({ kind: 'in', loads: this.loads, set: set.name, negated: true });
  }
}

/** `a . b . c` */
export function concat(...selectors: Selector[]): Selector {
  return new Selector(selectors.flatMap((selector) => selector.loads));
}

/** A single place that can be compared; `encode` turns the right-hand side into the bytes found there. */
class Comparable<Value> extends Selector {
  readonly #load: Load;
  readonly #encode: (value: Value) => { bytes: Uint8Array; mask?: Uint8Array | undefined };

  constructor(load: Load, encode: (value: Value) => { bytes: Uint8Array; mask?: Uint8Array | undefined }) {
    super([Object.freeze(load)]);
    this.#load = load;
    this.#encode = encode;
  }

  /** `… value` */
  is(value: Value): Statement {
    return this.#match('eq', value);
  }

  /** `… != value` */
  isNot(value: Value): Statement {
    return this.#match('neq', value);
  }

  #match(op: Test['op'], value: Value): Statement {
    const { bytes, mask } = this.#encode(value);
    return Object.freeze({ kind: 'match', load: this.#load, test: Object.freeze({ op, bytes, mask }) });
  }
}

function address(protocol: 'ip' | 'ip6', offset: number): Comparable<Ip | Cidr> {
  const length = protocol === 'ip' ? 4 : 16;
  const load: Load = { kind: 'payload', base: NFT_PAYLOAD_NETWORK_HEADER, offset, length, protocol };
  return new Comparable(load, (value) => encodeAddress(value, length));
}

/** Whole bytes of a prefix are compared as they are; only what is left of them needs a mask (as nft does it). */
function encodeAddress(
  value: Ip | Cidr,
  length: number,
): { bytes: Uint8Array; mask?: Uint8Array | undefined } {
  const bytes = ipToBytes('ip' in value ? value.ip : value);
  if (bytes.length !== length)
    throw new Error(`Cannot match an address of ${bytes.length} bytes, not ${length}`);
  const prefix = 'ip' in value ? value.prefix : 8 * length;
  if (prefix === 8 * length) return { bytes };
  const mask = bytes.map((_byte, index) => 0xff & (0xff00 >> Math.min(8, Math.max(0, prefix - 8 * index))));
  const network = bytes.map((byte, index) => byte & (mask[index] ?? 0));
  return prefix > 0 && prefix % 8 === 0
    ? { bytes: network.subarray(0, prefix / 8) }
    : { bytes: network, mask };
}

/** `ip saddr`, `ip daddr`: an address, or a prefix whose host bits are ignored. */
export const ip = { saddr: address('ip', 12), daddr: address('ip', 16) };
/** `ip6 saddr`, `ip6 daddr` */
export const ip6 = { saddr: address('ip6', 8), daddr: address('ip6', 24) };

/** `ether saddr` */
export const ether = {
  saddr: new Comparable<Uint8Array>(
    { kind: 'payload', base: NFT_PAYLOAD_LL_HEADER, offset: 6, length: 6, protocol: undefined },
    (value) => ({ bytes: value }),
  ),
};

/**
 * `@th,64,128`: bits of the packet by their place, compared as a number. Test first what the packet is: nothing else
 * gives them a meaning.
 */
export function raw(field: RawField): Comparable<bigint> {
  const { header, offset, length } = rawFieldParts(field);
  const base = header === 'nh' ? NFT_PAYLOAD_NETWORK_HEADER : NFT_PAYLOAD_TRANSPORT_HEADER;
  const load: Load = { kind: 'payload', base, offset, length, protocol: undefined };
  return new Comparable(load, (value) => ({
    bytes: Buffer.from(value.toString(16).padStart(2 * length, '0'), 'hex'),
  }));
}

function port(offset: number): Comparable<number> {
  const base = NFT_PAYLOAD_TRANSPORT_HEADER;
  const load: Load = { kind: 'payload', base, offset, length: 2, protocol: undefined };
  return new Comparable(load, (value) => ({ bytes: portBytes(value) }));
}

/** `th sport`, `th dport`: the ports of tcp, udp and sctp. Test `l4proto` too: other protocols have no ports there. */
export const th = { sport: port(0), dport: port(2) };

/** The EtherTypes of linux/if_ether.h that a rule asks for. */
const ETHER_TYPES = { ip: 0x0800, arp: 0x0806, '8021q': 0x8100, ip6: 0x86dd, '8021ad': 0x88a8 } as const;

/**
 * `meta protocol`: what an Ethernet frame carries. The kernel has taken a VLAN tag off by then, so this is what stands
 * behind it; the value is that of a tag only where there is a second one.
 */
export const protocol = new Comparable<keyof typeof ETHER_TYPES>(
  { kind: 'meta', key: NFT_META_PROTOCOL, length: 2 },
  (value) => ({ bytes: portBytes(ETHER_TYPES[value]) }),
);

/** `meta l4proto` */
export const l4proto = new Comparable<AnyProtocol>(
  { kind: 'meta', key: NFT_META_L4PROTO, length: 1 },
  (value) => ({
    bytes: protocolBytes(value),
  }),
);

/** `meta nfproto` */
export const nfproto = new Comparable<'ipv4' | 'ipv6'>(
  { kind: 'meta', key: NFT_META_NFPROTO, length: 1 },
  (value) => ({ bytes: Uint8Array.of(value === 'ipv4' ? NFPROTO_IPV4 : NFPROTO_IPV6) }),
);

class LinkName extends Comparable<string> {
  readonly #key: number;

  constructor(key: number) {
    super({ kind: 'meta', key, length: 16 }, (name) => ({ bytes: ifnameBytes(name) }));
    this.#key = key;
  }

  /** `iifname "cni*"`, or `iifname != "cni*"` */
  startsWith(prefix: string, { negated } = { negated: false }): Statement {
    const bytes = ifnameBytes(prefix).subarray(0, Buffer.byteLength(prefix));
    const load: Load = { kind: 'meta', key: this.#key, length: 16 };
    const test: Test = Object.freeze({ op: negated ? 'neq' : 'eq', bytes, mask: undefined });
    return Object.freeze({ kind: 'match', load, test });
  }
}

/** `iifname`: the name of the link a packet came in by, compared as text, so the link need not exist. */
export const iifname = new LinkName(NFT_META_IIFNAME);
/** `oifname` */
export const oifname = new LinkName(NFT_META_OIFNAME);

const MARK: Load = { kind: 'meta', key: NFT_META_MARK, length: 4 };

class Mark extends Comparable<number> {
  constructor() {
    super(MARK, (value) => ({ bytes: markBytes(value) }));
  }

  /** `meta mark & bits == bits` */
  has(bits: number): Statement {
    const bytes = markBytes(bits);
    return Object.freeze({
      kind: 'match',
      load: MARK,
      test: Object.freeze({ op: 'eq', bytes, mask: bytes }),
    });
  }

  /** `meta mark set value` */
  set(value: number): Statement {
    return Object.freeze({ kind: 'set-mark', mask: 0, xor: value });
  }

  /** `meta mark set meta mark | bits`: the other bits stay as they are. */
  or(bits: number): Statement {
    return Object.freeze({ kind: 'set-mark', mask: ~bits >>> 0, xor: bits });
  }
}

/** `meta mark` */
export const mark = new Mark();

/** The route types of linux/rtnetlink.h that a rule asks for (RTN_*). */
const ROUTE_TYPES = { unicast: 1, local: 2, broadcast: 3, multicast: 5 } as const;

function addressType(flags: number): Comparable<keyof typeof ROUTE_TYPES> {
  const load: Load = { kind: 'fib', result: NFT_FIB_RESULT_ADDRTYPE, flags, length: 4 };
  return new Comparable(load, (type) => ({ bytes: hostOrder32(ROUTE_TYPES[type]) }));
}

/** `fib saddr type`, `fib daddr type`: what the routing tables say of an address. */
export const fib = { saddrType: addressType(NFTA_FIB_F_SADDR), daddrType: addressType(NFTA_FIB_F_DADDR) };

/** Bits of enum ip_conntrack_status, linux/netfilter/nf_conntrack_common.h. */
const CT_STATUS = { snat: 1 << 4, dnat: 1 << 5 } as const;

/** NF_CT_STATE_BIT of enum ip_conntrack_info, linux/netfilter/nf_conntrack_common.h. */
const CT_STATES = { established: 1 << 1, related: 1 << 2, new: 1 << 3 } as const;

/** `ct state established,related`, `ct status dnat`: what is known of the flow this packet belongs to. */
export const ct = {
  state: {
    /** Any of the states. */
    isAnyOf(...states: readonly (keyof typeof CT_STATES)[]): Statement {
      return hasAnyBit(
        NFT_CT_STATE,
        states.reduce((bits, state) => bits | CT_STATES[state], 0),
      );
    },
  },
  status: {
    has(status: keyof typeof CT_STATUS): Statement {
      return hasAnyBit(NFT_CT_STATUS, CT_STATUS[status]);
    },
  },
};

function hasAnyBit(key: number, bits: number): Statement {
  const load: Load = { kind: 'ct', key, length: 4 };
  const test: Test = Object.freeze({ op: 'neq', mask: hostOrder32(bits), bytes: new Uint8Array(4) });
  return Object.freeze({ kind: 'match', load, test });
}

/** Marks, route types and conntrack bits stand in registers as one u32 in host order. */
function hostOrder32(value: number): Uint8Array {
  return markBytes(value);
}

/** `dnat ip to … map @map`: rewrites the destination to the address, or address and port, the map holds for the key. */
export function dnat(protocol: 'ip' | 'ip6', target: MapLookup): Statement {
  return Object.freeze({ kind: 'dnat', protocol, target });
}

/** `dnat ip to 10.22.0.2:80`: the same with one address and port for all. */
export function dnatTo(address: Ip, port: number): Statement {
  return Object.freeze({ kind: 'dnat-to', address: ipToBytes(address), port: portBytes(port) });
}

/** `masquerade`: rewrites the source to the address of the link the packet leaves by. */
export function masquerade(): Statement {
  return Object.freeze({ kind: 'masquerade' });
}

/** `accept` */
export function accept(): Verdict {
  return verdict('accept');
}

/** `drop` */
export function drop(): Verdict {
  return verdict('drop');
}

/** `return`: back to the rule after the jump, or to the policy of a base chain. */
export function return_(): Verdict {
  return verdict('return');
}

/** `jump chain`: a `return` in it comes back here. */
export function jump(chain: { readonly name: string }): Verdict {
  return verdict('jump', chain.name);
}

/** `goto chain`: never comes back here. */
export function goto(chain: { readonly name: string }): Verdict {
  return verdict('goto', chain.name);
}

function verdict(code: Verdict['code'], chain?: string): Verdict {
  return Object.freeze({ kind: 'verdict', code, chain });
}
