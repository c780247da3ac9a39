// Taking back what attachments were let through with, in our table and elsewhere: found by owner, and by the addresses that
// the runtime reports. Called by DEL, GC and the undo of ADD.
import { CniError } from '../../shared/cni/error.ts';
import type { Failures } from '../../shared/cni/failures.ts';
import { isFirewalldTable, isNamedByFirewalld, removeSource } from '../../shared/firewalld/zone.ts';
import { formatIp, type Ip, isForwarded } from '../../shared/ip/cidr.ts';
import {
  bridgesWithIngress,
  planForwardRemoval,
  removeLegacyForward,
} from '../../shared/iptables/forward.ts';
import { hasLegacyTable } from '../../shared/iptables/tables.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import type { Command, TableRef } from '../../shared/nftables/objects.ts';
import { openRtnetlink } from '../../shared/rtnetlink/rtnetlink.ts';
import { commitGuarded, type When } from '../../shared/ruleset/commit.ts';
import {
  type Admitted,
  findHolders,
  isUsedByOthers,
  planAdmittedRemoval,
} from '../../shared/ruleset/firewall.ts';

/** Who goes. */
export interface Removal {
  /** Undefined on a kernel without nf_tables. */
  readonly nft: Nftables | undefined;
  /** What the leaving attachments are admitted with, as it is now. */
  readonly find: (nft: Nftables) => readonly Admitted[];
  /** Addresses they had as the runtime says: all there is to know of an attachment that the reference made. */
  readonly reported: readonly Ip[];
  readonly zone: string;
  readonly when?: When;
  readonly log: (line: string) => void;
}

/**
 * Removes rules of iptables and sources of firewalld that let the addresses through, then the elements: those are how the
 * next DEL would know what is left, so they stay when anything before fails.
 */
export function removeAdmissions(removal: Removal, failures: Failures): void {
  const { nft, find, reported, zone, when = 'together', log } = removal;
  const forwarded = reported.filter(isForwarded);
  if (nft === undefined) {
    failures.attempt('remove the rules of iptables', () => removeLegacyForward(forwarded, []));
    return;
  }
  const isDone = failures.attempt('remove the rules of others', () => {
    if (!hasTablesOfOthers(nft)) {
      return true;
    }
    const { addresses, bridges } = scopeOf(nft, find(nft), forwarded);
    removeLegacyForward(addresses, bridges);
    for (const ip of addresses.filter((ip) => isNamedByFirewalld(nft, ip))) {
      leaveZone(zone, ip, log);
    }
    return true;
  });
  if (isDone) {
    failures.attempt('remove the admitted addresses', () =>
      commitGuarded(nft, (open) => planRemoval(open, find(open), forwarded), { when }),
    );
  }
}

/** One batch: elements, policies of bridges that nobody is left on, and rules of iptables-nft. */
function planRemoval(nft: Nftables, admitted: readonly Admitted[], reported: readonly Ip[]): Command[] {
  const { addresses, bridges } = scopeOf(nft, admitted, reported);
  return [...planAdmittedRemoval(nft, admitted), ...planForwardRemoval(nft, addresses, bridges)];
}

interface Scope {
  readonly addresses: readonly Ip[];
  /** Bridges whose ingress rules in iptables go. */
  readonly bridges: readonly string[];
}

function scopeOf(nft: Nftables, admitted: readonly Admitted[], reported: readonly Ip[]): Scope {
  if (!hasTablesOfOthers(nft)) {
    return { addresses: [], bridges: [] };
  }
  const all = new Map(
    [...admitted.map(({ address }) => address), ...reported].map((ip) => [formatIp(ip), ip]),
  );
  const doomed = new Set(admitted.map(({ owner }) => owner.ownerHash));
  // Rules of others name the address alone: where somebody else was leased it since, they are his.
  const isFree = (ip: Ip) => findHolders(nft, ip).every(({ owner }) => doomed.has(owner.ownerHash));
  const bridges = [...new Set(admitted.map(({ bridge }) => bridge))];
  return {
    addresses: [...all.values()].filter(isFree),
    bridges: bridgesWithIngress(nft, bridges).filter((bridge) => isLeft(nft, bridge, admitted)),
  };
}

/** The usual host has none, and need not pay for a look at who else has an address. */
function hasTablesOfOthers(nft: Nftables): boolean {
  const isTheirs = (table: TableRef) => isFirewalldTable(table) || table.name === 'filter';
  return nft.listTables().some(isTheirs) || hasLegacyTable('filter', 4) || hasLegacyTable('filter', 6);
}

/** Attachments that the reference made are known by their ports alone. */
function isLeft(nft: Nftables, bridge: string, admitted: readonly Admitted[]): boolean {
  if (isUsedByOthers(nft, bridge, admitted)) {
    return false;
  }
  using host = openRtnetlink();
  const index = host.link.find({ name: bridge })?.index;
  const own = new Set(admitted.map(({ owner }) => owner.hostLink));
  return index === undefined || host.link.list({ master: index }).every(({ name }) => own.has(name));
}

/** A firewalld that answers nobody has forgotten its sources when it comes back, so that is no reason to fail. */
function leaveZone(zone: string, ip: Ip, log: (line: string) => void): void {
  try {
    removeSource(zone, ip);
  } catch (error) {
    if (!(error instanceof CniError) || error.code !== NOT_AVAILABLE) {
      throw error;
    }
    log(`Cannot take "${formatIp(ip)}" out of zone "${zone}": ${error.message}`);
  }
}

const NOT_AVAILABLE = 50;
