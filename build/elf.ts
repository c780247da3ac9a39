// Reads what the patches of this directory need to know of an ELF image: its segments, sections and dynamic entries.
// Called by libatomic.ts, prelink.ts and the like.

// Names and numbers as in <elf.h>.
export const PT_LOAD = 1;
export const PT_DYNAMIC = 2;
export const SHT_DYNSYM = 11;
export const SHT_GNU_versym = 0x6fffffff;
export const DT_NULL = 0;
export const DT_NEEDED = 1;
export const DT_STRTAB = 5;
export const DT_SYMTAB = 6;
export const DT_RELA = 7;
export const DT_RELASZ = 8;
export const DT_VERSYM = 0x6ffffff0;
export const SHN_UNDEF = 0;
const STT_FUNC = 2;
export const VER_NDX_LOCAL = 0;

export const SEGMENT_HEADER = 56;
export const SECTION_HEADER = 64;
export const DYNAMIC_ENTRY = 16;
export const SYMBOL = 24;
export const RELA = 24;

export interface Segment {
  readonly header: number; // file offset of its header
  readonly type: number;
  readonly flags: number;
  readonly offset: number;
  readonly address: number;
  readonly fileSize: number;
  readonly memorySize: number;
}

export interface Section {
  readonly index: number;
  readonly header: number;
  readonly type: number;
  readonly flags: number;
  readonly address: number;
  readonly offset: number;
  readonly size: number;
}

export interface DynamicEntry {
  readonly position: number; // file offset
  readonly tag: number;
  readonly value: number;
}

export interface Elf {
  readonly bytes: Buffer;
  readonly type: number; // e_type
  readonly machineNumber: number; // e_machine
  readonly segments: readonly Segment[];
  readonly sections: readonly Section[];
  readonly dynamic: readonly DynamicEntry[]; // closed by its DT_NULL
}

/**
 * Decodes a 64-bit little-endian ELF image for x86-64 or aarch64 that is loaded dynamically. Throws an Error that
 * names what is different.
 *
 * Source: System V ABI, "Object Files" and "Program Loading and Dynamic Linking".
 */
export function decodeElf(bytes: Buffer): Elf {
  expect(bytes.length >= 64 && bytes.readUInt32BE(0) === 0x7f454c46, 'it is no ELF image');
  expect(bytes.readUInt8(4) === 2, 'it is not 64-bit');
  expect(bytes.readUInt8(5) === 1, 'it is not little-endian');
  const machineNumber = bytes.readUInt16LE(18);
  expect(
    machineNumber === 62 || machineNumber === 183,
    `machine ${machineNumber} is neither x86-64 (62) nor aarch64 (183)`,
  );
  expect(bytes.readUInt16LE(54) === SEGMENT_HEADER, `program headers have ${bytes.readUInt16LE(54)} bytes`);
  expect(bytes.readUInt16LE(58) === SECTION_HEADER, `section headers have ${bytes.readUInt16LE(58)} bytes`);

  const segments = decodeSegments(bytes);
  const sections = decodeSections(bytes);
  const dynamic = decodeDynamic(bytes, segments);
  return { bytes, type: bytes.readUInt16LE(16), machineNumber, segments, sections, dynamic };
}

function decodeSegments(bytes: Buffer): Segment[] {
  const table = readWord(bytes, 32);
  const count = bytes.readUInt16LE(56);
  return Array.from({ length: count }, (_, index) => {
    const header = table + index * SEGMENT_HEADER;
    return {
      header,
      type: bytes.readUInt32LE(header),
      flags: bytes.readUInt32LE(header + 4),
      offset: readWord(bytes, header + 8),
      address: readWord(bytes, header + 16),
      fileSize: readWord(bytes, header + 32),
      memorySize: readWord(bytes, header + 40),
    };
  });
}

function decodeSections(bytes: Buffer): Section[] {
  const table = readWord(bytes, 40);
  const count = bytes.readUInt16LE(60);
  return Array.from({ length: count }, (_, index) => {
    const header = table + index * SECTION_HEADER;
    return {
      index,
      header,
      type: bytes.readUInt32LE(header + 4),
      flags: readWord(bytes, header + 8),
      address: readWord(bytes, header + 16),
      offset: readWord(bytes, header + 24),
      size: readWord(bytes, header + 32),
    };
  });
}

function decodeDynamic(bytes: Buffer, segments: readonly Segment[]): DynamicEntry[] {
  const segment = expectOne(
    segments.filter(({ type }) => type === PT_DYNAMIC),
    'dynamic segments',
  );
  const entries: DynamicEntry[] = [];
  for (let at = segment.offset; at < segment.offset + segment.fileSize; at += DYNAMIC_ENTRY) {
    entries.push({ position: at, tag: readWord(bytes, at), value: readWord(bytes, at + 8) });
    if (entries.at(-1)?.tag === DT_NULL) {
      return entries;
    }
  }
  throw new Error('the dynamic section has no end');
}

/** The value of a dynamic entry, undefined when there is none; the first one if there are several. */
export function findDynamic(elf: Elf, tag: number): number | undefined {
  return elf.dynamic.find((entry) => entry.tag === tag)?.value;
}

/** The only dynamic entry with a tag. Throws Error when there is not exactly one. */
export function getDynamicEntry(elf: Elf, tag: number): DynamicEntry {
  return expectOne(
    elf.dynamic.filter((entry) => entry.tag === tag),
    `dynamic entries with tag 0x${tag.toString(16)}`,
  );
}

/** The value of the only dynamic entry with a tag. Throws Error when there is not exactly one. */
export function getDynamic(elf: Elf, tag: number): number {
  return getDynamicEntry(elf, tag).value;
}

/**
 * The section of a type, which must begin where the dynamic entry says: loader and tools see the same table. Throws
 * Error when it does not, or when there is not exactly one.
 */
export function getSection(elf: Elf, type: number, tag: number): Section {
  const section = expectOne(
    elf.sections.filter((one) => one.type === type),
    `sections of type 0x${type.toString(16)}`,
  );
  const address = getDynamic(elf, tag);
  expect(
    section.address === address,
    `the section of type 0x${type.toString(16)} is not at the loader's address`,
  );
  expect(
    section.offset === offsetOf(elf, address, section.size),
    `section ${section.index} is mapped elsewhere`,
  );
  return section;
}

/** Where in the file `size` bytes at an address are. Throws Error when they are not there. */
export function offsetOf(elf: Elf, address: number, size: number): number {
  const segment = elf.segments.find(
    (one) => one.type === PT_LOAD && address >= one.address && address + size <= one.address + one.fileSize,
  );
  expect(segment !== undefined, `address 0x${address.toString(16)} is not in the file`);
  return segment.offset + (address - segment.address);
}

/** The string at an index of the dynamic string table. */
export function readDynamicString(elf: Elf, index: number): string {
  const start = offsetOf(elf, getDynamic(elf, DT_STRTAB) + index, 1);
  return elf.bytes.toString('latin1', start, elf.bytes.indexOf(0, start));
}

/** An exported function of the image. */
export interface ElfFunction {
  readonly address: number;
  readonly offset: number;
  readonly size: number;
}

/** The exported function of that name. Throws Error when there is not exactly one, or when it is no function. */
export function getFunction(elf: Elf, name: string): ElfFunction {
  const { bytes } = elf;
  const symbols = getSection(elf, SHT_DYNSYM, DT_SYMTAB);
  const found: number[] = [];
  for (let at = symbols.offset; at < symbols.offset + symbols.size; at += SYMBOL) {
    if (readDynamicString(elf, bytes.readUInt32LE(at)) === name) found.push(at);
  }
  const [symbol] = found;
  expect(symbol !== undefined && found.length === 1, `it has ${name} ${found.length} times`);
  expect((bytes.readUInt8(symbol + 4) & 0xf) === STT_FUNC, `${name} is no function`);
  const address = readWord(bytes, symbol + 8);
  const size = readWord(bytes, symbol + 16);
  return { address, offset: offsetOf(elf, address, size), size };
}

/** The 64-bit number at a file offset. Throws Error when JavaScript cannot count that far. */
export function readWord(bytes: Buffer, position: number): number {
  const value = bytes.readBigUInt64LE(position);
  expect(value <= BigInt(Number.MAX_SAFE_INTEGER), `the number at 0x${position.toString(16)} is too large`);
  return Number(value);
}

/** Writes a 64-bit number at a file offset. */
export function writeWord(bytes: Buffer, position: number, value: number): void {
  bytes.writeBigUInt64LE(BigInt(value), position);
}

/** The only element. Throws Error that says how many there are of `what`. */
export function expectOne<T>(found: readonly T[], what: string): T {
  const [first] = found;
  if (found.length !== 1 || first === undefined) {
    throw new Error(`there are ${found.length} ${what}, not 1`);
  }
  return first;
}

/** Throws Error with the text `otherwise` unless the condition is met. */
export function expect(isMet: boolean, otherwise: string): asserts isMet {
  if (!isMet) {
    throw new Error(otherwise);
  }
}

/** Runs a patch; what it throws becomes "Cannot <task> in this image: <reason>". */
export function patchImage(task: string, patch: () => Buffer): Buffer {
  try {
    return patch();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Cannot ${task} in this image: ${reason}`, { cause: error });
  }
}
