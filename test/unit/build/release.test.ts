// Says what of a release can be told without making one: what it refuses, and how programs of another machine are run.
import { describe, expect, test } from 'vitest';
import { FIRST_LENT, requireUnderEmulation } from '../../../build/emulated-calls.ts';
import { parseStatus, refusal } from '../../../build/release.ts';
import { isHost, runnable, TARGETS } from '../../../build/target.ts';

describe('A tree with changes', () => {
  test('is refused by the names of the files, new ones and odd ones too', () => {
    const modified = parseStatus(' M build/a.ts\0?? new "file"\nof two lines\0D  gone.md\0');
    expect(modified).toEqual(['build/a.ts', 'new "file"\nof two lines', 'gone.md']);
    const text = refusal(modified);
    for (const path of modified) expect(text).toContain(`\n  ${path}`);
    expect(text).toContain('npm run release -- --dirty');
  });

  test('has ten of them named, and the others counted', () => {
    const text = refusal(Array.from({ length: 25 }, (_, index) => `file${index}`));
    expect(text).toContain('\n  file9\n  and 15 more\n');
    expect(text).not.toContain('file10');
  });

  test('has nothing to be named when there is no change', () => {
    expect(parseStatus('')).toEqual([]);
  });
});

describe('A program', () => {
  test('of this machine is run as it is, one of another by its emulator and libraries', () => {
    for (const target of TARGETS) {
      const command = runnable(target, ['/bin/program', 'a', 'b']);
      expect(command.slice(isHost(target) ? 0 : 3)).toEqual(['/bin/program', 'a', 'b']);
      if (!isHost(target))
        expect(command.slice(0, 3)).toEqual([target.emulator, '-L', `/usr/${target.triplet}`]);
    }
  });

  test('under emulation gets the sockets it is lent, one after the other, and makes all other calls itself', () => {
    const made: bigint[][] = [];
    class Library {
      getFunction(name: string): (...values: bigint[]) => bigint {
        return (...values) => (name === 'syscall' ? BigInt(made.push(values) * 0 + 77) : 0n);
      }
    }
    const emulated = requireUnderEmulation(((id: string) =>
      id === 'node:ffi' ? { DynamicLibrary: Library, suffix: 'so' } : id) as unknown as NodeJS.Require);
    const ffi = emulated('node:ffi') as {
      DynamicLibrary: new (
        path: null,
      ) => { getFunction(name: string, signature: object): (...v: bigint[]) => bigint };
      suffix: string;
    };
    const syscall = new ffi.DynamicLibrary(null).getFunction('syscall', {});
    expect(syscall(198n, 16n, 3n, 12n)).toBe(BigInt(FIRST_LENT));
    expect(syscall(198n, 16n, 3n, 12n)).toBe(BigInt(FIRST_LENT + 1));
    expect(syscall(29n, 5n, 0xb703n)).toBe(0x40000000n);
    expect(made).toEqual([]);
    expect(syscall(198n, 16n, 3n, 0n)).toBe(77n);
    expect(syscall(29n, 5n, 1n)).toBe(77n);
    const how = new Uint8Array(BigUint64Array.of(0o2000002n, 0n, 8n).buffer);
    expect(syscall(437n, 5n, 6n, how as unknown as bigint)).toBe(77n);
    expect(made).toEqual([
      [198n, 16n, 3n, 0n],
      [29n, 5n, 1n],
      [56n, 5n, 6n, 0o2000002n, 0n, 0n, 0n],
    ]);
    expect([ffi.suffix, emulated('node:fs')]).toEqual(['so', 'node:fs']);
  });
});
