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
import type { Command } from '../../shared/nftables/objects.ts';
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
    const others = lookAround(nft);
    if (others.legacy || others.firewalld) {
      const scope = scopeOf(nft, find(nft), forwarded);
      removeByPrograms(nft, scope, others, (ip) => leaveZone(zone, ip, log));
    }
    return true;
  });
  if (isDone) {
    failures.attempt('remove the admitted addresses', () =>
      commitGuarded(nft, (open) => planRemoval(open, find(open), forwarded), { when }),
    );
  }
}

/** Who else has a say on this host. The usual host has nobody, and need not pay for more than this look. */
interface Others {
  readonly iptables: boolean;
  readonly legacy: boolean;
  readonly firewalld: boolean;
}

function lookAround(nft: Nftables): Others {
  const tables = nft.listTables();
  return {
    iptables: tables.some(({ family, name }) => family !== 'inet' && name === 'filter'),
    legacy: hasLegacyTable('filter', 4) || hasLegacyTable('filter', 6),
    firewalld: tables.some(isFirewalldTable),
  };
}

interface Scope {
  readonly addresses: readonly Ip[];
  readonly bridges: readonly string[];
  /** Rules of others name an address alone: where somebody else was leased it since, they are his. */
  readonly isFree: (ip: Ip) => boolean;
  /** Whether the leaving attachments were the last on a bridge. */
  readonly isLeft: (bridge: string) => boolean;
}

function scopeOf(nft: Nftables, admitted: readonly Admitted[], reported: readonly Ip[]): Scope {
  const all = [...admitted.map(({ address }) => address), ...reported];
  const doomed = new Set(admitted.map(({ owner }) => owner.ownerHash));
  return {
    addresses: [...new Map(all.map((ip) => [formatIp(ip), ip])).values()],
    bridges: [...new Set(admitted.map(({ bridge }) => bridge))],
    isFree: (ip) => findHolders(nft, ip).every(({ owner }) => doomed.has(owner.ownerHash)),
    isLeft: (bridge) => isLeft(nft, bridge, admitted),
  };
}

function removeByPrograms(
  nft: Nftables,
  { addresses, bridges, isFree, isLeft }: Scope,
  { legacy, firewalld }: Others,
  leave: (ip: Ip) => void,
): void {
  if (legacy) {
    removeLegacyForward(addresses.filter(isFree), bridges.filter(isLeft));
  }
  if (firewalld) {
    for (const ip of addresses.filter((ip) => isNamedByFirewalld(nft, ip)).filter(isFree)) {
      leave(ip);
    }
  }
}

/** One batch: elements, policies of bridges that nobody is left on, and rules of iptables-nft. */
function planRemoval(nft: Nftables, admitted: readonly Admitted[], reported: readonly Ip[]): Command[] {
  const elements = planAdmittedRemoval(nft, admitted);
  if (!lookAround(nft).iptables) {
    return elements;
  }
  const { addresses, bridges, isFree, isLeft } = scopeOf(nft, admitted, reported);
  const left = bridgesWithIngress(nft, bridges).filter(isLeft);
  return [...elements, ...planForwardRemoval(nft, addresses, left, isFree)];
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
