// Typed reading of a decoded JSON object without a schema, with the path in every error.
// Used by the result decoder, which runs in every ADD and has to keep unknown keys.
import { isJsonObject, type JsonObject, splitKeys } from './decode.ts';
import { invalidConfig, quote } from './error.ts';

/** Where a value was found: in `where`, at `path`, which is empty for the whole. */
export interface Place {
  readonly where: string;
  readonly path: string;
}

/** A value and where it was found. */
export interface Item {
  readonly value: unknown;
  readonly place: Place;
}

/** The known fields of one object, and its other keys. Every method throws `invalidConfig` for another type. */
export class Fields<K extends string> {
  readonly rest: JsonObject | undefined;
  readonly #known: { readonly [P in K]?: unknown };
  readonly #place: Place;

  constructor({ value, place }: Item, keys: readonly K[]) {
    if (!isJsonObject(value)) throw misfit(value, place, 'an object');
    const { known, rest } = splitKeys(value, keys);
    this.rest = rest;
    this.#known = known;
    this.#place = place;
  }

  /** A string; undefined when absent or empty, which mean the same in every CNI type. */
  text(key: K, expected = 'a string', isFit: (text: string) => boolean = () => true): string | undefined {
    const value = this.#known[key];
    if (value === undefined || value === '') return undefined;
    if (typeof value !== 'string' || !isFit(value)) throw misfit(value, this.#at(key), expected);
    return value;
  }

  /** As `text` for a field that must be there. */
  requiredText(key: K, expected?: string, isFit?: (text: string) => boolean): string {
    const text = this.text(key, expected, isFit);
    if (text === undefined) throw invalidConfig(`${subject(this.#at(key))} is missing`);
    return text;
  }

  /** An integer from 0; undefined when absent. */
  count(key: K): number | undefined {
    const value = this.#known[key];
    if (value === undefined) return undefined;
    if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
      throw misfit(value, this.#at(key), 'a whole number');
    }
    return value;
  }

  /** A list of strings; undefined when absent or empty. */
  texts(key: K): readonly string[] | undefined {
    const items = this.items(key);
    if (items.length === 0) return undefined;
    return items.map(({ value, place }) => {
      if (typeof value !== 'string') throw misfit(value, place, 'a string');
      return value;
    });
  }

  /** The entries of a list, each with its place; none when absent. */
  items(key: K): readonly Item[] {
    const value = this.#known[key];
    if (value === undefined) return [];
    const place = this.#at(key);
    if (!Array.isArray(value)) throw misfit(value, place, 'a list');
    return value.map((entry: unknown, position) => ({
      value: entry,
      place: { where: place.where, path: `${place.path}[${position}]` },
    }));
  }

  /** A nested value with its place; undefined when absent. */
  item(key: K): Item | undefined {
    const value = this.#known[key];
    return value === undefined ? undefined : { value, place: this.#at(key) };
  }

  #at(key: string): Place {
    const { where, path } = this.#place;
    return { where, path: path === '' ? key : `${path}.${key}` };
  }
}

function misfit(value: unknown, place: Place, expected: string): Error {
  return invalidConfig(`${subject(place)} must be ${expected}, not ${quote(value)}`);
}

function subject({ where, path }: Place): string {
  // One word is the name of a field itself, several are a description.
  const whole = /^\w+$/.test(where) ? `field ${quote(where)}` : where;
  const text = path === '' ? whole : `field ${quote(path)} of ${where}`;
  return text.charAt(0).toUpperCase() + text.slice(1);
}
