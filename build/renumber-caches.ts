// Writes code caches anew from a process that has done nothing else, so that builds do not differ in what V8 counts.
// Started by code-cache.ts under Node, flags and snapshot of the executables, after warm-up.ts.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Script } from 'node:vm';

/** What build/renumber-caches.ts is told, as JSON in its first argument. */
export interface RenumberOrder {
  /** Where sources and caches are. */
  readonly directory: string;
  /** Names of caches: `bridge.ADD` is one of `bridge.js`. */
  readonly files: readonly string[];
}

// V8 gives every function a number, counted from the start of the process, and writes it into the cache; whoever reads
// the cache numbers the functions anew (PostProcessNewObject in V8's src/snapshot/deserializer.cc). How many functions
// the warm-up had met before depends on what was random in it: a name, an order, a wait.
const { directory, files } = JSON.parse(process.argv[2] ?? '') as RenumberOrder;
for (const file of files) {
  const path = join(directory, file);
  const source = readFileSync(join(directory, `${file.slice(0, file.lastIndexOf('.'))}.js`), 'latin1');
  // By another name each: scripts of one source and name would share the functions of the first.
  const script = new Script(source, { filename: file, cachedData: readFileSync(path) });
  if (script.cachedDataRejected) throw new Error(`V8 refuses the code cache "${file}"`);
  writeFileSync(path, script.createCachedData());
}
