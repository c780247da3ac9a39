// How a recording of system calls becomes C, and what may differ between two runs. Run by vitest, project "unit".

import { describe, expect, test } from 'vitest';
import { parseRecording, type RecordedCall } from '../../../bench/limit/recording.ts';
import { patchesOf, translate } from '../../../bench/limit/translate.ts';

const VARYING = [
  { hostIndex: 5, sandboxIndex: 4 },
  { hostIndex: 6, sandboxIndex: 5 },
] as const;

describe('A recording', () => {
  test('begins with the config and leaves out what a program does for itself', () => {
    const calls = parseRecording([
      'openat(AT_FDCWD, "/lib/libc.so.6", O_RDONLY|O_CLOEXEC) = 3',
      'read(0, "{}", 65536)                    = 2',
      'mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 3, 0) = 0x7f0000000000',
      'unlink("/run/x") = -1 ENOENT (No such file or directory)',
      'exit_group(0)                           = ?',
    ]);
    expect(calls.map(({ name, result }) => [name, result])).toEqual([
      ['read', 2],
      ['unlink', undefined],
    ]);
  });

  test('holds the bytes of dumps, whatever their letters are', () => {
    const [, call] = parseRecording([
      'read(0, "{}", 65536) = 2',
      'sendto(21, [{nlmsg_len=20}], 20, 0, NULL, 0) = 20',
      ' | 00000  14 00 00 00 12 00 01 00  01 00 00 00 00 00 00 00  ................ |',
      ' | 00010  7c 20 7c 20                                       | |              |',
    ]);
    expect(call?.bytes.toString('hex')).toBe('140000001200010001000000000000007c207c20');
  });

  test('without the config is none', () => {
    expect(() => parseRecording(['close(3) = 0'])).toThrow('no reading of standard input');
  });
});

describe('Two messages', () => {
  test.each([
    { what: 'the index of the host link', a: 5, b: 6, variable: 'host_index' },
    { what: 'the index of the sandbox link', a: 4, b: 5, variable: 'sandbox_index' },
    { what: 'a descriptor', a: 20, b: 21, variable: 'fd[20]' },
  ])('differ in $what', ({ a, b, variable }) => {
    expect(patchesOf(words(0, a), words(0, b), VARYING)).toEqual([{ offset: 4, variable }]);
  });

  test('differ in the generation of a batch', () => {
    const batch = (generation: number) => {
      const message = words(28, 16, 1, 0, 0, 0x0001_0008, 0);
      message.writeUInt32BE(generation, 24);
      return message;
    };
    expect(patchesOf(batch(255), batch(258), VARYING)).toEqual([{ offset: 24, variable: 'generation' }]);
  });

  test('may have different MACs', () => {
    expect(patchesOf(words(0x0001_000a, 0x1234, 0x56), words(0x0001_000a, 0x9999, 0x99), VARYING)).toEqual(
      [],
    );
  });

  test('that differ in anything else are refused', () => {
    expect(() => patchesOf(words(1000), words(7), VARYING)).toThrow('Cannot tell what differs at offset 0');
  });
});

describe('A translation', () => {
  test.each([
    [
      'openat',
      'AT_FDCWD, "/run/a", O_RDONLY',
      20,
      '  fd[20] = must("openat", openat(AT_FDCWD, "/run/a", O_RDONLY));\n',
    ],
    ['close', '20', 0, '  must("close", close(fd[20]));\n'],
    ['unlink', '"/run/a"', undefined, '  (void)!unlink("/run/a");\n'],
    ['read', '20, "a, b", 8192', 4, '  must("read", read(fd[20], in, 8192));\n'],
    [
      'statfs',
      '"/proc/self/fd/20", {f_type=NSFS_MAGIC}',
      0,
      '  must("statfs", statfs(fd_path(fd[20]), &stfs));\n',
    ],
    [
      'statx',
      'AT_FDCWD, "/a", AT_STATX_SYNC_AS_STAT, STATX_ALL, {stx_mask=STATX_ALL, stx_size=0}',
      0,
      '  must("statx", statx(AT_FDCWD, "/a", AT_STATX_SYNC_AS_STAT, STATX_ALL, &stx));\n',
    ],
    [
      'setsockopt',
      '21, SOL_NETLINK, NETLINK_EXT_ACK, [1], 4',
      0,
      '  must("setsockopt", setsockopt(fd[21], SOL_NETLINK, NETLINK_EXT_ACK, (int[]){1}, 4));\n',
    ],
    [
      'socketpair',
      'AF_UNIX, SOCK_DGRAM|SOCK_CLOEXEC, 0, [22, 23]',
      0,
      '  { int pair[2]; must("socketpair", socketpair(AF_UNIX, SOCK_DGRAM|SOCK_CLOEXEC, 0, pair)); fd[22] = pair[0]; fd[23] = pair[1]; }\n',
    ],
  ])('makes %s in C', (name, args, result, expected) => {
    expect(translate([call(name, args, result)], [call(name, args, result)], VARYING)).toBe(expected);
  });

  test('takes the index of a new link from the kernel', () => {
    const answer = (index: number) => words(28, 16, 1, 0, 0, index, 0);
    const received = (index: number) => ({
      ...call('recvfrom', '21, x, 65536, MSG_TRUNC, y, [12]', 28),
      bytes: answer(index),
    });
    expect(translate([received(5)], [received(6)], VARYING)).toBe(
      '  must("recvfrom", receive(fd[21], MSG_TRUNC)); host_index = link_index();\n',
    );
  });

  test('of runs that went different ways is refused', () => {
    const one = call('close', '20', 0);
    expect(() => translate([one], [one, one], VARYING)).toThrow('differ at call');
    expect(() => translate([one], [call('unlink', '"/a"', 0)], VARYING)).toThrow('differ at call 0');
  });

  test('of a system call it does not know is refused', () => {
    const unknown = call('reboot', '1', 0);
    expect(() => translate([unknown], [unknown], VARYING)).toThrow('no way yet to make system call reboot');
  });
});

function call(name: string, args: string, result: number | undefined): RecordedCall {
  return { name, args, result, bytes: Buffer.alloc(0) };
}

function words(...values: number[]): Buffer {
  return Buffer.from(Uint32Array.from(values).buffer);
}
