// The figures of the scale benchmark as tables for people at a terminal. Called by scale.ts, pure.
import { formatVerdicts } from '../report.ts';
import { AXES } from './plan.ts';
import type { GroupFigures, LaneFigures, ScaleFigures } from './summary.ts';

const NAME = 22;
const FIGURE = 9;

/** A block for each group, and the promised figures. */
export function formatScale({ groups, verdicts }: ScaleFigures): string {
  return [...groups.map(formatGroup), formatVerdicts(verdicts)].join('\n');
}

function formatGroup(group: GroupFigures): string {
  const title = `${AXES[group.axis].title}: ${group.value}${group.kind === 'memory' ? ', memory' : ''}`;
  const lines = group.kind === 'memory' ? group.lanes.map(memoryLine) : group.lanes.flatMap(timeLines);
  const left = group.leftOut.map(({ contestant, reason }) => `  without ${contestant}: ${reason}`);
  return [title, ...lines, ...left, ''].join('\n');
}

function timeLines({ lane, verbs, failed, said, pairsPerSecond, cpuMsPerPair }: LaneFigures): string[] {
  const times = verbs.map(({ verb, count, median, p95, p99, cpuMs }, i) =>
    [
      (i === 0 ? lane : '').padEnd(NAME),
      verb.padEnd(6),
      `n ${count}`.padStart(6),
      ...[median, p95, p99].map((ms) => ms.toFixed(1).padStart(FIGURE)),
      pairsPerSecond === undefined ? `  cpu ${cpuMs.toFixed(1)}` : '',
    ].join(''),
  );
  const rate =
    pairsPerSecond === undefined
      ? []
      : [`${''.padEnd(NAME)}${pairsPerSecond.toFixed(1)} a second, cpu ${cpuMsPerPair?.toFixed(1)} ms each`];
  return [...times, ...rate, ...(failed > 0 ? [`${''.padEnd(NAME)}${failed} failed: ${said}`] : [])];
}

function memoryLine({ lane, memory }: LaneFigures): string {
  if (memory === undefined) return lane;
  const { processes, pssMb, rssMb, pssEachMb, rssEachMb } = memory;
  const each =
    pssEachMb === undefined ? '' : `, each ${pssEachMb.toFixed(1)} PSS, ${rssEachMb?.toFixed(1)} RSS`;
  return `${lane.padEnd(NAME)}${processes} processes: ${pssMb.toFixed(0)} MB PSS, ${rssMb.toFixed(0)} RSS${each}`;
}
