// What the scale benchmark plans, remembers and makes of its rounds. Run by vitest, project "unit".
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { plotLines } from '../../../bench/plot.ts';
import { crowdOf } from '../../../bench/prefill.ts';
import { filterRules, masqueradeRules, natRules } from '../../../bench/scale/crowd.ts';
import { AXES, CONTESTANTS, type Group, groupsOf } from '../../../bench/scale/plan.ts';
import { memoryOf } from '../../../bench/scale/run.ts';
import { formatScaleChapters, scalePicturesOf } from '../../../bench/scale/scale-page.ts';
import { formatScale } from '../../../bench/scale/scale-text.ts';
import { appendDone, appendRound, openState, parseState, type Round } from '../../../bench/scale/state.ts';
import { summariseScale } from '../../../bench/scale/summary.ts';

const GROUPS = groupsOf(CONTESTANTS);

describe('The groups', () => {
  test('are every point of every axis, and the looks at memory', () => {
    const points = Object.entries(AXES).flatMap(([axis, { values }]) =>
      values.map((value) => `${axis} ${value}`),
    );
    expect(GROUPS.map(({ name }) => name)).toEqual([...points, 'memory 1', 'memory 32']);
  });

  test('leave nobody out without a reason', () => {
    for (const { lanes, leftOut } of GROUPS) {
      const there = CONTESTANTS.filter((name) => lanes.includes(name));
      const missing = leftOut.map(({ contestant }) => contestant);
      expect([...there, ...missing].toSorted()).toEqual(CONTESTANTS.toSorted());
      for (const { reason } of leftOut) expect(reason).not.toBe('');
    }
  });

  test('have ours on an empty host beside ours on a full one', () => {
    const beside = GROUPS.filter(({ lanes }) => lanes.includes('ours, empty node')).map(({ name }) => name);
    expect(beside).toEqual([
      ...['attachments 100', 'attachments 1000', 'attachments 5000'],
      ...['foreignRules 10000', 'foreignRules 200000'],
      ...['stored 1000', 'stored 10000', 'stored 60000'],
    ]);
  });

  test('of a machine without the others are ours alone', () => {
    expect(new Set(groupsOf(['ours']).flatMap(({ lanes }) => lanes))).toEqual(
      new Set(['ours', 'ours, empty node']),
    );
  });
});

describe('The state of a run', () => {
  test('goes on where it was interrupted, even in the middle of a line', () => {
    const file = temporaryFile();
    expect(openState(file, { build: 'a' })).toEqual({ rounds: [], done: new Set() });
    appendRound(file, roundOf('attachments 0', 'ours', 0, [10]));
    appendDone(file, 'attachments 0');
    appendRound(file, roundOf('attachments 100', 'ours', 0, [11]));
    const text = readFileSync(file, 'utf8');
    writeFileSync(file, `${text}{"group":"attachments 100","la`);
    const { rounds, done } = openState(file, { build: 'a' });
    expect(rounds.map(({ group }) => group)).toEqual(['attachments 0', 'attachments 100']);
    expect([...done]).toEqual(['attachments 0']);
  });

  test('takes more rounds behind a line that was cut off', () => {
    const file = temporaryFile();
    openState(file, { build: 'a' });
    writeFileSync(file, `${readFileSync(file, 'utf8')}{"group":"att`);
    openState(file, { build: 'a' });
    appendRound(file, roundOf('attachments 0', 'ours', 0, [10]));
    expect(openState(file, { build: 'a' }).rounds).toHaveLength(1);
  });

  test('of another build or machine is refused, and says what differs', () => {
    const file = temporaryFile();
    openState(file, { machine: 'm', build: 'a' });
    expect(() => openState(file, { machine: 'm', build: 'b' })).toThrow('its build is "a", now it is "b"');
  });

  test('begins with its circumstances', () => {
    expect(() => parseState('{"done":"x"}\n')).toThrow('does not begin with its circumstances');
  });
});

describe('The figures', () => {
  const rounds: Round[] = [
    ...[100, 120, 140].map((ms, round) => roundOf('attachments 5000', 'ours', round, [ms])),
    ...[100, 100, 100].map((ms, round) => roundOf('attachments 5000', 'ours, empty node', round, [ms])),
    { ...roundOf('parallel 64', 'ours', 0, [10, 10]), wallMs: 1000, daemonCpuMs: 0 },
    {
      ...roundOf('parallel 64', 'reference', 0, [40, 40, 40]),
      wallMs: 4000,
      daemonCpuMs: 100,
      failed: 1,
      said: '1: no | `x`\nmore',
    },
    {
      ...roundOf('memory 32', 'ours', 0, [1]),
      memory: { pssMb: 400, rssMb: 1700, processes: 31, pssEachMb: 13, rssEachMb: 57 },
    },
  ];
  const figures = summariseScale({ circumstances: { build: 'a' }, groups: GROUPS, rounds });

  test('hold what is promised against its limits', () => {
    expect(figures.verdicts.map(({ value, holds }) => [value, holds])).toEqual([
      [4, true],
      [expect.closeTo(1.396, 3), true],
      [13, true],
    ]);
  });

  test('are not there for what was not measured', () => {
    const { groups, unmeasured, verdicts } = summariseScale({
      circumstances: {},
      groups: GROUPS,
      rounds: [],
    });
    expect(groups).toEqual([]);
    expect(unmeasured).toEqual(GROUPS.map(({ name }) => name));
    expect(verdicts.map(({ holds }) => holds)).toEqual([undefined, undefined, undefined]);
  });

  test('count a daemon’s processor time with the pairs it worked for', () => {
    const reference = figures.groups
      .find(({ name }) => name === 'parallel 64')
      ?.lanes.find(({ lane }) => lane === 'reference');
    expect(reference).toMatchObject({ pairsPerSecond: 0.5, cpuMsPerPair: (30 + 100) / 2, failed: 1 });
  });

  test('become a document that refers to every picture, with failures and those who are not there', () => {
    const pictures = scalePicturesOf(figures);
    const text = formatScaleChapters(figures, pictures).join('\n');
    for (const { name } of pictures) expect(text).toContain(`(benchmarks/${name}.svg)`);
    expect(text).toContain('| 5,000 | ours | 120.0 |');
    expect(text).toMatch(/Not measured in this run: attachments 0, .*stored 60000, memory 1\./);
    expect(text).toContain("reference at 64, 1: `1: no | 'x'`");
    expect(text).toContain('Docker at 64: each of its clients needs a running container');
    expect(formatScale(figures)).toContain('1 failed: 1: no');
  });

  test('become lines, with gaps where somebody was not there', () => {
    const [picture] = scalePicturesOf(figures).filter(({ axis }) => axis === 'parallel');
    expect(picture?.lines.map(({ name, values }) => [name, values])).toEqual([
      ['ours', [2]],
      ['reference', [0.5]],
    ]);
    expect(
      plotLines('t', { points: ['0', '1'], unit: 'ms', lines: [{ name: 'a', values: [1, undefined] }] }),
    ).toMatch(/^<svg /);
  });
});

test('the mean memory of processes is that of moments when most clients have one', () => {
  const looks = [
    { processes: 1, rssMb: 57, pssMb: 50 },
    { processes: 24, rssMb: 24 * 50, pssMb: 24 * 12 },
    { processes: 32, rssMb: 32 * 55, pssMb: 32 * 11 },
  ];
  expect(memoryOf(looks, 32)).toEqual({
    processes: 32,
    rssMb: 1760,
    pssMb: 352,
    pssEachMb: 12,
    rssEachMb: 55,
  });
  expect(memoryOf([], 32)).toEqual({ processes: 0, rssMb: 0, pssMb: 0 });
});

test('an imitated crowd has a chain, a jump and two accepts each, or one rule of nftables', () => {
  const members = crowdOf({ attachments: 3, networks: 8 }).slice(1);
  const count = (text: string, pattern: RegExp) => text.match(pattern)?.length;
  expect(count(natRules(members), /^-N CNI-[0-9a-f]{24}$/gm)).toBe(2);
  expect(count(natRules(members), /^-A POSTROUTING -s 10\.20[12]\.0\.2\/32 /gm)).toBe(2);
  expect(count(filterRules(members), /^-A CNI-FORWARD -[ds] 10\.20[12]\.0\.2\/32 /gm)).toBe(4);
  expect(masqueradeRules(members).split('\n').filter(Boolean)).toHaveLength(2);
  expect(masqueradeRules(members)).toContain(
    'ip saddr 10.201.0.2 ip daddr != 10.201.0.0/16 masquerade comment "',
  );
});

function roundOf(group: Group['name'], lane: Round['lane'], round: number, addMs: readonly number[]): Round {
  return {
    ...{ group, lane, round, failed: 0 },
    samples: addMs.flatMap((ms) => [
      ['ADD', ms, 5],
      ['DEL', ms / 2, 5],
    ]) as Round['samples'],
  };
}

function temporaryFile(): string {
  const directory = mkdtempSync(join(tmpdir(), 'patchbay-state-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  return join(directory, 'state.jsonl');
}
