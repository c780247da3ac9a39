// Lets V8 read code caches where they lie in the executable. Called by package.ts on what it asks pkg to put into the
// image, and on the image that comes back.

/** V8 copies a cache that begins anywhere else (its kPointerAlignment; src/codegen/compiler, AlignedCachedData). */
const ALIGNMENT = 8;

/**
 * Gives a cache room to be moved in: the first byte of the asset says where the cache begins, and `ALIGNMENT` bytes of
 * the asset are not the cache's. The launcher reads it by that rule.
 */
export function roomy(cache: Buffer): Buffer {
  return Buffer.concat([Buffer.of(1), cache, Buffer.alloc(ALIGNMENT - 1)]);
}

/**
 * Returns a copy of the image in which each cache, put there by `roomy`, begins at an aligned address. Segments are
 * mapped by pages, so an offset in the file is as good as the address.
 * Throws Error when a cache is not in the image exactly once.
 */
export function alignCaches(image: Buffer, caches: readonly Buffer[]): Buffer {
  const aligned = Buffer.from(image);
  for (const cache of caches) {
    const asset = roomy(cache);
    const at = image.indexOf(asset);
    if (at < 0 || image.includes(asset, at + 1)) {
      throw new Error('Cannot align a code cache: it is not in the image exactly once');
    }
    const begin = ALIGNMENT - (at % ALIGNMENT);
    aligned.fill(0, at, at + asset.length);
    aligned.writeUInt8(begin, at);
    cache.copy(aligned, at + begin);
  }
  return aligned;
}
