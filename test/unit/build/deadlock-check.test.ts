// Says what skipDeadlockCheck promises, on the Node binary that runs this test. Called by vitest.
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { skipDeadlockCheck } from '../../../build/deadlock-check.ts';
import { decodeElf, offsetOf } from '../../../build/elf.ts';

const NAME = '_ZN4absl12_GLOBAL__N_124synch_deadlock_detectionE';

const directory = mkdtempSync(join(tmpdir(), 'patchbay-deadlock-check-'));
afterAll(() => rmSync(directory, { recursive: true }));

const original = readFileSync(process.execPath);
const patched = skipDeadlockCheck(original);

describe('A Node that does not look for deadlocks', () => {
  test('differs in one number', () => {
    const at = findValue(original);
    expect(original.readUInt32LE(at)).toBe(2);
    expect(patched.readUInt32LE(at)).toBe(0);
    const restored = Buffer.from(patched);
    restored.writeUInt32LE(2, at);
    expect(restored.equals(original)).toBe(true);
  });

  test('runs threads that share memory, and touches less of its own', () => {
    const node = join(directory, 'node');
    writeFileSync(node, patched);
    chmodSync(node, 0o755);
    const before = run(process.execPath);
    const after = run(node);
    expect(before.sum).toBe(40_000);
    expect(after.sum).toBe(40_000);
    expect(after.faults).toBeLessThan(before.faults - 100);
  });
});

describe('An image that is not quite what it is made for', () => {
  test.each<[string, (elf: Buffer) => void]>([
    ['it is no ELF image', (elf) => elf.writeUInt8(0, 0)],
    ['there are 0 symbol tables, not 1', (elf) => elf.writeUInt32LE(1, symbolTable(elf).header + 4)],
    ['the symbol table has no names', (elf) => elf.writeUInt32LE(999, symbolTable(elf).header + 40)],
    [`there is no ${NAME}`, (elf) => elf.write('X', elf.indexOf(`\0${NAME}`, 'latin1') + 1)],
    [`there are 0 symbols named ${NAME}, not 1`, (elf) => elf.writeUInt32LE(0, findSymbol(elf))],
    [`${NAME} is no int`, (elf) => elf.writeUInt8(2, findSymbol(elf) + 4)],
    [`${NAME} is no int`, (elf) => elf.writeBigUInt64LE(8n, findSymbol(elf) + 16)],
    ['is not in the file', (elf) => elf.writeBigUInt64LE(1n, findSymbol(elf) + 8)],
    [`${NAME} is 0`, (elf) => elf.writeUInt32LE(0, findValue(elf))],
  ])('is refused because %s', (reason, change) => {
    const elf = Buffer.from(original);
    change(elf);
    expect(() => skipDeadlockCheck(elf)).toThrow('Cannot skip the deadlock check in this image: ');
    expect(() => skipDeadlockCheck(elf)).toThrow(reason);
  });
});

const PROGRAM = `
  const { Worker } = require('node:worker_threads');
  const { minorPageFault } = process.resourceUsage();
  const shared = new Int32Array(new SharedArrayBuffer(4));
  const source = \`
    const { workerData } = require('node:worker_threads');
    for (let i = 0; i < 10000; i++) Atomics.add(workerData, 0, 1);
  \`;
  let left = 4;
  for (let i = 0; i < 4; i++) {
    new Worker(source, { eval: true, workerData: shared }).on('exit', () => {
      left -= 1;
      if (left === 0) console.log(JSON.stringify({ sum: shared[0], faults: minorPageFault }));
    });
  }
`;

function run(node: string): { sum: number; faults: number } {
  const options = { encoding: 'utf8', env: { PATH: process.env['PATH'] } } as const;
  return JSON.parse(execFileSync(node, ['-e', PROGRAM], options)) as { sum: number; faults: number };
}

function symbolTable(elf: Buffer) {
  const table = decodeElf(elf).sections.find(({ type }) => type === 2);
  if (table === undefined) throw new Error('Node has no symbol table');
  return table;
}

function findSymbol(elf: Buffer): number {
  const table = symbolTable(elf);
  const names = decodeElf(elf).sections[elf.readUInt32LE(table.header + 40)];
  const start = names?.offset ?? 0;
  const name = elf.indexOf(`\0${NAME}`, start, 'latin1') + 1 - start;
  for (let at = table.offset; at < table.offset + table.size; at += 24) {
    if (elf.readUInt32LE(at) === name) return at;
  }
  throw new Error(`Node has no ${NAME}`);
}

function findValue(elf: Buffer): number {
  return offsetOf(decodeElf(elf), Number(elf.readBigUInt64LE(findSymbol(elf) + 8)), 4);
}
