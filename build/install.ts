// Puts the packaged executables where a container runtime looks for plugins, and takes them away again.
// Run by `npm run install-plugins [-- --prefix DIR] [--from DIR] [--undo]`; each name changes over in one step, under running callers.
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  type Stats,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { tryFlock } from '../shared/linux/libc.ts';
import { packagePatchbay, writeInPieces } from './package.ts';

/** What an installation or its undoing did, by names of executables. */
export interface Changes {
  /** Ours now. */
  readonly installed: readonly string[];
  /** Kept aside, because something else had that name. */
  readonly replaced: readonly string[];
  /** As they were before the first installation. */
  readonly restored: readonly string[];
  /** Were ours, and nothing had that name before. */
  readonly removed: readonly string[];
  /** Changed by somebody else since they were installed, and left alone. */
  readonly foreign: readonly string[];
}

/** Where runtimes look unless they are told otherwise. */
const DEFAULT_PREFIX = '/opt/cni/bin';

/**
 * Beside the executables, as hard links work within one file system only. `images` holds another link to every file we
 * installed, which is how ours are told from everybody else's; `replaced` what had our names before.
 */
const STATE = '.patchbay';

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      prefix: { type: 'string', default: DEFAULT_PREFIX },
      from: { type: 'string' },
      undo: { type: 'boolean', default: false },
    },
  });
  const prefix = resolve(values.prefix);
  if (values.undo) {
    tell(prefix, undoInstallation(prefix));
    return;
  }
  if (values.from === undefined) await packagePatchbay();
  tell(prefix, installPlugins({ prefix, ...findExecutables(resolve(values.from ?? BUILT)) }));
}

const BUILT = join(import.meta.dirname, '../dist/bin');

/**
 * What a directory has to install: that of a build, or a release archive unpacked there, whichever machine it was made on.
 * Throws Error when there are no executables, or not one file under all names.
 */
export function findExecutables(directory: string): {
  readonly names: readonly string[];
  readonly image: string;
} {
  const names = readdirSync(directory).filter((name) => {
    const found = lstat(join(directory, name));
    return found?.isFile() && (found.mode & 0o111) !== 0;
  });
  const inodes = new Set(names.map((name) => lstatSync(join(directory, name)).ino));
  if (inodes.size !== 1) {
    throw new Error(
      `There are ${inodes.size} executables in "${directory}" where one file under all names is expected: unpack an archive there`,
    );
  }
  return { names: names.sort(), image: join(directory, names[0] ?? '') };
}

/**
 * Installs `image` in the directory `prefix`, which is made when missing, as one file under all `names`.
 *
 * A name that is taken changes over by rename(2): whoever starts it meanwhile gets the old file or the new one, and
 * what runs already keeps running. What had the name is kept for `undoInstallation`; an earlier installation of ours is
 * not, and names that it had and this one lacks are given back. Interrupted at any point, the next installation or
 * undoing finishes the work. Throws Error, before anything changed, when a directory has one of the names or another
 * installation is at work.
 */
export function installPlugins(wanted: {
  readonly prefix: string;
  readonly names: readonly string[];
  readonly image: string;
}): Changes {
  const { prefix, names } = wanted;
  mkdirSync(prefix, { recursive: true });
  const taken = names.filter((name) => lstat(join(prefix, name))?.isDirectory());
  if (taken.length > 0)
    throw new Error(`Cannot install "${taken[0]}" in "${prefix}": a directory has that name`);
  using directory = openPrefix(prefix);
  const earlier = directory.ownInodes();
  const image = directory.addImage(wanted.image);
  const replaced = names.filter((name) => directory.keepAside(name, earlier));
  for (const name of names) directory.put(image, name);
  const retired = directory.list().filter((name) => !names.includes(name) && directory.holds(name, earlier));
  const given = directory.giveBack(retired);
  directory.forgetImagesBut(image);
  return { installed: names, replaced, ...given, foreign: [] };
}

/**
 * Takes our executables out of `prefix` and gives each name back to what had it before the first installation. A name
 * that somebody else has taken since is left alone, and so is what was kept aside for it. Throws Error when nothing is
 * installed there.
 */
export function undoInstallation(prefix: string): Changes {
  if (!existsSync(join(prefix, STATE)))
    throw new Error(`Nothing is installed in "${prefix}": it has no "${STATE}"`);
  using directory = openPrefix(prefix);
  directory.dropUntaken();
  const own = directory.ownInodes();
  const present = directory.list();
  const absent = directory.kept().filter((name) => !present.includes(name));
  const given = directory.giveBack([...present.filter((name) => directory.holds(name, own)), ...absent]);
  const foreign = directory.kept();
  directory.forgetImagesBut(undefined);
  return { installed: [], replaced: [], ...given, foreign };
}

/** The directory that is installed to, locked against another installation until it is disposed of. */
class Prefix implements Disposable {
  readonly #path: string;
  readonly #images: string;
  readonly #replaced: string;
  readonly #lock: number;

  constructor(path: string, lock: number) {
    this.#path = path;
    this.#images = join(path, STATE, 'images');
    this.#replaced = join(path, STATE, 'replaced');
    this.#lock = lock;
    for (const directory of [this.#images, this.#replaced])
      mkdirSync(directory, { recursive: true, mode: 0o700 });
  }

  /** Names in the directory, ours and others. */
  list(): string[] {
    return readdirSync(this.#path).filter((name) => name !== STATE);
  }

  /** Names of which something was kept aside. */
  kept(): string[] {
    return readdirSync(this.#replaced).sort();
  }

  ownInodes(): ReadonlySet<number> {
    return new Set(readdirSync(this.#images).map((name) => lstatSync(join(this.#images, name)).ino));
  }

  holds(name: string, inodes: ReadonlySet<number>): boolean {
    const found = lstat(join(this.#path, name));
    return found !== undefined && inodes.has(found.ino);
  }

  /** Copies an image to this file system, all of it on the disk before anything refers to it, and returns its path. */
  addImage(from: string): string {
    const path = join(this.#images, `${Date.now()}-${process.pid}`);
    writeInPieces(readFileSync(from), path);
    sync(path);
    return path;
  }

  /** Keeps what has that name for later, unless it is ours; true when there was something to keep. */
  keepAside(name: string, own: ReadonlySet<number>): boolean {
    const path = join(this.#path, name);
    if (lstat(path) === undefined || this.holds(name, own)) return false;
    this.#link(path, join(this.#replaced, name));
    return true;
  }

  put(image: string, name: string): void {
    this.#link(image, join(this.#path, name));
  }

  /** Gives names back to what was kept of them; those of which nothing was kept go. */
  giveBack(names: readonly string[]): Pick<Changes, 'restored' | 'removed'> {
    const kept = new Set(this.kept());
    const restored = names.filter((name) => kept.has(name));
    const removed = names.filter((name) => !kept.has(name));
    for (const name of restored) renameSync(join(this.#replaced, name), join(this.#path, name));
    for (const name of removed) rmSync(join(this.#path, name));
    return { restored, removed };
  }

  /** Only now are files that have an older image nobody's business any more. */
  forgetImagesBut(image: string | undefined): void {
    sync(this.#path);
    for (const name of readdirSync(this.#images)) {
      if (join(this.#images, name) !== image) rmSync(join(this.#images, name));
    }
    if (image !== undefined) return;
    rmdirSync(this.#images);
    if (this.kept().length === 0) rmSync(join(this.#path, STATE), { recursive: true });
  }

  /** Forgets what was kept of names that still have it: an installation was interrupted before it took them. */
  dropUntaken(): void {
    for (const name of this.kept()) {
      const kept = join(this.#replaced, name);
      if (lstat(join(this.#path, name))?.ino === lstatSync(kept).ino) rmSync(kept);
    }
  }

  [Symbol.dispose](): void {
    closeSync(this.#lock);
  }

  // link(2) cannot replace a file, rename(2) can. Where both names lead to one file already, rename does nothing and
  // leaves the first name there.
  #link(from: string, to: string): void {
    const fresh = join(this.#path, STATE, 'link');
    rmSync(fresh, { force: true });
    linkSync(from, fresh);
    renameSync(fresh, to);
    rmSync(fresh, { force: true });
  }
}

// The lock is on the directory itself: a lock file would have to be removed under those who wait for it.
function openPrefix(path: string): Prefix {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  if (tryFlock(fd)) return new Prefix(path, fd);
  closeSync(fd);
  throw new Error(`Cannot change "${path}": another installation is at work there`);
}

function sync(path: string): void {
  const fd = openSync(path, constants.O_RDONLY);
  fsyncSync(fd);
  closeSync(fd);
}

function lstat(path: string): Stats | undefined {
  return lstatSync(path, { throwIfNoEntry: false });
}

function tell(prefix: string, { installed, replaced, restored, removed, foreign }: Changes): void {
  const lines: readonly (readonly [string, readonly string[]])[] = [
    [`Installed in ${prefix}`, installed],
    ['Kept for --undo, because they were there before', replaced],
    [`Restored in ${prefix}`, restored],
    [`Removed from ${prefix}`, removed],
    [`Changed by others since, so left alone (what was there before is in ${prefix}/${STATE})`, foreign],
  ];
  for (const [what, names] of lines) if (names.length > 0) console.log(`${what}: ${names.join(', ')}`);
}

// At the end: a class is not there before its lines have run.
if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exitCode = 1;
  }
}
