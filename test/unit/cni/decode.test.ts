// JSON as configs rely on it: keys in any case, integers only, no nesting that exhausts the stack.
// Run with the unit tests.
import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import {
  configObject,
  decode,
  isJsonObject,
  parseJson,
  pickKeys,
  splitKeys,
  wholeNumber,
} from '../../../shared/cni/decode.ts';

function parse(text: string): unknown {
  return parseJson(Buffer.from(text), 'stdin');
}

function parseObject(text: string) {
  const value = parse(text);
  if (!isJsonObject(value)) throw new Error('no object');
  return value;
}

describe('parseJson', () => {
  test.each([
    ['empty', ''],
    ['white space', ' \n\t'],
    ['cut off', '{"name": "n1"'],
    ['not JSON', 'name: n1'],
    ['followed by garbage', '{} x'],
    ['followed by another object', '{}{}'],
    ['with a comment', '{} // why'],
    ['with a trailing comma', '{"a": 1,}'],
    ['single-quoted', "{'a': 1}"],
    ['with a raw control character', '{"a": "\u0001"}'],
    ['with a leading zero', '{"a": 010}'],
    ['with a hex number', '{"a": 0x10}'],
    ['NaN', '{"a": NaN}'],
    ['NUL', '\0'],
    ['starting with a byte order mark', '\ufeff{}'],
    ['nested too deeply', `${'['.repeat(10_001)}${']'.repeat(10_001)}`],
    ['nested too deeply in objects', `${'{"a":'.repeat(500_000)}1${'}'.repeat(500_000)}`],
    ['nested too deeply and cut off', '['.repeat(2_000_000)],
    ['nested deeply with a fraction', `${'['.repeat(9_999)}1.5${']'.repeat(9_999)}x`],
  ])('refuses what is %s', (_what, text) => {
    expect(() => parse(text)).toThrow(
      expect.objectContaining({ code: 6, message: expect.stringMatching(/^Cannot decode stdin.{5,200}$/s) }),
    );
  });

  test.each([
    ['a lone continuation byte', [0x7b, 0x22, 0x80, 0x22, 0x3a, 0x31, 0x7d]],
    ['UTF-16', [...Buffer.from('\ufeff{}', 'utf16le')]],
    ['an encoded surrogate', [0x22, 0xed, 0xa0, 0x80, 0x22]],
  ])('refuses %s, which is no UTF-8', (_what, bytes) => {
    expect(() => parseJson(Buffer.from(bytes), 'stdin')).toThrow(
      expect.objectContaining({ code: 6, message: 'Cannot decode stdin: it is not UTF-8 text' }),
    );
  });

  test('takes nesting that is deep but possible', () => {
    for (const [levels, inner] of [
      [9_990, ''],
      [1_000, '1.5'],
    ] as const) {
      const text = `{"a": ${'['.repeat(levels)}${inner}${']'.repeat(levels)}}`;
      expect(isJsonObject(parse(text))).toBe(true);
    }
  });

  test('does not count brackets inside strings', () => {
    const text = JSON.stringify({ a: `"${'['.repeat(20_000)}\\"{{`, b: '"' });
    expect(parse(text)).toEqual(JSON.parse(text));
  });

  test('lets the last of duplicate keys win', () => {
    expect(parse('{"a": 1, "a": 2}')).toEqual({ a: 2 });
  });

  test.each(['1.0', '1e3', '1E3', '-1.5', '0.1', '1e-3', '12345678901234567890', '9007199254740993'])(
    'keeps %s a literal: passed on as written, and no whole number',
    (literal) => {
      for (const text of [`{"a":${literal}}`, `{"b":[1,\n ${literal}],"a":${literal}}`]) {
        const { a } = parseObject(text);
        expect(JSON.stringify({ a })).toBe(`{"a":${literal}}`);
        expect(isJsonObject(a)).toBe(false);
        expect(() => decode(wholeNumber({ min: 0, max: Number.MAX_SAFE_INTEGER }), a, 'this')).toThrow(
          expect.objectContaining({ code: 7, message: expect.stringContaining(literal) }),
        );
      }
    },
  );

  test('takes integers of any usual size as numbers, also beside a literal', () => {
    expect(parse('{"a": 1500, "b": -1, "c": 0, "d": 9007199254740991}')).toEqual({
      a: 1500,
      b: -1,
      c: 0,
      d: Number.MAX_SAFE_INTEGER,
    });
    expect(parseObject('{"a": 1500, "b": 1.5}')['a']).toBe(1500);
  });

  test('does not take a number in a string for a literal', () => {
    expect(parse('{"a": "x,1.0", "b": "[1e3", "c": "10.22.0.0/16"}')).toEqual({
      a: 'x,1.0',
      b: '[1e3',
      c: '10.22.0.0/16',
    });
  });

  test('takes a config of 1 MB in a moment', () => {
    const config: Record<string, unknown> = { name: 'n1', odd: 1.5 };
    for (let key = 0; key < 50_000; key++) config[`key${key}`] = `value ${key}`;
    const text = JSON.stringify(config);
    expect(text.length).toBeGreaterThan(1_000_000);
    const start = performance.now();
    expect(pickKeys(parseObject(text), ['name'])).toEqual({ name: 'n1' });
    expect(performance.now() - start).toBeLessThan(1000);
  });

  test('does not stumble over long runs of what a number pattern looks for', () => {
    const start = performance.now();
    for (const filler of [':', ',', '[', ' ', '1', ', ', ':1', '-', ': -']) {
      expect(() => parse(`{"a": ${filler.repeat(300_000)}`)).toThrow(expect.objectContaining({ code: 6 }));
    }
    expect(performance.now() - start).toBeLessThan(2000);
  });
});

describe('pickKeys', () => {
  test.each<[string, string, Record<string, unknown>]>([
    ['an exact match', '{"subnet": "a"}', { subnet: 'a' }],
    ['any case', '{"SUBNET": "a", "RangeStart": "b"}', { subnet: 'a', rangeStart: 'b' }],
    [
      'the exact one of several, wherever it stands',
      '{"SUBNET": "a", "subnet": "b", "Subnet": "c"}',
      { subnet: 'b' },
    ],
    ['the last of several inexact ones', '{"SUBNET": "a", "Subnet": "b"}', { subnet: 'b' }],
    ['nothing for null', '{"subnet": null, "rangeStart": "b"}', { rangeStart: 'b' }],
    ['nothing for an exact null beside another spelling', '{"subnet": null, "Subnet": "a"}', {}],
    [
      'nothing for unknown keys',
      '{"subnets": "a", "sub net": "b", "constructor": 1, "__proto__": {"subnet": 1}}',
      {},
    ],
    ['falsy values', '{"subnet": false, "rangeStart": ""}', { subnet: false, rangeStart: '' }],
  ])('gives %s', (_what, text, expected) => {
    expect(pickKeys(parseObject(text), ['subnet', 'rangeStart'])).toEqual(expected);
  });

  test('is not fooled by a prototype', () => {
    const object = parseObject('{"__proto__": {"subnet": "a"}}');
    expect(pickKeys(object, ['subnet'])).toEqual({});
    expect(pickKeys(parseObject('{}'), ['constructor', 'toString'])).toEqual({});
  });
});

describe('splitKeys', () => {
  test('keeps the other keys as written', () => {
    const object = parseObject('{"NAME": "a", "name": "b", "x": 1, "__proto__": {"y": 2}, "z": null}');
    const { known, rest } = splitKeys(object, ['name']);
    expect(known).toEqual({ name: 'b' });
    expect(JSON.stringify(rest)).toBe('{"x":1,"__proto__":{"y":2},"z":null}');
    expect(({} as Record<string, unknown>)['y']).toBeUndefined();
  });

  test('has no rest when there is nothing else', () => {
    expect(splitKeys({ Name: 'a' }, ['name'])).toEqual({ known: { name: 'a' }, rest: undefined });
  });
});

describe('decode', () => {
  const subnet = () => v.pipe(v.string(), v.check(isSubnet, 'a subnet'));
  const schema = configObject({
    bridge: v.string,
    mtu: () => wholeNumber({ min: 0, max: 65535 }),
    isGateway: v.boolean,
    mode: () => v.picklist(['a', 'b']),
    ipam: () =>
      configObject({ ranges: () => v.array(v.array(configObject({}, { subnet }))) }, { type: v.string }),
  });
  function isSubnet(text: string): boolean {
    return text.includes('/');
  }

  test('types a config whose keys are written in any case, at every level', () => {
    const text =
      '{"BRIDGE": "br0", "ipam": {"Type": "host-local", "RANGES": [[{"SubNet": "10.0.0.0/8", "x": 1}]]}, "y": 2}';
    expect(decode(schema, parse(text), 'the config')).toEqual({
      bridge: 'br0',
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.0.0.0/8' }]] },
    });
  });

  test('makes the schemas of no other fields than those that are there, and each once', () => {
    const made: string[] = [];
    const field = (name: string) => () => {
      made.push(name);
      return v.string();
    };
    const pairs = v.array(configObject({ a: field('a'), b: field('b') }, { c: field('c') }));
    expect(
      decode(
        pairs,
        [
          { a: '1', c: '2' },
          { A: '3', c: '4' },
        ],
        'this',
      ),
    ).toEqual([
      { a: '1', c: '2' },
      { a: '3', c: '4' },
    ]);
    expect(made.toSorted()).toEqual(['a', 'c']);
    expect(() => decode(pairs, [{ b: '1' }], 'this')).toThrow('Field "[0].c" of this is missing');
  });

  test('takes null for absent', () => {
    expect(decode(schema, parse('{"bridge": null, "mtu": null, "ipam": null}'), 'the config')).toEqual({});
  });

  test.each<[string, string]>([
    ['[]', 'The config must be an object, not []'],
    ['null', 'The config must be an object, not null'],
    ['{"bridge": 5}', 'Field "bridge" of the config must be a string, not 5'],
    ['{"BRIDGE": 5}', 'Field "bridge" of the config must be a string, not 5'],
    ['{"mtu": "1500"}', 'Field "mtu" of the config must be a whole number from 0 to 65535, not "1500"'],
    ['{"mtu": -1}', 'Field "mtu" of the config must be a whole number from 0 to 65535, not -1'],
    ['{"mtu": 1e3}', 'Field "mtu" of the config must be a whole number from 0 to 65535, not 1e3'],
    ['{"mtu": 1500.0}', 'Field "mtu" of the config must be a whole number from 0 to 65535, not 1500.0'],
    ['{"isGateway": "true"}', 'Field "isGateway" of the config must be true or false, not "true"'],
    ['{"isGateway": 1}', 'Field "isGateway" of the config must be true or false, not 1'],
    ['{"mode": "c"}', 'Field "mode" of the config must be ("a" | "b"), not "c"'],
    ['{"ipam": []}', 'Field "ipam" of the config must be an object, not []'],
    ['{"ipam": 1.5}', 'Field "ipam" of the config must be an object, not 1.5'],
    ['{"ipam": {}}', 'Field "ipam.type" of the config is missing'],
    ['{"ipam": {"type": null}}', 'Field "ipam.type" of the config is missing'],
    ['{"ipam": {"type": "x", "ranges": {}}}', 'Field "ipam.ranges" of the config must be a list, not {}'],
    [
      '{"ipam": {"type": "x", "ranges": [[], [{"subnet": "10.0.0.0/8"}, {"subnet": "oops"}]]}}',
      'Field "ipam.ranges[1][1].subnet" of the config must be a subnet, not "oops"',
    ],
    [
      '{"ipam": {"type": "x", "ranges": [[null]]}}',
      'Field "ipam.ranges[0][0]" of the config must be an object, not null',
    ],
  ])('refuses %s', (text, message) => {
    expect(() => decode(schema, parse(text), 'the config')).toThrow(
      expect.objectContaining({ code: 7, message }),
    );
  });

  test('cuts a long value', () => {
    expect(() => decode(schema, { mtu: 'x'.repeat(1_000_000) }, 'the config')).toThrow(/^.{1,250}$/);
  });
});
