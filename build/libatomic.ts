// Frees a Node binary from libatomic.so.1 by giving it a body of its own for the one function it takes from there.
// Called by node-binary.ts on the stripped Node binary, before the application is put into it.
import {
  DT_NEEDED,
  DT_RELA,
  DT_RELASZ,
  DT_SYMTAB,
  DT_VERSYM,
  DYNAMIC_ENTRY,
  type DynamicEntry,
  decodeElf,
  type Elf,
  expect,
  expectOne,
  findDynamic,
  getDynamic,
  getDynamicEntry,
  getSection,
  offsetOf,
  patchImage,
  RELA,
  readDynamicString,
  type Section,
  SHN_UNDEF,
  SHT_DYNSYM,
  SHT_GNU_versym,
  SYMBOL,
  VER_NDX_LOCAL,
  writeWord,
} from './elf.ts';
import { encodeListing, findPlace, type Place, writeCode } from './padding.ts';

const LIBRARY = 'libatomic.so.1';
const FUNCTION = '__atomic_compare_exchange';

/**
 * Returns a copy of an ELF image that no longer needs libatomic.so.1: the only function it imports from there,
 * `__atomic_compare_exchange`, is added to the padding behind its code, and the import leads there. An image that
 * does not need the library is returned as it is.
 *
 * Takes 64-bit little-endian images for x86-64 and aarch64 which bind eagerly; the image passed in is not changed.
 * Throws an Error that names the first assumption the image does not meet: a patch that fits only almost would be
 * a crash on somebody's node, so a new release of Node has to stop the build instead.
 *
 * Source: System V ABI, "Object Files" and "Program Loading and Dynamic Linking"; its x86-64 and AArch64 supplements
 * for the relocations; Linux Standard Base, "Symbol Versioning"; GCC wiki, "Atomic/GCCMM/LIbrary" for the function.
 */
export function patchLibatomic(elf: Buffer): Buffer {
  return patchImage(`replace ${LIBRARY}`, () => replaceLibatomic(elf));
}

function replaceLibatomic(elf: Buffer): Buffer {
  const image = decodeImage(elf);
  const needed = findNeeded(image);
  if (needed === undefined) {
    return elf;
  }

  const need = getVersionNeed(image);
  const symbol = getImport(image, need.version);
  const relocation = getRelocation(image, symbol.index);
  const place = findPlace(image, image.machine.body.length);
  expectEagerBinding(image);

  const patched = Buffer.from(elf);
  writeCode(patched, place, image.machine.body);
  writeRelocation(patched, image, relocation, place);
  writeSymbol(patched, image, symbol, place);
  removeVersionNeed(patched, image, need);
  removeNeeded(patched, image, needed);
  return patched;
}

// bool __atomic_compare_exchange(size_t size, void *object, void *expected, void *desired, int success, int failure)
//
// All or nothing: if *object equals *expected it becomes *desired and the answer is 1, else *expected becomes what
// *object was and the answer is 0. Always sequentially consistent, whatever the two orders say: that is never too weak.
// Node asks for 8 bytes at every call (V8 keeps a free list's head, two 32-bit halves, in its dispatch tables); 1, 2
// and 4 bytes cost little. Anything else stops the process (SIGILL): no plain load reads 16 bytes at once, so they
// would bring in `__atomic_load` too, one more import, which is refused; other sizes would need a lock.
//
// One instruction a line: its bytes in memory order, then the source they were assembled from (docs/libatomic.md).

/** System V: size in rdi, object rsi, expected rdx, desired rcx; answer in eax. Nothing is saved, nothing needs to be. */
export const X86_64_LISTING = `
  48 83 ff 08          cmp          $8,%rdi
  74 14                je           8f
  48 83 ff 04          cmp          $4,%rdi
  74 20                je           4f
  48 83 ff 02          cmp          $2,%rdi
  74 28                je           2f
  48 83 ff 01          cmp          $1,%rdi
  74 34                je           1f
  0f 0b                ud2
  48 8b 02        8:   mov          (%rdx),%rax
  48 8b 09             mov          (%rcx),%rcx
  f0 48 0f b1 0e       lock cmpxchg %rcx,(%rsi)
  74 31                je           0f
  48 89 02             mov          %rax,(%rdx)
  eb 2c                jmp          0f
  8b 02           4:   mov          (%rdx),%eax
  8b 09                mov          (%rcx),%ecx
  f0 0f b1 0e          lock cmpxchg %ecx,(%rsi)
  74 22                je           0f
  89 02                mov          %eax,(%rdx)
  eb 1e                jmp          0f
  66 8b 02        2:   mov          (%rdx),%ax
  66 8b 09             mov          (%rcx),%cx
  66 f0 0f b1 0e       lock cmpxchg %cx,(%rsi)
  74 11                je           0f
  66 89 02             mov          %ax,(%rdx)
  eb 0c                jmp          0f
  8a 02           1:   mov          (%rdx),%al
  8a 09                mov          (%rcx),%cl
  f0 0f b0 0e          lock cmpxchg %cl,(%rsi)
  74 02                je           0f
  88 02                mov          %al,(%rdx)
  0f 94 c0        0:   sete         %al
  0f b6 c0             movzbl       %al,%eax
  c3                   ret
`;

/**
 * AAPCS64: size in x0, object x1, expected x2, desired x3; answer in w0; x4 to x7 are free. Load-acquire and
 * store-release exclusives exist on every ARMv8 (the single instruction, CAS, does not).
 */
export const AARCH64_LISTING = `
  1f 20 00 f1          cmp          x0, #8
  00 01 00 54          b.eq         8f
  1f 10 00 f1          cmp          x0, #4
  00 02 00 54          b.eq         4f
  1f 08 00 f1          cmp          x0, #2
  00 03 00 54          b.eq         2f
  1f 04 00 f1          cmp          x0, #1
  00 04 00 54          b.eq         1f
  01 00 00 00          udf          #1
  44 00 40 f9     8:   ldr          x4, [x2]
  65 00 40 f9          ldr          x5, [x3]
  26 fc 5f c8     80:  ldaxr        x6, [x1]
  df 00 04 eb          cmp          x6, x4
  81 00 00 54          b.ne         81f
  25 fc 07 c8          stlxr        w7, x5, [x1]
  87 ff ff 35          cbnz         w7, 80b
  20 00 00 14          b            0f
  46 00 00 f9     81:  str          x6, [x2]
  1e 00 00 14          b            0f
  44 00 40 b9     4:   ldr          w4, [x2]
  65 00 40 b9          ldr          w5, [x3]
  26 fc 5f 88     40:  ldaxr        w6, [x1]
  df 00 04 6b          cmp          w6, w4
  81 00 00 54          b.ne         41f
  25 fc 07 88          stlxr        w7, w5, [x1]
  87 ff ff 35          cbnz         w7, 40b
  16 00 00 14          b            0f
  46 00 00 b9     41:  str          w6, [x2]
  14 00 00 14          b            0f
  44 00 40 79     2:   ldrh         w4, [x2]
  65 00 40 79          ldrh         w5, [x3]
  26 fc 5f 48     20:  ldaxrh       w6, [x1]
  df 00 04 6b          cmp          w6, w4
  81 00 00 54          b.ne         21f
  25 fc 07 48          stlxrh       w7, w5, [x1]
  87 ff ff 35          cbnz         w7, 20b
  0c 00 00 14          b            0f
  46 00 00 79     21:  strh         w6, [x2]
  0a 00 00 14          b            0f
  44 00 40 39     1:   ldrb         w4, [x2]
  65 00 40 39          ldrb         w5, [x3]
  26 fc 5f 08     10:  ldaxrb       w6, [x1]
  df 00 04 6b          cmp          w6, w4
  81 00 00 54          b.ne         11f
  25 fc 07 08          stlxrb       w7, w5, [x1]
  87 ff ff 35          cbnz         w7, 10b
  02 00 00 14          b            0f
  46 00 00 39     11:  strb         w6, [x2]
  e0 17 9f 1a     0:   cset         w0, eq
  c0 03 5f d6          ret
`;

// Names and numbers as in <elf.h>.
const SHT_GNU_verneed = 0x6ffffffe;
const DT_PLTRELSZ = 2;
const DT_JMPREL = 23;
const DT_FLAGS = 30;
const DT_VERNEED = 0x6ffffffe;
const DT_VERNEEDNUM = 0x6fffffff;
const DF_BIND_NOW = 8;
const GLOBAL_FUNCTION = 0x12; // st_info: STB_GLOBAL, STT_FUNC
const STV_HIDDEN = 2;

const VERNEED = 16;
const VERNAUX = 16;

interface Machine {
  readonly body: Buffer;
  readonly jumpSlot: number; // the relocation of an imported function: slot = address of the symbol
  readonly relative: number; // slot = where the image lies + addend: no symbol is looked up
}

// e_machine → how that machine is served.
const MACHINES: ReadonlyMap<number, Machine> = new Map([
  [62, { body: encodeListing(X86_64_LISTING), jumpSlot: 7, relative: 8 }],
  [183, { body: encodeListing(AARCH64_LISTING), jumpSlot: 1026, relative: 1027 }],
]);

interface Image extends Elf {
  readonly machine: Machine;
}

function decodeImage(bytes: Buffer): Image {
  const elf = decodeElf(bytes);
  const machine = MACHINES.get(elf.machineNumber);
  expect(machine !== undefined, `there is no body for machine ${elf.machineNumber}`);
  return { ...elf, machine };
}

function findNeeded(image: Image): DynamicEntry | undefined {
  const entries = image.dynamic.filter(
    ({ tag, value }) => tag === DT_NEEDED && readDynamicString(image, value) === LIBRARY,
  );
  expect(entries.length <= 1, `${LIBRARY} is needed ${entries.length} times`);
  return entries[0];
}

interface VersionNeed {
  readonly section: Section; // all version needs, one after the other
  readonly position: number; // file offset of the one for the library, its version behind it
  readonly previous: number | undefined; // file offset of the need before it
  readonly isLast: boolean;
  readonly version: number; // what the symbols that come from there carry in the version table
}

function getVersionNeed(image: Image): VersionNeed {
  const { bytes } = image;
  const section = getSection(image, SHT_GNU_verneed, DT_VERNEED);
  const count = getDynamic(image, DT_VERNEEDNUM);
  expect(count > 1, `there are ${count} version needs`); // the loader reads the first one without asking

  const found: VersionNeed[] = [];
  let position = section.offset;
  let previous: number | undefined;
  for (let index = 0; index < count; index += 1) {
    const versions = bytes.readUInt16LE(position + 2);
    const next = bytes.readUInt32LE(position + 12);
    const isLast = index === count - 1;
    // Each need is followed by its versions and then by the next need: only so can one be cut out.
    const size = VERNEED + versions * VERNAUX;
    expect(bytes.readUInt16LE(position) === 1, `version need ${index} has another layout`);
    expect(bytes.readUInt32LE(position + 8) === VERNEED, `version need ${index} is not contiguous`);
    expect(next === (isLast ? 0 : size), `version need ${index} is not followed by the next`);
    if (readDynamicString(image, bytes.readUInt32LE(position + 4)) === LIBRARY) {
      expect(versions === 1, `${versions} versions of ${LIBRARY} are needed`);
      const version = bytes.readUInt16LE(position + VERNEED + 6);
      found.push({ section, position, previous, isLast, version });
    }
    previous = position;
    position += size;
  }
  expect(position === section.offset + section.size, 'the version needs do not fill their section');
  return expectOne(found, `version needs for ${LIBRARY}`);
}

interface DynamicSymbol {
  readonly index: number;
  readonly position: number; // file offset
  readonly versionPosition: number; // file offset of its version
}

function getImport(image: Image, version: number): DynamicSymbol {
  const { bytes } = image;
  const symbols = getSection(image, SHT_DYNSYM, DT_SYMTAB);
  const versions = getSection(image, SHT_GNU_versym, DT_VERSYM);
  const count = symbols.size / SYMBOL;
  expect(versions.size === count * 2, `${count} dynamic symbols have ${versions.size / 2} versions`);

  const found: DynamicSymbol[] = [];
  for (let index = 0; index < count; index += 1) {
    const position = symbols.offset + index * SYMBOL;
    const versionPosition = versions.offset + index * 2;
    if (bytes.readUInt16LE(versionPosition) === version) {
      found.push({ index, position, versionPosition });
    }
  }
  const names = found.map(({ position }) => readDynamicString(image, bytes.readUInt32LE(position)));
  expect(
    names.length === 1 && names[0] === FUNCTION,
    `it imports ${names.join(', ') || 'nothing'} from ${LIBRARY}, not just ${FUNCTION}`,
  );

  const symbol = expectOne(found, 'imports');
  expect(bytes.readUInt8(symbol.position + 4) === GLOBAL_FUNCTION, `${FUNCTION} is no global function`);
  expect(bytes.readUInt16LE(symbol.position + 6) === SHN_UNDEF, `${FUNCTION} is defined already`);
  return symbol;
}

function getRelocation(image: Image, symbol: number): number {
  const { bytes } = image;
  const found: number[] = [];
  for (const [table, size] of [
    [DT_RELA, DT_RELASZ],
    [DT_JMPREL, DT_PLTRELSZ],
  ] as const) {
    const length = findDynamic(image, size) ?? 0;
    const start = length === 0 ? 0 : offsetOf(image, getDynamic(image, table), length);
    for (let position = start; position < start + length; position += RELA) {
      if (bytes.readUInt32LE(position + 12) === symbol) {
        found.push(position);
      }
    }
  }
  const position = expectOne(found, `relocations for ${FUNCTION}`);
  const type = bytes.readUInt32LE(position + 8);
  expect(type === image.machine.jumpSlot, `the relocation for ${FUNCTION} has type ${type}`);
  return position;
}

/** A loader that binds lazily refuses a relative relocation among those of imported functions. */
function expectEagerBinding(image: Image): void {
  const flags = findDynamic(image, DT_FLAGS) ?? 0;
  expect((flags & DF_BIND_NOW) !== 0, 'it does not bind eagerly');
}

function writeRelocation(patched: Buffer, image: Image, position: number, place: Place): void {
  patched.writeUInt32LE(image.machine.relative, position + 8);
  patched.writeUInt32LE(0, position + 12); // no symbol
  writeWord(patched, position + 16, place.address); // r_addend
}

/**
 * The symbol now serves people only (debuggers, `nm -D`). It is hidden because injection sorts it among the exported
 * ones: a library that came with the real libatomic, and wants sizes that our body refuses, would be bound to ours.
 */
function writeSymbol(patched: Buffer, image: Image, symbol: DynamicSymbol, place: Place): void {
  patched.writeUInt8(STV_HIDDEN, symbol.position + 5);
  patched.writeUInt16LE(place.section.index, symbol.position + 6);
  writeWord(patched, symbol.position + 8, place.address);
  writeWord(patched, symbol.position + 16, image.machine.body.length);
  patched.writeUInt16LE(VER_NDX_LOCAL, symbol.versionPosition);
}

/** Cuts the need out and moves those behind it up; they refer to each other by distance, so they may move. */
function removeVersionNeed(patched: Buffer, image: Image, need: VersionNeed): void {
  const { section, position, previous, isLast } = need;
  const size = VERNEED + VERNAUX;
  const end = section.offset + section.size;
  patched.copyWithin(position, position + size, end);
  patched.fill(0, end - size, end);
  if (isLast && previous !== undefined) {
    patched.writeUInt32LE(0, previous + 12); // vn_next
  }
  writeWord(patched, section.header + 32, section.size - size); // sh_size
  const count = getDynamicEntry(image, DT_VERNEEDNUM);
  patched.writeUInt32LE(count.value - 1, section.header + 44); // sh_info
  writeWord(patched, count.position + 8, count.value - 1);
}

function removeNeeded(patched: Buffer, image: Image, needed: DynamicEntry): void {
  // All entries behind it move up by one, the closing DT_NULL included.
  const end = (image.dynamic.at(-1)?.position ?? needed.position) + DYNAMIC_ENTRY;
  patched.copyWithin(needed.position, needed.position + DYNAMIC_ENTRY, end);
}
