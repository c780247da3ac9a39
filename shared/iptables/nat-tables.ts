// Finds the nat tables that may hold rules of the reference's format, without starting a program.
// Called by masquerade.ts and hostports.ts before they decide to start one.

import { readFileSync } from 'node:fs';
import { hasCode } from '../cni/error.ts';
import type { Family } from '../ip/cidr.ts';
import type { Nftables } from '../nftables/nftables.ts';
import type { TableRef } from '../nftables/objects.ts';
import type { NatTable } from './programs.ts';

const FAMILIES: readonly Family[] = [4, 6];

/**
 * The nat tables, through either iptables, in which something is to be looked for: those of nf_tables that exist and that
 * `isWanted` says yes to, and every legacy one there is, because only a program can tell what it holds. Costs one question
 * on a host without iptables rules.
 */
export function findNatTables(
  nft: Nftables | undefined,
  isWanted: (nft: Nftables, table: TableRef) => boolean,
): NatTable[] {
  const present = nft?.listTables() ?? [];
  return FAMILIES.flatMap((family) => {
    const table: TableRef = { family: family === 4 ? 'ip' : 'ip6', name: 'nat' };
    const exists = present.some(({ family, name }) => family === table.family && name === table.name);
    const tables: NatTable[] =
      nft !== undefined && exists && isWanted(nft, table) ? [{ family, flavour: 'nft' }] : [];
    return hasLegacyNat(family) ? [...tables, { family, flavour: 'legacy' }] : tables;
  });
}

// Asking the legacy program would make the table: /proc tells without. The file is missing with the module.
function hasLegacyNat(family: Family): boolean {
  const path = family === 4 ? '/proc/net/ip_tables_names' : '/proc/net/ip6_tables_names';
  try {
    return readFileSync(path, 'utf8').split('\n').includes('nat');
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return false;
    throw new Error(`Cannot read "${path}"`, { cause: error });
  }
}
