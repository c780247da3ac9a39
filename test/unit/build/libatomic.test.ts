// Says what patchLibatomic promises: on a hand-made library for both machines, in which every refusal can be
// provoked and whose patched form is loaded and called, and on the Node binary that runs this test.
// Called by vitest.
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { AARCH64_LISTING, patchLibatomic, X86_64_LISTING } from '../../../build/libatomic.ts';

const X86_64 = 62;
const AARCH64 = 183;
const OWN_MACHINE = process.arch === 'arm64' ? AARCH64 : X86_64;
const OWN_LISTING = process.arch === 'arm64' ? AARCH64_LISTING : X86_64_LISTING;

const directory = mkdtempSync(join(tmpdir(), 'patchbay-libatomic-'));
afterAll(() => rmSync(directory, { recursive: true }));

describe.each([
  ['x86-64', X86_64, X86_64_LISTING, 8],
  ['aarch64', AARCH64, AARCH64_LISTING, 1027],
])('A library for %s', (_name, machine, listing, relative) => {
  const elf = makeLibrary(machine);
  const original = Buffer.from(elf);
  const patched = patchLibatomic(elf);

  it('stays as it was, the patch is a copy of the same size', () => {
    expect(elf.equals(original)).toBe(true);
    expect(patched.length).toBe(elf.length);
  });

  it('has the body behind its code, inside its last section and segment', () => {
    const code = codeOf(listing);
    expect(patched.subarray(BODY, BODY + code.length).equals(code)).toBe(true);
    const end = BODY + Math.ceil(code.length / 16) * 16;
    expect(patched.readBigUInt64LE(CODE_SEGMENT + 32)).toBe(BigInt(end - CODE));
    expect(patched.readBigUInt64LE(CODE_SEGMENT + 40)).toBe(BigInt(end - CODE));
    expect(patched.readBigUInt64LE(CODE_SECTION + 32)).toBe(BigInt(end - CODE));
  });

  it('gets the address of the body without a symbol being looked up', () => {
    expect(patched.readUInt32LE(RELOCATION + 8)).toBe(relative);
    expect(patched.readUInt32LE(RELOCATION + 12)).toBe(0);
    expect(patched.readBigUInt64LE(RELOCATION + 16)).toBe(BigInt(BODY));
  });

  it('keeps all that it needs but libatomic, in the same order', () => {
    expect(patched.subarray(DYNAMIC, DYNAMIC + 16).equals(elf.subarray(DYNAMIC + 16, DYNAMIC + 32))).toBe(
      true,
    );
    expect(patched.subarray(VERSION_NEEDS, VERSION_NEEDS + 32)).toEqual(
      elf.subarray(VERSION_NEEDS + 32, VERSION_NEEDS + 64),
    );
    expect(patched.readUInt32LE(VERSION_NEED_SECTION + 44)).toBe(1);
    expect(patched.readBigUInt64LE(VERSION_NEED_SECTION + 32)).toBe(32n);
  });

  it('is left alone when it is patched already', () => {
    expect(patchLibatomic(patched)).toBe(patched);
  });

  it('may name libatomic last among its version needs', () => {
    const last = patchLibatomic(makeLibrary(machine, { isLibatomicLast: true }));
    expect(last.readUInt32LE(VERSION_NEEDS + 12)).toBe(0);
    expect(last.subarray(VERSION_NEEDS + 32, VERSION_NEEDS + 64)).toEqual(Buffer.alloc(32));
  });
});

describe('An image that is not quite what the patch is made for', () => {
  it.each<[string, (elf: Buffer) => void]>([
    ['it is no ELF image', (elf) => elf.writeUInt8(0, 0)],
    ['it is not 64-bit', (elf) => elf.writeUInt8(1, 4)],
    ['it is not little-endian', (elf) => elf.writeUInt8(2, 5)],
    ['machine 243 is neither x86-64 (62) nor aarch64 (183)', (elf) => elf.writeUInt16LE(243, 18)],
    ['program headers have 32 bytes', (elf) => elf.writeUInt16LE(32, 54)],
    ['section headers have 40 bytes', (elf) => elf.writeUInt16LE(40, 58)],
    ['there are 0 dynamic segments, not 1', (elf) => elf.writeUInt32LE(0, DYNAMIC_SEGMENT)],
    ['the dynamic section has no end', (elf) => elf.writeBigUInt64LE(32n, DYNAMIC_SEGMENT + 32)],
    ['libatomic.so.1 is needed 2 times', (elf) => elf.copy(elf, DYNAMIC + 16, DYNAMIC, DYNAMIC + 16)],
    ['there are 1 version needs', (elf) => elf.writeBigUInt64LE(1n, dynamicEntry(elf, 0x6fffffff) + 8)],
    ['version need 0 has another layout', (elf) => elf.writeUInt16LE(2, VERSION_NEEDS)],
    ['version need 0 is not contiguous', (elf) => elf.writeUInt32LE(32, VERSION_NEEDS + 8)],
    ['version need 0 is not followed by the next', (elf) => elf.writeUInt32LE(48, VERSION_NEEDS + 12)],
    [
      'the version needs do not fill their section',
      (elf) => elf.writeBigUInt64LE(80n, VERSION_NEED_SECTION + 32),
    ],
    [
      'there are 0 version needs for libatomic.so.1, not 1',
      (elf) => elf.copy(elf, VERSION_NEEDS + 4, VERSION_NEEDS + 36, VERSION_NEEDS + 40),
    ],
    [
      '2 versions of libatomic.so.1 are needed',
      (elf) => {
        elf.writeUInt16LE(2, VERSION_NEEDS + 2);
        elf.writeUInt32LE(48, VERSION_NEEDS + 12);
      },
    ],
    [
      'it imports __atomic_compare_exchange, probe from libatomic.so.1',
      (elf) => elf.writeUInt16LE(2, VERSIONS + 4),
    ],
    ['it imports nothing from libatomic.so.1', (elf) => elf.writeUInt16LE(1, VERSIONS + 2)],
    [
      'it imports __atomic_compare_exchangX from libatomic.so.1',
      (elf) => elf.write('X', elf.indexOf('exchange\0') + 7),
    ],
    ['3 dynamic symbols have 2 versions', (elf) => elf.writeBigUInt64LE(4n, VERSION_SECTION + 32)],
    ['__atomic_compare_exchange is no global function', (elf) => elf.writeUInt8(0x22, SYMBOLS + 24 + 4)],
    ['__atomic_compare_exchange is defined already', (elf) => elf.writeUInt16LE(1, SYMBOLS + 24 + 6)],
    [
      'there are 0 relocations for __atomic_compare_exchange, not 1',
      (elf) => elf.writeUInt32LE(2, RELOCATION + 12),
    ],
    [
      'the relocation for __atomic_compare_exchange has type 6',
      (elf) => elf.writeUInt32LE(6, RELOCATION + 8),
    ],
    [
      'there are 2 executable segments, not 1',
      (elf) => elf.writeUInt32LE(5, CODE_SEGMENT - SEGMENT_HEADER + 4),
    ],
    [
      'the executable segment has a part that is not in the file',
      (elf) => elf.writeBigUInt64LE(99n, CODE_SEGMENT + 40),
    ],
    [
      'there are 0 sections at the end of the executable segment',
      (elf) => elf.writeBigUInt64LE(1n, CODE_SECTION + 32),
    ],
    [
      'do not fit into the last page',
      (elf) => {
        for (const position of [CODE_SEGMENT + 32, CODE_SEGMENT + 40, CODE_SECTION + 32]) {
          elf.writeBigUInt64LE(4001n, position);
        }
      },
    ],
    ['the padding of the executable segment is used', (elf) => elf.writeUInt8(0xcc, BODY + 20)],
    [
      'the padding of the executable segment belongs to something else',
      (elf) => elf.writeBigUInt64LE(BigInt(BODY + 90), STRING_SECTION + 24),
    ],
    ['the section of type 0xb is not at the loader', (elf) => elf.writeBigUInt64LE(8n, SYMBOL_SECTION + 16)],
    ['section 1 is mapped elsewhere', (elf) => elf.writeBigUInt64LE(8n, SYMBOL_SECTION + 24)],
    ['it does not bind eagerly', (elf) => elf.writeBigUInt64LE(0n, dynamicEntry(elf, 30) + 8)],
    [
      'address 0x7777777 is not in the file',
      (elf) => elf.writeBigUInt64LE(0x7777777n, dynamicEntry(elf, 23) + 8),
    ],
    ['the number at 0x20 is too large', (elf) => elf.writeBigUInt64LE(1n << 60n, 32)],
  ])('is refused because %s', (reason, change) => {
    const elf = makeLibrary(X86_64);
    change(elf);
    expect(() => patchLibatomic(elf)).toThrow(`Cannot replace libatomic.so.1 in this image: `);
    expect(() => patchLibatomic(elf)).toThrow(reason);
  });
});

describe('The body, called through a library that the real loader has bound', () => {
  const path = join(directory, 'probe.so');
  writeFileSync(path, patchLibatomic(makeLibrary(OWN_MACHINE)));

  it.each([1, 2, 4, 8])('stores the new value if %i bytes are equal, and answers 1', (size) => {
    const { answer, object, wanted } = callBody(path, {
      size,
      object: '1122334455667788',
      wanted: '1122334455667788',
    });
    expect(answer).toBe(1);
    expect(object).toBe('a1a2a3a4a5a6a7a8'.slice(0, size * 2) + '1122334455667788'.slice(size * 2));
    expect(wanted).toBe('1122334455667788');
  });

  it.each([1, 2, 4, 8])('tells the value found if %i bytes differ in the last one, and answers 0', (size) => {
    const differs = Buffer.from('1122334455667788', 'hex')
      .fill(0xff, size - 1, size)
      .toString('hex');
    const { answer, object, wanted } = callBody(path, { size, object: '1122334455667788', wanted: differs });
    expect(answer).toBe(0);
    expect(object).toBe('1122334455667788');
    expect(wanted).toBe('1122334455667788');
  });

  it.each([0, 3, 16, 2 ** 32 + 8])('stops the process when asked for %i bytes', (size) => {
    const { signal } = runNode(CALLER, [path, String(size), '00'.repeat(16), '00'.repeat(16)]);
    expect(signal).toBe('SIGILL');
  });

  it('loses no update when two threads fight for one word', () => {
    const { stdout, stderr } = runNode(FIGHT, [path]);
    expect(stderr).toBe('');
    const { total, lost } = JSON.parse(stdout);
    expect(total).toBe(400_000);
    expect(lost).toBeGreaterThan(0); // otherwise the two never met, and nothing was shown
  });

  it('is not offered to other libraries', () => {
    const { stdout } = runNode(LOOK_UP, [path]);
    expect(JSON.parse(stdout)).toEqual({ probe: true, __atomic_compare_exchange: false });
  });

  it('has a listing whose bytes are what the assembler makes of its text', () => {
    const object = join(directory, 'body.o');
    const binary = join(directory, 'body.bin');
    const source = OWN_LISTING.split('\n')
      .map((line) => line.slice(18))
      .join('\n');
    execFileSync('as', ['-o', object], { input: `${source}\n` });
    execFileSync('objcopy', ['-O', 'binary', '-j', '.text', object, binary]);
    expect(readFileSync(binary).toString('hex')).toBe(codeOf(OWN_LISTING).toString('hex'));
  });
});

describe('The Node binary', () => {
  const code = codeOf(OWN_LISTING);
  const node = readFileSync(process.execPath);
  const patched = patchLibatomic(node);

  it('runs functions, workers and Wasm without loading libatomic', () => {
    const { stdout, stderr } = runNode(SHOW, [], writeExecutable('node', patched));
    expect(stderr).toBe('');
    const { libraries, worker, wasm } = JSON.parse(stdout);
    expect(libraries.filter((name: string) => name.includes('libc.so.6'))).toHaveLength(1);
    expect(libraries.filter((name: string) => name.includes('libatomic'))).toEqual([]);
    expect({ worker, wasm }).toEqual({ worker: 7, wasm: 42 });
  });

  it('runs the body: it dies in a body that consists of traps', () => {
    const body = patched.indexOf(code);
    expect(body).toBeGreaterThan(0);
    const trapped = Buffer.from(patched);
    const trap = OWN_MACHINE === AARCH64 ? [0x01, 0x00, 0x00, 0x00] : [0x0f, 0x0b];
    trapped.fill(Buffer.from(trap), body, body + code.length);
    expect(runNode('0', [], writeExecutable('trapped', trapped)).signal).toBe('SIGILL');
  });
});

function writeExecutable(name: string, bytes: Buffer): string {
  const path = join(directory, name);
  writeFileSync(path, bytes);
  chmodSync(path, 0o755);
  return path;
}

function runNode(script: string, args: readonly string[], node = process.execPath) {
  const options = ['--disable-warning=ExperimentalWarning', '-e', script, '--', ...args];
  return spawnSync(node, options, { encoding: 'utf8', env: { PATH: process.env['PATH'] } });
}

function callBody(path: string, { size, object, wanted }: { size: number; object: string; wanted: string }) {
  const { stdout, stderr } = runNode(CALLER, [path, String(size), object, wanted]);
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

const BIND = `
  const { dlopen, getRawPointer } = require('node:ffi');
  const types = ['uint64', 'pointer', 'pointer', 'pointer', 'int32', 'int32'];
  const bind = (path) => dlopen(path, { probe: { arguments: types, return: 'uint32' } }).functions.probe;
`;

const CALLER = `${BIND}
  const [path, size, object, wanted] = process.argv.slice(1);
  const bytes = [object, wanted, 'a1a2a3a4a5a6a7a8'].map((text) => new Uint8Array(Buffer.from(text, 'hex')));
  const answer = bind(path)(BigInt(size), ...bytes.map((one) => getRawPointer(one)), 5, 5);
  const [after, found] = bytes.map((one) => Buffer.from(one).toString('hex'));
  console.log(JSON.stringify({ answer, object: after, wanted: found }));
`;

// Two threads add one to a shared 64-bit word; the lower and the upper half count alike, so a torn write shows too.
const FIGHT = `${BIND}
  const { Worker, isMainThread, workerData } = require('node:worker_threads');
  const [path] = isMainThread ? process.argv.slice(1) : [workerData.path];
  const shared = isMainThread ? new SharedArrayBuffer(24) : workerData.shared;
  const state = new Int32Array(shared, 8);
  function fight() {
    const probe = bind(path);
    const word = getRawPointer(shared);
    const wanted = new BigUint64Array(1);
    const desired = new BigUint64Array(1);
    const [wantedAt, desiredAt] = [getRawPointer(wanted), getRawPointer(desired)];
    Atomics.add(state, 0, 1);
    while (Atomics.load(state, 0) < 2);
    for (let done = 0; done < 200000; ) {
      desired[0] = wanted[0] + 0x100000001n;
      if (probe(8n, word, wantedAt, desiredAt, 0, 0) === 1) done += 1;
      else Atomics.add(state, 1, 1);
    }
  }
  if (isMainThread) {
    const source = process.execArgv[process.execArgv.indexOf('-e') + 1];
    const other = new Worker(source, { eval: true, workerData: { path, shared } });
    other.on('exit', () => {
      const [low, high] = new Uint32Array(shared);
      console.log(JSON.stringify({ total: low === high ? low : [low, high], lost: state[1] }));
    });
    fight();
  } else {
    fight();
  }
`;

const LOOK_UP = `
  const { dlopen } = require('node:ffi');
  const { lib } = dlopen(process.argv[1], {});
  const has = (name) => { try { return lib.getSymbol(name) > 0n; } catch { return false; } };
  console.log(JSON.stringify(Object.fromEntries(['probe', '__atomic_compare_exchange'].map((n) => [n, has(n)]))));
`;

// (module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))
const SHOW = `
  const { Worker } = require('node:worker_threads');
  const text = '0061736d0100000001070160027f7f017f03020100070701036164640000' + '0a09010700200020016a0b';
  const module = new WebAssembly.Module(Buffer.from(text, 'hex'));
  const wasm = new WebAssembly.Instance(module).exports.add(40, 2);
  const source = 'require("node:worker_threads").parentPort.postMessage(new Function("return 7")())';
  new Worker(source, { eval: true }).on('message', (worker) => {
    const libraries = process.report.getReport().sharedObjects;
    console.log(JSON.stringify({ libraries, worker, wasm }));
  });
`;

// A shared library of the least size that the loader takes: `probe` jumps to the imported function. Its file offsets
// are its addresses, and its segments lie 64 KiB apart, the largest page of both machines.
const SEGMENT_HEADER = 56;
const SECTION_HEADER = 64;
const CODE_SEGMENT = 64 + SEGMENT_HEADER;
const DYNAMIC_SEGMENT = 64 + 3 * SEGMENT_HEADER;
const SYMBOLS = 0x400;
const STRINGS = 0x500;
const HASH = 0x600;
const VERSIONS = 0x640;
const VERSION_NEEDS = 0x680;
const RELOCATION = 0x700;
const SECTIONS = 0x800;
const SYMBOL_SECTION = SECTIONS + SECTION_HEADER;
const STRING_SECTION = SYMBOL_SECTION + SECTION_HEADER;
const VERSION_SECTION = STRING_SECTION + SECTION_HEADER;
const VERSION_NEED_SECTION = VERSION_SECTION + SECTION_HEADER;
const CODE_SECTION = VERSION_NEED_SECTION + SECTION_HEADER;
const CODE = 0x10000;
const BODY = CODE + 16;
const DYNAMIC = 0x20000;
const SLOT = 0x20200;

const PROBE: Readonly<Record<number, Buffer>> = {
  [X86_64]: Buffer.from('ff25fa010100', 'hex'), // jmp *SLOT(%rip)
  [AARCH64]: Buffer.from('90000090110241f920021fd6', 'hex'), // adrp x16, SLOT; ldr x17, [x16, #0x200]; br x17
};

function makeLibrary(machine: number, { isLibatomicLast = false } = {}): Buffer {
  const elf = Buffer.alloc(SLOT + 8);
  const probe = PROBE[machine] ?? Buffer.alloc(0);
  probe.copy(elf, CODE);

  const strings = [
    '',
    'libatomic.so.1',
    'LIBATOMIC_1.0',
    'libc.so.6',
    'GLIBC_2.17',
    '__atomic_compare_exchange',
    'probe',
  ];
  const text = Buffer.from(`${strings.join('\0')}\0`);
  text.copy(elf, STRINGS);
  const at = (name: string) => (name === '' ? 0 : text.indexOf(`\0${name}\0`) + 1);

  // st_name, st_info, st_shndx, st_value, st_size
  [
    ['__atomic_compare_exchange', 0, 0, 0],
    ['probe', 5, CODE, probe.length],
  ].forEach(([name, section, address, size], index) => {
    const position = SYMBOLS + (index + 1) * 24;
    elf.writeUInt32LE(at(String(name)), position);
    elf.writeUInt8(0x12, position + 4);
    elf.writeUInt16LE(Number(section), position + 6);
    elf.writeBigUInt64LE(BigInt(address ?? 0), position + 8);
    elf.writeBigUInt64LE(BigInt(size ?? 0), position + 16);
  });
  [1, 3, 2, 0, 0, 1].forEach((word, index) => {
    elf.writeUInt32LE(word, HASH + index * 4);
  }); // 1 bucket: 2 → 1
  [0, 2, 1].forEach((version, index) => {
    elf.writeUInt16LE(version, VERSIONS + index * 2);
  });

  const needs = [
    ['libatomic.so.1', 'LIBATOMIC_1.0', 2],
    ['libc.so.6', 'GLIBC_2.17', 3],
  ] as const;
  (isLibatomicLast ? [...needs].reverse() : needs).forEach(([library, version, number], index) => {
    const position = VERSION_NEEDS + index * 32;
    elf.writeUInt16LE(1, position);
    elf.writeUInt16LE(1, position + 2);
    elf.writeUInt32LE(at(library), position + 4);
    elf.writeUInt32LE(16, position + 8);
    elf.writeUInt32LE(index === 0 ? 32 : 0, position + 12);
    elf.writeUInt32LE(hashOf(version), position + 16);
    elf.writeUInt16LE(number, position + 22);
    elf.writeUInt32LE(at(version), position + 24);
  });

  elf.writeBigUInt64LE(BigInt(SLOT), RELOCATION);
  elf.writeUInt32LE(machine === AARCH64 ? 1026 : 7, RELOCATION + 8);
  elf.writeUInt32LE(1, RELOCATION + 12);

  [
    [1, at('libatomic.so.1')],
    [1, at('libc.so.6')],
    [4, HASH],
    [5, STRINGS],
    [6, SYMBOLS],
    [10, text.length],
    [11, 24],
    [20, 7],
    [2, 24],
    [23, RELOCATION],
    [30, 8], // DF_BIND_NOW
    [0x6ffffff0, VERSIONS],
    [0x6ffffffe, VERSION_NEEDS],
    [0x6fffffff, 2],
    [0, 0],
  ].forEach(([tag, value], index) => {
    elf.writeBigUInt64LE(BigInt(tag ?? 0), DYNAMIC + index * 16);
    elf.writeBigUInt64LE(BigInt(value ?? 0), DYNAMIC + index * 16 + 8);
  });

  Buffer.from('7f454c46020101', 'hex').copy(elf);
  elf.writeUInt16LE(3, 16); // ET_DYN
  elf.writeUInt16LE(machine, 18);
  elf.writeUInt32LE(1, 20);
  elf.writeBigUInt64LE(64n, 32);
  elf.writeBigUInt64LE(BigInt(SECTIONS), 40);
  [64, SEGMENT_HEADER, 5, SECTION_HEADER, 6].forEach((value, index) => {
    elf.writeUInt16LE(value, 52 + index * 2);
  });

  // p_type, p_flags, start, size: LOAD r, LOAD rx, LOAD rw, DYNAMIC, GNU_STACK
  [
    [1, 4, 0, 0xa00],
    [1, 5, CODE, probe.length],
    [1, 6, DYNAMIC, 0x208],
    [2, 6, DYNAMIC, 0xf0],
    [0x6474e551, 6, 0, 0],
  ].forEach(([type = 0, flags = 0, start = 0, size = 0], index) => {
    const position = 64 + index * SEGMENT_HEADER;
    elf.writeUInt32LE(type, position);
    elf.writeUInt32LE(flags, position + 4);
    [start, start, start, size, size, 0x10000].forEach((value, field) => {
      elf.writeBigUInt64LE(BigInt(value), position + 8 + field * 8);
    });
  });

  // sh_type, sh_flags, start, size, sh_info: .dynsym, .dynstr, .gnu.version, .gnu.version_r, .text
  [
    [11, 2, SYMBOLS, 72, 1],
    [3, 2, STRINGS, text.length, 0],
    [0x6fffffff, 2, VERSIONS, 6, 0],
    [0x6ffffffe, 2, VERSION_NEEDS, 64, 2],
    [1, 6, CODE, probe.length, 0],
  ].forEach(([type = 0, flags = 0, start = 0, size = 0, info = 0], index) => {
    const position = SYMBOL_SECTION + index * SECTION_HEADER;
    elf.writeUInt32LE(type, position + 4);
    [flags, start, start, size].forEach((value, field) => {
      elf.writeBigUInt64LE(BigInt(value), position + 8 + field * 8);
    });
    elf.writeUInt32LE(2, position + 40);
    elf.writeUInt32LE(info, position + 44);
  });
  return elf;
}

function dynamicEntry(elf: Buffer, tag: number): number {
  for (let position = DYNAMIC; position < SLOT; position += 16) {
    if (elf.readBigUInt64LE(position) === BigInt(tag)) {
      return position;
    }
  }
  throw new Error(`The library has no dynamic entry ${tag}`);
}

/** The hash that a version need carries beside the name (System V ABI, "Hash Table"). */
function hashOf(name: string): number {
  let hash = 0;
  for (const byte of Buffer.from(name)) {
    const sum = (hash * 16 + byte) % 2 ** 32;
    const top = sum & 0xf0000000;
    hash = (sum ^ (top >>> 24)) & 0x0fffffff;
  }
  return hash;
}

function codeOf(listing: string): Buffer {
  const column = listing.split('\n').map((line) => line.slice(0, 18).replaceAll(' ', ''));
  return Buffer.from(column.join(''), 'hex');
}
