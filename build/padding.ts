// The padding behind the executable segment of an ELF image, where there is room for a little code of ours.
// Called by libatomic.ts, huge-pages.ts and malloc-pages.ts.
import { type Elf, expect, expectOne, PT_LOAD, type Section, type Segment, writeWord } from './elf.ts';

/** Where code can be added. */
export interface Place {
  readonly segment: Segment;
  readonly section: Section; // the last one of the segment, which grows over the code: strip keeps only sections
  readonly offset: number;
  readonly address: number;
}

// Names and numbers as in <elf.h>.
const PF_X = 1;
const SHT_NOBITS = 8;
const SHF_EXECINSTR = 4;

// The smallest page of both machines: what lies between the end of a segment and the end of that page is mapped with
// the segment on every kernel.
export const PAGE = 4096;
const ALIGNMENT = 16;

/**
 * Where in the padding `size` bytes of code can go. Throws Error when they do not fit, or when something else is there.
 */
export function findPlace({ bytes, segments, sections }: Elf, size: number): Place {
  const segment = expectOne(
    segments.filter(({ type, flags }) => type === PT_LOAD && (flags & PF_X) !== 0),
    'executable segments',
  );
  expect(
    segment.fileSize === segment.memorySize,
    'the executable segment has a part that is not in the file',
  );
  const segmentEnd = segment.offset + segment.fileSize;
  const section = expectOne(
    sections.filter(
      ({ flags, offset, size }) => (flags & SHF_EXECINSTR) !== 0 && offset + size === segmentEnd,
    ),
    'sections at the end of the executable segment',
  );

  const address = alignUp(segment.address + segment.fileSize, ALIGNMENT);
  const offset = segment.offset + (address - segment.address);
  const end = offset + size;
  const pageEnd = segment.offset + (alignUp(segment.address + segment.fileSize, PAGE) - segment.address);
  expect(end <= pageEnd, `${size} bytes do not fit into the last page of the executable segment`);
  expect(
    bytes.subarray(segmentEnd, end).every((byte) => byte === 0),
    'the padding of the executable segment is used',
  );
  for (const other of [...segments, ...sections.filter(({ type }) => type !== SHT_NOBITS)]) {
    const otherSize = 'size' in other ? other.size : other.fileSize;
    const isApart = otherSize === 0 || other.offset >= end || other.offset + otherSize <= segmentEnd;
    expect(isApart, 'the padding of the executable segment belongs to something else');
  }
  return { segment, section, offset, address };
}

/** Writes the code to its place; segment and section then end behind it. */
export function writeCode(patched: Buffer, { segment, section, offset }: Place, code: Buffer): void {
  code.copy(patched, offset);
  const end = offset + code.length;
  writeWord(patched, segment.header + 32, end - segment.offset); // p_filesz
  writeWord(patched, segment.header + 40, end - segment.offset); // p_memsz
  writeWord(patched, section.header + 32, end - section.offset); // sh_size
}

/**
 * The bytes of a listing, which stand in its first `columns` letters, filled up to the alignment: what a later tool
 * appends should start aligned too.
 */
export function encodeListing(listing: string, columns = 18): Buffer {
  const lines = listing.split('\n').map((line) => line.slice(0, columns).replaceAll(' ', ''));
  const code = Buffer.from(lines.join(''), 'hex');
  return Buffer.concat([code, Buffer.alloc(alignUp(code.length, ALIGNMENT) - code.length)]);
}

/** The next multiple of `alignment`. */
export function alignUp(value: number, alignment: number): number {
  return Math.ceil(value / alignment) * alignment;
}
