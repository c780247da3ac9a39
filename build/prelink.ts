// Does once, in the file, what the loader would do for a Node binary at every start. Called by node-binary.ts on the
// stripped Node binary; docs/performance.md says what that saves.
import {
  DT_NEEDED,
  DT_RELA,
  DT_RELASZ,
  DT_SYMTAB,
  DT_VERSYM,
  decodeElf,
  type Elf,
  expect,
  getDynamic,
  getSection,
  offsetOf,
  patchImage,
  RELA,
  readDynamicString,
  readWord,
  SHN_UNDEF,
  SHT_DYNSYM,
  SHT_GNU_versym,
  SYMBOL,
  VER_NDX_LOCAL,
  writeWord,
} from './elf.ts';

/**
 * Returns a copy of an executable that the loader has less work with; every address comes out as before.
 *
 * - A reference to a symbol which the executable defines itself becomes that symbol's address. The loader searches
 *   the executable before all libraries, preloaded ones included, so it could find nothing else.
 * - libstdc++ is searched first among the libraries and libdl last, as most of what is looked up is in the one and
 *   hardly anything in the other. No library has what another one has: symbols carry their library's versions.
 *
 * Takes what patchLibatomic takes, and executables at a fixed address only. Throws an Error that names the first
 * assumption the image does not meet; the image passed in is not changed.
 *
 * Source: System V ABI, "Dynamic Linking" (shared object dependencies, relocation); its x86-64 and AArch64 supplements.
 */
export function prelink(elf: Buffer): Buffer {
  return patchImage('prelink symbols', () => {
    const image = decodeElf(elf);
    expect(image.type === ET_EXEC, 'it is no executable at a fixed address');
    const patched = Buffer.from(elf);
    bindOwnSymbols(patched, image);
    orderLibraries(patched, image);
    return patched;
  });
}

// Names and numbers as in <elf.h>.
const ET_EXEC = 2;
const SHN_LORESERVE = 0xff00;
const STT_FUNC = 2; // and below: STT_NOTYPE, STT_OBJECT; above are thread-local and indirect symbols

interface Machine {
  readonly globDat: number; // slot = address of the symbol
  readonly absolute: number; // slot = address of the symbol + addend
  readonly relative: number; // slot = where the image lies (0) + addend
}

// e_machine → its relocations.
const MACHINES: ReadonlyMap<number, Machine> = new Map([
  [62, { globDat: 6, absolute: 1, relative: 8 }],
  [183, { globDat: 1025, absolute: 257, relative: 1027 }],
]);

function bindOwnSymbols(patched: Buffer, image: Elf): void {
  const machine = MACHINES.get(image.machineNumber);
  expect(machine !== undefined, `relocations of machine ${image.machineNumber} are unknown`);
  const symbols = getSection(image, SHT_DYNSYM, DT_SYMTAB);
  const versions = getSection(image, SHT_GNU_versym, DT_VERSYM);
  const length = getDynamic(image, DT_RELASZ);
  const start = offsetOf(image, getDynamic(image, DT_RELA), length);

  let count = 0;
  for (let position = start; position < start + length; position += RELA) {
    const type = patched.readUInt32LE(position + 8);
    if (type !== machine.globDat && type !== machine.absolute) continue;
    const index = patched.readUInt32LE(position + 12);
    const addend = readWord(patched, position + 16);
    expect((index + 1) * SYMBOL <= symbols.size, `a relocation names symbol ${index}, which is not there`);
    expect(type === machine.absolute || addend === 0, `the relocation for symbol ${index} adds ${addend}`);

    const symbol = symbols.offset + index * SYMBOL;
    const isHidden = patched.readUInt16LE(versions.offset + index * 2) === VER_NDX_LOCAL;
    if (isHidden || !isOwnAddress(patched, symbol)) continue;
    patched.writeUInt32LE(machine.relative, position + 8);
    patched.writeUInt32LE(0, position + 12); // no symbol
    writeWord(patched, position + 16, readWord(patched, symbol + 8) + addend);
    count++;
  }
  expect(count > 0, 'it refers to no symbol of its own');
}

/** Whether a symbol stands for an address in this very image; a copy of a library's object does as well. */
function isOwnAddress(bytes: Buffer, symbol: number): boolean {
  const type = bytes.readUInt8(symbol + 4) & 0xf;
  const section = bytes.readUInt16LE(symbol + 6);
  return type <= STT_FUNC && section !== SHN_UNDEF && section < SHN_LORESERVE;
}

const FIRST = 'libstdc++.so.6';
const LAST = 'libdl.so.2';

function orderLibraries(patched: Buffer, image: Elf): void {
  const needed = image.dynamic
    .filter(({ tag }) => tag === DT_NEEDED)
    .map((entry) => ({ ...entry, name: readDynamicString(image, entry.value) }));
  const first = needed.filter(({ name }) => name === FIRST);
  const last = needed.filter(({ name }) => name === LAST);
  expect(first.length === 1, `it needs ${FIRST} ${first.length} times`);
  expect(last.length === 1, `it needs ${LAST} ${last.length} times`);
  const others = needed.filter(({ name }) => name !== FIRST && name !== LAST);
  const values = [...first, ...others, ...last].map(({ value }) => value);
  for (const { position } of needed) writeWord(patched, position + 8, values.shift() ?? 0);
}
