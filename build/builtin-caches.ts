// Lets V8 accept the code caches that Node carries for its own modules although the executables run under flags of
// their own. Called by node-binary.ts on the stripped Node binary; docs/performance.md says what that saves.

/** What V8 writes before every code cache it makes; see `src/snapshot/code-serializer.h`. */
const HEADER = 32;
const SOURCE = 8;
const FLAGS = 12;
const SNAPSHOT = 16;
const LENGTH = 20;

// Node 26 has 441. Fewer than this would mean that they are kept in another way.
const FEWEST = 300;

/**
 * Returns a copy of a Node binary in which the code caches of Node's own modules are labelled as made under other
 * flags. `made` and `wanted` are code caches that this Node makes of one script: under the flags Node's own caches
 * were made with (none), and under those it shall accept.
 *
 * Such a label is a hash over all flags that differ from their default, whatever they do. Relabelling is sound only
 * for flags which change neither bytecode nor how it is written: those that choose compilers behind the interpreter,
 * and `--no-rehash-snapshot` (what a code cache holds is hashed anew whenever it is read, with or without that flag:
 * `should_rehash_` in V8's `src/snapshot/deserializer.cc`).
 *
 * Throws an Error when the two differ in more than the label, when there are too few code caches in the image, or
 * when one has another label: a new release of Node has to stop the build, not to start slower.
 */
export function relabelBuiltinCaches(
  image: Buffer,
  { made, wanted }: { readonly made: Buffer; readonly wanted: Buffer },
): Buffer {
  expectSameButFlags(made, wanted);
  const relabelled = Buffer.from(image);
  let count = 0;
  // Magic number and version of V8: eight bytes that nothing else in a Node has.
  for (const at of occurrences(image, made.subarray(0, SOURCE))) {
    expectCache(image, at, made);
    wanted.copy(relabelled, at + FLAGS, FLAGS, SNAPSHOT);
    count++;
  }
  if (count < FEWEST) throw new Error(`Node has ${count} code caches of its own, not ${FEWEST} or more`);
  return relabelled;
}

function expectSameButFlags(made: Buffer, wanted: Buffer): void {
  const isSame =
    made.length >= HEADER &&
    wanted.length >= HEADER &&
    made.subarray(0, FLAGS).equals(wanted.subarray(0, FLAGS)) &&
    made.subarray(SNAPSHOT, HEADER).equals(wanted.subarray(SNAPSHOT, HEADER));
  if (!isSame) throw new Error('The flags change more of a code cache than its label');
}

function expectCache(image: Buffer, at: number, made: Buffer): void {
  const place = `The code cache at 0x${at.toString(16)}`;
  if (at + HEADER > image.length || at + HEADER + image.readUInt32LE(at + LENGTH) > image.length) {
    throw new Error(`${place} ends behind the image`);
  }
  if (!image.subarray(at + FLAGS, at + LENGTH).equals(made.subarray(FLAGS, LENGTH))) {
    throw new Error(`${place} was made under other flags or with another snapshot`);
  }
}

function* occurrences(image: Buffer, bytes: Buffer): Generator<number> {
  for (let at = image.indexOf(bytes); at !== -1; at = image.indexOf(bytes, at + 1)) yield at;
}
