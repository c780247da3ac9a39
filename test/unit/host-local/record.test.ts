// What an address file says, whole, very old, torn or foreign.
import { describe, expect, it } from 'vitest';
import { decodeRecord, encodeRecord, isSameHolder } from '../../../plugins/host-local/record.ts';

function decode(text: string) {
  return decodeRecord(Buffer.from(text, 'latin1').toString('utf8'));
}

describe('an address file', () => {
  it('holds container id, CR LF and ifname, nothing after it', () => {
    expect(encodeRecord({ containerId: 'c1', ifname: 'eth0' }).toString('hex')).toBe('63310d0a65746830');
  });

  it('is read back', () => {
    const holder = { containerId: '0f-3_a.b', ifname: 'wlan0.7@' };
    expect(decodeRecord(encodeRecord(holder).toString('utf8'))).toEqual(holder);
  });

  it('may have white space around it, which the reference trims', () => {
    expect(decode(' c1\r\neth0\n')).toEqual({ containerId: 'c1', ifname: 'eth0' });
    expect(decode('c1\n')).toEqual({ containerId: 'c1', ifname: undefined });
  });

  it('of a very old release holds the container id alone', () => {
    expect(decode('c1')).toEqual({ containerId: 'c1', ifname: undefined });
  });

  it.each([
    ['nothing', ''],
    ['a record cut after CR', 'c1\r'],
    ['a record cut after CR LF', 'c1\r\n'],
    ['zeros', '\0\0\0\0\0\0\0\0'],
    ['a record that ends in zeros', 'c1\r\neth\0'],
    ['white space', ' \r\n '],
    ['a line feed alone as separator', 'c1\neth0'],
    ['three parts', 'c1\r\neth0\r\nx'],
    ['words', 'not a record'],
    ['an id that begins with a dash', '-c1\r\neth0'],
    ['an ifname that is too long', 'c1\r\nabcdefghijklmnop'],
    ['an ifname with a slash', 'c1\r\na/b'],
    ['bytes that are no text', '\xff\xfe\r\neth0'],
  ])('with %s names nobody', (_what, text) => {
    expect(decode(text)).toBeUndefined();
  });

  it('is the same holder only when both parts are the same', () => {
    const holder = { containerId: 'c1', ifname: 'eth0' };
    expect(isSameHolder(holder, { ...holder })).toBe(true);
    expect(isSameHolder(holder, { ...holder, ifname: 'eth1' })).toBe(false);
    expect(isSameHolder(holder, { ...holder, containerId: 'c2' })).toBe(false);
    expect(isSameHolder({ containerId: 'c1', ifname: undefined }, holder)).toBe(false);
  });
});
