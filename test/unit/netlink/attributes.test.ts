// Attributes written and read: the layout, the padding, and what a hostile sender may put there.
import { expect, test } from 'vitest';
import { AttributeWriter, readAttributes } from '../../../shared/netlink/attributes.ts';

test('attributes are written in host order, padded with zeros to four bytes', () => {
  const bytes = new AttributeWriter().u8(1, 0xff).u16(2, 0x0102).u32(3, 0x01020304).string(4, 'lo').done();
  expect(Buffer.from(bytes).toString('hex')).toBe(
    ['05000100ff000000', '0600020002010000', '0800030004030201', '070004006c6f0000'].join(''),
  );
});

test('integers in network order say so', () => {
  const bytes = new AttributeWriter()
    .u16be(1, 0x0102)
    .u32be(2, 0x01020304)
    .u64be(3, 0x0102030405060708n)
    .done();
  expect(Buffer.from(bytes).toString('hex')).toBe('060001000102000008000200010203040c0003000102030405060708');
});

test('a nest is marked and its length covers what is inside, padding excluded at the end', () => {
  const bytes = new AttributeWriter().nest(18, (w) => w.text(1, 'veth').nest(2, (v) => v.flag(3))).done();
  expect(Buffer.from(bytes).toString('hex')).toBe('14001280' + '0800010076657468' + '08000280' + '04000300');
});

test('a nest may begin with a header of its own', () => {
  const header = Uint8Array.of(9, 9, 9, 9);
  const bytes = new AttributeWriter().nestWithHeader(1, header, (w) => w.u8(5, 1)).done();
  expect(Buffer.from(bytes).toString('hex')).toBe('1000018009090909' + '0500050001000000');
});

test('what is longer than the first buffer is still written whole', () => {
  const writer = new AttributeWriter(Uint8Array.of(1, 2, 3, 4));
  const long = new Uint8Array(3000).fill(7);
  writer.nest(1, (w) => w.bytes(2, long).nest(3, (v) => v.bytes(4, long)));
  const read = readAttributes(writer.done(), 4).nest(1);
  expect(read?.bytes(2)).toEqual(long);
  expect(read?.nest(3)?.bytes(4)).toEqual(long);
});

test('no value is lost where the memory grows, whatever its size', () => {
  const writer = new AttributeWriter();
  for (let index = 0; index < 300; index += 1)
    writer.u8(1, 1).u16(2, 2).u32be(3, 3).u64(4, 4n).string(5, 'five');
  const read = readAttributes(writer.done()).entries();
  expect(read).toHaveLength(1500);
  for (const { type, value } of read)
    expect(
      value.some((byte) => byte !== 0),
      `attribute ${type}`,
    ).toBe(true);
});

test('what no attribute can hold is refused, not cut', () => {
  expect(() => new AttributeWriter().bytes(1, new Uint8Array(65532))).toThrow('65535 at most');
  const halves = new AttributeWriter();
  const half = new Uint8Array(40000);
  expect(() => halves.nest(1, (w) => w.bytes(2, half).bytes(3, half))).toThrow('65535 at most');
  expect(() => new AttributeWriter().string(1, 'eth\0')).toThrow('holds a NUL');
});

test('typed reads give back what was written, and nothing for what is absent', () => {
  const writer = new AttributeWriter();
  writer
    .u8(1, 200)
    .u16(2, 60000)
    .u32(3, 4e9)
    .u64(4, 2n ** 63n)
    .u16be(5, 1)
    .u32be(6, 2)
    .u64be(7, 3n);
  writer.string(8, 'größe').text(9, 'veth').flag(10).u32(11, 0xffffffff);
  const read = readAttributes(writer.done());
  expect([read.u8(1), read.u16(2), read.u32(3), read.u64(4)]).toEqual([200, 60000, 4e9, 2n ** 63n]);
  expect([read.u16be(5), read.u32be(6), read.u64be(7)]).toEqual([1, 2, 3n]);
  expect([read.string(8), read.string(9), read.has(10), read.i32(11)]).toEqual(['größe', 'veth', true, -1]);
  expect([read.u32(99), read.string(99), read.nest(99), read.has(99)]).toEqual([
    undefined,
    undefined,
    undefined,
    false,
  ]);
  expect(read.list(99)).toEqual([]);
});

test('a value of another size than asked for is an error', () => {
  const read = readAttributes(new AttributeWriter().u16(1, 5).done());
  expect(() => read.u32(1)).toThrow('Malformed netlink attribute 1: 2 bytes, 4 expected');
});

test("a list gives each member's attributes", () => {
  const writer = new AttributeWriter().nest(1, (list) => {
    list.nest(1, (w) => w.u8(7, 1)).nest(1, (w) => w.u8(7, 2));
  });
  expect(
    readAttributes(writer.done())
      .list(1)
      .map((member) => member.u8(7)),
  ).toEqual([1, 2]);
});

test('of two attributes of one type the last counts, as in the kernel', () => {
  expect(readAttributes(new AttributeWriter().u8(1, 1).u8(1, 2).done()).u8(1)).toBe(2);
});

test('the mark of a nest and of network order do not change a type', () => {
  expect(readAttributes(Uint8Array.of(5, 0, 3, 0xc0, 9, 0, 0, 0)).u8(3)).toBe(9);
});

test.each([
  ['zero', Uint8Array.of(0, 0, 1, 0)],
  ['shorter than its header', Uint8Array.of(3, 0, 1, 0)],
  ['longer than the rest', Uint8Array.of(9, 0, 1, 0, 1, 2, 3, 4)],
])('an attribute whose length is %s is refused', (_what, bytes) => {
  expect(() => readAttributes(bytes)).toThrow('Malformed netlink attribute');
});

test('a message shorter than its header is refused', () => {
  expect(() => readAttributes(new Uint8Array(8), 16)).toThrow('8 bytes, 16 expected');
});

test('nothing that is random crashes or hangs the reader', () => {
  for (let round = 0; round < 2000; round += 1) {
    const bytes = Uint8Array.from({ length: round % 97 }, () => Math.floor(Math.random() * 24));
    try {
      const read = readAttributes(bytes);
      for (const { type } of read.entries()) read.nest(type)?.members();
    } catch (error) {
      expect(String(error)).toMatch(/^Error: Malformed netlink/);
    }
  }
});
