// The short run in process: a few thousand cases of every target, and that the driver finds and names what is broken.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { listPlugins } from '../../plugins/registry.ts';
import { report, SEED } from '../support/fault-scale.ts';
import {
  CHUNK,
  type ChunkRef,
  defineTarget,
  describeCase,
  type Finding,
  replay,
  runChunk,
} from './driver.ts';
import { runInProcess } from './in-process.ts';
import { mutate } from './inputs/bytes.ts';
import { PLUGINS } from './inputs/configs.ts';
import { judge } from './judge.ts';
import { planChunks } from './schedule.ts';
import { attempt, promise } from './target.ts';
import { TARGETS } from './targets.ts';

const CASES = 20_000;

test('whatever is put in, a result or a typed error comes out', async () => {
  const chunks = planChunks(TARGETS, SEED, CASES);
  const findings: Finding[] = [];
  const outcomes = new Map<string, Set<string>>();
  let cases = 0;
  const broken = await runInProcess({
    chunks,
    onChunk({ target }, chunk) {
      cases += chunk.cases;
      const seen = outcomes.get(target) ?? new Set();
      outcomes.set(target, new Set([...seen, ...Object.keys(chunk.outcomes)]));
      if (chunk.finding !== undefined) findings.push(chunk.finding);
      return true;
    },
  });
  expect(findings).toEqual([]);
  expect(broken).toBeUndefined();
  expect(cases).toBe(chunks.length * CHUNK);
  // Inputs that all end in one way would try one line of code.
  const dull = TARGETS.filter(({ name }) => (outcomes.get(name)?.size ?? 0) < 2).map(({ name }) => name);
  expect(dull).toEqual([]);
  report('Fuzzing in process', { 'fuzz cases in process': cases });
});

test('every plugin has inputs of its own', () => {
  expect([...PLUGINS].sort()).toEqual([...listPlugins()].sort());
});

describe('The driver', () => {
  // Text as long as this is what breaks it.
  const fragile = defineTarget({
    name: 'fragile',
    weight: 1,
    input: fc.string({ maxLength: 40, size: 'max' }),
    run(text) {
      promise(text.length < 20, 'It is long');
      return 'ok';
    },
  });
  const first: ChunkRef = { target: 'fragile', seed: 1, chunk: 0 };

  test('finds the smallest input, and finds it again by its name', () => {
    const { finding } = runChunk(fragile, first, () => {});
    expect(finding?.input).toMatch(/^\["[^"]{20}"\]$/);
    expect(finding?.error).toContain('It is long');
    const [, seed, path] = /^fragile:(-?\d+):([\d:]+)$/.exec(finding?.replay ?? '') ?? [];
    expect(replay(fragile, Number(seed), path ?? '').finding?.input).toBe(finding?.input);
  });

  test('takes what is no typed error for a finding', () => {
    const careless = defineTarget({
      name: 'careless',
      weight: 1,
      input: fc.boolean(),
      run: () =>
        attempt(() => {
          throw new TypeError('x is undefined');
        }),
    });
    expect(runChunk(careless, first, () => {}).finding?.error).toContain('x is undefined');
  });

  test('runs the same cases for the same seed, and tells the one that it is at', () => {
    const seen: string[] = [];
    const told = defineTarget({
      name: 'fragile',
      weight: 1,
      input: fc.string(),
      run: (text) => {
        seen.push(text);
        return 'ok';
      },
    });
    runChunk(told, first, () => {});
    const before = seen.splice(0);
    runChunk(told, first, () => {});
    expect(seen).toEqual(before);
    expect(describeCase(told, first, 7)).toContain(JSON.stringify(seen[7]));
  });
});

describe('The judge refuses', () => {
  const good = { cniVersion: '1.1.0', code: 7, msg: 'Field "name" is missing' };
  test.each([
    ['a signal', { exitCode: null, stdout: '' }],
    ['an exit code of another kind', { exitCode: 134, stdout: '' }],
    ['an error without a document', { exitCode: 1, stdout: '' }],
    ['an unknown code', { exitCode: 1, stdout: JSON.stringify({ ...good, code: 42 }) }],
    ['a defect', { exitCode: 1, stdout: JSON.stringify({ ...good, code: 999 }) }],
    ['a message that moves a cursor', { exitCode: 1, stdout: JSON.stringify({ ...good, msg: '\u001b[2J' }) }],
    ['an echo of the input', { exitCode: 1, stdout: JSON.stringify({ ...good, msg: 'x'.repeat(5000) }) }],
    ['an ADD that printed nothing', { exitCode: 0, stdout: '' }],
  ])('%s', (_what, end) => {
    expect(() => judge('ADD', end)).toThrow();
  });

  test('nothing else', () => {
    expect(judge('ADD', { exitCode: 1, stdout: JSON.stringify(good) })).toBe('error 7');
    expect(judge('ADD', { exitCode: 0, stdout: '{"cniVersion":"1.1.0"}' })).toBe('ok');
    expect(judge('DEL', { exitCode: 0, stdout: '' })).toBe('ok');
  });
});

describe('A mutation', () => {
  const bytes = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8);
  const half = { at: 0x8000, length: 2, value: 9, token: 'x' };
  test.each([
    ['flip', [1, 2, 3, 4, 7, 6, 7, 8]],
    ['byte', [1, 2, 3, 4, 9, 6, 7, 8]],
    ['u16', [1, 2, 3, 4, 9, 0, 7, 8]],
    ['u32', [1, 2, 3, 4, 9, 0, 0, 0]],
    ['cut', [1, 2, 3, 4]],
    ['drop', [1, 2, 3, 4, 7, 8]],
    ['repeat', [1, 2, 3, 4, 5, 6, 5, 6, 7, 8]],
    ['insert', [1, 2, 3, 4, 9, 9, 5, 6, 7, 8]],
    ['swap', [1, 2, 3, 4, 7, 8, 5, 6]],
    ['token', [1, 2, 3, 4, 120, 5, 6, 7, 8]],
  ] as const)('of kind "%s" changes a copy', (kind, expected) => {
    expect([...mutate(bytes, { ...half, kind })]).toEqual(expected);
    expect([...bytes]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });
});
