// Switches off a debugging aid that the released Node has switched on by accident. Called by node-binary.ts on the
// Node binary before it is stripped; docs/performance.md says what that saves.
import { decodeElf, expect, expectOne, offsetOf, patchImage, readWord, SYMBOL } from './elf.ts';

/**
 * Returns a copy of a Node binary whose mutexes do not look for deadlocks.
 *
 * Abseil, which V8 takes its mutexes from, records the order in which mutexes are locked and aborts when two threads
 * could wait for each other, unless it is built for release. Node builds it without saying so. The first lock of a
 * process makes room for the record, a megabyte of it. Abseil's own setting for releases is written in its place;
 * mutexes exclude each other as before.
 *
 * Throws an Error that names the first assumption the image does not meet; the image passed in is not changed.
 *
 * Source: Abseil's absl/synchronization/mutex.cc and mutex.h (`OnDeadlockCycle`).
 */
export function skipDeadlockCheck(elf: Buffer): Buffer {
  return patchImage('skip the deadlock check', () => {
    const image = decodeElf(elf);
    const table = expectOne(
      image.sections.filter(({ type }) => type === SHT_SYMTAB),
      'symbol tables',
    );
    const names = image.sections[elf.readUInt32LE(table.header + 40)]; // sh_link
    expect(names !== undefined, 'the symbol table has no names');

    // The variable is local to its file; the compiler appends a number to such a name.
    const name = elf.indexOf(`\0${VARIABLE}`, names.offset, 'latin1') + 1;
    expect(name > names.offset && name < names.offset + names.size, `there is no ${VARIABLE}`);
    const symbols: number[] = [];
    for (let at = table.offset; at < table.offset + table.size; at += SYMBOL) {
      if (elf.readUInt32LE(at) === name - names.offset) symbols.push(at);
    }
    const symbol = expectOne(symbols, `symbols named ${VARIABLE}`);
    const size = readWord(elf, symbol + 16);
    expect((elf.readUInt8(symbol + 4) & 0xf) === STT_OBJECT && size === 4, `${VARIABLE} is no int`);
    const place = offsetOf(image, readWord(elf, symbol + 8), size);
    const value = elf.readUInt32LE(place);
    expect(value === ABORT, `${VARIABLE} is ${value}`);

    const patched = Buffer.from(elf);
    patched.writeUInt32LE(IGNORE, place);
    return patched;
  });
}

const VARIABLE = '_ZN4absl12_GLOBAL__N_124synch_deadlock_detectionE';

// absl::OnDeadlockCycle
const IGNORE = 0;
const ABORT = 2;

// Names and numbers as in <elf.h>.
const SHT_SYMTAB = 2;
const STT_OBJECT = 1;
