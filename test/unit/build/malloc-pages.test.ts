// Says what useHugePagesForMalloc promises, on the Node binary that runs this test. Called by vitest.
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  DT_STRTAB,
  DT_SYMTAB,
  decodeElf,
  getDynamic,
  getSection,
  offsetOf,
  readDynamicString,
  SHT_DYNSYM,
  SYMBOL,
  writeWord,
} from '../../../build/elf.ts';
import { useHugePagesForMalloc } from '../../../build/malloc-pages.ts';
import { askedFor, readMaps } from '../../support/smaps.ts';

const directory = mkdtempSync(join(tmpdir(), 'patchbay-malloc-pages-'));
afterAll(() => rmSync(directory, { recursive: true }));

const original = readFileSync(process.execPath);
const patched = useHugePagesForMalloc(original);
const MIB = 1024 * 1024;

if (process.arch === 'arm64') {
  test('An image for aarch64 is left as it is', () => {
    expect(patched.equals(original)).toBe(true);
  });
} else {
  const node = join(directory, 'node');
  writeFileSync(node, patched);
  chmodSync(node, 0o755);

  describe('A Node whose malloc has huge pages', () => {
    test('has 8 MiB of its heap aligned to 2 MiB, for which the kernel was asked for them, and uses them', () => {
      const [{ begin = 0, end = 0, resident = 0 } = {}, ...others] = askedFor(readMaps(node));
      expect({ size: end - begin, others }).toEqual({ size: 8 * MIB, others: [] });
      expect(begin % (2 * MIB)).toBe(0);
      expect(resident).toBeGreaterThan(MIB);
      expect(askedFor(readMaps(process.execPath))).toEqual([]);
    });

    test('wastes nothing before the first of them', () => {
      const maps = readMaps(node);
      const [{ begin = 0 } = {}] = askedFor(maps);
      const before = maps.find(({ end }) => end === begin);
      expect(before?.name).toBe('[heap]');
      expect(before?.resident).toBeLessThan(MIB);
    });

    test('allocates more than that, on several threads', () => {
      expect(run(node, WORKERS)).toBe('done 4\n');
    });
  });

  describe('An image that is not quite what it is made for', () => {
    test.each<[string, (elf: Buffer) => void]>([
      ['it is no ELF image', (elf) => elf.writeUInt8(0, 0)],
      ['there are 0 places for the address of malloc', (elf) => elf.write('mallow', nameOf(elf, 'malloc'))],
      ['do not begin with an address', (elf) => writeWord(elf, firstFunction(elf), 1)],
    ])('is refused because %s', (reason, change) => {
      const elf = Buffer.from(original);
      change(elf);
      expect(() => useHugePagesForMalloc(elf)).toThrow('Cannot let malloc use huge pages in this image: ');
      expect(() => useHugePagesForMalloc(elf)).toThrow(reason);
    });
  });
}

const WORKERS = `
  const { Worker } = require('node:worker_threads');
  const source = "const all = []; for (let i = 0; i < 100; i += 1) all.push(Buffer.alloc(100000 * (i % 7 + 1), i)); require('node:worker_threads').parentPort.postMessage(all.length)";
  let done = 0;
  for (let i = 0; i < 4; i += 1) new Worker(source, { eval: true }).on('message', (length) => {
    if (length === 100) done += 1;
    if (done === 4) console.log('done', done);
  });
`;

function run(program: string, script: string): string {
  return execFileSync(program, ['-e', script], { encoding: 'utf8', env: {} });
}

/** Where the string table has the name of the symbol. */
function nameOf(elf: Buffer, name: string): number {
  const image = decodeElf(elf);
  const symbols = getSection(image, SHT_DYNSYM, DT_SYMTAB);
  for (let at = symbols.offset; at < symbols.offset + symbols.size; at += SYMBOL) {
    const index = elf.readUInt32LE(at);
    if (readDynamicString(image, index) === name)
      return offsetOf(image, getDynamic(image, DT_STRTAB) + index, 1);
  }
  throw new Error(`Node has no symbol ${name}`);
}

function firstFunction(elf: Buffer): number {
  const image = decodeElf(elf);
  return offsetOf(image, getDynamic(image, 25), 8);
}
