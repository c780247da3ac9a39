// JSON text from values: as an encoder writes it, and as nobody should.
// Used by the targets that take a config, a list or a backup as bytes.
import fc from 'fast-check';
import { mutated } from './bytes.ts';

/** The value as JSON, one in three mutated; seldom something else entirely. */
export function jsonBytes(value: fc.Arbitrary<unknown>): fc.Arbitrary<Uint8Array> {
  const encoded = value.map(encode);
  return fc.oneof(
    { weight: 60, arbitrary: encoded },
    { weight: 30, arbitrary: mutated(encoded, { tokens: TOKENS }) },
    { weight: 1, arbitrary: fc.constantFrom(...EXTREMES).map((text) => Buffer.from(text)) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }) },
  );
}

function encode(value: unknown): Uint8Array {
  return Buffer.from(JSON.stringify(value) ?? '');
}

const TOKENS = [
  '{',
  '}',
  '[',
  ']',
  '"',
  ',',
  ':',
  'null',
  'true',
  '-',
  '0',
  '1e999',
  '1.0',
  '12345678901234567890',
  '\\u0000',
  '\\ud800',
  '"__proto__":{},',
  '"name":"other",',
  '"cniVersion":"9.9.9",',
  '"type":1,',
  '\ufeff',
  '\0',
  '\xff\xfe',
  '//',
];

const EXTREMES = [
  '',
  ' \n',
  'null',
  '[]',
  '"text"',
  '1',
  '{',
  '[['.repeat(6000),
  '{"a":'.repeat(11_000),
  `${'['.repeat(9999)}${']'.repeat(9999)}`,
  `{"name":"${'n'.repeat(100_000)}"}`,
  `{"cniVersion":"1.1.0","name":"fuzz","x":${'9'.repeat(5000)}}`,
  '\ufeff{"cniVersion":"1.1.0","name":"fuzz"}',
];
