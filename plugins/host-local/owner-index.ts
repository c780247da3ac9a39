// An index from holders to addresses beside the store, so that no verb has to read every file to find one holder's.
// Called by store.ts under the store's lock; it can be deleted at any time, and whatever fails here costs only time.
import { readdirSync, statSync, utimesSync } from 'node:fs';
import { join } from 'node:path';
import {
  ensureDirectory,
  isOnLocalFileSystem,
  readNote,
  removeFile,
  writeNote,
} from '../../shared/linux/files.ts';

/**
 * The index is true for one state of the network's directory, which the note `stamp` names by the directory's times.
 * Every change of the directory moves them, whoever makes it, so after a change of our own the index is stamped
 * anew, last of all: killed anywhere before that, or written to by anybody else, it is simply not believed. After a
 * reboot it is not either, because a power cut may have kept one change and lost another.
 */
export class OwnerIndex {
  readonly #directory: string;
  readonly #owners: string;
  readonly #stamp: string;
  readonly #bootId: string | undefined;
  readonly #isOff: boolean;
  #isTrue: boolean;
  #isDirty = false;

  /**
   * `directory` is the network's, `side` the one the index lives in; without one nothing is indexed. Made before anything is
   * changed: afterwards the stamp can't tell any more whether the index was true.
   */
  constructor(directory: string, side: string | undefined, bootId: string | undefined) {
    this.#directory = directory;
    this.#bootId = bootId;
    this.#isOff = side === undefined;
    this.#owners = join(side ?? '', 'owners');
    this.#stamp = join(side ?? '', 'stamp');
    this.#isTrue = !this.#isOff && this.#isStamped();
  }

  /** Whether the index knows every address file of the directory. */
  isTrue(): boolean {
    return this.#isTrue;
  }

  /** The addresses under this key, as file names; undefined when the index is not true. */
  find(key: string): string[] | undefined {
    if (!this.#isTrue) return undefined;
    try {
      return readNote(`${this.#owners}/${key}`)?.split(',') ?? [];
    } catch {
      this.distrust();
      return undefined;
    }
  }

  /** Follows a change of the directory: an address file was made for the key, or removed. */
  update(key: string, change: (names: readonly string[]) => readonly string[]): void {
    this.touch();
    const names = this.find(key);
    if (names === undefined) return;
    try {
      this.#write(key, change(names));
    } catch {
      this.distrust();
    }
  }

  /** Follows a change of the directory that concerns no key. */
  touch(): void {
    this.#isDirty = true;
  }

  /** The directory turned out to differ from what the index says. */
  distrust(): void {
    this.#isTrue = false;
  }

  /** Makes the index say exactly this; only differences are written. */
  rebuild(entries: ReadonlyMap<string, readonly string[]>): void {
    this.touch();
    if (this.#isOff) return;
    try {
      ensureDirectory(this.#owners, 0o700);
      // The old stamp may match a directory put back from a backup; half a rebuilt index must not meet it.
      removeFile(this.#stamp);
      const found = new Set(readdirSync(this.#owners));
      for (const key of found) if (!entries.has(key)) this.#remove(key);
      for (const [key, names] of entries) {
        const text = names.join(',');
        if (!found.has(key) || readNote(`${this.#owners}/${key}`) !== text) this.#write(key, names);
      }
      this.#isTrue = true;
    } catch {
      this.#isTrue = false;
    }
  }

  /** Stamps the index after the last change of a verb. Without it the next verb reads every file once. */
  settle(): void {
    if (!this.#isDirty || !this.#isTrue || this.#bootId === undefined) return;
    try {
      const wanted = markDirectory(this.#directory);
      const stamp = this.#currentStamp();
      const difference = stamp.mtimeNs - wanted;
      // A file system that keeps no microseconds can't tell two changes apart.
      const isExact = difference > -TOLERANCE_NS && difference < TOLERANCE_NS && wanted % SECOND_NS !== 0n;
      if (isExact && isOnLocalFileSystem(this.#directory)) writeNote(this.#stamp, stamp.text);
      else removeFile(this.#stamp);
    } catch {
      // No stamp, no trust.
    }
  }

  /** Only what is a note: nothing else is ours. */
  #remove(key: string): void {
    const path = `${this.#owners}/${key}`;
    if (readNote(path) !== undefined) removeFile(path);
  }

  #write(key: string, names: readonly string[]): void {
    const path = `${this.#owners}/${key}`;
    if (names.length === 0) removeFile(path);
    else writeNote(path, names.join(','));
  }

  #isStamped(): boolean {
    try {
      const text = readNote(this.#stamp);
      return text !== undefined && text === this.#currentStamp().text;
    } catch {
      return false;
    }
  }

  /**
   * The boot, and the directory's identity, mtime and ctime. Nobody can set a ctime, so a directory put back from a
   * backup with its old mtime does not match either. `v1` is the format of the whole index.
   */
  #currentStamp(): { readonly text: string; readonly mtimeNs: bigint } {
    const { ino, mtimeNs, ctimeNs } = statSync(this.#directory, { bigint: true });
    const numbers = [ino, mtimeNs, ctimeNs].map((number) => number.toString(36));
    // Short enough to lie in the inode of the link.
    return { text: ['v1', this.#bootId?.slice(-12), ...numbers].join('-'), mtimeNs };
  }
}

const SECOND_NS = 1_000_000_000n;

// Node hands times on as floating point and libuv cuts them to microseconds.
const TOLERANCE_NS = 3_000n;

/**
 * Puts the directory's mtime to a moment of the last second that the kernel's clock would hardly hit, and gives it in
 * nanoseconds. The kernel's own time moves in steps of milliseconds, so a foreign change in the same step as ours would
 * leave the same mtime; it can't leave this one.
 */
function markDirectory(directory: string): bigint {
  const micros = Date.now() * 1000 - Math.floor(Math.random() * 1_000_000);
  utimesSync(directory, micros / 1e6, micros / 1e6);
  return BigInt(micros) * 1000n;
}
