// Values as they stand in configs: right ones, nearly right ones, and whatever JSON can hold.
// Used by configs.ts and by the targets for results, arguments and files.
import fc from 'fast-check';

export const ipText = (): fc.Arbitrary<string> =>
  fc.oneof(fc.constantFrom(...IPS), fc.constantFrom(...IPS), fc.ipV4(), fc.ipV6());

export const cidrText = (): fc.Arbitrary<string> =>
  fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(...SUBNETS) },
    { weight: 1, arbitrary: fc.tuple(ipText(), fc.nat(130)).map(([ip, prefix]) => `${ip}/${prefix}`) },
  );

export const macText = (): fc.Arbitrary<string> =>
  fc.oneof(
    fc.constantFrom(...MACS),
    fc
      .uint8Array({ minLength: 6, maxLength: 6 })
      .map((bytes) => Buffer.from(bytes).toString('hex').replace(/..\B/g, '$&:')),
  );

/** Text that is no word of any grammar, or of another one than is asked for. */
export const oddText = (): fc.Arbitrary<string> =>
  fc.oneof(
    fc.constantFrom(...ODD_TEXTS),
    fc.string({ unit: 'binary', maxLength: 20 }),
    fc.string({ maxLength: 300 }),
  );

/** Any JSON value. */
export const junk = (): fc.Arbitrary<unknown> => JUNK;

/** Mostly what the field wants, seldom something else: a config has many fields, and one wrong one ends it. */
export function field<T>(right: fc.Arbitrary<T>): fc.Arbitrary<T | unknown> {
  return fc.oneof({ weight: 60, arbitrary: right }, { weight: 1, arbitrary: JUNK });
}

/** A field that mostly is not there. */
export function seldom<T>(right: fc.Arbitrary<T>): fc.Arbitrary<T | unknown | undefined> {
  return fc.oneof({ weight: 4, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: field(right) });
}

/** An object of some of these fields, seldom with a key in another case, and seldom with keys nobody knows. */
export function fields(
  model: Readonly<Record<string, fc.Arbitrary<unknown>>>,
): fc.Arbitrary<Record<string, unknown>> {
  return fc
    .tuple(fc.record(model, { requiredKeys: [] }), fc.nat(60), fc.dictionary(oddKey(), JUNK, { maxKeys: 2 }))
    .map(([known, dice, unknown]) => {
      const object: Record<string, unknown> = dice === 1 ? { ...unknown, ...known } : { ...known };
      const [first] = Object.keys(object);
      if (dice === 2 && first !== undefined) object[first.toUpperCase()] = object[first];
      return object;
    });
}

const oddKey = (): fc.Arbitrary<string> =>
  fc.oneof(fc.constantFrom('__proto__', 'constructor', 'toString', '', 'NAME', 'length', 'type'), oddText());

const IPS = [
  '10.66.0.1',
  '10.66.0.7',
  '10.66.0.255',
  '10.99.0.1',
  '0.0.0.0',
  '127.0.0.1',
  '169.254.1.1',
  '224.0.0.1',
  '255.255.255.255',
  '::',
  '::1',
  'fd00:66::1',
  'fd00:66::7',
  'fe80::1',
  'ff02::1',
  '::ffff:10.66.0.7',
  '010.066.000.007',
  '10.66.0',
  '10.66.0.7.',
  'fe80::1%eth0',
  '1:2:3:4:5:6:7:8:9',
];

const SUBNETS = [
  '10.66.0.0/24',
  '10.66.0.0/24',
  '10.66.0.128/25',
  'fd00:66::/64',
  'fd00:66::/64',
  '10.67.0.0/30',
  '10.66.0.9/24',
  '0.0.0.0/0',
  '::/0',
  '10.66.0.0/31',
  '10.66.0.0/32',
  'fd00:66::/127',
  '224.0.0.0/4',
  '10.66.0.0/33',
  '10.66.0.0/-1',
  '10.66.0.0',
  '/24',
  '::ffff:10.66.0.0/120',
  '10.66.0.0/024',
];

const MACS = [
  '02:00:5e:00:53:01',
  '02-00-5E-00-53-01',
  '01:00:5e:00:00:01',
  '00:00:00:00:00:00',
  'ff:ff:ff:ff:ff:ff',
  '02:00:5e',
];

const ODD_TEXTS = [
  '',
  ' ',
  '.',
  '..',
  '/',
  '../../etc/passwd',
  '/proc/self/environ',
  'a/b',
  'a b',
  'a\nb',
  'a\u0000b',
  '\u0000',
  '\ufeff',
  '\u0085',
  '\ud800',
  '\u202e',
  '%s%n',
  '$(reboot)',
  '`reboot`',
  '"; drop; "',
  "'",
  '\\',
  '-',
  '-j ACCEPT',
  '*',
  '!',
  '@masquerade4',
  'null',
  '__proto__',
  'IFNAME',
  '$&',
  '1e3',
  '0x10',
  '9'.repeat(400),
  'x'.repeat(1000),
  'ä'.repeat(15),
  'veth0123456789abcdef',
];

const JUNK: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    true,
    false,
    0,
    -1,
    1,
    1.5,
    -0,
    255,
    256,
    65535,
    65536,
    2 ** 31,
    2 ** 32,
    2 ** 53,
    -(2 ** 63),
    1e308,
    [],
    {},
    [[]],
    [null],
    { toString: 1 },
  ),
  oddText(),
  fc.jsonValue({ maxDepth: 3 }),
);
