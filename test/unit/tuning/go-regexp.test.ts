// The allow-list's expressions: what Go's regexp says of them, ours must say, or say nothing.
import { expect, test } from 'vitest';
import { toRegExp } from '../../../plugins/tuning/go-regexp.ts';

const KEY = 'net.ipv4.conf.IFNAME.arp_filter';

test.each([
  KEY,
  'arp',
  '^net\\.ipv4\\.conf\\.[A-Z]+\\.arp_filter$',
  '^net\\.ipv4\\.conf\\.(IFNAME|all)\\.[a-z_]*$',
  '(?i)ifname',
  '(?is)IFNAME.ARP',
  '[[:alpha:]]+4\\.',
  '[^[:alpha:]]\\.conf',
  '\\Anet.*filter\\z',
  '(?P<family>ipv[46])\\.',
  '(?<family>ipv[46])\\.',
  '(?:conf|neigh)',
  '[]n]et',
  'net[^]]ipv4',
  'arp\\_filter',
  '\\x6eet',
  'ipv\\d{1,2}\\.',
  '\\bconf\\b',
  'n{1}et',
])('%s matches', (pattern) => {
  expect(toRegExp(pattern).test(KEY)).toBe(true);
});

test.each([
  '^ipv4',
  'conf$',
  'ifname',
  '[[:digit:]]{2}',
  '[[:punct:]]{3}',
  '\\Aconf',
  'conf\\z',
  '[^net.ipv4confIFNAMEarp_filter]',
  'net\\\\.',
  '[\\]x]',
  '\\s',
])('%s does not match', (pattern) => {
  expect(toRegExp(pattern).test(KEY)).toBe(false);
});

test.each([
  '(?=net)',
  '(?!x)',
  '(?<=net)',
  '(?<!x)',
  '(?U)a+',
  'a(?i)b',
  '(?i:a)',
  '(n)\\1',
  '\\Qnet\\E',
  '\\pL',
  '\\p{Greek}',
  '\\C',
  '\\y',
  '\\x{6e}',
  '[[:nosuch:]]',
  '[[:^alpha:]]',
  '[a',
  '(a',
  'a)',
  '*a',
  'a**',
  '\\',
])('%s is refused, so it allows nothing', (pattern) => {
  expect(() => toRegExp(pattern)).toThrow();
});
