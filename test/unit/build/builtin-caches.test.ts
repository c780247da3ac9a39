// Says what relabelBuiltinCaches promises: on made-up bytes, in which every refusal can be provoked, and on the Node
// binary that runs this test. Called by vitest.
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { relabelBuiltinCaches } from '../../../build/builtin-caches.ts';
import { V8_FLAGS } from '../../../build/code-cache.ts';

const COUNT = 300;
const MADE = makeCache({ flags: 3 });
const WANTED = makeCache({ flags: 5 });

const directory = mkdtempSync(join(tmpdir(), 'patchbay-builtin-caches-'));
afterAll(() => rmSync(directory, { recursive: true }));

describe('Relabelling the code caches of a Node binary', () => {
  test('gives each of them the other label and changes nothing else', () => {
    const image = makeImage({ flags: 3 });
    const relabelled = relabelBuiltinCaches(image, { made: MADE, wanted: WANTED });
    expect(relabelled.equals(makeImage({ flags: 5 }))).toBe(true);
    expect(image.equals(makeImage({ flags: 3 }))).toBe(true);
  });

  test.each<[string, Buffer]>([
    ['Node has 299 code caches of its own, not 300 or more', makeImage({ flags: 3, count: COUNT - 1 })],
    ['Node has 0 code caches of its own', Buffer.alloc(4096)],
    ['was made under other flags', Buffer.concat([makeImage({ flags: 3 }), makeCache({ flags: 7 })])],
    [
      'with another snapshot',
      Buffer.concat([makeImage({ flags: 3 }), makeCache({ flags: 3, snapshot: 12 })]),
    ],
    ['ends behind the image', makeImage({ flags: 3 }).subarray(0, -1)],
    ['ends behind the image', Buffer.concat([makeImage({ flags: 3 }), MADE.subarray(0, 31)])],
  ])('is refused: %s', (reason, image) => {
    expect(() => relabelBuiltinCaches(image, { made: MADE, wanted: WANTED })).toThrow(reason);
  });

  test.each<[string, Buffer]>([
    ['the version of V8', makeCache({ flags: 5, version: 12 })],
    ['the script', makeCache({ flags: 5, source: 12 })],
    ['the snapshot', makeCache({ flags: 5, snapshot: 12 })],
    ['the length', makeCache({ flags: 5, payload: 'longer than that' })],
    ['all that follows the label', WANTED.subarray(0, 16)],
  ])('is refused when the flags change %s', (_what, wanted) => {
    const refusal = 'The flags change more of a code cache than its label';
    const image = makeImage({ flags: 3 });
    expect(() => relabelBuiltinCaches(image, { made: MADE, wanted })).toThrow(refusal);
    expect(() => relabelBuiltinCaches(image, { made: wanted, wanted: WANTED })).toThrow(refusal);
  });
});

describe('The Node binary', () => {
  test('makes the same bytecode under our flags as under the one that fixes the hash seed', () => {
    const fixed = compile(['--no-rehash-snapshot'], SAMPLE);
    const ours = compile(V8_FLAGS, SAMPLE);
    expect(ours.length).toBeGreaterThan(1000);
    expect(ours.subarray(12, 16)).not.toEqual(fixed.subarray(12, 16));
    ours.copy(fixed, 12, 12, 16);
    expect(ours).toEqual(fixed);
  });

  test('takes its own code caches under our flags once they are relabelled, and none before', () => {
    const node = join(directory, 'node');
    const labels = { made: compile([], '0'), wanted: compile(V8_FLAGS, '0') };
    writeFileSync(node, relabelBuiltinCaches(readFileSync(process.execPath), labels));
    chmodSync(node, 0o755);
    const before = countBuiltins(process.execPath);
    const after = countBuiltins(node);
    expect(before.taken).toBe(0);
    expect(after.taken).toBe(before.compiled);
    expect(after.compiled).toBe(0);
  });
});

// Compiled for the parentheses around them. They do not run: a function that Sparkplug compiles is marked as such.
const SAMPLE = `(function () {
  const list = Array.from({ length: 1000 }, (_, index) => ({ index, text: 'n' + index, ['k' + index]: index }));
  const { a, ...rest } = (function ({ b = 1, ...more }) { return { a: b, ...more }; })({ c: [1, 2.5, 3n, /x/g] });
  class Sample { #own = 1; static kind = 'sample'; own = (function () { return this.#own; }); }
  const walk = (function* () { yield* list; });
  const sum = (function (items) {
    let total = 0;
    for (const { index } of items) { try { total += index % 7 ? index : -index; } catch (error) { throw error; } }
    outer: for (let i = 0; i < 10000; i++) { switch (i & 3) { case 1: continue outer; default: total ^= i; } }
    return total;
  })(list);
  const later = (async function () { for await (const item of list) if (item?.text ?? a) return item; })();
  return [sum, rest, later, new Sample().own(), [...walk()].length];
})()`;

function compile(flags: readonly string[], source: string): Buffer {
  const program = `
    const script = new (require('node:vm').Script)(process.argv[1]);
    process.stdout.write(script.createCachedData());
  `;
  return execFileSync(process.execPath, [...flags, '-e', program, '--', source]);
}

/** How many of Node's own modules are taken from their code caches, and how many are compiled. */
function countBuiltins(node: string): { taken: number; compiled: number } {
  const program = `
    const { internalBinding } = require('internal/test/binding');
    require('node:child_process');
    const { compiledWithCache, compiledWithoutCache } = internalBinding('builtins').getCacheUsage();
    console.log(JSON.stringify({ taken: compiledWithCache.size, compiled: compiledWithoutCache.size }));
  `;
  const options = [...V8_FLAGS, '--expose-internals', '--no-warnings', '-e', program];
  return JSON.parse(execFileSync(node, options, { encoding: 'utf8' })) as { taken: number; compiled: number };
}

function makeImage({ flags, count = COUNT }: { flags: number; count?: number }): Buffer {
  const parts = Array.from({ length: count }, (_, index) => [
    Buffer.from(' '.repeat(index % 9)),
    makeCache({ flags, source: index, payload: `payload ${index}` }),
  ]);
  return Buffer.concat(parts.flat());
}

function makeCache({
  flags,
  version = 11,
  source = 1,
  snapshot = 2,
  payload = 'payload',
}: {
  flags: number;
  version?: number;
  source?: number;
  snapshot?: number;
  payload?: string;
}): Buffer {
  const header = Buffer.alloc(32);
  for (const [index, word] of [0xc0de06a9, version, source, flags, snapshot, payload.length].entries()) {
    header.writeUInt32LE(word, index * 4);
  }
  return Buffer.concat([header, Buffer.from(payload)]);
}
