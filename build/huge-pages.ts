// Lets V8 lay its heap into huge pages, where the kernel has them. Called by node-binary.ts on the stripped Node
// binary; docs/performance.md says what that saves.
import {
  decodeElf,
  type Elf,
  type ElfFunction,
  expect,
  expectOne,
  getFunction,
  PT_LOAD,
  patchImage,
  writeWord,
} from './elf.ts';
import { alignUp, encodeListing, findPlace, PAGE, writeCode } from './padding.ts';

/**
 * Returns a copy of a Node binary whose V8 takes the first 64 pages of its heap from one piece of memory, for which the
 * kernel is asked to use huge pages (MADV_HUGEPAGE, madvise(2)).
 *
 * V8's own pages have 256 KiB and lie at random addresses, too small and too far apart for a huge page of 2 MiB. A call
 * touches some 1,600 pages of 4 KiB there, and the kernel takes more than a microsecond for each: as much as for a whole
 * huge page's worth of sixty. V8 may forget and free these pages as before, and takes further ones as before.
 *
 * Only x86-64 is served; an image for aarch64 is returned as it is. Throws an Error that names the first assumption the
 * image does not meet; the image passed in is not changed.
 *
 * Source: V8's src/base/platform/platform-posix.cc, `OS::Allocate`; System V ABI, x86-64 supplement.
 */
export function useHugePages(elf: Buffer): Buffer {
  return patchImage('use huge pages', () => {
    const image = decodeElf(elf);
    if (image.machineNumber !== X86_64) return elf;
    const entry = findEntry(image);
    const place = findPlace(image, CODE.length);
    const state = findState(image);

    const patched = Buffer.from(elf);
    writeCode(patched, place, CODE);
    patched.writeInt32LE(state.address - (place.address + STATE_AT + 4), place.offset + STATE_AT);
    patched.writeInt32LE(
      entry.address + ENTRY.length - (place.address + BACK_AT + 4),
      place.offset + BACK_AT,
    );
    patched.writeUInt8(JUMP, entry.offset);
    patched.writeInt32LE(place.address - (entry.address + 5), entry.offset + 1);
    patched.writeUInt8(NO_OPERATION, entry.offset + 5);
    const { segment } = state;
    writeWord(patched, segment.header + 40, state.address + STATE_BYTES - segment.address); // p_memsz
    return patched;
  });
}

const X86_64 = 62;
const PF_W = 2;
const JUMP = 0xe9;
const NO_OPERATION = 0x90;

const FUNCTION = '_ZN2v84base2OS8AllocateEPvmmNS1_16MemoryPermissionESt8optionalINS_18SharedMemoryHandleEE';

/** How the function begins: whole instructions, none of which depends on where it stands. The code has them at its end. */
const ENTRY = Buffer.from('554889e54157', 'hex'); // push %rbp; mov %rsp,%rbp; push %r15

/** Two words: the address of the next free page, and that of the end. */
const STATE_BYTES = 16;

// void *OS::Allocate(void *hint, size_t size, size_t alignment, MemoryPermission access, optional<…> handle)
//
// A page of 256 KiB, aligned to that, readable and writable, of memory that is nobody else's: the next one of 16 MiB.
// The first such call takes these from the kernel, aligned to 2 MiB. MADV_DONTFORK is what V8 asks for each of its
// pages; set for all at once, it does not cut them into mappings that are too small for a huge page. Everything else,
// and what comes when nothing is left or the kernel refuses, goes the old way.
//
// The first word of the state is 0 before the first call, and 1 while somebody, or after nobody, could get the memory.
const LISTING = `
  48 81 fe 00 00 04 00       cmp    $0x40000,%rsi           # size
  0f 85 db 00 00 00          jne    9f
  48 39 f2                   cmp    %rsi,%rdx               # alignment
  0f 85 d2 00 00 00          jne    9f
  83 f9 02                   cmp    $2,%ecx                 # kReadWrite
  0f 85 c9 00 00 00          jne    9f
  49 0f ba e0 20             bt     $32,%r8                 # has a handle
  0f 82 be 00 00 00          jc     9f
  4c 8d 15 00 00 00 00       lea    state(%rip),%r10        # filled in
  49 8b 02               1:  mov    (%r10),%rax
  48 83 f8 01                cmp    $1,%rax
  0f 84 aa 00 00 00          je     9f
  72 16                      jb     2f
  4c 8d 1c 30                lea    (%rax,%rsi),%r11
  4d 3b 5a 08                cmp    8(%r10),%r11
  0f 87 9a 00 00 00          ja     9f
  f0 4d 0f b1 1a             lock cmpxchg %r11,(%r10)
  75 dc                      jne    1b
  c3                         ret
  41 bb 01 00 00 00      2:  mov    $1,%r11d
  f0 4d 0f b1 1a             lock cmpxchg %r11,(%r10)
  75 ce                      jne    1b
  57                         push   %rdi
  56                         push   %rsi
  52                         push   %rdx
  51                         push   %rcx
  41 50                      push   %r8
  41 52                      push   %r10
  31 ff                      xor    %edi,%edi
  be 00 00 20 01             mov    $0x1200000,%esi         # 16 MiB, and 2 to align them
  ba 03 00 00 00             mov    $3,%edx                 # PROT_READ | PROT_WRITE
  41 ba 22 40 00 00          mov    $0x4022,%r10d           # MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
  49 c7 c0 ff ff ff ff       mov    $-1,%r8
  45 31 c9                   xor    %r9d,%r9d
  b8 09 00 00 00             mov    $9,%eax                 # mmap
  0f 05                      syscall
  48 3d 00 f0 ff ff          cmp    $-4096,%rax
  77 4a                      ja     8f
  48 8d b8 ff ff 1f 00       lea    0x1fffff(%rax),%rdi
  48 81 e7 00 00 e0 ff       and    $-0x200000,%rdi
  be 00 00 00 01             mov    $0x1000000,%esi
  ba 0a 00 00 00             mov    $10,%edx                # MADV_DONTFORK
  b8 1c 00 00 00             mov    $28,%eax                # madvise
  0f 05                      syscall
  ba 0e 00 00 00             mov    $14,%edx                # MADV_HUGEPAGE
  b8 1c 00 00 00             mov    $28,%eax
  0f 05                      syscall
  41 5a                      pop    %r10
  48 83 c4 28                add    $40,%rsp
  4c 8d 9f 00 00 00 01       lea    0x1000000(%rdi),%r11
  4d 89 5a 08                mov    %r11,8(%r10)
  48 89 f8                   mov    %rdi,%rax
  4c 8d 9f 00 00 04 00       lea    0x40000(%rdi),%r11
  4d 89 1a                   mov    %r11,(%r10)
  c3                         ret
  41 5a                  8:  pop    %r10
  41 58                      pop    %r8
  59                         pop    %rcx
  5a                         pop    %rdx
  5e                         pop    %rsi
  5f                         pop    %rdi
  55                     9:  push   %rbp
  48 89 e5                   mov    %rsp,%rbp
  41 57                      push   %r15
  e9 00 00 00 00             jmp    the rest of the function # filled in
`;
const CODE = encodeListing(LISTING, 24);
const STATE_AT = 0x2d; // where in the code the distance to the state stands
const BACK_AT = 0xef; // and that to the rest of the function

function findEntry(image: Elf): ElfFunction {
  const entry = getFunction(image, FUNCTION);
  const begin = image.bytes.subarray(entry.offset, entry.offset + ENTRY.length);
  expect(begin.equals(ENTRY), `${FUNCTION} begins with ${begin.toString('hex')}`);
  return entry;
}

/** Zeros behind the variables, on a page that is mapped in any case. */
function findState({ segments }: Elf): {
  readonly segment: Elf['segments'][number];
  readonly address: number;
} {
  const segment = expectOne(
    segments.filter(
      ({ type, flags, fileSize, memorySize }) =>
        type === PT_LOAD && (flags & PF_W) !== 0 && memorySize > fileSize,
    ),
    'segments with zeroed variables',
  );
  const end = segment.address + segment.memorySize;
  const address = alignUp(end, STATE_BYTES);
  expect(address + STATE_BYTES <= alignUp(end, PAGE), 'the last page of the variables is full');
  return { segment, address };
}
