// The main script of the executables: takes the program and its code cache out of the image and runs it.
// Made part of them by package.ts. Node compiles this file at every start, so it is as short as it can be.
'use strict';
const { getRawAsset } = require('node:sea');
const { Script } = require('node:vm');

const { CNI_COMMAND, PATCHBAY_TRACE } = process.env;
const PROGRAMS = []; // filled in by package.ts
const VERBS = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS'];
const DELETED = ' (deleted)';

try {
  // One script a plugin and one cache a verb: what a call does not need would only have to be read. By what name it was
  // called decides as in main.ts, which says so when there is no plugin of that name.
  const { execPath, argv0 } = process;
  const image = execPath.endsWith(DELETED) ? execPath.slice(0, -DELETED.length) : execPath;
  const names = [image, argv0].map((path) => path.slice(path.lastIndexOf('/') + 1));
  const program = names.find((name) => PROGRAMS.includes(name)) ?? PROGRAMS[0];
  load(program, VERBS.includes(CNI_COMMAND) ? CNI_COMMAND : 'VERSION')(
    (id) => (id === 'execa' ? load(id, 'library')(require, process) : require(id)),
    process,
  );
} catch (error) {
  // The last line of defence: whatever main.ts could not catch still ends as one CNI error on stdout.
  const msg = `The program failed: ${error?.message ?? error}`;
  const report = { cniVersion: '1.1.0', code: 999, msg, details: String(error?.stack ?? '') };
  require('node:fs').writeSync(1, JSON.stringify(report));
  process.exit(1);
}

function load(name, cache) {
  const asset = getRawAsset(`${name}.${cache}`);
  const [begin] = new Uint8Array(asset, 0, 1); // see align-caches.ts
  const script = new Script(Buffer.from(getRawAsset(name)).latin1Slice(), {
    filename: `${name}.cjs`,
    cachedData: new Uint8Array(asset, begin, asset.byteLength - 8),
  });
  if (PATCHBAY_TRACE === 'start') {
    process._rawDebug(`code cache of ${name} ${script.cachedDataRejected ? 'rejected' : 'accepted'}`);
  }
  return script.runInThisContext();
}
