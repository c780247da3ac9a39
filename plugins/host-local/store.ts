// The address store of one network: a directory with one file for each address, under a lock held for a whole verb.
// Called by the verbs of host-local; the files are those of the reference plugins, see docs/store-format.md.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { ownerHash } from '../../shared/cni/attachment.ts';
import { CniError, hasCode, invalidConfig, quote, storeFailure } from '../../shared/cni/error.ts';
import { LOCK_DEADLINE_MS, takeLock } from '../../shared/cni/lock.ts';
import { formatIp, type Ip, parseIp } from '../../shared/ip/cidr.ts';
import {
  createFile,
  ensureDirectory,
  expectTrustedLink,
  isObstructed,
  isTrustedOwner,
  linkFile,
  type Occupancy,
  occupancyOf,
  overwriteFile,
  readContent,
  removeFile,
  renameFile,
} from '../../shared/linux/files.ts';
import { getXattr, setXattr } from '../../shared/linux/xattr.ts';
import { OwnerIndex } from './owner-index.ts';
import { decodeRecord, encodeRecord, type Holder, isSameHolder, type RecordedHolder } from './record.ts';

/** Where a store is: `<dataDir>/<network>`. */
export interface StoreLocation {
  readonly dataDir: string;
  readonly network: string;
}

/** An address file. */
export interface StoredAddress {
  readonly ip: Ip;
  /** `nobody` for an empty or torn file; `foreign` for what is no record of any kind and is left alone. */
  readonly holder: RecordedHolder | 'nobody' | 'foreign';
}

/** An address file that names its holder. */
export interface HeldAddress {
  readonly ip: Ip;
  readonly holder: RecordedHolder;
}

/** What tells how old a record is. */
export interface Vintage {
  /** The boot it was written in; undefined for records of the reference, or where no attribute can be kept. */
  readonly bootId: string | undefined;
  /** Milliseconds since the epoch, by the clock of that time. */
  readonly writtenMs: number;
}

/**
 * Opens and locks the store, making its directory (0755) when there is none. Throws tryAgainLater when the lock is not
 * to be had before the deadline, storeFailure when the directory or the lock file refuse.
 */
export function openStore(location: StoreLocation, deadlineMs = LOCK_DEADLINE_MS): Store {
  const store = findStore(location, deadlineMs);
  if (store !== undefined) return store;
  const directory = directoryOf(location);
  attempt(`make the directory ${quote(directory)}`, () => ensureDirectory(directory, 0o755));
  return attempt(
    `open the store ${quote(directory)}`,
    () => new Store(location, lockStore(directory, deadlineMs)),
  );
}

/** As `openStore`, but undefined when there is no directory: then nothing is held. */
export function findStore(location: StoreLocation, deadlineMs = LOCK_DEADLINE_MS): Store | undefined {
  const directory = directoryOf(location);
  return attempt(`open the store ${quote(directory)}`, () => {
    try {
      return new Store(location, lockStore(directory, deadlineMs));
    } catch (error) {
      if (hasCode(error, 'ENOENT')) return undefined;
      throw error;
    }
  });
}

/** As `findStore`, for those who free: where a file stands in the place of a directory, nothing is held either. */
export function findStoreToFree(location: StoreLocation): Store | undefined {
  try {
    return findStore(location);
  } catch (error) {
    if (hasCode(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** The directory of a network's address files. Throws invalidConfig for a name that is no file name. */
export function directoryOf(location: StoreLocation): string {
  const { dataDir, network } = location;
  // The dispatcher has checked it; here is where a wrong one would do harm.
  if (!NETWORK_NAME.test(network))
    throw invalidConfig(`The network name ${quote(network)} cannot name a directory`);
  return join(dataDir, network);
}

/**
 * A sentence about who besides root can take and free the addresses of the store, and what to do about it; undefined when
 * nobody can. Nothing outside the store is theirs by that: it is used as if they did.
 */
export function describeExposure(location: StoreLocation): string | undefined {
  for (const path of [location.dataDir, directoryOf(location)]) {
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined) continue;
    const { uid, mode } = stat;
    if (!isTrustedOwner(uid))
      return `The address store ${quote(path)} belongs to user ${uid}, who can change it`;
    const isSticky = (mode & 0o1000) !== 0;
    if ((mode & 0o022) !== 0 && !isSticky) {
      const permissions = (mode & 0o7777).toString(8);
      return `The address store ${quote(path)} can be changed by others (mode ${permissions}); run "chmod go-w" on it`;
    }
  }
  return undefined;
}

/** The address an address file is named after; undefined for `lock`, pointer files and any other name. */
export function addressNamed(name: string): Ip | undefined {
  if (!MAYBE_ADDRESS.test(name)) return undefined;
  try {
    const ip = parseIp(name);
    return formatIp(ip) === name ? ip : undefined;
  } catch {
    return undefined;
  }
}

export function isHeld(stored: StoredAddress): stored is HeldAddress {
  return typeof stored.holder !== 'string';
}

/** `held by "c1" "eth0"`: how messages say whose an address is. */
export function describeHolder({ holder }: StoredAddress): string {
  if (holder === 'foreign') return 'taken by something that is no address file';
  if (holder === 'nobody') return 'held by nobody';
  const { containerId, ifname } = holder;
  return `held by ${quote(containerId)}${ifname === undefined ? '' : ` ${quote(ifname)}`}`;
}

/** An open store: until it is disposed of, nobody else who takes the lock changes it. All its methods throw storeFailure. */
export class Store implements Disposable {
  readonly directory: string;
  readonly network: string;
  /** This boot of the kernel, to compare with `Vintage.bootId`; undefined when it can't be told. */
  readonly bootId = readBootId();
  /** Undefined where something else stands in its place, which nobody of us has put there. */
  readonly #side: string | undefined;
  readonly #lock: Disposable;
  readonly #index: OwnerIndex;
  #contents: Map<string, StoredAddress['holder']> | undefined;
  #names: Set<string> | undefined;
  #hashes: ReadonlyMap<string, readonly Ip[]> | undefined;

  constructor(location: StoreLocation, lock: Disposable) {
    this.directory = directoryOf(location);
    this.network = location.network;
    // Never the directory of a network: their names begin with a letter or digit.
    const sides = join(location.dataDir, '.patchbay');
    const side = join(sides, location.network);
    this.#side = [sides, side, join(side, 'owners')].some(isObstructed) ? undefined : side;
    this.#lock = lock;
    this.#index = new OwnerIndex(this.directory, this.#side, this.bootId);
  }

  [Symbol.dispose](): void {
    this.#index.settle();
    this.#lock[Symbol.dispose]();
  }

  /** The holder's addresses, and those recorded for its container id alone. Reads these files, not the directory. */
  findHeld(holder: Holder): { readonly own: HeldAddress[]; readonly legacy: HeldAddress[] } {
    const anyIfname = { containerId: holder.containerId, ifname: undefined };
    const own = this.#findIndexed(holder);
    const legacy = this.#findIndexed(anyIfname);
    if (own !== undefined && legacy !== undefined) return { own, legacy };
    return { own: this.#findScanned(holder), legacy: this.#findScanned(anyIfname) };
  }

  /** The addresses of the attachment with this owner hash (shared/cni/attachment.ts). Reads all address files. */
  listOf(hash: string): readonly Ip[] {
    this.#hashes ??= this.#hashHolders();
    return this.#hashes.get(hash) ?? [];
  }

  /** Every address file. Reads all of them, once. */
  list(): StoredAddress[] {
    const stored: StoredAddress[] = [];
    for (const [name, holder] of this.#scan()) {
      const ip = addressNamed(name);
      if (ip !== undefined) stored.push({ ip, holder });
    }
    return stored;
  }

  /** The names in the directory: one call for all of them, where `occupancyOf` makes one for each. */
  listNames(): ReadonlySet<string> {
    this.#names ??= new Set(attempt(`list ${quote(this.directory)}`, () => readdirSync(this.directory)));
    return this.#names;
  }

  /** What stands under the name of the address. */
  occupancyOf(ip: Ip): Occupancy {
    const path = this.#pathOf(ip);
    return attempt(`look at ${quote(path)}`, () => occupancyOf(path));
  }

  /** What the file of the address says; undefined when there is none. */
  find(ip: Ip): StoredAddress | undefined {
    const holder = this.#read(formatIp(ip));
    return holder === undefined ? undefined : { ip, holder };
  }

  /** Makes the address the holder's; false when a file of its name exists. */
  take(ip: Ip, holder: Holder): boolean {
    const path = this.#pathOf(ip);
    if (!attempt(`write ${quote(path)}`, () => this.#createRecord(path, encodeRecord(holder)))) return false;
    const name = formatIp(ip);
    this.#contents?.set(name, holder);
    this.#names?.add(name);
    this.#hashes = undefined;
    this.#index.update(this.#keyOf(holder), (names) => [...names, name]);
    return true;
  }

  /** Removes the file of an address; one that is gone already is success. */
  release({ ip, holder }: StoredAddress): void {
    const path = this.#pathOf(ip);
    attempt(`remove ${quote(path)}`, () => removeFile(path));
    const name = formatIp(ip);
    this.#contents?.delete(name);
    this.#names?.delete(name);
    this.#hashes = undefined;
    if (typeof holder === 'string') this.#index.touch();
    else this.#index.update(this.#keyOf(holder), (names) => names.filter((other) => other !== name));
  }

  /** The address taken last from the set at this position; undefined when none is known. */
  findLastReserved(set: number): Ip | undefined {
    try {
      const content = readContent(this.#pointerOf(set));
      return typeof content === 'string' ? undefined : parseIp(content.text.trim());
    } catch {
      return undefined;
    }
  }

  /**
   * Notes the address taken last from the set at this position. The file is replaced as a whole, so that a kill leaves
   * the old text or the new one: after an empty one the round robin would begin anew, at addresses freed a moment ago.
   */
  setLastReserved(set: number, ip: Ip): void {
    const path = this.#pointerOf(set);
    attempt(`write ${quote(path)}`, () => {
      const bytes = Buffer.from(formatIp(ip), 'latin1');
      const draft = this.#draft(bytes);
      this.#index.touch();
      if (draft === undefined || !succeeds(() => renameFile(draft, path))) overwriteFile(path, bytes);
    });
  }

  /** How old the record of the address is. */
  vintageOf(ip: Ip): Vintage {
    const path = this.#pathOf(ip);
    return attempt(`look at ${quote(path)}`, () => ({
      bootId: getXattr(path, BOOT_ID),
      writtenMs: statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0,
    }));
  }

  #pathOf(ip: Ip): string {
    return join(this.directory, formatIp(ip));
  }

  #pointerOf(set: number): string {
    return join(this.directory, `last_reserved_ip.${set}`);
  }

  // Readable, and cheaper than a hash: a scan makes one for every address. "@" is in no container id, so the key says
  // where the ifname begins, and no interface has an empty name, so records without one have keys of their own.
  #keyOf({ containerId, ifname = '' }: RecordedHolder): string {
    const key = `${containerId}@${ifname}`;
    return key.length <= LONGEST_KEY ? key : ownerHash({ network: this.network, containerId, ifname });
  }

  // Undefined when the index can't be believed; a hit that its file does not confirm is such a case.
  #findIndexed(holder: RecordedHolder): HeldAddress[] | undefined {
    const held: HeldAddress[] = [];
    for (const name of this.#index.find(this.#keyOf(holder)) ?? []) {
      const recorded = this.#read(name);
      if (recorded === undefined || typeof recorded === 'string' || !isSameHolder(recorded, holder)) {
        this.#index.distrust();
        break;
      }
      const ip = addressNamed(name);
      if (ip !== undefined) held.push({ ip, holder: recorded });
    }
    return this.#index.isTrue() ? held : undefined;
  }

  #findScanned(holder: RecordedHolder): HeldAddress[] {
    const held: HeldAddress[] = [];
    for (const [name, recorded] of this.#scan()) {
      const ip =
        typeof recorded !== 'string' && isSameHolder(recorded, holder) ? addressNamed(name) : undefined;
      if (ip !== undefined) held.push({ ip, holder });
    }
    return held;
  }

  #scan(): ReadonlyMap<string, StoredAddress['holder']> {
    if (this.#contents !== undefined) return this.#contents;
    this.#contents = new Map();
    for (const name of this.listNames()) {
      const holder = MAYBE_ADDRESS.test(name) ? this.#read(name) : undefined;
      if (holder !== undefined) this.#contents.set(name, holder);
    }
    if (!this.#index.isTrue()) this.#index.rebuild(this.#keyed(this.#contents));
    return this.#contents;
  }

  #read(name: string): StoredAddress['holder'] | undefined {
    try {
      const content = readContent(`${this.directory}/${name}`);
      if (content === 'absent') return undefined;
      return content === 'foreign' ? content : (decodeRecord(content.text) ?? 'nobody');
    } catch {
      // A bad block under one address must not keep the others from being found.
      return 'foreign';
    }
  }

  #keyed(contents: ReadonlyMap<string, StoredAddress['holder']>): Map<string, string[]> {
    const entries = new Map<string, string[]>();
    for (const [name, holder] of contents) {
      if (typeof holder === 'string') continue;
      const key = this.#keyOf(holder);
      const names = entries.get(key);
      if (names === undefined) entries.set(key, [name]);
      else names.push(name);
    }
    return entries;
  }

  #hashHolders(): Map<string, Ip[]> {
    const hashes = new Map<string, Ip[]>();
    for (const { ip, holder } of this.list().filter(isHeld)) {
      const { containerId, ifname = '' } = holder;
      const hash = ownerHash({ network: this.network, containerId, ifname });
      hashes.set(hash, [...(hashes.get(hash) ?? []), ip]);
    }
    return hashes;
  }

  /**
   * The file appears under its name with all its content at once: written elsewhere, then linked. A kill at any point
   * leaves no address file or a whole one. Where no link can be made it is written in place, as the reference does.
   */
  #createRecord(path: string, bytes: Uint8Array): boolean {
    const draft = this.#draft(bytes);
    if (draft !== undefined) {
      this.#markBoot(draft);
      try {
        return linkFile(draft, path);
      } catch {
        // Another file system, or one without hard links.
      } finally {
        succeeds(() => removeFile(draft));
      }
    }
    try {
      createFile(path, bytes);
    } catch (error) {
      if (hasCode(error, 'EEXIST')) return false;
      throw error;
    }
    this.#markBoot(path);
    return true;
  }

  // A file system without user attributes costs us nothing but the chance to reclaim the address after a reboot.
  #markBoot(path: string): void {
    const { bootId } = this;
    if (bootId !== undefined) succeeds(() => setXattr(path, BOOT_ID, bootId));
  }

  // Under the lock one name is enough. What a killed verb left there may be linked to a live record by now: it is
  // removed, never written to.
  #draft(bytes: Uint8Array): string | undefined {
    const side = this.#side;
    if (side === undefined) return undefined;
    const path = join(side, 'draft');
    if (succeeds(() => createFile(path, bytes))) return path;
    const isMade = succeeds(() => {
      ensureDirectory(side, 0o700);
      removeFile(path);
      createFile(path, bytes);
    });
    return isMade ? path : undefined;
  }
}

const BOOT_ID = 'user.patchbay.boot';

// A first look, for there may be many names; addressNamed says the rest.
const MAYBE_ADDRESS = /^[0-9a-f]*[.:][0-9a-f.:]*$/;

// NAME_MAX is 255 bytes; an ifname has 15 at most, in up to as many characters.
const LONGEST_KEY = 200;

// CNI SPEC, section 1 "Network configuration format".
const NETWORK_NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;

/** BSD flock on the file `lock`, the one the reference plugins take too. Throws as takeLock does. */
function lockStore(directory: string, deadlineMs: number): Disposable {
  expectTrustedLink(directory);
  return takeLock(join(directory, 'lock'), { deadlineMs, mode: 0o600 });
}

// random(4), /proc/sys/kernel/random.
function readBootId(): string | undefined {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim() || undefined;
  } catch {
    return undefined;
  }
}

function succeeds(step: () => void): boolean {
  try {
    step();
    return true;
  } catch {
    return false;
  }
}

function attempt<T>(what: string, step: () => T): T {
  try {
    return step();
  } catch (cause) {
    throw cause instanceof CniError ? cause : storeFailure(`Cannot ${what}`, { cause });
  }
}
