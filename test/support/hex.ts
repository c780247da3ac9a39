// Golden byte files and their comparison. A `.hex` file has a header of "# key: value" lines, then one named field a
// line; "--" stands for a byte that differs from run to run. Unit tests of the encoders hold their output against it.
import { readFileSync } from 'node:fs';

export interface Golden {
  /** The header: command, tool, kernel … */
  readonly header: ReadonlyMap<string, string>;
  /** `undefined` where a byte is masked. */
  readonly bytes: readonly (number | undefined)[];
}

/** Reads a golden file. Throws Error naming the line that is no field. */
export function readGolden(file: URL | string): Golden {
  return parseGolden(readFileSync(file, 'utf8'));
}

export function parseGolden(text: string): Golden {
  const header = new Map<string, string>();
  const bytes: (number | undefined)[] = [];
  for (const [index, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    const [, key, value] = /^# ([a-z]+): (.*)$/.exec(line) ?? [];
    if (key !== undefined && value !== undefined) header.set(key, value);
    if (line.startsWith('#')) continue;
    const field = /^\s*((?:[0-9a-f]{2}|--)(?: (?:[0-9a-f]{2}|--))*)(?:\s{2,}.*)?$/.exec(line)?.[1];
    if (field === undefined) throw new Error(`Line ${index + 1} is no field: "${line}"`);
    for (const byte of field.split(' ')) bytes.push(byte === '--' ? undefined : Number.parseInt(byte, 16));
  }
  return { header, bytes };
}

/** The golden's bytes, masked ones taken as zero: for decoders. */
export function goldenBytes(golden: Golden): Uint8Array {
  return Uint8Array.from(golden.bytes, (byte) => byte ?? 0);
}

/** Throws an Error that shows both side by side unless every byte that is not masked is the same. */
export function expectGolden(actual: Uint8Array, golden: Golden): void {
  if (matches(actual, golden)) return;
  const command = golden.header.get('command') ?? 'golden';
  throw new Error(
    `Ours (left) differs from the bytes of "${command}" (right)\n${sideBySide(actual, golden)}`,
  );
}

/** Eight bytes a row; rows that differ are marked. */
export function sideBySide(actual: Uint8Array, golden: Golden): string {
  const rows: string[] = [];
  for (let at = 0; at < Math.max(actual.length, golden.bytes.length); at += 8) {
    const left: string[] = [];
    const right: string[] = [];
    let differs = false;
    for (let offset = at; offset < at + 8; offset += 1) {
      left.push(byteText(actual[offset], offset < actual.length));
      right.push(byteText(golden.bytes[offset], offset < golden.bytes.length));
      differs ||= !sameByte(actual, golden, offset);
    }
    const offset = at.toString(16).padStart(4, '0');
    rows.push(`${offset}  ${left.join(' ')}  ${differs ? '!' : '|'}  ${right.join(' ')}`);
  }
  return rows.join('\n');
}

function matches(actual: Uint8Array, golden: Golden): boolean {
  return (
    actual.length === golden.bytes.length &&
    golden.bytes.every((_, offset) => sameByte(actual, golden, offset))
  );
}

function sameByte(actual: Uint8Array, golden: Golden, offset: number): boolean {
  if (offset >= actual.length || offset >= golden.bytes.length) return actual.length === golden.bytes.length;
  const wanted = golden.bytes[offset];
  return wanted === undefined || wanted === actual[offset];
}

function byteText(byte: number | undefined, exists: boolean): string {
  if (!exists) return '  ';
  return byte === undefined ? '--' : byte.toString(16).padStart(2, '0');
}
