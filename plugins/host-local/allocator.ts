// Which address an attachment gets from each range set: the one that is asked for, or the next in a round robin.
// Called by add.ts with the store locked; what it takes is put into the caller's rollback.
import type { Attachment } from '../../shared/cni/attachment.ts';
import {
  addressesExhausted,
  addressUnavailable,
  duplicateAttachment,
  quote,
} from '../../shared/cni/error.ts';
import type { Rollback } from '../../shared/cni/rollback.ts';
import {
  broadcastOf,
  type Cidr,
  contains,
  formatCidr,
  formatIp,
  type Ip,
  ipEquals,
} from '../../shared/ip/cidr.ts';
import { deadAddresses } from './dead-addresses.ts';
import type { KernelView } from './kernel-view.ts';
import {
  type Candidate,
  candidatesAfter,
  countAddresses,
  findRange,
  formatCount,
  formatRangeSet,
  type RangeSet,
} from './range.ts';
import { describeHolder, type Store, type StoredAddress } from './store.ts';

/** What an allocation works with; `kernel` may know more than `store` does. */
export interface Pool {
  readonly store: Store;
  readonly kernel: KernelView;
  readonly attachment: Attachment;
  readonly log: (line: string) => void;
}

/**
 * What is asked of each set: one entry a set, undefined where any address will do. Pure. Throws addressUnavailable
 * for an address that no set can give, and for two addresses in one set, which gives one.
 */
export function planRequests(
  sets: readonly RangeSet[],
  requested: readonly Ip[],
): readonly (Candidate | undefined)[] {
  const wanted = new Map<number, Candidate>();
  for (const ip of requested) {
    const position = sets.findIndex((set) => findRange(set, ip) !== undefined);
    const set = sets[position];
    const range = set === undefined ? undefined : findRange(set, ip);
    if (set === undefined || range === undefined) throw outsideEveryRange(sets, ip);
    if (ipEquals(ip, range.gateway)) {
      throw addressUnavailable(
        `Cannot give the requested address ${text(ip)}: it is the gateway of its range`,
      );
    }
    const other = wanted.get(position);
    if (other !== undefined) {
      const both = `${text(other.ip)} and ${text(ip)}`;
      throw addressUnavailable(
        `Cannot give both requested addresses ${both}: range set ${quote(formatRangeSet(set))} gives one address`,
      );
    }
    wanted.set(position, { ip, range });
  }
  return sets.map((_, position) => wanted.get(position));
}

/**
 * Takes one address from each set, arming the release of each. Throws duplicateAttachment, addressUnavailable,
 * addressesExhausted, storeFailure; what was taken until then is released by the caller's rollback, and nothing else.
 */
export function takeAddresses(
  pool: Pool,
  sets: readonly RangeSet[],
  requests: readonly (Candidate | undefined)[],
  rollback: Rollback,
): Candidate[] {
  refuseDuplicate(pool, sets);
  return sets.map((set, position) => {
    const request = requests[position];
    const taken = request === undefined ? takeNext(pool, set, position) : takeRequested(pool, set, request);
    rollback.add(`release ${text(taken.ip)}`, () =>
      pool.store.release({ ip: taken.ip, holder: pool.attachment }),
    );
    noteLastReserved(pool, position, taken.ip);
    return taken;
  });
}

// Single files looked at before the whole directory is listed: most often the next address is free, and listing
// 20,000 names costs as much as 2,000 looks.
const LOOKS = 64;

// As many lines on stderr as somebody may want to read.
const LINES = 8;

// An attachment has one address of a set, whichever way it asks for it.
function refuseDuplicate({ store, attachment }: Pool, sets: readonly RangeSet[]): void {
  const { own, legacy } = store.findHeld(attachment);
  for (const { ip, holder } of [...own, ...legacy]) {
    if (!sets.some((set) => findRange(set, ip) !== undefined)) continue;
    const { containerId, ifname, network } = attachment;
    const who = holder.ifname === undefined ? quote(containerId) : `${quote(containerId)} ${quote(ifname)}`;
    throw duplicateAttachment(
      `${who} holds the address ${text(ip)} on network ${quote(network)} already; send DEL first`,
    );
  }
}

function takeRequested(pool: Pool, set: RangeSet, request: Candidate): Candidate {
  const { store, attachment } = pool;
  const { ip } = request;
  const refusal = `Cannot give the requested address ${text(ip)}`;
  const stored = store.find(ip);
  if (stored?.holder === 'nobody') releaseOwnerless(pool, stored);
  else if (stored !== undefined) throw addressUnavailable(`${refusal}: ${describeHolder(stored)}`);
  const link = findUser(pool, set, ip);
  if (link !== undefined) {
    throw addressUnavailable(
      `${refusal}: it is in use behind link ${quote(link)}, though the store ${quote(store.directory)} does not have it`,
    );
  }
  if (!store.take(ip, attachment))
    throw addressUnavailable(`${refusal}: its file has just been made by another program`);
  return request;
}

function takeNext(pool: Pool, set: RangeSet, position: number): Candidate {
  const { store, attachment } = pool;
  let looks = 0;
  let inUse = 0;
  for (const candidate of candidatesAfter(set, store.findLastReserved(position))) {
    const { ip } = candidate;
    if (++looks > LOOKS && store.listNames().has(formatIp(ip))) continue;
    const occupancy = store.occupancyOf(ip);
    if (occupancy === 'taken') continue;
    const link = findUser(pool, set, ip);
    if (link !== undefined) {
      if (inUse++ < LINES) warnOfUse(pool, ip, link);
      continue;
    }
    if (occupancy === 'empty') releaseOwnerless(pool, { ip, holder: 'nobody' });
    if (store.take(ip, attachment)) return candidate;
  }
  return takeReclaimed(pool, set) ?? refuseExhausted(set, inUse);
}

// Nothing is free: what no container can hold any more is taken back, one address for this one ADD.
function takeReclaimed(pool: Pool, set: RangeSet): Candidate | undefined {
  const { store, kernel, attachment, log } = pool;
  for (const stored of store.list()) {
    const range = stored.holder === 'nobody' ? findRange(set, stored.ip) : undefined;
    if (range === undefined || findUser(pool, set, stored.ip) !== undefined) continue;
    releaseOwnerless(pool, stored);
    if (store.take(stored.ip, attachment)) return { ip: stored.ip, range };
  }
  for (const dead of deadAddresses(store, kernel, ({ ip }) => isOfSet(set, ip))) {
    const range = findRange(set, dead.ip);
    if (range === undefined) continue;
    log(
      `Range set ${quote(formatRangeSet(set))} is exhausted: reclaiming ${text(dead.ip)}, ${describeHolder(dead)} since an earlier boot`,
    );
    store.release(dead);
    if (store.take(dead.ip, attachment)) return { ip: dead.ip, range };
  }
  return undefined;
}

function refuseExhausted(set: RangeSet, inUse: number): never {
  const count = formatCount(countAddresses(set));
  const rest = inUse === 0 ? '' : `, ${inUse} of them by containers that the store does not know`;
  throw addressesExhausted(
    `There are no IP addresses available in range set ${quote(formatRangeSet(set))}: all ${count} are taken${rest}`,
  );
}

/**
 * The link behind which the address is in use, though the store does not have it. A link whose attachment has
 * another address of this set in the store is no such link: what the kernel remembers of it is out of date.
 */
function findUser({ kernel, store }: Pool, set: RangeSet, ip: Ip): string | undefined {
  return kernel.listUsers(ip).find(({ ownerHash }) => {
    const recorded = ownerHash === undefined ? [] : store.listOf(ownerHash);
    return !recorded.some((other) => isOfSet(set, other));
  })?.link;
}

function warnOfUse({ store, log }: Pool, ip: Ip, link: string): void {
  log(
    `The address ${text(ip)} is in use behind link ${quote(link)}, though the store ${quote(store.directory)} does not have it; trying the next one`,
  );
}

function releaseOwnerless({ store, log }: Pool, stored: StoredAddress): void {
  log(`The file of ${text(stored.ip)} in ${quote(store.directory)} names no holder, it counts as free`);
  store.release(stored);
}

// The round robin works without it, from an older place: nothing worth failing an ADD for.
function noteLastReserved({ store, log }: Pool, position: number, ip: Ip): void {
  try {
    store.setLastReserved(position, ip);
  } catch (error) {
    log(
      `Cannot note ${text(ip)} as the last address of range set ${position}: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

function outsideEveryRange(sets: readonly RangeSet[], ip: Ip): Error {
  const refusal = `Cannot give the requested address ${text(ip)}`;
  const subnet = sets.flat().find((range) => contains(range.subnet, ip))?.subnet;
  if (subnet === undefined) {
    const ranges = sets.map(formatRangeSet).join(' and ');
    return addressUnavailable(`${refusal}: it is in no range (${quote(ranges)})`);
  }
  const edge = edgeOf(subnet, ip);
  const why = edge === undefined ? 'outside every range' : `the ${edge} address`;
  return addressUnavailable(`${refusal}: it is ${why} of subnet ${quote(formatCidr(subnet))}`);
}

function edgeOf(subnet: Cidr, ip: Ip): string | undefined {
  if (subnet.ip.family === 6) return undefined;
  if (ipEquals(ip, subnet.ip)) return 'network';
  return ipEquals(ip, broadcastOf(subnet)) ? 'broadcast' : undefined;
}

function isOfSet(set: RangeSet, ip: Ip): boolean {
  return findRange(set, ip) !== undefined;
}

function text(ip: Ip): string {
  return quote(formatIp(ip));
}
