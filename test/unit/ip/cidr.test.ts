// Addresses from text and back, held against the ip-address library on many random ones.
import { Address4, Address6 } from 'ip-address';
import { expect, test } from 'vitest';
import {
  addToIp,
  broadcastOf,
  compareIp,
  contains,
  formatCidr,
  formatIp,
  ipEquals,
  ipFromBytes,
  ipToBytes,
  isLinkLocal,
  isLoopback,
  isMulticast,
  isUnspecified,
  lastOf,
  networkOf,
  parseCidr,
  parseIp,
} from '../../../shared/ip/cidr.ts';

test.each([
  ['10.0.0.1', '10.0.0.1'],
  ['0.0.0.0', '0.0.0.0'],
  ['255.255.255.255', '255.255.255.255'],
  ['::', '::'],
  ['::1', '::1'],
  ['1::', '1::'],
  ['FD00::A', 'fd00::a'],
  ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
  ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
  ['1:2:3:4:5:6:7::', '1:2:3:4:5:6:7:0'],
  ['0001:0002::0008', '1:2::8'],
  ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ['::ffff:10.1.2.3', '10.1.2.3'],
  ['::ffff:a01:203', '10.1.2.3'],
])('"%s" is the address "%s"', (text, formatted) => {
  expect(formatIp(parseIp(text))).toBe(formatted);
});

test.each([
  '',
  ' 10.0.0.1',
  '10.0.0.1 ',
  '10.0.0.1\n',
  '10.0.0',
  '10.0.0.0.1',
  '10.0.0.256',
  '10.0.0.01',
  '010.0.0.1',
  '0x0a.0.0.1',
  '10.0.0.-1',
  '10.0.0.1e0',
  '10.0.0.1/24',
  '167772161',
  'fe80::1%eth0',
  'fd00::/64',
  '[::1]',
  ':',
  ':::',
  '1::2::3',
  ':1::2',
  '1::2:',
  '12345::',
  'g::',
  '1:2:3:4:5:6:7',
  '1:2:3:4:5:6:7:8:9',
  '1:2:3:4:5:6:7:8::',
  '::1.2.3',
  '::ffff:01.2.3.4',
  '::1.2.3.4.5',
  '1.2.3.4::',
  'localhost',
])('"%s" is no address, and the error quotes it', (text) => {
  expect(() => parseIp(text)).toThrow(`Cannot parse IP address "${text}"`);
});

test('random IPv6 addresses are written and read as the library does', () => {
  for (let round = 0; round < 2000; round += 1) {
    let value = 0n;
    for (let group = 0; group < 8; group += 1) {
      value = (value << 16n) | (Math.random() < 0.5 ? 0n : BigInt(Math.floor(Math.random() * 65536)));
    }
    if (value >> 32n === 0xffffn) continue; // an IPv4 address for us
    const theirs = Address6.fromBigInt(value);
    const ours = { family: 6 as const, value };
    expect(formatIp(ours)).toBe(theirs.correctForm());
    expect(parseIp(theirs.correctForm())).toEqual(ours);
    expect(parseIp(theirs.canonicalForm())).toEqual(ours);
    expect(parseIp(theirs.to4in6())).toEqual(ours);
  }
});

test('random IPv4 addresses are written and read as the library does', () => {
  for (let round = 0; round < 500; round += 1) {
    const value = BigInt(Math.floor(Math.random() * 2 ** 32));
    const theirs = Address4.fromBigInt(value);
    expect(formatIp({ family: 4, value })).toBe(theirs.correctForm());
    expect(parseIp(theirs.correctForm())).toEqual({ family: 4, value });
  }
});

test('what the library refuses is refused, over many spoiled texts', () => {
  const alphabet = '0123456789abcdef::..';
  for (let round = 0; round < 5000; round += 1) {
    const length = 2 + Math.floor(Math.random() * 16);
    const text = Array.from({ length }, () => alphabet[Math.floor(Math.random() * alphabet.length)]).join('');
    let ours: string | undefined;
    try {
      ours = formatIp(parseIp(text));
    } catch {
      continue; // we may be stricter, never laxer
    }
    const isTheirs = text.includes(':') ? Address6.isValid(text) : Address4.isValid(text);
    expect(isTheirs, `"${text}" was taken for ${ours}`).toBe(true);
  }
});

test('a CIDR keeps its host bits, its network does not', () => {
  const cidr = parseCidr('10.1.2.3/20');
  expect(formatCidr(cidr)).toBe('10.1.2.3/20');
  expect(formatCidr(networkOf(cidr))).toBe('10.1.0.0/20');
  expect(formatIp(lastOf(cidr))).toBe('10.1.15.255');
  expect(formatIp(broadcastOf(cidr))).toBe('10.1.15.255');
  expect(formatCidr(networkOf(parseCidr('fd00::1:2:3:4/65')))).toBe('fd00::/65');
  expect(formatIp(lastOf(parseCidr('fd00::/127')))).toBe('fd00::1');
});

test('the prefix of an IPv4-mapped CIDR counts from bit 96', () => {
  expect(formatCidr(parseCidr('::ffff:10.0.0.1/104'))).toBe('10.0.0.1/8');
  expect(() => parseCidr('::ffff:10.0.0.1/64')).toThrow('Cannot parse CIDR "::ffff:10.0.0.1/64"');
});

test.each([
  '10.0.0.1',
  '10.0.0.1/',
  '10.0.0.1/33',
  '10.0.0.1/-1',
  '10.0.0.1/024',
  '10.0.0.1/ 8',
  '/24',
  '::/129',
  '1/2/3',
])('"%s" is no CIDR', (text) => {
  expect(() => parseCidr(text)).toThrow(`Cannot parse CIDR "${text}"`);
});

test('the widest and the narrowest networks hold what they should', () => {
  expect(contains(parseCidr('0.0.0.0/0'), parseIp('255.255.255.255'))).toBe(true);
  expect(contains(parseCidr('10.0.0.1/32'), parseIp('10.0.0.1'))).toBe(true);
  expect(contains(parseCidr('10.0.0.1/32'), parseIp('10.0.0.2'))).toBe(false);
  expect(contains(parseCidr('::/0'), parseIp('ffff::'))).toBe(true);
  expect(contains(parseCidr('::/0'), parseIp('10.0.0.1'))).toBe(false);
  expect(contains(parseCidr('fd00::2/127'), parseIp('fd00::3'))).toBe(true);
});

test('counting stops at both ends of a family', () => {
  expect(formatIp(addToIp(parseIp('10.0.0.255'), 1n))).toBe('10.0.1.0');
  expect(formatIp(addToIp(parseIp('fd00::'), -1n))).toBe('fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff');
  expect(() => addToIp(parseIp('255.255.255.255'), 1n)).toThrow('no such address');
  expect(() => addToIp(parseIp('::'), -1n)).toThrow('no such address');
});

test('addresses sort by family, then by value', () => {
  const sorted = ['::1', '10.0.0.2', '10.0.0.10', '::'].map(parseIp).sort(compareIp).map(formatIp);
  expect(sorted).toEqual(['10.0.0.2', '10.0.0.10', '::', '::1']);
  expect(ipEquals(parseIp('0.0.0.1'), parseIp('::1'))).toBe(false);
});

test('bytes are in network order, and only four or sixteen of them are an address', () => {
  expect([...ipToBytes(parseIp('10.1.2.3'))]).toEqual([10, 1, 2, 3]);
  expect(Buffer.from(ipToBytes(parseIp('fd00::1:2'))).toString('hex')).toBe(
    'fd000000000000000000000000010002',
  );
  for (const text of ['0.0.0.0', '255.255.255.255', '::', 'fd00::1', 'ffff::ffff']) {
    expect(formatIp(ipFromBytes(ipToBytes(parseIp(text))))).toBe(text);
  }
  expect(() => ipFromBytes(new Uint8Array(5))).toThrow('5 bytes');
});

test('special addresses are known in both families', () => {
  expect(['224.0.0.1', 'ff02::1', '239.255.255.255'].map(parseIp).every(isMulticast)).toBe(true);
  expect(['223.255.255.255', '240.0.0.0', 'fe80::1'].map(parseIp).some(isMulticast)).toBe(false);
  expect(['169.254.1.1', 'fe80::1', 'febf::1'].map(parseIp).every(isLinkLocal)).toBe(true);
  expect(['169.255.0.1', 'fec0::1'].map(parseIp).some(isLinkLocal)).toBe(false);
  expect(['127.0.0.53', '::1'].map(parseIp).every(isLoopback)).toBe(true);
  expect(['0.0.0.0', '::'].map(parseIp).every(isUnspecified)).toBe(true);
});

test('a broadcast address of an IPv6 network is asked for in error', () => {
  expect(() => broadcastOf(parseCidr('fd00::/64'))).toThrow('broadcast address of "fd00::/64"');
});
