// The figures of the scale benchmark as a part of the benchmark's document: tables, and which picture belongs where.
// Called by page.ts and bench-report.ts, pure.
import { formatTable } from '../markdown.ts';
import type { Line } from '../plot.ts';
import { AXES, type Axis } from './plan.ts';
import { alongAxis, type LaneFigures, type ScaleFigures, type VerbFigures } from './summary.ts';

/** A picture of an axis, by the name of its file without the ending. */
export interface ScalePicture {
  readonly name: string;
  readonly axis: Axis;
  readonly title: string;
  readonly unit: string;
  readonly points: readonly string[];
  readonly lines: readonly Line[];
}

/** The chapters behind the scenarios'. */
export function formatScaleChapters(figures: ScaleFigures, pictures: readonly ScalePicture[]): string[] {
  return [
    '## At scale',
    'The attachment of a whole container, by everybody who makes such: ours as one `patchbay` process and the reference as ' +
      'a chain of four plugins, both by cnitool; netavark by its own command; Docker by its daemon (`network connect` and ' +
      '`disconnect`). *n* is how many of each were measured: whoever is slow gets fewer. Single rounds are in ' +
      '[benchmarks/scale.json](benchmarks/scale.json).',
    formatTable(['', ''], Object.entries(figures.circumstances)),
    ...(figures.unmeasured.length === 0
      ? []
      : [`Not measured in this run: ${figures.unmeasured.join(', ')}.`]),
    ...(Object.keys(AXES) as Axis[]).flatMap((axis) => formatAxis(figures, axis, pictures)),
    ...formatMemory(figures),
  ];
}

/** Two pictures for each axis that was measured: ADD and DEL, or throughput and the time of ADD. */
export function scalePicturesOf(figures: ScaleFigures): ScalePicture[] {
  return (Object.keys(AXES) as Axis[]).flatMap((axis) => {
    const groups = alongAxis(figures, axis);
    if (groups.length === 0) return [];
    const points = groups.map(({ value }) => value.toLocaleString('en'));
    const lanes = [...new Set(groups.flatMap(({ lanes }) => lanes.map(({ lane }) => lane)))].filter(
      (lane) => lane !== 'ours, empty node',
    );
    const picture = (what: string, unit: string, figureOf: (lane: LaneFigures) => number | undefined) => ({
      name: `scale-${axis.toLowerCase()}-${what.toLowerCase().replaceAll(' ', '-')}`,
      axis,
      title: `${what}, ${AXES[axis].title}`,
      unit,
      points,
      lines: lanes.map((name) => ({
        name,
        values: groups.map((group) => {
          const lane = group.lanes.find(({ lane }) => lane === name);
          return lane && figureOf(lane);
        }),
      })),
    });
    const median = (verb: string) => (lane: LaneFigures) => verbOf(lane, verb)?.median;
    return axis === 'parallel'
      ? [
          picture('ADD and DEL per second', 'pairs a second', ({ pairsPerSecond }) => pairsPerSecond),
          picture('ADD', 'ms, median', median('ADD')),
        ]
      : [picture('ADD', 'ms, median', median('ADD')), picture('DEL', 'ms, median', median('DEL'))];
  });
}

function formatAxis(figures: ScaleFigures, axis: Axis, pictures: readonly ScalePicture[]): string[] {
  const groups = alongAxis(figures, axis);
  if (groups.length === 0) return [];
  const isClients = axis === 'parallel';
  const rows = groups.flatMap(({ value, lanes }) =>
    lanes.map((lane) => [
      value.toLocaleString('en'),
      lane.lane,
      ...(isClients ? clientCells(lane) : timeCells(lane)),
    ]),
  );
  const three = (verb: string) => [`${verb} p50`, 'p95', 'p99'];
  const head = isClients
    ? ['pairs/s', 'cpu ms a pair', ...three('ADD'), ...three('DEL'), 'n', 'failed']
    : [...three('ADD'), 'cpu', 'CHECK p50', 'p95', 'p99', 'cpu', ...three('DEL'), 'cpu', 'n'];
  const leftOut = groups.flatMap((group) =>
    group.leftOut.map(
      ({ contestant, reason }) => `${contestant} at ${group.value.toLocaleString('en')}: ${reason}`,
    ),
  );
  const failures = groups.flatMap(({ value, lanes }) =>
    lanes
      .filter(({ failed }) => failed > 0)
      .map(
        ({ lane, failed, said }) => `${lane} at ${value.toLocaleString('en')}, ${failed}: \`${plain(said)}\``,
      ),
  );
  return [
    `### By ${AXES[axis].title}`,
    ...pictures
      .filter((one) => one.axis === axis)
      .map(({ name, title }) => `![${title}](benchmarks/${name}.svg)`),
    formatTable([AXES[axis].title, '', ...head], rows),
    ...(leftOut.length === 0 ? [] : [`Not there: ${leftOut.join('; ')}.`]),
    ...(failures.length === 0 ? [] : [`Calls that failed: ${failures.join('; ')}.`]),
  ];
}

function timeCells(lane: LaneFigures): string[] {
  const cells = (verb: string) => {
    const figures = verbOf(lane, verb);
    return [...threeOf(figures), figures === undefined ? '–' : figures.cpuMs.toFixed(1)];
  };
  return [...cells('ADD'), ...cells('CHECK'), ...cells('DEL'), String(verbOf(lane, 'ADD')?.count ?? 0)];
}

function clientCells(lane: LaneFigures): string[] {
  return [
    formatOne(lane.pairsPerSecond),
    formatOne(lane.cpuMsPerPair),
    ...threeOf(verbOf(lane, 'ADD')),
    ...threeOf(verbOf(lane, 'DEL')),
    String(verbOf(lane, 'ADD')?.count ?? 0),
    String(lane.failed),
  ];
}

function formatMemory({ groups }: ScaleFigures): string[] {
  const rows = groups
    .filter(({ kind }) => kind === 'memory')
    .flatMap(({ value, lanes }) =>
      lanes.map(({ lane, memory }) => [
        String(value),
        lane,
        ...[memory?.rssEachMb, memory?.pssEachMb].map(formatOne),
        memory === undefined ? '–' : String(memory.processes),
        ...[memory?.rssMb, memory?.pssMb].map((mb) => (mb === undefined ? '–' : mb.toFixed(0))),
      ]),
    );
  if (rows.length === 0) return [];
  return [
    '### Memory',
    'In MB, of the processes whose executables are the contestant’s own, without cnitool and iptables. *Each*: the largest ' +
      'mean over them at a moment when at least three of four clients had one.',
    formatTable(['clients', '', 'RSS each', 'PSS each', 'most at once', 'RSS of all', 'PSS of all'], rows),
  ];
}

function verbOf(lane: LaneFigures, verb: string): VerbFigures | undefined {
  return lane.verbs.find((figures) => figures.verb === verb);
}

function threeOf(figures: VerbFigures | undefined): string[] {
  return [figures?.median, figures?.p95, figures?.p99].map(formatOne);
}

function formatOne(figure: number | undefined): string {
  return figure === undefined ? '–' : figure.toFixed(1);
}

/** The first line of what a program said. */
function plain(said: string | undefined): string {
  return (said ?? '').replaceAll('`', "'").split('\n')[0]?.slice(0, 160) ?? '';
}
