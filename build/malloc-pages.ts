// Lets malloc lay what a start needs into huge pages, where the kernel has them. Called by node-binary.ts on the stripped
// Node binary; docs/performance.md says what that saves.
import {
  DT_RELA,
  DT_RELASZ,
  DT_SYMTAB,
  decodeElf,
  type Elf,
  expect,
  expectOne,
  getDynamic,
  getSection,
  offsetOf,
  PT_LOAD,
  patchImage,
  RELA,
  readDynamicString,
  readWord,
  SHT_DYNSYM,
  SYMBOL,
  writeWord,
} from './elf.ts';
import { encodeListing, findPlace, writeCode } from './padding.ts';

/**
 * Returns a copy of a Node binary that, before anything of its own runs, has malloc(3) take 10 MiB from the kernel at once, of
 * which 8, aligned, are asked to be huge pages (MADV_HUGEPAGE, madvise(2)). A start uses five of them, in more than a
 * thousand small pages otherwise: the snapshot, V8's lists of what it has read, Node's tables.
 *
 * All of it stays malloc's: it is taken and given back by malloc and free. What makes glibc keep it, and serve large
 * requests from it too, is that a block of 16 MiB was freed before, see M_MMAP_THRESHOLD in mallopt(3). Another malloc
 * would give the memory back, which costs a few microseconds.
 *
 * Only x86-64 is served; an image for aarch64 is returned as it is. Throws an Error that names the first assumption the
 * image does not meet; the image passed in is not changed.
 *
 * Source: System V ABI, "Dynamic Linking" (initialization functions), and its x86-64 supplement.
 */
export function useHugePagesForMalloc(elf: Buffer): Buffer {
  return patchImage('let malloc use huge pages', () => {
    const image = decodeElf(elf);
    if (image.machineNumber !== X86_64) return elf;
    const slots = { malloc: findSlot(image, 'malloc'), free: findSlot(image, 'free') };
    const first = offsetOf(image, getDynamic(image, DT_INIT_ARRAY), WORD);
    const original = readWord(elf, first);
    expect(isCode(image, original), 'its initialization functions do not begin with an address');
    const place = findPlace(image, CODE.length);

    const patched = Buffer.from(elf);
    writeCode(patched, place, CODE);
    const point = (at: number, address: number) =>
      patched.writeInt32LE(address - (place.address + at + 4), place.offset + at);
    for (const [name, places] of CALLS) for (const at of places) point(at, slots[name]);
    point(BACK_AT, original);
    writeWord(patched, first, place.address);
    return patched;
  });
}

const X86_64 = 62;
const DT_INIT_ARRAY = 25;
const PF_X = 1;
const WORD = 8;
const R_X86_64_GLOB_DAT = 6;

// void function(int argc, char **argv, char **envp), the first of those that initialize; the original then gets these too.
const LISTING = `
  57                         push   %rdi
  56                         push   %rsi
  52                         push   %rdx
  53                         push   %rbx
  41 54                      push   %r12
  bf 00 00 00 01             mov    $0x1000000,%edi
  ff 15 00 00 00 00          call   *malloc(%rip)           # filled in, as all that follow
  48 89 c7                   mov    %rax,%rdi
  ff 15 00 00 00 00          call   *free(%rip)
  bf 00 00 a0 00             mov    $0xa00000,%edi
  ff 15 00 00 00 00          call   *malloc(%rip)
  48 85 c0                   test   %rax,%rax
  74 40                      je     9f
  48 89 c3                   mov    %rax,%rbx
  4c 8d a0 ff ff 1f 00       lea    0x1fffff(%rax),%r12
  49 81 e4 00 00 e0 ff       and    $-0x200000,%r12
  4c 89 e7                   mov    %r12,%rdi
  be 00 00 80 00             mov    $0x800000,%esi
  ba 0e 00 00 00             mov    $14,%edx                # MADV_HUGEPAGE
  b8 1c 00 00 00             mov    $28,%eax                # madvise
  0f 05                      syscall
  48 89 df                   mov    %rbx,%rdi
  ff 15 00 00 00 00          call   *free(%rip)
  4c 89 e7                   mov    %r12,%rdi               # what lies before the first huge page
  48 29 df                   sub    %rbx,%rdi               # is never used
  48 83 ef 40                sub    $0x40,%rdi
  76 06                      jbe    9f
  ff 15 00 00 00 00          call   *malloc(%rip)
  41 5c                  9:  pop    %r12
  5b                         pop    %rbx
  5a                         pop    %rdx
  5e                         pop    %rsi
  5f                         pop    %rdi
  e9 00 00 00 00             jmp    the original            # filled in
`;
const CODE = encodeListing(LISTING, 24);
/** Where in the code the distances stand. */
const CALLS = [
  ['malloc', [0x0d, 0x21, 0x66]],
  ['free', [0x16, 0x54]],
] as const;
const BACK_AT = 0x71;

function isCode({ segments }: Elf, address: number): boolean {
  const code = segments.filter(({ type, flags }) => type === PT_LOAD && (flags & PF_X) !== 0);
  return code.some((segment) => address >= segment.address && address < segment.address + segment.fileSize);
}

/** The address of the word in which the loader leaves the address of a function. */
function findSlot(image: Elf, name: string): number {
  const { bytes } = image;
  const symbols = getSection(image, SHT_DYNSYM, DT_SYMTAB);
  const length = getDynamic(image, DT_RELASZ);
  const start = offsetOf(image, getDynamic(image, DT_RELA), length);
  const found: number[] = [];
  for (let at = start; at < start + length; at += RELA) {
    if (bytes.readUInt32LE(at + 8) !== R_X86_64_GLOB_DAT) continue;
    const symbol = symbols.offset + bytes.readUInt32LE(at + 12) * SYMBOL;
    expect(symbol + SYMBOL <= symbols.offset + symbols.size, 'a relocation names a symbol that is not there');
    if (readDynamicString(image, bytes.readUInt32LE(symbol)) === name) found.push(readWord(bytes, at));
  }
  return expectOne(found, `places for the address of ${name}`);
}
