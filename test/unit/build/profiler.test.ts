// Says what skipProfiling promises, on the Node binary that runs this test. Called by vitest.
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { decodeElf, findDynamic, offsetOf } from '../../../build/elf.ts';
import { skipProfiling } from '../../../build/profiler.ts';

const NAME = '_ZN2v811CpuProfiler38UseDetailedSourcePositionsForProfilingEPNS_7IsolateE';

const directory = mkdtempSync(join(tmpdir(), 'patchbay-profiler-'));
afterAll(() => rmSync(directory, { recursive: true }));

const original = readFileSync(process.execPath);
const patched = skipProfiling(original);
const node = join(directory, 'node');
writeFileSync(node, patched);
chmodSync(node, 0o755);

describe('A Node that skips what it does for profilers', () => {
  test('differs in one instruction', () => {
    const { value } = findFunction(original);
    const at = offsetOf(decodeElf(original), value, 4);
    const instruction = process.arch === 'arm64' ? 'c0035fd6' : 'c3';
    expect(patched.toString('hex', at, at + instruction.length / 2)).toBe(instruction);
    const restored = Buffer.from(patched);
    original.copy(restored, at, at, at + 4);
    expect(restored.equals(original)).toBe(true);
  });

  test('compiles functions without a table of source positions', () => {
    const size = (program: string) => Number(run(program, MEASURE));
    expect(size(node)).toBeLessThan(size(process.execPath) * 0.9);
  });

  test('tells the same line and column of every call in a stack trace', () => {
    const trace = run(node, TRACE);
    expect(trace).toContain('TypeError: no good');
    expect(trace.match(/trace\.cjs:\d+:\d+/g)?.length).toBeGreaterThan(4);
    expect(trace).toBe(run(process.execPath, TRACE));
  });
});

describe('An image that is not quite what it is made for', () => {
  test.each<[string, (elf: Buffer) => void]>([
    ['it is no ELF image', (elf) => elf.writeUInt8(0, 0)],
    ['neither x86-64 (62) nor aarch64 (183)', (elf) => elf.writeUInt16LE(243, 18)],
    [`it has ${NAME} 0 times`, (elf) => elf.writeUInt32LE(0, findFunction(elf).position)],
    [`${NAME} is no function`, (elf) => elf.writeUInt8(0x11, findFunction(elf).position + 4)],
    [`${NAME} has 0 bytes`, (elf) => elf.writeBigUInt64LE(0n, findFunction(elf).position + 16)],
    ['is not in the file', (elf) => elf.writeBigUInt64LE(1n, findFunction(elf).position + 8)],
    [
      `it has ${NAME} 2 times`,
      (elf) =>
        elf.copy(
          elf,
          findFunction(elf).position - 24,
          findFunction(elf).position,
          findFunction(elf).position + 24,
        ),
    ],
  ])('is refused because %s', (reason, change) => {
    const elf = Buffer.from(original);
    change(elf);
    expect(() => skipProfiling(elf)).toThrow('Cannot skip the profiler in this image: ');
    expect(() => skipProfiling(elf)).toThrow(reason);
  });
});

// Twice as many bytes are bytecode as are positions in a function of plain calls, so a tenth is easily seen.
const MEASURE = `
  const { Script } = require('node:vm');
  const script = new Script('(function (a) { ' + 'a.b(a.c).d(1 + a.e);'.repeat(2000) + ' })');
  console.log(script.createCachedData().length);
`;

const TRACE = `
  const { Script } = require('node:vm');
  const source = \`(function () {
    function inner(list) { return list.map((one) => { if (one > 1) throw new TypeError('no good'); return one; }); }
    class Outer { get value() { return inner([1, 2]); } async later() { await null; this.value; } }
    const outer = new Outer();
    try { outer.value; } catch (error) { console.log(error.stack); }
    outer.later().catch((error) => console.log(error.stack));
    try { JSON.parse('{'); } catch (error) { console.log(error.stack); }
    try { require('node:fs').openSync('/does/not/exist'); } catch (error) { console.log(error.stack); }
    try { null.x; } catch (error) { console.log(error.stack); }
  })\`;
  const script = new Script(source, { filename: 'trace.cjs' });
  const cachedData = script.createCachedData();
  globalThis.require = require;
  script.runInThisContext()();
  new Script(source, { filename: 'cached/trace.cjs', cachedData }).runInThisContext()();
`;

function run(program: string, script: string): string {
  return execFileSync(program, ['-e', script], { encoding: 'utf8', env: { PATH: process.env['PATH'] } });
}

/** Where the function's entry in the table of dynamic symbols is, and the address in it. */
function findFunction(elf: Buffer): { position: number; value: number } {
  const image = decodeElf(elf);
  const strings = offsetOf(image, findDynamic(image, 5) ?? 0, 1);
  const name = elf.indexOf(`\0${NAME}\0`, strings, 'latin1') + 1 - strings;
  const table = image.sections.find(({ type }) => type === 11);
  if (table === undefined) throw new Error('Node has no dynamic symbols');
  for (let position = table.offset; position < table.offset + table.size; position += 24) {
    if (elf.readUInt32LE(position) === name) {
      return { position, value: Number(elf.readBigUInt64LE(position + 8)) };
    }
  }
  throw new Error(`Node has no ${NAME}`);
}
