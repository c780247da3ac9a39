// Says what becomes of the names of environment variables in a Node binary, on made-up bytes.
// Called by vitest.
import { describe, expect, test } from 'vitest';
import { hardenEnvironment, RENAMED_VARIABLES, UNREAD_VARIABLES } from '../../../build/environment.ts';

/** What a Node has of each variable: a literal of C++, a line of JavaScript, a string of the snapshot. */
function makeImage(change: (lines: Map<string, string>) => void = () => {}): Buffer {
  const lines = new Map<string, string>();
  for (const name of UNREAD_VARIABLES)
    lines.set(name, `\0padding\0${name}\0${heapString(name)}['${name}', 1]`);
  for (const name of RENAMED_VARIABLES) lines.set(name, `\0if (process.env.${name}) {${heapString(name)}`);
  change(lines);
  return Buffer.from(`start${[...lines.values()].join('')}\0end`, 'latin1');
}

function heapString(name: string): string {
  return `\x07\x11${String.fromCharCode(name.length)}\0\0\0${name}\0`;
}

describe('Hardening a Node binary', () => {
  test('empties the literal that C++ passes to getenv, and leaves text and snapshot alone', () => {
    const hardened = hardenEnvironment(makeImage()).toString('latin1');
    expect(hardened).toContain('padding\0\0ODE_V8_COVERAGE\0');
    expect(hardened).toContain(`${heapString('NODE_V8_COVERAGE')}['NODE_V8_COVERAGE', 1]`);
  });

  test('renames a property of process.env in source and snapshot alike', () => {
    const hardened = hardenEnvironment(makeImage()).toString('latin1');
    expect(hardened).toContain('if (process.env.NODE_CHANNEL_F_) {');
    expect(hardened).toContain(heapString('NODE_CHANNEL_F_'));
    expect(hardened).not.toContain('NODE_CHANNEL_FD');
  });

  test('keeps names that merely begin with a renamed one', () => {
    const image = makeImage((lines) => lines.set('other', '\0process.env.NODE_DEBUG_SOMETHING '));
    expect(hardenEnvironment(image).toString('latin1')).toContain('NODE_DEBUG_SOMETHING');
  });

  test('changes neither the size nor the image it was given', () => {
    const image = makeImage();
    const before = Buffer.from(image);
    expect(hardenEnvironment(image)).toHaveLength(before.length);
    expect(image.equals(before)).toBe(true);
  });

  test('stops when a literal is missing', () => {
    const image = makeImage((lines) => lines.delete('OPENSSL_CONF'));
    expect(() => hardenEnvironment(image)).toThrow('Node has 0 literals "OPENSSL_CONF" instead of one');
  });

  test('stops when a literal is there twice', () => {
    const image = makeImage((lines) => lines.set('twice', '\0padding\0OPENSSL_CONF\0'));
    expect(() => hardenEnvironment(image)).toThrow('Node has 2 literals "OPENSSL_CONF" instead of one');
  });

  test('stops when JavaScript no longer knows a variable', () => {
    const image = makeImage((lines) => lines.delete('NODE_UNIQUE_ID'));
    expect(() => hardenEnvironment(image)).toThrow('Node does not know the variable "NODE_UNIQUE_ID"');
  });
});
