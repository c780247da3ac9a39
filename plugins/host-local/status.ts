// host-local STATUS: whether an ADD with this config could succeed now, told without making or changing any address.
// Called by the dispatcher through index.ts.
import { accessSync, constants, lstatSync, readdirSync, statfsSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { hasCode, notAvailable, quote } from '../../shared/cni/error.ts';
import type { StatusCall } from '../../shared/cni/plugin.ts';
import { ipEquals } from '../../shared/ip/cidr.ts';
import type { HostLocalConfig } from './config.ts';
import { deadAddresses } from './dead-addresses.ts';
import { openKernelView } from './kernel-view.ts';
import { countAddresses, findRange, formatCount, formatRangeSet, type RangeSet } from './range.ts';
import { addressNamed, directoryOf, findStore, type StoreLocation } from './store.ts';

/**
 * Throws notAvailable, naming path and reason, when the store can't be written. A range set without a free address is
 * a line on stderr only, unless the config says `strictStatus`: kubelet takes a failing STATUS for a dead node.
 */
export function status(call: StatusCall<HostLocalConfig>): void {
  const { config, network, log } = call;
  const location = { dataDir: config.dataDir, network: network.name };
  const directory = directoryOf(location);
  expectWritable(directory);
  const names = listNames(directory);
  for (const set of config.sets) {
    const count = countAddresses(set);
    // Fewer files than addresses: then which ones they are need not be looked at, and STATUS is asked for often.
    if (BigInt(names.length) < count || countTaken(set, names) < count || hasReclaimable(location, set))
      continue;
    const line = `There are no IP addresses available in range set ${quote(formatRangeSet(set))}: all ${formatCount(count)} are taken`;
    if (config.strictStatus) throw notAvailable(line);
    log(line);
  }
}

// Asked of the nearest directory that exists: an ADD makes the others. Root may write anywhere, but not on a file
// system mounted read-only or into an immutable directory, and access(2) tells both.
function expectWritable(directory: string): void {
  const nearest = nearestExisting(directory, directory);
  explain(directory, nearest, () => {
    if (!statSync(nearest).isDirectory()) throw new Error('it is not a directory');
    accessSync(nearest, constants.W_OK | constants.X_OK);
    const { bavail, files, ffree } = statfsSync(nearest);
    if (bavail === 0) throw new Error('no space is left on its file system');
    // Some file systems count no files at all.
    if (files > 0 && ffree === 0) throw new Error('no inode is left on its file system');
  });
  const lock = join(directory, 'lock');
  explain(directory, lock, () => {
    if (lstatSync(lock, { throwIfNoEntry: false })?.isFile() === false)
      throw new Error('it is not a regular file');
  });
}

function nearestExisting(directory: string, path: string): string {
  const parent = dirname(path);
  if (parent === path) return path;
  return explain(directory, path, () => statSync(path, { throwIfNoEntry: false })) === undefined
    ? nearestExisting(directory, parent)
    : path;
}

// The store is what the config names, the path is what is in the way: a directory above it, or a file within.
function explain<T>(directory: string, path: string, step: () => T): T {
  try {
    return step();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    const where = path === directory ? '' : `, at ${quote(path)}`;
    throw notAvailable(`The address store ${quote(directory)} cannot be written${where}: ${reason}`, {
      cause,
    });
  }
}

function listNames(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (hasCode(error, 'ENOENT')) return [];
    throw error;
  }
}

function countTaken(set: RangeSet, names: readonly string[]): bigint {
  let count = 0n;
  for (const name of names) {
    const ip = addressNamed(name);
    const range = ip === undefined ? undefined : findRange(set, ip);
    if (ip !== undefined && range !== undefined && !ipEquals(ip, range.gateway)) count += 1n;
  }
  return count;
}

// What an ADD would take back: empty and torn files, and addresses of an earlier boot.
function hasReclaimable(location: StoreLocation, set: RangeSet): boolean {
  using kernel = openKernelView();
  using store = findStore(location);
  if (store === undefined) return false;
  if (store.list().some(({ ip, holder }) => holder === 'nobody' && findRange(set, ip) !== undefined))
    return true;
  for (const _dead of deadAddresses(store, kernel, ({ ip }) => findRange(set, ip) !== undefined)) return true;
  return false;
}
