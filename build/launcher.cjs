// The main script of the executables. It runs once, while they are built, in a Node that is then written down as a
// snapshot (start-snapshot.ts); a start takes up from there and calls `main`, which takes a program and its code cache out
// of the image and runs it.
'use strict';
const { internalBinding } = require('internal/test/binding');
const { prepareMainThreadExecution } = require('internal/process/pre_execution');
const { isUtf8 } = require('node:buffer');
const fs = require('node:fs');
const { getRawAsset, isSea } = require('node:sea');
const { Script } = require('node:vm');

const PROGRAMS = []; // filled in by package.ts
const VERBS = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS'];
const DELETED = ' (deleted)';

function main() {
  // What Node does itself before a main script: arguments, environment and options are those of this process.
  prepareMainThreadExecution(false, false);
  if (!isSea()) return runTool();
  try {
    runProgram();
  } catch (error) {
    // The last line of defence: whatever main.ts could not catch still ends as one CNI error on stdout.
    const msg = `The program failed: ${error?.message ?? error}`;
    const report = { cniVersion: '1.1.0', code: 999, msg, details: String(error?.stack ?? '') };
    fs.writeSync(1, JSON.stringify(report));
    process.exit(1);
  }
}

// One script a plugin and one cache a verb: what a call does not need would only have to be read. By what name it was
// called decides as in main.ts, which says so when there is no plugin of that name.
function runProgram() {
  const { CNI_COMMAND } = process.env;
  const { execPath, argv0 } = process;
  const image = execPath.endsWith(DELETED) ? execPath.slice(0, -DELETED.length) : execPath;
  const names = [image, argv0].map((path) => path.slice(path.lastIndexOf('/') + 1));
  const own = names.find((name) => PROGRAMS.includes(name)) ?? PROGRAMS[0];
  // plugins/version.ts does what is left of a plugin then; an empty program, which has one name, does not know it.
  const program = CNI_COMMAND === 'VERSION' && PROGRAMS.length > 1 ? 'version' : own;
  load(program, VERBS.includes(CNI_COMMAND) ? CNI_COMMAND : 'VERSION')(
    (id) => (id === 'execa' ? load(id, 'library')(require, process) : require(id)),
    process,
  );
}

function load(name, cache) {
  const asset = getRawAsset(`${name}.${cache}`);
  const [begin] = new Uint8Array(asset, 0, 1); // see align-caches.ts
  const script = new Script(Buffer.from(getRawAsset(name)).latin1Slice(), {
    filename: `${name}.cjs`,
    cachedData: new Uint8Array(asset, begin, asset.byteLength - 8),
  });
  if (process.env.PATCHBAY_TRACE === 'start') {
    process._rawDebug(`code cache of ${name} ${script.cachedDataRejected ? 'rejected' : 'accepted'}`);
  }
  return script.runInThisContext();
}

// The build's own scripts make code caches, which serve only with the snapshot that they were made with; see code-cache.ts.
function runTool() {
  const [, script] = process.argv;
  new Script(fs.readFileSync(script, 'latin1'), { filename: script }).runInThisContext()(require, process);
}

// Node compiles all of its functions for a snapshot, and a start would read the bytecode of thousands that nobody calls.
// Under this flag a collection throws away what is not running; a heap snapshot is what Node has for collecting now.
function forgetBytecode() {
  const v8 = internalBinding('v8');
  v8.setFlagsFromString('--stress-flush-code');
  for (let round = 0; round < 2; round++) {
    internalBinding('heap_utils').triggerHeapSnapshot('/dev/null', new Uint8Array(2));
  }
  v8.setFlagsFromString('--no-stress-flush-code');
}

// What starts and programs call of Node is compiled again by being called, if only to fail.
function warmUp() {
  prepareMainThreadExecution(false, false);
  require('internal/util').emitExperimentalWarning('FFI'); // told once in a process: here, where nobody hears it
  const listener = () => {};
  process.addListener('SIGUNUSED', listener).removeListener('SIGUNUSED', listener);
  new Script('0', { filename: 'warm-up.cjs', cachedData: new Uint8Array(8) }).runInThisContext();
  attempt(runProgram);
  attempt(() => require('no such module'));
  warmUpBuffers();
  warmUpFiles();
}

function warmUpBuffers() {
  const text = Buffer.concat([
    Buffer.from('te'),
    Buffer.from([120, 116]),
    Buffer.from(new ArrayBuffer(1)).subarray(0, 0),
  ]);
  isUtf8(text);
  text.includes('x');
  for (const encoding of ['utf8', 'latin1']) {
    text.toString(encoding);
    text.write('text', encoding);
    Buffer.byteLength('text', encoding);
    Buffer.allocUnsafe(8).write('text', 0, encoding);
  }
  text.latin1Slice();
  Buffer.allocUnsafeSlow(8);
}

function warmUpFiles() {
  const path = '/nowhere/near';
  const { basename, dirname, join, normalize, resolve } = require('node:path');
  for (const call of [basename, dirname, normalize, resolve]) call(path);
  join(path, '..', 'here');
  const fd = fs.openSync('/dev/null', fs.constants.O_RDWR, 0o600);
  fs.writeSync(fd, 'text');
  fs.writeSync(fd, Buffer.from('text'), 0, 4);
  fs.readSync(fd, Buffer.alloc(8), 0, 8, null);
  fs.fstatSync(fd);
  fs.fstatSync(fd, { bigint: true });
  fs.closeSync(fd);
  for (const read of [fs.statSync, fs.lstatSync, fs.statfsSync, fs.readdirSync]) {
    read('/');
    attempt(() => read(path));
  }
  for (const stats of [fs.statSync('/'), fs.statSync('/', { bigint: true })]) {
    for (const kind of ['File', 'Directory', 'SymbolicLink']) stats[`is${kind}`]();
  }
  fs.statSync(path, { throwIfNoEntry: false });
  fs.readFileSync('/dev/null');
  for (const encoding of ['utf8', 'latin1']) fs.readFileSync('/proc/self/comm', encoding);
  fs.readlinkSync('/proc/self');
  fs.existsSync(path);
  for (const write of ['link', 'symlink', 'rename']) attempt(() => fs[`${write}Sync`](path, path));
  for (const write of ['unlink', 'mkdir', 'readlink', 'readFile']) attempt(() => fs[`${write}Sync`](path));
  attempt(() => fs.utimesSync(path, 1.5, new Date(0)));
}

function attempt(call) {
  try {
    call();
  } catch {
    // That it was compiled is enough.
  }
}

forgetBytecode();
warmUp();
// What differs from build to build is not written down; a start puts its own in its place.
for (const [name, value] of Object.entries({ pid: 0, execPath: '', argv: [], argv0: '', execArgv: [] })) {
  Object.defineProperty(process, name, { ...Object.getOwnPropertyDescriptor(process, name), value });
}
new Uint8Array(Buffer.from('.').buffer).fill(0); // Node's pool of small buffers, and whatever its memory held before
for (const answers of Object.values(internalBinding('fs')).filter(ArrayBuffer.isView)) {
  answers.fill(typeof answers[0] === 'bigint' ? 0n : 0);
}
internalBinding('mksnapshot').setDeserializeMainFunction(main);
