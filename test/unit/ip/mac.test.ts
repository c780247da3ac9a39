// Ethernet addresses from text and back.

import { expect, test } from 'vitest';
import { formatIp } from '../../../shared/ip/cidr.ts';
import { formatMac, linkLocalOf, parseMac, randomMac } from '../../../shared/ip/mac.ts';

test.each(['02:42:ac:11:00:02', '02-42-AC-11-00-02', '0242.ac11.0002'])('"%s" is understood', (text) => {
  expect(formatMac(parseMac(text))).toBe('02:42:ac:11:00:02');
});

test.each([
  '',
  '02:42:ac:11:00',
  '02:42:ac:11:00:02:03',
  '02:42:ac:11:00:02:03:04',
  '02:42-ac:11:00:02',
  '2:42:ac:11:00:02',
  '0242ac110002',
  '02:42:ac:11:00:0g',
  ' 02:42:ac:11:00:02',
])('"%s" is no MAC address', (text) => {
  expect(() => parseMac(text)).toThrow(`Cannot parse MAC address "${text}"`);
});

test('random addresses are unicast, locally administered, and different', () => {
  const macs = Array.from({ length: 200 }, randomMac);
  for (const mac of macs) expect((parseMac(mac)[0] ?? 0) & 3).toBe(2);
  expect(new Set(macs).size).toBe(200);
});

test('the link-local address of a MAC is the one of RFC 4291', () => {
  expect(formatIp(linkLocalOf(parseMac('02:42:ac:11:00:02')))).toBe('fe80::42:acff:fe11:2');
});
