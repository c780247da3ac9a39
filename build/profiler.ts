// Spares every start what Node does in case somebody profiles it. Called by node-binary.ts on the stripped Node
// binary; docs/performance.md says what that saves.
import { decodeElf, expect, getFunction, patchImage } from './elf.ts';

/**
 * Returns a copy of a Node binary in which `v8::CpuProfiler::UseDetailedSourcePositionsForProfiling` returns at once.
 *
 * Node calls it for each isolate. V8 then walks its whole heap for functions without a table of source positions (all
 * of them have one) and makes that table for each function it compiles from there on. Without the call a table is
 * made when it is first needed, for a stack trace say, whose text stays the same; only profiles get coarser.
 *
 * Throws an Error that names the first assumption the image does not meet; the image passed in is not changed.
 *
 * Source: V8's include/v8-profiler.h; System V ABI and AAPCS64 (nothing has to be saved or restored, no result).
 */
export function skipProfiling(elf: Buffer): Buffer {
  return patchImage('skip the profiler', () => {
    const image = decodeElf(elf);
    const returnAtOnce = RETURN.get(image.machineNumber);
    expect(returnAtOnce !== undefined, `machine ${image.machineNumber} returns in an unknown way`);
    const { offset, size } = getFunction(image, FUNCTION);
    expect(size >= returnAtOnce.length, `${FUNCTION} has ${size} bytes`);
    const patched = Buffer.from(elf);
    returnAtOnce.copy(patched, offset);
    return patched;
  });
}

const FUNCTION = '_ZN2v811CpuProfiler38UseDetailedSourcePositionsForProfilingEPNS_7IsolateE';

// e_machine → its instruction `ret`.
const RETURN: ReadonlyMap<number, Buffer> = new Map([
  [62, Buffer.from('c3', 'hex')],
  [183, Buffer.from('c0035fd6', 'hex')],
]);
