// Says what alignCaches promises, on a made-up image. Called by vitest.
import { describe, expect, test } from 'vitest';
import { alignCaches, roomy } from '../../../build/align-caches.ts';

const CACHES = [Buffer.from('the first cache'), Buffer.from('and another one')];

/** What the launcher does with an asset. */
function read(asset: Buffer): Buffer {
  return asset.subarray(asset[0] ?? 0, (asset[0] ?? 0) + asset.length - 8);
}

describe('Code caches in an image', () => {
  test.each([0, 1, 2, 3, 4, 5, 6, 7])('begin at an aligned offset when they were %i bytes off', (off) => {
    const parts = CACHES.map((cache) => Buffer.concat([Buffer.alloc(off, 'x'), roomy(cache)]));
    const image = Buffer.concat([...parts, Buffer.from('the end')]);
    const aligned = alignCaches(image, CACHES);
    expect(aligned.length).toBe(image.length);
    let at = 0;
    for (const [index, cache] of CACHES.entries()) {
      const part = parts[index] ?? Buffer.alloc(0);
      expect(aligned.indexOf(cache) % 8).toBe(0);
      expect(read(aligned.subarray(at + off, at + part.length))).toEqual(cache);
      at += part.length;
    }
    expect(aligned.toString('latin1', at)).toBe('the end');
  });

  test('can be read where nobody has aligned them', () => {
    for (const cache of CACHES) expect(read(roomy(cache))).toEqual(cache);
  });

  test.each([
    ['missing', Buffer.alloc(64)],
    [
      'there twice',
      Buffer.concat([roomy(Buffer.from('the first cache')), roomy(Buffer.from('the first cache'))]),
    ],
  ])('are refused when one is %s', (_, image) => {
    expect(() => alignCaches(image, CACHES)).toThrow('it is not in the image exactly once');
  });
});
