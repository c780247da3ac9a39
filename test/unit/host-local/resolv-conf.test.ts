// The DNS part of a result, from resolv.conf text and from files that are none.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { parseResolvConf, readResolvConf } from '../../../plugins/host-local/resolv-conf.ts';

const directory = mkdtempSync(join(tmpdir(), 'patchbay-resolv-'));
afterAll(() => rmSync(directory, { recursive: true }));

describe('resolv.conf', () => {
  it('gives all nameservers, searches and options, and the last domain', () => {
    const text = [
      'nameserver 10.0.0.1 ignored',
      '  nameserver\t10.0.0.2  ',
      'domain first.example',
      'domain example.org',
      'search a.example b.example',
      'search c.example',
      'options ndots:5 rotate',
      'options edns0',
    ].join('\n');
    expect(parseResolvConf(text)).toEqual({
      nameservers: ['10.0.0.1', '10.0.0.2'],
      domain: 'example.org',
      search: ['a.example', 'b.example', 'c.example'],
      options: ['ndots:5', 'rotate', 'edns0'],
    });
  });

  it('skips comments, unknown keywords and keywords without a value', () => {
    expect(
      parseResolvConf('# nameserver 1.1.1.1\n;nameserver 2.2.2.2\nnameserver\nsortlist 3.3.3.3\n\r\n'),
    ).toEqual({});
  });

  it('is read through a symbolic link', () => {
    writeFileSync(join(directory, 'real'), 'nameserver 10.0.0.9\n');
    symlinkSync('real', join(directory, 'link'));
    expect(readResolvConf(join(directory, 'link'))).toEqual({ nameservers: ['10.0.0.9'] });
  });

  it.each([
    ['missing', join(directory, 'missing')],
    ['a directory', directory],
    ['a device', '/dev/zero'],
  ])('that is %s is an error naming field and path', (_what, path) => {
    expect(() => readResolvConf(path)).toThrow(`Cannot read "ipam.resolvConf" "${path}"`);
  });

  it('that is a FIFO does not hold the plugin', () => {
    execFileSync('mkfifo', [join(directory, 'fifo')]);
    expect(() => readResolvConf(join(directory, 'fifo'))).toThrow('Cannot read');
  });

  it('that is larger than 64 KiB is an error', () => {
    writeFileSync(join(directory, 'large'), Buffer.alloc(64 * 1024 + 1, '#'));
    expect(() => readResolvConf(join(directory, 'large'))).toThrow('Cannot read');
    writeFileSync(join(directory, 'large'), Buffer.alloc(64 * 1024, '#'));
    expect(readResolvConf(join(directory, 'large'))).toEqual({});
  });
});
