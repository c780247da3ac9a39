// Finds the tables that may hold rules of the reference's format, without starting a program.
// Called by masquerade.ts, hostports.ts and forward.ts before they decide to start one.

import { readFileSync } from 'node:fs';
import { hasCode } from '../cni/error.ts';
import type { Family } from '../ip/cidr.ts';
import type { Nftables } from '../nftables/nftables.ts';
import type { TableRef } from '../nftables/objects.ts';
import type { IptablesTable } from './programs.ts';

const FAMILIES: readonly Family[] = [4, 6];

/**
 * The tables of that name, through either iptables, in which something is to be looked for: those of nf_tables that exist
 * and that `isWanted` says yes to, and every legacy one there is, because only a program can tell what it holds. Costs one
 * question on a host without iptables rules.
 */
export function findTables(
  name: IptablesTable['name'],
  nft: Nftables | undefined,
  isWanted: (nft: Nftables, table: TableRef, family: Family) => boolean,
): IptablesTable[] {
  const present = nft?.listTables() ?? [];
  return FAMILIES.flatMap((family) => {
    const table = nftablesTable(name, family);
    const exists = present.some((other) => other.family === table.family && other.name === table.name);
    const isFound = nft !== undefined && exists && isWanted(nft, table, family);
    const tables: IptablesTable[] = isFound ? [{ name, family, flavour: 'nft' }] : [];
    return hasLegacyTable(name, family) ? [...tables, { name, family, flavour: 'legacy' }] : tables;
  });
}

/** Where iptables-nft keeps its table of that name. */
export function nftablesTable(name: IptablesTable['name'], family: Family): TableRef {
  return { family: family === 4 ? 'ip' : 'ip6', name };
}

/** Asking the legacy program would make the table: /proc tells without. The file is missing with the module. */
export function hasLegacyTable(name: IptablesTable['name'], family: Family): boolean {
  const path = family === 4 ? '/proc/net/ip_tables_names' : '/proc/net/ip6_tables_names';
  try {
    return readFileSync(path, 'utf8').split('\n').includes(name);
  } catch (error) {
    // In a user namespace made together with its network namespace the file belongs to nobody; there the legacy tables of
    // the user are left alone.
    if (hasCode(error, 'ENOENT') || hasCode(error, 'EACCES')) return false;
    throw new Error(`Cannot read "${path}"`, { cause: error });
  }
}
