// Writes docs/benchmarks.md, its pictures and its data from what a run of the benchmark left in a JSON file.
// Started by `npm run bench:report [-- --from FILE.json …] [--scale FILE.json]`; with neither it runs the benchmark first.
// A run may come in pieces, of which the later replace what they measured again; what is not given stays as published.
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { type BenchReport, formatPage, mergeReports, picturesOf, ratiosOf } from './page.ts';
import { plotLines, plotRatios, plotTimes } from './plot.ts';
import { scalePicturesOf } from './scale/scale-page.ts';
import { type ScaleReport, summariseScale } from './scale/summary.ts';

const DOCS = join(import.meta.dirname, '../../docs');
const PICTURES = join(DOCS, 'benchmarks');
const FIGURES = join(PICTURES, 'figures.json');
const SCALE = join(PICTURES, 'scale.json');
const OVERVIEW = 'overview';

await main();

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      from: { type: 'string', multiple: true, default: [] },
      scale: { type: 'string' },
      runs: { type: 'string', default: '40' },
    },
  });
  const isAsked = values.from.length > 0 || values.scale !== undefined;
  const pieces = isAsked ? values.from : [await runBenchmark(values.runs)];
  const files = values.scale !== undefined && pieces.length === 0 ? [FIGURES] : pieces;
  const report = mergeReports(files.map((file) => JSON.parse(readFileSync(file, 'utf8')) as BenchReport)); // our own, by bench.ts
  const scale = values.scale ?? (existsSync(SCALE) ? SCALE : undefined);
  const atScale = scale && (JSON.parse(readFileSync(scale, 'utf8')) as ScaleReport); // our own, by scale.ts
  writeReport(report, atScale || undefined);
}

async function runBenchmark(runs: string): Promise<string> {
  const file = join(tmpdir(), `patchbay-bench-${process.pid}.json`);
  const bench = join(import.meta.dirname, 'bench.ts');
  await execa(process.execPath, [bench, '--runs', runs, '--json', file], { stdio: 'inherit' });
  return file;
}

function writeReport(report: BenchReport, scale: ScaleReport | undefined): void {
  const pictures = picturesOf(report);
  const figures = scale && summariseScale(scale);
  const scalePictures = figures === undefined ? [] : scalePicturesOf(figures);
  mkdirSync(PICTURES, { recursive: true });
  for (const old of readdirSync(PICTURES)) rmSync(join(PICTURES, old));
  for (const { name, title, series } of pictures) {
    writeFileSync(join(PICTURES, `${name}.svg`), plotTimes(title, series));
  }
  for (const picture of scalePictures) {
    writeFileSync(join(PICTURES, `${picture.name}.svg`), plotLines(picture.title, picture));
  }
  writeFileSync(join(PICTURES, `${OVERVIEW}.svg`), plotRatios('ours ÷ reference, medians', ratiosOf(report)));
  writeFileSync(FIGURES, `${JSON.stringify(report)}\n`);
  if (scale !== undefined) writeFileSync(SCALE, `${JSON.stringify(scale)}\n`);
  const atScale = figures && { figures, pictures: scalePictures };
  writeFileSync(join(DOCS, 'benchmarks.md'), formatPage(report, pictures, OVERVIEW, atScale));
}
