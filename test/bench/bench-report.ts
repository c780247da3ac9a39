// Writes docs/benchmarks.md, its pictures and its data from what a run of the benchmark left in a JSON file.
// Started by `npm run bench:report [-- --from FILE.json]`; without a file it runs the benchmark first.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { type BenchReport, formatPage, picturesOf, ratiosOf } from './page.ts';
import { plotRatios, plotTimes } from './plot.ts';

const DOCS = join(import.meta.dirname, '../../docs');
const PICTURES = join(DOCS, 'benchmarks');
const OVERVIEW = 'overview';

await main();

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { from: { type: 'string' }, runs: { type: 'string', default: '40' } },
  });
  const file = values.from ?? (await runBenchmark(values.runs));
  const report = JSON.parse(readFileSync(file, 'utf8')) as BenchReport; // our own file, by bench.ts
  writeReport(report);
}

async function runBenchmark(runs: string): Promise<string> {
  const file = join(tmpdir(), `patchbay-bench-${process.pid}.json`);
  const bench = join(import.meta.dirname, 'bench.ts');
  await execa(process.execPath, [bench, '--runs', runs, '--json', file], { stdio: 'inherit' });
  return file;
}

function writeReport(report: BenchReport): void {
  const pictures = picturesOf(report);
  mkdirSync(PICTURES, { recursive: true });
  for (const old of readdirSync(PICTURES)) rmSync(join(PICTURES, old));
  for (const { name, title, series } of pictures) {
    writeFileSync(join(PICTURES, `${name}.svg`), plotTimes(title, series));
  }
  writeFileSync(join(PICTURES, `${OVERVIEW}.svg`), plotRatios('ours ÷ reference, medians', ratiosOf(report)));
  writeFileSync(join(PICTURES, 'figures.json'), `${JSON.stringify(report)}\n`);
  writeFileSync(join(DOCS, 'benchmarks.md'), formatPage(report, pictures, OVERVIEW));
}
