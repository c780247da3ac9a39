// Masquerade in the reference's iptables format: made for `ipMasqBackend: "iptables"`, looked up by CHECK, and removed
// wherever the reference or we left it. Called by plugins; a program runs only where there is something to do.

import { checkFailed } from '../cni/error.ts';
import type { Nftables } from '../nftables/nftables.ts';
import type { TableRef } from '../nftables/objects.ts';
import {
  encodeNewChain,
  encodeRemoval,
  encodeRepair,
  encodeUsualRemoval,
  familiesOf,
  findMissing,
  type MasqueradePlan,
  planMasquerade,
  type RemovalScope,
} from './masquerade-plan.ts';
import { type ChainOwner, isMasqueradeChain, masqueradeChain, ownerInComment } from './names.ts';
import { expectProgram, type IptablesTable, readTable, restoreTable } from './programs.ts';
import type { SavedTable } from './save-format.ts';
import { findTables } from './tables.ts';

/** Which containers of a network are to stay. */
export interface ValidContainers {
  readonly network: string;
  readonly containerIds: readonly string[];
}

// Someone else may change the table between our look and our change; then the change fails and we look again.
const ATTEMPTS = 5;

/**
 * Masquerades what the plan says, one iptables-restore a family. Repeating it changes nothing, and the attachments of
 * one container to one network share a chain without disturbing each other. Throws CniError `notAvailable` when the
 * program is missing, Error naming the chain when it refuses.
 *
 * Equivalent to: `iptables -t nat -N CNI-…`, and its rules (`encodeNewChain`).
 */
export function addMasquerade(plan: MasqueradePlan): void {
  for (const family of familiesOf(plan)) addFamily(plan, { name: 'nat', family, flavour: 'default' });
}

/**
 * CHECK of what `addMasquerade` made: throws CniError `checkFailed` naming the first thing that is missing,
 * `notAvailable` when the program is.
 */
export function expectMasquerade(plan: MasqueradePlan): void {
  for (const family of familiesOf(plan)) {
    const missing = findMissing(plan, family, readTable({ name: 'nat', family, flavour: 'default' }));
    if (missing !== undefined) throw checkFailed(`Cannot find ${missing} in table nat of IPv${family}`);
  }
}

/** STATUS of `addMasquerade`: throws CniError `notAvailable` naming the first program that is missing. */
export function expectPrograms(): void {
  for (const family of [4, 6] as const) expectProgram({ name: 'nat', family, flavour: 'default' });
}

/**
 * Whether the reference's iptables chain masquerades all the plan says, through either iptables. CHECK accepts that in
 * place of our own elements after a node was upgraded.
 */
export function hasMasquerade(nft: Nftables | undefined, plan: MasqueradePlan): boolean {
  const tables = findMasquerade(nft, plan);
  return familiesOf(plan).every((family) =>
    tables.some(
      (table) => table.family === family && findMissing(plan, family, readTable(table)) === undefined,
    ),
  );
}

/**
 * The nat tables that hold the chain of a container, or may: what is in a legacy table takes a program to tell. Costs
 * one question over netlink, one more a family where there are iptables rules, and one small file each.
 */
export function findMasquerade(nft: Nftables | undefined, owner: ChainOwner): IptablesTable[] {
  let name: string | undefined;
  return findTables('nat', nft, (nft, table) => {
    name ??= masqueradeChain(owner); // hosts without iptables rules need not pay for a hash
    return nft.findChain({ table, name }) !== undefined;
  });
}

/**
 * Removes the masquerade of a container on a network that the reference, or `addMasquerade`, left in either iptables.
 *
 * The format doesn't say which jump is whose when a container is attached to a network twice. With `addresses`, those
 * go, and the chain goes with its last jump. Without (the netns is gone and no prevResult came), every jump goes but
 * those of `keep`: what the caller knows to be held by the container's other attachments. Throws CniError
 * `notAvailable` when there is a chain and no program for it, Error naming the chain when the program refuses.
 *
 * Equivalent to: `iptables -t nat -D POSTROUTING … -j CNI-…`, `-F CNI-…`, `-X CNI-…`
 */
export function removeMasquerade(nft: Nftables | undefined, owner: ChainOwner & RemovalScope): void {
  const tables = findMasquerade(nft, owner);
  if (tables.length === 0) return;
  const plan = planMasquerade({ ...owner, addresses: owner.addresses ?? [] });
  for (const table of tables) {
    const isUsual = owner.keep === undefined && familiesOf(plan).includes(table.family);
    if (isUsual && restoreTable(table, encodeUsualRemoval(plan, table.family)).applied) continue;
    removeChain(table, plan.chain, owner);
  }
}

/**
 * Removes the masquerade of all containers on a network but the valid ones, as far as the comments tell whose a chain
 * is: for GC. Throws as `removeMasquerade` does.
 */
export function removeStaleMasquerade(nft: Nftables | undefined, valid: ValidContainers): void {
  const hasAnyChain = (nft: Nftables, table: TableRef) =>
    nft.listChains(table).some((chain) => isMasqueradeChain(chain.name));
  for (const table of findTables('nat', nft, hasAnyChain)) {
    for (const chain of staleChains(readTable(table), valid)) removeChain(table, chain, {});
  }
}

function addFamily(plan: MasqueradePlan, table: IptablesTable): void {
  let outcome = restoreTable(table, encodeNewChain(plan, table.family));
  for (let attempt = 0; !outcome.applied && attempt < ATTEMPTS; attempt++) {
    const saved = readTable(table);
    if (!saved.chains.includes(plan.chain)) break; // that it was there is not what it stumbled over
    const repair = encodeRepair(plan, table.family, saved);
    if (repair === undefined) return;
    outcome = restoreTable(table, repair);
  }
  if (!outcome.applied) throw new Error(`Cannot add chain "${plan.chain}" with ${outcome.reason}`);
}

function removeChain(table: IptablesTable, chain: string, scope: RemovalScope): void {
  let reason = '';
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const text = encodeRemoval(chain, readTable(table), scope);
    if (text === undefined) return;
    const outcome = restoreTable(table, text);
    if (outcome.applied) return;
    reason = outcome.reason;
  }
  throw new Error(`Cannot remove chain "${chain}" with ${reason}`);
}

// Whose a chain is stands in the comments of its rules alone.
function staleChains(saved: SavedTable, valid: ValidContainers): string[] {
  const containers = new Set(valid.containerIds);
  const comments = new Set(saved.rules.map((rule) => rule.comment ?? ''));
  return [...comments].flatMap((comment) => {
    const owner = ownerInComment(comment);
    if (owner?.network !== valid.network || containers.has(owner.containerId)) return [];
    const chain = masqueradeChain(owner);
    return saved.chains.includes(chain) ? [chain] : [];
  });
}
