// Published ports in the reference's iptables format: made for `backend: "iptables"`, compared by CHECK, and removed
// wherever the reference or we left them. Called by plugins; a program runs only where there is something to do.

import { checkFailed } from '../cni/error.ts';
import { lockHost } from '../cni/host-lock.ts';
import type { Family } from '../ip/cidr.ts';
import type { Nftables } from '../nftables/nftables.ts';
import type { TableRef } from '../nftables/objects.ts';
import type { IptablesChain } from './foreign-ports.ts';
import {
  encodeNewChain,
  encodeRemoval,
  encodeReplacement,
  findDifference,
  type HostportsPlan,
  listPorts,
  type SavedPort,
} from './hostports-plan.ts';
import type { ValidContainers } from './masquerade.ts';
import { familiesOf } from './masquerade-plan.ts';
import {
  type ChainOwner,
  hostportsChain,
  hostportsSourceChain,
  isHostportsChain,
  ownerInHostportsComment,
} from './names.ts';
import { changeTable, type IptablesTable, readTable, restoreTable } from './programs.ts';
import type { SavedTable } from './save-format.ts';
import { findTables } from './tables.ts';

/**
 * Publishes what the plan says, one iptables-restore a family. Only on a host without the shared chains and hooks, or
 * for a container that has ports on this network already, a look at the table and a second restore follow; what the
 * container had is replaced. No number of processes at once makes a shared chain, rule or hook twice.
 *
 * Throws CniError `notAvailable` when the program is missing, `tryAgainLater` when another process keeps the lock for
 * 30 s, Error naming the chain when the program refuses.
 *
 * Equivalent to: `iptables -t nat -N CNI-DN-…`, and its rules (`encodeNewChain`).
 */
export function addHostports(plan: HostportsPlan): void {
  for (const family of publishedFamilies(plan)) addFamily(plan, { name: 'nat', family, flavour: 'default' });
}

/**
 * CHECK of what `addHostports` made, hooks included: throws CniError `checkFailed` naming the first thing that is
 * missing or different, `notAvailable` when the program is missing.
 */
export function expectHostports(plan: HostportsPlan): void {
  for (const family of publishedFamilies(plan)) {
    const difference = findDifference(plan, family, readTable({ name: 'nat', family, flavour: 'default' }));
    if (difference !== undefined) throw checkFailed(`In table nat of IPv${family}, ${difference}`);
  }
}

/** The families in which a plan publishes anything, IPv4 first. */
export function publishedFamilies(plan: HostportsPlan): Family[] {
  return plan.mappings.length === 0 ? [] : familiesOf(plan);
}

/** Whether chains of this format, in either iptables, publish all that the plan says in a family. */
export function hasHostports(nft: Nftables | undefined, plan: HostportsPlan, family: Family): boolean {
  return findHostports(nft, plan)
    .filter((table) => table.family === family)
    .some((table) => findDifference(plan, family, readTable(table)) === undefined);
}

/**
 * The nat tables that hold a chain of a container's ports, or may: what is in a legacy table takes a program to tell.
 * Costs one question over netlink, two more a family where there are iptables rules, and one small file each.
 */
export function findHostports(nft: Nftables | undefined, owner: ChainOwner): IptablesTable[] {
  let names: string[] | undefined;
  return findTables('nat', nft, (nft, table) => {
    names ??= chainsOf(owner); // hosts without iptables rules need not pay for a hash
    return names.some((name) => nft.findChain({ table, name }) !== undefined);
  });
}

/**
 * Removes the ports of a container on a network that any release of the reference, or `addHostports`, published through
 * either iptables: its chains, and whatever jumps to them. What all attachments share stays. It needs to know no port,
 * and returns those that were published. Throws CniError `notAvailable` when there is a chain and no program for it,
 * Error naming it when the program refuses.
 *
 * Equivalent to: `iptables -t nat -D CNI-HOSTPORT-DNAT … -j CNI-DN-…`, `-F CNI-DN-…`, `-X CNI-DN-…`
 */
export function removeHostports(nft: Nftables | undefined, owner: ChainOwner): SavedPort[] {
  const tables = findHostports(nft, owner);
  if (tables.length === 0) return [];
  const chains = chainsOf(owner);
  return removeFrom(tables, () => chains, `Cannot remove chain "${hostportsChain(owner)}"`);
}

/**
 * Removes the ports of all containers on a network but the valid ones, as far as the comments tell whose a chain is: for
 * GC. Returns those ports. Throws as `removeHostports` does.
 */
export function removeStaleHostports(nft: Nftables | undefined, valid: ValidContainers): SavedPort[] {
  const hasAnyChain = (nft: Nftables, table: TableRef) =>
    nft.listChains(table).some((chain) => isHostportsChain(chain.name));
  const failure = `Cannot remove the chains of containers that left network "${valid.network}"`;
  return removeFrom(findTables('nat', nft, hasAnyChain), (saved) => staleChains(saved, valid), failure);
}

/** Removes chains that were found over netlink, with whatever jumps to them, and returns their ports. Throws likewise. */
export function removeChains(chains: readonly IptablesChain[]): SavedPort[] {
  const byFamily = Map.groupBy(chains, ({ family }) => family);
  return [...byFamily].flatMap(([family, found]) => {
    const names = [...new Set(found.map(({ name }) => name))];
    return removeFrom(
      [{ name: 'nat', family, flavour: 'nft' }],
      () => names,
      `Cannot remove chain "${names.join('", "')}"`,
    );
  });
}

function removeFrom(
  tables: readonly IptablesTable[],
  chainsIn: (saved: SavedTable) => readonly string[],
  failure: string,
): SavedPort[] {
  const removed = new Map<IptablesTable, SavedPort[]>();
  for (const table of tables) {
    const encode = (saved: SavedTable) => {
      const chains = chainsIn(saved);
      if (!removed.has(table)) removed.set(table, listPorts(chains, saved));
      return encodeRemoval(chains, saved);
    };
    changeTable(table, { encode, failure });
  }
  return [...removed.values()].flat();
}

function addFamily(plan: HostportsPlan, table: IptablesTable): void {
  if (restoreTable(table, encodeNewChain(plan, table.family)).applied) return;
  using _lock = lockHost('iptables'); // two that miss the same hook must not both make it
  changeTable(table, {
    encode: (saved) => encodeReplacement(plan, table.family, saved),
    failure: `Cannot add chain "${plan.chain}"`,
  });
}

/** Without a writable /run a chain still can't be made twice, as the kernel sees to that; a missing hook could. */
function chainsOf(owner: ChainOwner): string[] {
  return [hostportsChain(owner), hostportsSourceChain(owner)];
}

// Whose a chain is stands in the comments of the jumps to it alone.
function staleChains(saved: SavedTable, valid: ValidContainers): string[] {
  const containers = new Set(valid.containerIds);
  const comments = new Set(saved.rules.map((rule) => rule.comment ?? ''));
  return [...comments].flatMap((comment) => {
    const owner = ownerInHostportsComment(comment);
    return owner?.network === valid.network && !containers.has(owner.containerId) ? chainsOf(owner) : [];
  });
}
