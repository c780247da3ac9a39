// Error codes and how any thrown value becomes one; the table in docs/errors.md is held against the code.
// Run with the unit tests.
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import * as errors from '../../../shared/cni/error.ts';

const { CniError, ERROR_CODES, hasCode, quote, toCniError } = errors;

class SystemError extends Error {
  readonly syscall = 'connect';
  readonly code: string;
  constructor(code: string) {
    super(`connect: ${code}`);
    this.code = code;
  }
}

describe('error codes', () => {
  test('are unique, and each has a constructor of its name', () => {
    expect(new Set(ERROR_CODES.map(({ code }) => code)).size).toBe(ERROR_CODES.length);
    expect(new Set(ERROR_CODES.map(({ name }) => name)).size).toBe(ERROR_CODES.length);
    const constructors = new Map(Object.entries(errors));
    for (const { code, name } of ERROR_CODES) {
      const construct = constructors.get(name) as (
        msg: string,
        options?: errors.CniErrorOptions,
      ) => errors.CniError;
      const cause = new Error('below');
      const error = construct('what happened', { details: 'more', cause });
      expect(error, name).toBeInstanceOf(CniError);
      expect(error).toMatchObject({
        code,
        message: 'what happened',
        details: 'more',
        cause,
        name: 'CniError',
      });
      expect(construct('bare')).not.toHaveProperty('cause');
      expect(construct('bare').details).toBeUndefined();
    }
  });

  test('follow the protocol below 100', () => {
    const protocol = ERROR_CODES.map(({ code }) => code as number).filter((code) => code < 100);
    expect(protocol).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 11, 50, 51]);
  });

  test('are all told in docs/errors.md, with nothing else', () => {
    const text = readFileSync(new URL('../../../docs/errors.md', import.meta.url), 'utf8');
    const rows = [...text.matchAll(/^\| (\d+) \| `(\w+)` \| (.+?) \| .+ \|$/gm)].map(
      ([, code, name, meaning]) => ({
        code: Number(code),
        name,
        meaning,
      }),
    );
    expect(rows).toEqual(ERROR_CODES);
  });
});

describe('hasCode', () => {
  test('walks the causes', () => {
    const error = new Error('Cannot add link "x"', {
      cause: new Error('Cannot send', { cause: new SystemError('EEXIST') }),
    });
    expect(hasCode(error, 'EEXIST')).toBe(true);
    expect(hasCode(error, 'ENOENT')).toBe(false);
  });

  test.each([undefined, null, 'EEXIST', { code: 'EEXIST' }, 7])(
    'finds nothing in %s, which is no error',
    (thrown) => {
      expect(hasCode(thrown, 'EEXIST')).toBe(false);
    },
  );

  test('ends on causes that go round in circles', () => {
    const first = new Error('first');
    first.cause = new Error('second', { cause: first });
    expect(hasCode(first, 'EEXIST')).toBe(false);
  });
});

describe('toCniError', () => {
  test('keeps a CniError as it is', () => {
    const error = errors.addressesExhausted('No IP addresses available in range set', { details: 'a-b' });
    expect(toCniError(error)).toBe(error);
  });

  test('finds a CniError among the causes', () => {
    const inner = errors.portConflict('Host port 80 is taken');
    expect(toCniError(new Error('Cannot publish', { cause: inner }))).toBe(inner);
  });

  test('explains a CniError by its causes when it has no details', () => {
    const error = errors.storeFailure('Cannot lock the store', {
      cause: new Error('Cannot open "lock"', { cause: new SystemError('EACCES') }),
    });
    expect(toCniError(error)).toMatchObject({
      code: 110,
      message: 'Cannot lock the store',
      details: 'Cannot open "lock": connect: EACCES',
    });
  });

  test('prefers the details a CniError has', () => {
    const error = errors.storeFailure('Cannot lock the store', {
      details: 'held by 7',
      cause: new SystemError('EAGAIN'),
    });
    expect(toCniError(error)).toMatchObject({ code: 110, details: 'held by 7' });
  });

  test('makes kernelRefused of an errno anywhere below', () => {
    const error = new Error('Cannot add veth "v"', {
      cause: new Error('RTM_NEWLINK', { cause: new SystemError('EBUSY') }),
    });
    expect(toCniError(error)).toMatchObject({
      code: 105,
      message: 'Cannot add veth "v"',
      details: 'RTM_NEWLINK: connect: EBUSY',
    });
    expect(toCniError(new SystemError('E2BIG'))).toMatchObject({
      code: 105,
      message: 'connect: E2BIG',
      details: undefined,
    });
  });

  test('takes the error of the file system for one of the kernel', () => {
    let thrown: unknown;
    try {
      readFileSync('/nowhere/at/all');
    } catch (error) {
      thrown = error;
    }
    expect(toCniError(thrown)).toMatchObject({ code: 105, message: expect.stringContaining('ENOENT') });
  });

  test('makes 999 of a plain error, in its own words', () => {
    expect(toCniError(new Error('Cannot parse IP address "x"'))).toMatchObject({
      code: 999,
      message: 'Cannot parse IP address "x"',
      details: undefined,
    });
    const wrapped = new Error('Cannot plan', { cause: new Error('why') });
    expect(toCniError(wrapped)).toMatchObject({ code: 999, message: 'Cannot plan', details: 'why' });
  });

  test.each([
    ['a TypeError', new TypeError('x is not a function'), 'x is not a function'],
    ['a RangeError', new RangeError('Maximum call stack size exceeded'), 'Maximum call stack'],
    [
      'a wrapped defect',
      new Error('Cannot plan', { cause: new ReferenceError('y is not defined') }),
      'Cannot plan',
    ],
    [
      'a wrong call into Node',
      Object.assign(new Error('bad argument'), { code: 'ERR_INVALID_ARG_TYPE' }),
      'bad argument',
    ],
    ['a thrown string', 'oops', '"oops"'],
    ['a thrown undefined', undefined, 'undefined'],
    ['a thrown object', { code: 'EEXIST' }, '{"code":"EEXIST"}'],
  ])('asks to report %s', (_what, thrown, text) => {
    const error = toCniError(thrown);
    expect(error.code).toBe(999);
    expect(error.message).toMatch(/^This is a defect of the plugin, please report it/);
    expect(error.message).toContain(text);
    if (thrown instanceof Error) expect(error.details).toContain('error.test.ts');
  });

  test('tells the whole chain of a defect', () => {
    const error = toCniError(new Error('Cannot plan', { cause: new TypeError('x is undefined') }));
    expect(error.details).toMatch(/^Cannot plan: TypeError: x is undefined; at /);
  });

  test('reports what happened before a failing disposal', () => {
    const first = errors.checkFailed('Link "eth0" is down');
    expect(toCniError(new SuppressedError(new Error('cannot close'), first, 'disposal'))).toBe(first);
  });
});

describe('a message', () => {
  test.each([
    ['an escape sequence of a terminal', 'a\u001b[2Jb', String.raw`a\u001b[2Jb`],
    ['a second line for a log', 'a\nlevel=info', String.raw`a\u000alevel=info`],
    ['a NUL', 'a\u0000b', String.raw`a\u0000b`],
    ['a control character beyond ASCII', 'a\u009bb', String.raw`a\u009bb`],
    ['a separator of lines', 'a\u2028b', String.raw`a\u2028b`],
    ['a change of direction', 'a\u202eb', String.raw`a\u202eb`],
    ['words in any language', 'Überraschung 驚き 😀', 'Überraschung 驚き 😀'],
  ])('that was to hold %s is printable', (_what, given, printed) => {
    expect(errors.invalidConfig(given).message).toBe(printed);
    expect(toCniError(new Error(given)).message).toBe(printed);
  });

  test('escapes these classes of characters and no others', () => {
    const asClasses = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u;
    for (let code = 0; code <= 0xffff; code++) {
      const text = String.fromCharCode(code);
      expect(errors.printable(text) !== text, code.toString(16)).toBe(asClasses.test(text));
    }
    expect(errors.printable('\u{e0001}\u{10ffff}')).toBe('\u{e0001}\u{10ffff}');
  });

  test('may have several lines of details', () => {
    const { details } = errors.kernelRefused('no', { details: 'first\nsecond\u001b' });
    expect(details).toBe(`first\nsecond${String.raw`\u001b`}`);
  });
});

describe('quote', () => {
  test.each([
    ['text', '"text"'],
    ['with "quotes" and\nlines', String.raw`"with \"quotes\" and\nlines"`],
    [5, '5'],
    [null, 'null'],
    [undefined, 'undefined'],
    [12n, '12'],
    [{ a: [1] }, '{"a":[1]}'],
  ])('writes %s as JSON', (value, text) => {
    expect(quote(value)).toBe(text);
  });

  test('cuts what is long, whatever its size', () => {
    expect(quote('x'.repeat(1_000_000))).toBe(`"${'x'.repeat(80)}" (cut, 1000000 characters)`);
    expect(quote('x'.repeat(80))).toBe(`"${'x'.repeat(80)}"`);
    expect(quote(Array.from({ length: 1000 }, () => 1))).toHaveLength(81);
  });

  test('does not split a character in two', () => {
    expect(quote(`${'x'.repeat(79)}😀😀`)).toContain(`${'x'.repeat(79)}\ufffd"`);
  });
});
