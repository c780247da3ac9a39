// Says what prelink promises: on a hand-made executable for both machines, in which every refusal can be provoked,
// and on the Node binary that runs this test. Called by vitest.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { prelink } from '../../../build/prelink.ts';

const X86_64 = 62;
const AARCH64 = 183;
const RELATIVE: Readonly<Record<number, number>> = { [X86_64]: 8, [AARCH64]: 1027 };
const GLOB_DAT: Readonly<Record<number, number>> = { [X86_64]: 6, [AARCH64]: 1025 };
const ABSOLUTE: Readonly<Record<number, number>> = { [X86_64]: 1, [AARCH64]: 257 };
const COPY: Readonly<Record<number, number>> = { [X86_64]: 5, [AARCH64]: 1024 };

const directory = mkdtempSync(join(tmpdir(), 'patchbay-prelink-'));
afterAll(() => rmSync(directory, { recursive: true }));

describe.each([
  ['x86-64', X86_64],
  ['aarch64', AARCH64],
])('An executable for %s', (_name, machine) => {
  const elf = makeExecutable(machine);
  const original = Buffer.from(elf);
  const prelinked = prelink(elf);

  it('stays as it was, the patch is a copy of the same size', () => {
    expect(elf.equals(original)).toBe(true);
    expect(prelinked.length).toBe(elf.length);
  });

  it('has the addresses of its own functions, objects and copies in the place of their names', () => {
    const relative = RELATIVE[machine];
    expect(readRelocation(prelinked, 0)).toEqual({ type: relative, symbol: 0, addend: 0x401000 });
    expect(readRelocation(prelinked, 1)).toEqual({ type: relative, symbol: 0, addend: 0x402000 + 16 });
  });

  it.each([
    ['a function of a library', 2],
    ['a thread-local variable', 3],
    ['a function that picks its code when it is bound', 4],
    ['a hidden symbol', 5],
    ['a number that is no address', 6],
    ['a function of a library with a stub of its own', 7],
    ['an object that is still to be copied from its library', 8],
  ])('leaves the relocation for %s alone', (_what, index) => {
    const before = elf.subarray(RELOCATIONS + index * 24, RELOCATIONS + (index + 1) * 24);
    expect(prelinked.subarray(RELOCATIONS + index * 24, RELOCATIONS + (index + 1) * 24)).toEqual(before);
  });

  it('has libstdc++ searched first and libdl last, the others in their order', () => {
    expect(librariesOf(elf)).toEqual(['libdl.so.2', 'libm.so.6', 'libstdc++.so.6', 'libc.so.6']);
    expect(librariesOf(prelinked)).toEqual(['libstdc++.so.6', 'libm.so.6', 'libc.so.6', 'libdl.so.2']);
  });

  it('differs in nothing else', () => {
    const restored = Buffer.from(prelinked);
    elf.copy(restored, RELOCATIONS, RELOCATIONS, RELOCATIONS + 2 * 24);
    elf.copy(restored, DYNAMIC, DYNAMIC, DYNAMIC + 4 * 16);
    expect(restored.equals(elf)).toBe(true);
  });
});

describe('An image that is not quite what it is made for', () => {
  it.each<[string, (elf: Buffer) => void]>([
    ['it is no ELF image', (elf) => elf.writeUInt8(0, 0)],
    ['it is no executable at a fixed address', (elf) => elf.writeUInt16LE(3, 16)],
    ['it needs libstdc++.so.6 0 times', (elf) => elf.write('X', elf.indexOf('libstdc++'))],
    ['it needs libdl.so.2 2 times', (elf) => elf.copy(elf, DYNAMIC + 16, DYNAMIC, DYNAMIC + 16)],
    ['a relocation names symbol 99, which is not there', (elf) => elf.writeUInt32LE(99, RELOCATIONS + 12)],
    ['the relocation for symbol 1 adds 8', (elf) => elf.writeBigUInt64LE(8n, RELOCATIONS + 16)],
    ['is too large', (elf) => elf.writeBigUInt64LE(0xffff_ffff_ffff_fff8n, RELOCATIONS + 16)],
    [
      'it refers to no symbol of its own',
      (elf) => elf.fill(elf.subarray(RELOCATIONS + 48, RELOCATIONS + 72), RELOCATIONS, RELOCATIONS + 48),
    ],
    ['dynamic entries with tag 0x8, not 1', (elf) => elf.writeBigUInt64LE(9n, DYNAMIC + 8 * 16)],
  ])('is refused because %s', (reason, change) => {
    const elf = makeExecutable(X86_64);
    change(elf);
    expect(() => prelink(elf)).toThrow('Cannot prelink symbols in this image: ');
    expect(() => prelink(elf)).toThrow(reason);
  });
});

describe('The Node binary', () => {
  const node = readFileSync(process.execPath);
  const prelinked = prelink(node);
  const bound = listBound(node, prelinked);

  it('has in memory, bound by the loader, the very addresses that are written into it', () => {
    expect(bound.length).toBeGreaterThan(50); // 922 on x86-64, 97 on aarch64
    const { stdout, stderr } = run(process.execPath, SHOW, { input: JSON.stringify(bound) });
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual(bound.map(({ address }) => address));
  });

  it('has the same in memory when it is prelinked', () => {
    const path = join(directory, 'node');
    writeFileSync(path, prelinked);
    chmodSync(path, 0o755);
    const { stdout, stderr } = run(path, SHOW, { input: JSON.stringify(bound) });
    expect(stderr).toBe('');
    expect(JSON.parse(stdout)).toEqual(bound.map(({ address }) => address));
  });
});

// What lies at these addresses of this process. The loader has made them read-only, so nothing else wrote them.
const SHOW = `
  const { openSync, readFileSync, readSync } = require('node:fs');
  const memory = openSync('/proc/self/mem', 'r');
  const word = new BigUint64Array(1);
  const addresses = JSON.parse(readFileSync(0, 'utf8')).map(({ slot }) => {
    readSync(memory, word, 0, 8, slot);
    return Number(word[0]);
  });
  console.log(JSON.stringify(addresses));
`;

function run(node: string, script: string, { input }: { input: string }) {
  return spawnSync(node, ['-e', script], { input, encoding: 'utf8', env: { PATH: process.env['PATH'] } });
}

/** The relocations that differ between the two: slots and the addresses that are to stand there. */
function listBound(before: Buffer, after: Buffer): { slot: number; address: number }[] {
  const bound: { slot: number; address: number }[] = [];
  const sections = Number(before.readBigUInt64LE(40));
  for (let index = 0; index < before.readUInt16LE(60); index += 1) {
    const header = sections + index * 64;
    if (before.readUInt32LE(header + 4) !== 4) continue; // SHT_RELA
    const start = Number(before.readBigUInt64LE(header + 24));
    const end = start + Number(before.readBigUInt64LE(header + 32));
    for (let at = start; at < end; at += 24) {
      if (before.subarray(at, at + 24).equals(after.subarray(at, at + 24))) continue;
      const slot = Number(after.readBigUInt64LE(at));
      bound.push({ slot, address: Number(after.readBigUInt64LE(at + 16)) });
    }
  }
  return bound;
}

function readRelocation(elf: Buffer, index: number): { type: number; symbol: number; addend: number } {
  const at = RELOCATIONS + index * 24;
  const addend = Number(elf.readBigUInt64LE(at + 16));
  return { type: elf.readUInt32LE(at + 8), symbol: elf.readUInt32LE(at + 12), addend };
}

function librariesOf(elf: Buffer): string[] {
  return [0, 1, 2, 3].map((index) => {
    const start = STRINGS + Number(elf.readBigUInt64LE(DYNAMIC + index * 16 + 8));
    return elf.toString('latin1', start, elf.indexOf(0, start));
  });
}

// The tables of an executable, with nothing to execute: its file offsets are its addresses minus BASE.
const BASE = 0x400000;
const SYMBOLS = 0x400;
const STRINGS = 0x600;
const VERSIONS = 0x700;
const RELOCATIONS = 0x800;
const DYNAMIC = 0xa00;
const SECTIONS = 0xc00;

function makeExecutable(machine: number): Buffer {
  const elf = Buffer.alloc(0x1000);
  elf.write('7f454c46020101', 'hex');
  elf.writeUInt16LE(2, 16);
  elf.writeUInt16LE(machine, 18);
  elf.writeBigUInt64LE(64n, 32);
  elf.writeBigUInt64LE(BigInt(SECTIONS), 40);
  for (const [index, half] of [64, 56, 2, 64, 3, 0].entries()) elf.writeUInt16LE(half, 52 + index * 2);

  const libraries = ['libdl.so.2', 'libm.so.6', 'libstdc++.so.6', 'libc.so.6'];
  const strings = Buffer.from(`\0${libraries.join('\0')}\0`);
  strings.copy(elf, STRINGS);

  // st_info, st_shndx, st_value, version: one for each relocation.
  const symbols = [
    [0x12, 1, 0x401000, 1],
    [0x21, 2, 0x402000, 2],
    [0x12, 0, 0, 2],
    [0x16, 1, 0x40, 1],
    [0x1a, 1, 0x401020, 1],
    [0x12, 1, 0x401040, 0],
    [0x10, 0xfff1, 0x1234, 1],
    [0x12, 0, 0x401060, 2],
    [0x21, 2, 0x402000, 2],
  ] as const;
  const [globDat = 0, absolute = 0, copy = 0] = [GLOB_DAT[machine], ABSOLUTE[machine], COPY[machine]];
  const types = [globDat, absolute, globDat, globDat, globDat, globDat, absolute, globDat, copy];
  for (const [index, [info, section, value, version]] of symbols.entries()) {
    const symbol = SYMBOLS + (index + 1) * 24;
    elf.writeUInt8(info, symbol + 4);
    elf.writeUInt16LE(section, symbol + 6);
    elf.writeBigUInt64LE(BigInt(value), symbol + 8);
    elf.writeUInt16LE(version, VERSIONS + (index + 1) * 2);
    const relocation = RELOCATIONS + index * 24;
    elf.writeBigUInt64LE(BigInt(BASE + 0xf00 + index * 8), relocation);
    elf.writeUInt32LE(types[index] ?? 0, relocation + 8);
    elf.writeUInt32LE(index + 1, relocation + 12);
    elf.writeBigUInt64LE(types[index] === absolute ? 16n : 0n, relocation + 16);
  }

  const entries = [
    ...libraries.map((name) => [1, strings.indexOf(name)]),
    [5, BASE + STRINGS],
    [6, BASE + SYMBOLS],
    [0x6ffffff0, BASE + VERSIONS],
    [7, BASE + RELOCATIONS],
    [8, symbols.length * 24],
    [0, 0],
  ];
  for (const [index, entry] of entries.entries()) {
    for (const [half, word] of entry.entries()) {
      elf.writeBigUInt64LE(BigInt(word), DYNAMIC + index * 16 + half * 8);
    }
  }

  // p_type and p_flags, then p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align
  writeHeader(elf, 64, [1, 6], [0, BASE, BASE, elf.length, elf.length, 4096]);
  const length = entries.length * 16;
  writeHeader(elf, 64 + 56, [2, 6], [DYNAMIC, BASE + DYNAMIC, BASE + DYNAMIC, length, length, 8]);
  // sh_name and sh_type, then sh_flags, sh_addr, sh_offset, sh_size
  const count = symbols.length + 1;
  writeHeader(elf, SECTIONS, [0, 11], [2, BASE + SYMBOLS, SYMBOLS, count * 24]);
  writeHeader(elf, SECTIONS + 64, [0, 0x6fffffff], [2, BASE + VERSIONS, VERSIONS, count * 2]);
  writeHeader(elf, SECTIONS + 128, [0, 3], [0, 0, STRINGS, strings.length]);
  return elf;
}

function writeHeader(elf: Buffer, at: number, halves: readonly number[], words: readonly number[]): void {
  for (const [index, half] of halves.entries()) elf.writeUInt32LE(half, at + index * 4);
  for (const [index, word] of words.entries()) elf.writeBigUInt64LE(BigInt(word), at + 8 + index * 8);
}
