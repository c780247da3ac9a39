// Host ports that somebody publishes in the reference's formats: in chains of iptables, as nf_tables shows them, and in
// rules of its nftables backend. Called by portmap before it publishes a port; reads over netlink and runs no program.

import { type Family, type Ip, ipEquals, ipFromBytes } from '../ip/cidr.ts';
import { type ConditionList, readConditions, readPort } from '../nftables/conditions.ts';
import type { Protocol } from '../nftables/datatypes.ts';
import { decodeExprs } from '../nftables/decode.ts';
import type { Expr } from '../nftables/exprs/expr.ts';
import type { Nftables, RuleFact } from '../nftables/nftables.ts';
import { readXtComment, readXtDnat, readXtMultiport, readXtPort } from '../nftables/xt.ts';
import { type ChainOwner, hostportsComment, isHostportsChain, ownerInHostportsComment } from './names.ts';
import { listReferencePorts } from './reference-hostports.ts';

/** A port of the host, and which packets are taken. */
export interface ForeignPort {
  readonly family: Family;
  readonly protocol: Protocol;
  /** What a rule says of local addresses is among its conditions. */
  readonly hostIp: undefined;
  readonly hostPort: number;
  readonly conditions: readonly ConditionList[];
  /** The container's address, where it can be told. */
  readonly target: Ip | undefined;
  /** Whose it is and where, as the end of a sentence. */
  readonly holder: string;
  /** The container's id, where it can be told. */
  readonly containerId: string | undefined;
  readonly node: RuleFact | IptablesChain;
}

/** A chain in a nat table of nf_tables that iptables made. */
export interface IptablesChain {
  readonly kind: 'iptables-chain';
  readonly family: Family;
  readonly name: string;
}

export interface ForeignPorts {
  /** Those of others that have a number and protocol of the wanted ones. */
  readonly ports: readonly ForeignPort[];
  /** What an earlier ADD left in these formats for the owner itself. */
  readonly own: readonly (RuleFact | IptablesChain)[];
}

/** Who asks. */
export interface PortSeeker extends ChainOwner {
  /** The reference's rules name the container alone; on this network it has these. */
  readonly addresses: readonly Ip[];
}

/**
 * What others publish on one of the wanted ports. Costs one question on a host where neither iptables nor the reference
 * has a table, and never reads a chain of anybody else, however many rules it has. What the legacy iptables holds is
 * invisible here.
 */
export function listForeignPorts(
  nft: Nftables,
  seeker: PortSeeker,
  wanted: readonly Pick<ForeignPort, 'family' | 'protocol' | 'hostPort'>[],
): ForeignPorts {
  const present = new Set(nft.listTables().map(({ family, name }) => `${family} ${name}`));
  const keys = new Set(wanted.map(keyOf));
  const found = ([4, 6] as const).flatMap((family) => {
    const protocol = family === 4 ? 'ip' : 'ip6';
    return [
      ...(present.has(`${protocol} cni_hostport`) ? [listReferenceHolders(nft, seeker, family)] : []),
      ...(present.has(`${protocol} nat`) ? [listIptablesHolders(nft, seeker, family, keys)] : []),
    ];
  });
  return {
    ports: found.flatMap(({ ports }) => ports).filter((port) => keys.has(keyOf(port))),
    own: found.flatMap(({ own }) => own),
  };
}

function keyOf({
  family,
  protocol,
  hostPort,
}: Pick<ForeignPort, 'family' | 'protocol' | 'hostPort'>): string {
  return `${family} ${protocol} ${hostPort}`;
}

function listReferenceHolders(nft: Nftables, seeker: PortSeeker, family: Family): ForeignPorts {
  const found = listReferencePorts(nft, family);
  const isOwn = ({ rule, target }: (typeof found)[number]) =>
    rule.comment === seeker.containerId &&
    seeker.addresses.some((ip) => target !== undefined && ipEquals(ip, target));
  const ports = found
    .filter((port) => !isOwn(port))
    .flatMap(({ rule, ...port }): ForeignPort[] => {
      if (port.protocol === undefined || port.hostPort === undefined) return [];
      const { protocol, hostPort, target, conditions } = port;
      const holder = `to container "${rule.comment ?? ''}" in table "${rule.chain.table.family} cni_hostport"`;
      return [
        {
          family,
          protocol,
          hostPort,
          hostIp: undefined,
          conditions: [conditions],
          target,
          holder,
          containerId: rule.comment,
          node: rule,
        },
      ];
    });
  return { ports, own: found.filter(isOwn).map(({ rule }) => rule) };
}

const DNAT = 'CNI-HOSTPORT-DNAT';

/** A rule that sends the packets for some ports to the chain of a container. */
interface Jump {
  readonly chain: string;
  readonly comment: string | undefined;
  readonly protocol: Protocol | undefined;
  readonly ports: readonly number[];
  readonly conditions: ConditionList;
}

function listIptablesHolders(
  nft: Nftables,
  seeker: PortSeeker,
  family: Family,
  wanted: ReadonlySet<string>,
): ForeignPorts {
  const table = { family: family === 4 ? ('ip' as const) : ('ip6' as const), name: 'nat' };
  const jumps = nft.listRules({ table, chain: DNAT }).flatMap((rule) => decodeJump(rule, family) ?? []);
  if (jumps.length === 0) return { ports: [], own: [] };
  const ownComment = hostportsComment(seeker);
  const own = new Set(jumps.filter(({ comment }) => comment === ownComment).map(({ chain }) => chain));
  const rivals = jumps.filter(
    ({ chain, protocol, ports }) =>
      !own.has(chain) &&
      protocol !== undefined &&
      ports.some((hostPort) => wanted.has(keyOf({ family, protocol, hostPort }))),
  );
  const ports = [...Map.groupBy(rivals, ({ chain }) => chain)].flatMap(([name, toIt]) => {
    const rules = nft.listRules({ table, chain: name });
    return toIt.flatMap((jump) => rules.flatMap((rule) => decodePort(rule, family, jump) ?? []));
  });
  return { ports, own: [...own].map((name) => ({ kind: 'iptables-chain', family, name })) };
}

function decodeJump(rule: RuleFact, family: Family): Jump | undefined {
  const exprs = decodeExprs(rule.program);
  const chain = jumpTarget(exprs);
  if (chain === undefined || !isHostportsChain(chain)) return undefined;
  return {
    chain,
    comment: rule.comment ?? readXtComment(exprs),
    protocol: readPort(exprs).protocol,
    ports: readXtMultiport(exprs),
    conditions: readConditions(exprs, family),
  };
}

function jumpTarget(exprs: readonly Expr[]): string | undefined {
  const verdict = exprs.find((expr) => expr.kind === 'immediate' && 'kind' in expr.data);
  return verdict?.kind === 'immediate' && 'kind' in verdict.data ? verdict.data.chain : undefined;
}

/** A rule that translates; those that mark packets for masquerading stand beside it. */
function decodePort(rule: RuleFact, family: Family, jump: Jump): ForeignPort | undefined {
  const exprs = decodeExprs(rule.program);
  const address = readXtDnat(exprs, family);
  const { protocol, port: native } = readPort(exprs);
  const hostPort = native ?? readXtPort(exprs);
  if (address === undefined || protocol === undefined || hostPort === undefined) return undefined;
  if (protocol !== jump.protocol || !jump.ports.includes(hostPort)) return undefined;
  return {
    family,
    protocol,
    hostIp: undefined,
    hostPort,
    conditions: [[...jump.conditions, ...readConditions(exprs, family)]],
    target: ipFromBytes(address),
    holder: `to ${describeOwner(jump)} in iptables`,
    containerId: ownerInHostportsComment(jump.comment ?? '')?.containerId,
    node: { kind: 'iptables-chain', family, name: jump.chain },
  };
}

function describeOwner({ chain, comment = '' }: Jump): string {
  const owner = ownerInHostportsComment(comment);
  return owner === undefined ? `"${comment || chain}"` : `"net: ${owner.network}, id: ${owner.containerId}"`;
}
