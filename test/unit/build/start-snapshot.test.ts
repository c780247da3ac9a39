// Says what keepBuiltinCaches and replaceSnapshot promise, on made-up bytes: what they make of real ones, every start of the
// executables shows. Called by vitest.
import { describe, expect, test } from 'vitest';
import { keepBuiltinCaches, replaceSnapshot } from '../../../build/start-snapshot.ts';

const HEAP = Buffer.concat([u32(0x0143da19), Buffer.from('a heap, and numbers such as '), u64(441), u64(3)]);
const NAMES = Array.from({ length: 300 }, (_, index) => `module/${index}`);

describe('The code caches of Node’s modules in a snapshot', () => {
  test('are dropped but for those that are named, in the order they had', () => {
    const kept = keepBuiltinCaches(makeSnapshot(NAMES), ['module/7', 'module/3']);
    expect(kept.equals(makeSnapshot(['module/3', 'module/7']))).toBe(true);
  });

  test('are all dropped when none is named', () => {
    expect(keepBuiltinCaches(makeSnapshot(NAMES), []).equals(makeSnapshot([]))).toBe(true);
  });

  test.each<[string, Buffer, string[]]>([
    ['The snapshot has no code cache of module/x, y', makeSnapshot(NAMES), ['module/1', 'module/x', 'y']],
    ['does not end with a list of code caches', makeSnapshot(NAMES.slice(1)), []],
    ['does not end with a list of code caches', makeSnapshot(NAMES).subarray(0, -1), []],
    ['does not end with a list of code caches', Buffer.concat([makeSnapshot(NAMES), Buffer.of(0)]), []],
    ['This is no snapshot of Node', Buffer.concat([Buffer.alloc(8), makeSnapshot(NAMES)]), []],
  ])('are left alone when it is not as expected: %s', (reason, snapshot, modules) => {
    expect(() => keepBuiltinCaches(snapshot, modules)).toThrow(reason);
  });
});

describe('The snapshot in what is put into an executable', () => {
  test('gives way to another, and nothing else changes', () => {
    const before = makeBlob({ content: makeSnapshot(['one']) });
    const another = makeSnapshot(NAMES);
    expect(replaceSnapshot(before, another).equals(makeBlob({ content: another }))).toBe(true);
  });

  test.each<[string, Buffer]>([
    ['This is nothing to put into an executable', makeBlob({ magic: 1 })],
    ['There is no snapshot to replace', makeBlob({ flags: 1 })],
    ['The snapshot is not where it was', makeBlob({ content: Buffer.from('a script') })],
  ])('stays when it is not as expected: %s', (reason, blob) => {
    expect(() => replaceSnapshot(blob, makeSnapshot([]))).toThrow(reason);
  });
});

function makeSnapshot(names: readonly string[]): Buffer {
  const caches = names.map((name) => Buffer.concat([sized(name), sized(`the code of ${name}`)]));
  return Buffer.concat([HEAP, u64(names.length), ...caches]);
}

function makeBlob({ magic = 0x0143da20, flags = 0x13, content = makeSnapshot([]) }): Buffer {
  const head = Buffer.concat([u32(magic), u32(flags), Buffer.alloc(2), sized('main.cjs')]);
  return Buffer.concat([head, sized(content), Buffer.from('assets and options')]);
}

function sized(content: string | Buffer): Buffer {
  return Buffer.concat([u64(content.length), Buffer.from(content)]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}
