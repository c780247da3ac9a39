// From bytes on stdin to typed values: JSON as existing configs rely on it, then valibot schemas over it.
// Called by network-config.ts, the result parser and every plugin's config parser.
import { isUtf8 } from 'node:buffer';
import * as v from 'valibot';
import { decodingFailure, invalidConfig, quote } from './error.ts';

/** A decoded JSON object, keys as written. */
export type JsonObject = Readonly<Record<string, unknown>>;

/**
 * The JSON value in the bytes. Throws `decodingFailure` for what is no UTF-8, no JSON, or nested deeper than
 * any config. Numbers that are written with `.` or `e`, or that are too long for a double, stay literals:
 * they are passed on as written and match no schema.
 */
export function parseJson(bytes: Buffer, where: string): unknown {
  if (!isUtf8(bytes)) throw decodingFailure(`Cannot decode ${where}: it is not UTF-8 text`);
  const text = bytes.toString('utf8');
  if (text.trim() === '') throw decodingFailure(`Cannot decode ${where}: it is empty`);
  expectShallow(text, where);
  try {
    return ODD_NUMBER.test(text) ? JSON.parse(text, keepLiteral) : JSON.parse(text);
  } catch (error) {
    throw decodingFailure(`Cannot decode ${where} as JSON: ${describeParseError(error)}`, { cause: error });
  }
}

/** Tells whether a decoded JSON value is an object: no array, no null, no number literal. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !rawJson.isRawJSON(value);
}

/**
 * The values of known keys: an exact match first, else a match regardless of case (the last one, if several);
 * a key whose value is null is absent, other keys are ignored. Existing configs depend on each of these.
 */
export function pickKeys<K extends string>(object: JsonObject, keys: readonly K[]): { [P in K]?: unknown } {
  const picked: { [P in K]?: unknown } = {};
  for (const [name, key] of matchKeys(object, keys)) {
    const value = object[name];
    if (value !== null) picked[key] = value;
  }
  return picked;
}

/** As `pickKeys`, with everything else in `rest`, as written. */
export function splitKeys<K extends string>(
  object: JsonObject,
  keys: readonly K[],
): { readonly known: { readonly [P in K]?: unknown }; readonly rest: JsonObject | undefined } {
  const matches = matchKeys(object, keys);
  const used = new Set(matches.keys());
  // An inexact spelling that lost against the exact one is no unknown key either.
  const isUnknown = (name: string) => !used.has(name) && !keys.some((key) => isSameKey(key, name));
  const rest = Object.entries(object).filter(([name]) => isUnknown(name));
  // fromEntries defines properties: a key such as __proto__ stays a key.
  return { known: pickKeys(object, keys), rest: rest.length === 0 ? undefined : Object.fromEntries(rest) };
}

/** For each field what makes its schema. */
type FieldMakers = Readonly<Record<string, () => v.GenericSchema>>;

/** What `v.object` would be given for the fields of a `configObject`. */
type EntriesOf<O extends FieldMakers, R extends FieldMakers> = {
  [K in keyof O]: v.OptionalSchema<ReturnType<O[K]>, undefined>;
} & { [K in keyof R]: ReturnType<R[K]> };

/**
 * A schema for a JSON object read as `pickKeys` does; nests. Fields are named with what makes their schema, which happens
 * for those that are there: a config has a few of the fields that a plugin knows, and each schema takes time to make.
 */
export function configObject<O extends FieldMakers, R extends FieldMakers = Record<never, never>>(
  optional: O,
  required: R = {} as R,
) {
  const makers: FieldMakers = { ...required, ...optional };
  const keys = Object.keys(makers);
  const made = new Map<string, v.GenericSchema>();
  const makeOnce = (key: string) => {
    const schema = made.get(key) ?? makers[key]?.() ?? v.never();
    made.set(key, schema);
    return schema;
  };
  // Hundreds of port mappings have the same fields.
  const objects = new Map<string, v.GenericSchema>();
  const objectFor = (picked: JsonObject) => {
    const present = keys.filter((key) => picked[key] !== undefined || Object.hasOwn(required, key));
    const known = objects.get(present.join());
    if (known !== undefined) return known;
    const object = v.object(Object.fromEntries(present.map((key) => [key, makeOnce(key)])));
    objects.set(present.join(), object);
    return object;
  };
  return v.pipe(
    v.custom<JsonObject>(isJsonObject, 'an object'),
    v.transform((object) => pickKeys(object, keys)),
    v.lazy(
      (picked) => objectFor(picked as JsonObject) as unknown as v.ObjectSchema<EntriesOf<O, R>, undefined>,
    ),
  );
}

/** A schema for an integer written as one (`1e3` and `1.0` are refused), within the bounds. */
export function wholeNumber(bounds: { readonly min: number; readonly max: number }) {
  const expected = `a whole number from ${bounds.min} to ${bounds.max}`;
  const isInside = (value: unknown) =>
    Number.isSafeInteger(value) && Number(value) >= bounds.min && Number(value) <= bounds.max;
  return v.custom<number>(isInside, expected);
}

/**
 * The value as the schema types it. Throws `invalidConfig` naming the first field that does not fit, what it
 * should be, and its value. `where` says whose field it is: `the network configuration`. A message given to a
 * schema or check completes the sentence "… must be", such as `an IP address`.
 */
export function decode<S extends v.GenericSchema>(
  schema: S,
  value: unknown,
  where: string,
): v.InferOutput<S> {
  const outcome = v.safeParse(schema, value, { abortEarly: true });
  if (outcome.success) return outcome.output;
  const [issue] = outcome.issues;
  throw invalidConfig(describeIssue(issue, where));
}

// Go stops at 10,000 levels; no config comes near, and what stays below can't exhaust our own stack.
const DEPTH_LIMIT = 10_000;

// A number outside a string follows one of `:,[`. A match inside a string only costs the slower way.
const ODD_NUMBER = /[:,[]\s*-?(?:\d{16}|\d+[.eE])/;

// TypeScript's library does not know these two yet (ECMAScript proposal "JSON.parse source text access", in
// V8).
const rawJson = JSON as unknown as {
  rawJSON(text: string): object;
  isRawJSON(value: unknown): boolean;
};

function keepLiteral(_key: string, value: unknown, context?: { readonly source?: string }): unknown {
  if (typeof value !== 'number' || context?.source === undefined) return value;
  return Number.isSafeInteger(value) && /^-?\d+$/.test(context.source)
    ? value
    : rawJson.rawJSON(context.source);
}

function expectShallow(text: string, where: string): void {
  if (text.length <= 2 * DEPTH_LIMIT) return;
  let depth = 0;
  let isInString = false;
  for (let position = 0; position < text.length; position++) {
    const char = text[position];
    if (isInString) {
      if (char === '\\') position++;
      else if (char === '"') isInString = false;
    } else if (char === '"') isInString = true;
    else if (char === '{' || char === '[') depth++;
    else if (char === '}' || char === ']') depth--;
    if (depth > DEPTH_LIMIT) {
      throw decodingFailure(`Cannot decode ${where}: it is nested deeper than ${DEPTH_LIMIT} levels`);
    }
  }
}

function describeParseError(error: unknown): string {
  if (error instanceof RangeError) return 'it is nested too deeply';
  return error instanceof Error ? error.message : String(error);
}

// Which name in the object stands for which key.
function matchKeys<K extends string>(object: JsonObject, keys: readonly K[]): Map<string, K> {
  const matches = new Map<string, K>();
  const inexact = new Map<string, K>();
  for (const key of keys) {
    if (Object.hasOwn(object, key)) matches.set(key, key);
    else inexact.set(key.toLowerCase(), key);
  }
  if (inexact.size === 0) return matches;
  const lastNames = new Map<K, string>();
  for (const name of Object.keys(object)) {
    const key = inexact.get(name.toLowerCase());
    if (key !== undefined) lastNames.set(key, name);
  }
  for (const [key, name] of lastNames) matches.set(name, key);
  return matches;
}

function isSameKey(key: string, name: string): boolean {
  return key.toLowerCase() === name.toLowerCase();
}

function describeIssue(issue: v.BaseIssue<unknown>, where: string): string {
  const field = describePath(issue.path);
  const subject = field === '' ? where : `field ${quote(field)} of ${where}`;
  const sentence = isMissing(issue)
    ? `${subject} is missing`
    : `${subject} must be ${describeExpected(issue)}, not ${quote(issue.input)}`;
  return sentence.charAt(0).toUpperCase() + sentence.slice(1);
}

function describePath(path: v.BaseIssue<unknown>['path']): string {
  let text = '';
  for (const { key } of path ?? []) {
    if (typeof key === 'number') text += `[${key}]`;
    else text += text === '' ? String(key) : `.${String(key)}`;
  }
  return text;
}

function isMissing(issue: v.BaseIssue<unknown>): boolean {
  return issue.input === undefined;
}

// A message of the schema's own completes our sentence; valibot's defaults all begin alike and are put into
// words.
function describeExpected(issue: v.BaseIssue<unknown>): string {
  if (!issue.message.startsWith('Invalid ')) return issue.message;
  return EXPECTED_WORDS[issue.expected ?? ''] ?? issue.expected ?? 'something else';
}

const EXPECTED_WORDS: Readonly<Record<string, string>> = {
  string: 'a string',
  boolean: 'true or false',
  number: 'a number',
  Array: 'a list',
  Object: 'an object',
};
