// Says what useHugePages promises, on the Node binary that runs this test. Called by vitest.
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { decodeElf, getFunction, offsetOf } from '../../../build/elf.ts';
import { useHugePages } from '../../../build/huge-pages.ts';
import { askedFor, type Mapping, readMaps } from '../../support/smaps.ts';

const NAME = '_ZN2v84base2OS8AllocateEPvmmNS1_16MemoryPermissionESt8optionalINS_18SharedMemoryHandleEE';

const directory = mkdtempSync(join(tmpdir(), 'patchbay-huge-pages-'));
afterAll(() => rmSync(directory, { recursive: true }));

const original = readFileSync(process.execPath);
const patched = useHugePages(original);

if (process.arch === 'arm64') {
  test('An image for aarch64 is left as it is', () => {
    expect(patched.equals(original)).toBe(true);
  });
} else {
  const node = join(directory, 'node');
  writeFileSync(node, patched);
  chmodSync(node, 0o755);

  describe('A Node that lays its heap into huge pages', () => {
    test('has one mapping of 16 MiB, aligned to 2 MiB, for which the kernel was asked for them', () => {
      const [{ begin = 0, end = 0 } = {}] = askedFor(readMaps(node)).sort((a, b) => sizeOf(b) - sizeOf(a));
      expect(end - begin).toBeGreaterThan(8 * MIB); // what V8 gave back or protects is a mapping of its own
      expect(end % (2 * MIB)).toBe(0);
      expect(askedFor(readMaps(process.execPath))).toEqual([]);
    });

    test('goes on with memory from elsewhere when that is used up', () => {
      expect(run(node, '--max-semi-space-size=1', FILL)).toBe('100000 99999\n');
    });

    test('runs workers, which allocate at the same time', () => {
      expect(run(node, WORKERS)).toBe('done 4\n');
    });
  });

  describe('An image that is not quite what it is made for', () => {
    test.each<[string, (elf: Buffer) => void]>([
      ['it is no ELF image', (elf) => elf.writeUInt8(0, 0)],
      [`${NAME} begins with c3`, (elf) => elf.writeUInt8(0xc3, entryOf(elf))],
      ['the padding of the executable segment is used', (elf) => elf.writeUInt8(1, paddingOf(elf))],
    ])('is refused because %s', (reason, change) => {
      const elf = Buffer.from(original);
      change(elf);
      expect(() => useHugePages(elf)).toThrow('Cannot use huge pages in this image: ');
      expect(() => useHugePages(elf)).toThrow(reason);
    });
  });
}

const MIB = 1024 * 1024;

const FILL = `
  const all = Array.from({ length: 100000 }, (_, index) => ({ index, text: String(index).padStart(200) }));
  console.log(all.length, all.at(-1).index);
`;

const WORKERS = `
  const { Worker } = require('node:worker_threads');
  const source = "const all = []; for (let i = 0; i < 200000; i += 1) all.push({ i }); require('node:worker_threads').parentPort.postMessage(all.length)";
  let done = 0;
  for (let i = 0; i < 4; i += 1) {
    new Worker(source, { eval: true }).on('message', (length) => {
      if (length === 200000) done += 1;
      if (done === 4) console.log('done', done);
    });
  }
`;

function run(program: string, ...args: readonly string[]): string {
  const options = args.slice(0, -1);
  return execFileSync(program, [...options, '-e', args.at(-1) ?? ''], { encoding: 'utf8', env: {} });
}

function sizeOf({ begin, end }: Mapping): number {
  return end - begin;
}

function entryOf(elf: Buffer): number {
  return getFunction(decodeElf(elf), NAME).offset;
}

function paddingOf(elf: Buffer): number {
  const image = decodeElf(elf);
  const code = image.segments.find(({ type, flags }) => type === 1 && (flags & 1) !== 0);
  if (code === undefined) throw new Error('Node has no code');
  return offsetOf(image, code.address, 1) + code.fileSize + 16;
}
