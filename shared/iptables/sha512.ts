// SHA-512 (FIPS 180-4) of a short text, in plain arithmetic. Called by names.ts, because the reference derives its
// names from it, and loading node:crypto for one digest of twenty bytes costs 4 to 10 ms where this costs half a one.

// The first 64 bits of the fractional parts of the square roots of the first 8 primes.
const INITIAL = `
  6a09e667f3bcc908 bb67ae8584caa73b 3c6ef372fe94f82b a54ff53a5f1d36f1
  510e527fade682d1 9b05688c2b3e6c1f 1f83d9abfb41bd6b 5be0cd19137e2179`;

// The same of the cube roots of the first 80 primes.
const ROUND = `
  428a2f98d728ae22 7137449123ef65cd b5c0fbcfec4d3b2f e9b5dba58189dbbc 3956c25bf348b538 59f111f1b605d019
  923f82a4af194f9b ab1c5ed5da6d8118 d807aa98a3030242 12835b0145706fbe 243185be4ee4b28c 550c7dc3d5ffb4e2
  72be5d74f27b896f 80deb1fe3b1696b1 9bdc06a725c71235 c19bf174cf692694 e49b69c19ef14ad2 efbe4786384f25e3
  0fc19dc68b8cd5b5 240ca1cc77ac9c65 2de92c6f592b0275 4a7484aa6ea6e483 5cb0a9dcbd41fbd4 76f988da831153b5
  983e5152ee66dfab a831c66d2db43210 b00327c898fb213f bf597fc7beef0ee4 c6e00bf33da88fc2 d5a79147930aa725
  06ca6351e003826f 142929670a0e6e70 27b70a8546d22ffc 2e1b21385c26c926 4d2c6dfc5ac42aed 53380d139d95b3df
  650a73548baf63de 766a0abb3c77b2a8 81c2c92e47edaee6 92722c851482353b a2bfe8a14cf10364 a81a664bbc423001
  c24b8b70d0f89791 c76c51a30654be30 d192e819d6ef5218 d69906245565a910 f40e35855771202a 106aa07032bbd1b8
  19a4c116b8d2d0c8 1e376c085141ab53 2748774cdf8eeb99 34b0bcb5e19b48a8 391c0cb3c5c95a63 4ed8aa4ae3418acb
  5b9cca4f7763e373 682e6ff3d6b2b8a3 748f82ee5defb2fc 78a5636f43172f60 84c87814a1f0ab72 8cc702081a6439ec
  90befffa23631e28 a4506cebde82bde9 bef9a3f7b2c67915 c67178f2e372532b ca273eceea26619c d186b8c721c0c207
  eada7dd6cde0eb1e f57d4f7fee6ed178 06f067aa72176fba 0a637dc5a2c898a6 113f9804bef90dae 1b710b35131c471b
  28db77f523047d84 32caab7b40c72493 3c9ebe0a15c9bebc 431d67c49c100d4c 4cc5d4becb3e42b6 597f299cfc657e2a
  5fcb6fab3ad6faec 6c44198c4a475817`;

const MASK = 0xffffffffffffffffn;
const BLOCK = 128;

/** The SHA-512 of a text's UTF-8 bytes, as 128 lower-case hex digits. Source: FIPS 180-4, section 6.4. */
export function sha512(text: string): string {
  const round = words(ROUND);
  const message = pad(Buffer.from(text));
  let state = words(INITIAL);
  for (let offset = 0; offset < message.length; offset += BLOCK) {
    state = compress(round, state, message.subarray(offset, offset + BLOCK));
  }
  return Array.from(state, (word) => word.toString(16).padStart(16, '0')).join('');
}

function words(table: string): BigUint64Array {
  return BigUint64Array.from(table.trim().split(/\s+/), (hex) => BigInt(`0x${hex}`));
}

// Section 5.1.2: a 1 bit, zeroes, and the length in bits as the last 128 bits of the last block.
function pad(text: Buffer): Buffer {
  const padded = Buffer.alloc(Math.ceil((text.length + 17) / BLOCK) * BLOCK);
  text.copy(padded);
  padded[text.length] = 0x80;
  padded.writeUInt32BE(text.length * 8, padded.length - 4);
  return padded;
}

// Section 6.4.2, with the standard's letters.
function compress(round: BigUint64Array, state: BigUint64Array, block: Buffer): BigUint64Array {
  const schedule = expand(block);
  let [a = 0n, b = 0n, c = 0n, d = 0n, e = 0n, f = 0n, g = 0n, h = 0n] = state;
  for (let t = 0; t < 80; t++) {
    const t1 =
      h +
      (rotate(e, 14n) ^ rotate(e, 18n) ^ rotate(e, 41n)) +
      ((e & f) ^ ((e ^ MASK) & g)) +
      (round[t] ?? 0n) +
      (schedule[t] ?? 0n);
    const t2 = (rotate(a, 28n) ^ rotate(a, 34n) ^ rotate(a, 39n)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = (d + t1) & MASK;
    d = c;
    c = b;
    b = a;
    a = (t1 + t2) & MASK;
  }
  // A BigUint64Array keeps the low 64 bits of what is stored, which is the standard's addition.
  const added = [a, b, c, d, e, f, g, h];
  return state.map((word, i) => word + (added[i] ?? 0n));
}

function expand(block: Buffer): BigUint64Array {
  const w = new BigUint64Array(80);
  for (let t = 0; t < 16; t++) w[t] = block.readBigUInt64BE(8 * t);
  for (let t = 16; t < 80; t++) {
    const x = w[t - 15] ?? 0n;
    const y = w[t - 2] ?? 0n;
    const sigma0 = rotate(x, 1n) ^ rotate(x, 8n) ^ (x >> 7n);
    const sigma1 = rotate(y, 19n) ^ rotate(y, 61n) ^ (y >> 6n);
    w[t] = sigma1 + (w[t - 7] ?? 0n) + sigma0 + (w[t - 16] ?? 0n);
  }
  return w;
}

function rotate(word: bigint, count: bigint): bigint {
  return (word >> count) | ((word << (64n - count)) & MASK);
}
