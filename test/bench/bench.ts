// The benchmark: whole processes of our plugins and the reference's, side by side, in private hosts of their own.
// Started by `npm run bench -- [--reference DIR] [--ours DIR] [--runs N] [--only PATTERN] [--json FILE]`.

import { existsSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { packageEmpty, packagePatchbay } from '../../build/package.ts';
import { isPresent, setUpTools, TOOLS, type Tool } from '../../build/tools.ts';
import { type Footprint, measureFootprint } from './footprint.ts';
import { findLimitObstacle } from './limit/limit.ts';
import { judge } from './limits.ts';
import { describeMachine } from './machine.ts';
import { type Measured, measure } from './measure.ts';
import type { Implementation } from './network.ts';
import { findReference } from './reference.ts';
import { formatFootprints, formatScenario, formatVerdicts } from './report.ts';
import { FOOTPRINTS, scenariosOf } from './scenarios.ts';

interface Options {
  readonly reference: string | undefined;
  readonly ours: string | undefined;
  readonly runs: number;
  readonly only: RegExp;
  readonly json: string | undefined;
}

const DIST = join(import.meta.dirname, '../../dist');

// Beside what tests need: bash has a `time` of its own that can't tell memory, so by path.
const GNU_TIME: Tool = {
  program: '/usr/bin/time',
  debianPackage: 'time',
  purpose: 'peak memory in the benchmark',
};

await main(readOptions(process.argv.slice(2)));

async function main(options: Options): Promise<void> {
  expectTools([...TOOLS, GNU_TIME]);
  const reference = await findReference(options.reference, progress);
  const { ours, empty } = await findOurs(options.ours);
  const machine = {
    ...(await describeMachine(ours.directory)),
    reference: reference.version,
  };
  process.stdout.write(
    `${Object.entries(machine)
      .map(([name, value]) => `${name}: ${value}`)
      .join('\n')}\n\n`,
  );
  const [load = 0] = loadavg();
  if (load > 0.5) progress(`warning: the machine is busy (load ${load.toFixed(1)}), expect noise\n`);

  const obstacle = await findLimitObstacle();
  if (obstacle !== undefined) progress(`Without what stands beside the limit: ${obstacle}\n`);
  const contestants = {
    ...{ ours, reference, empty },
    referenceHasNftables: reference.hasNftables,
    hasCompiler: obstacle === undefined,
  };
  const measured: Measured[] = [];
  for (const scenario of scenariosOf(contestants).filter(({ name }) => options.only.test(name))) {
    const rounds = options.runs * scenario.roundsFactor;
    const result = await measure(scenario, rounds, (done) => progress(`${scenario.name}: ${done}`));
    measured.push(result);
    process.stdout.write(`${formatScenario(result)}\n`);
  }
  const footprints = await footprintsOf([ours, reference], options.only);
  if (footprints.length > 0) process.stdout.write(`${formatFootprints(footprints)}\n`);

  const verdicts = judge(measured, footprints);
  process.stdout.write(formatVerdicts(verdicts));
  if (options.json !== undefined) {
    const report = { machine, rounds: options.runs, scenarios: measured, footprints, figures: verdicts };
    writeFileSync(options.json, `${JSON.stringify(report, undefined, 2)}\n`);
  }
}

async function footprintsOf(implementations: readonly Implementation[], only: RegExp): Promise<Footprint[]> {
  const footprints: Footprint[] = [];
  for (const { name, plugin, shape } of FOOTPRINTS.filter(({ name }) => only.test(name))) {
    for (const implementation of implementations) {
      progress(`${name}: ${implementation.name}`);
      footprints.push(...(await measureFootprint(implementation, plugin, shape)));
    }
  }
  return footprints;
}

function readOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      reference: { type: 'string' },
      ours: { type: 'string' },
      runs: { type: 'string', default: '40' },
      only: { type: 'string', default: '' },
      json: { type: 'string' },
    },
  });
  const runs = Number(values.runs);
  if (!Number.isInteger(runs) || runs < 1)
    throw new Error(`Cannot take "${values.runs}" as a number of runs`);
  return {
    reference: values.reference,
    ours: values.ours,
    runs,
    only: new RegExp(values.only),
    json: values.json,
  };
}

function expectTools(tools: readonly Tool[]): void {
  setUpTools(tools);
  const missing = tools.filter(({ program }) => !isPresent(program));
  if (missing.length === 0) return;
  const names = missing.map(({ program, debianPackage }) => `"${program}" (package ${debianPackage})`);
  throw new Error(`Cannot find ${names.join(', ')}`);
}

// The floor is packaged anew each time, so that it is packaged as ours is; plugins of another build bring their own.
async function findOurs(
  directory: string | undefined,
): Promise<{ ours: Implementation; empty: Implementation | undefined }> {
  if (directory === undefined) {
    await packagePatchbay();
    const empty = { name: 'empty program', directory: dirname(await packageEmpty()) };
    return { ours: { name: 'ours', directory: join(DIST, 'bin') }, empty };
  }
  const ours = { name: 'ours', directory: resolve(directory) };
  if (!existsSync(join(ours.directory, 'bridge'))) throw new Error(`Cannot find "bridge" in "${directory}"`);
  const beside = dirname(ours.directory);
  const hasEmpty = existsSync(join(beside, 'empty'));
  return { ours, empty: hasEmpty ? { name: 'empty program', directory: beside } : undefined };
}

// On a terminal the line is overwritten; a log gets no line for each round.
function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
  else if (!/: round \d/.test(text)) process.stderr.write(`${text.trimEnd()}\n`);
}
