// The scale benchmark: whole attachments by us and by others while a host fills up, and many of them at once.
// Started by `npm run bench:scale -- [--rounds N] [--seconds N] [--only PATTERN] [--contestants PATTERN]
// [--state FILE] [--json FILE]`.
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { packagePatchbay, readReport } from '../../../build/package.ts';
import { setUpTools, TOOLS } from '../../../build/tools.ts';
import { describeMachine } from '../machine.ts';
import type { Implementation } from '../network.ts';
import { findReference } from '../reference.ts';
import { type Contestant, cniContestant, dockerContestant, netavarkContestant } from './contestants.ts';
import { findDebianPlugins, findDocker, findNetavark } from './peers.ts';
import { type ContestantName, groupsOf } from './plan.ts';
import { openProgress } from './progress.ts';
import { type Cast, type Effort, measureGroup } from './run.ts';
import { formatScale } from './scale-text.ts';
import { appendDone, appendRound, openState, type Round } from './state.ts';
import { type ScaleReport, summariseScale } from './summary.ts';

const DIST = join(import.meta.dirname, '../../../dist');
const STATE = join(import.meta.dirname, '../../../.cache/bench-scale.jsonl');

// How a network namespace is made on a quiet machine, and how often that has to be seen.
const PAUSE_MS = 300;
const QUICK_MS = 50;
const QUICK_IN_A_ROW = 3;

await main();

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '30' },
      bursts: { type: 'string', default: '2' },
      seconds: { type: 'string', default: '4' },
      only: { type: 'string', default: '' },
      contestants: { type: 'string', default: '' },
      state: { type: 'string', default: STATE },
      json: { type: 'string' },
    },
  });
  setUpTools(TOOLS);
  await packagePatchbay();
  const { cast, versions } = await findCast();
  const circumstances = {
    ...(await describeMachine(cast.implementations.get('ours')?.directory ?? '')),
    ...versions,
    build: readReport()?.inputs.slice(0, 12) ?? 'unknown',
  };
  const file = resolve(values.state);
  mkdirSync(dirname(file), { recursive: true });
  const { rounds: earlier, done } = openState(file, circumstances);
  const rounds: Round[] = [...earlier];

  const everybody = [...cast.contestants.keys()];
  const [only, who] = [new RegExp(values.only), new RegExp(values.contestants)];
  const there = everybody.filter((name) => name === 'ours' || who.test(name));
  const wanted = groupsOf(there).filter(({ name }) => only.test(name) && !done.has(name));
  const progress = openProgress(wanted.length);
  for (const group of wanted) {
    const effort: Effort = {
      rounds: numberOf(group.kind === 'latency' ? values.rounds : values.bursts) * factorOf(group.axis),
      budgetMs: 1000 * numberOf(values.seconds) * (group.kind === 'latency' ? 1 : 3),
    };
    const own = earlier.filter((round) => round.group === group.name);
    await measureGroup(group, cast, own, effort, {
      doing: progress.doing,
      finished(round) {
        appendRound(file, round);
        rounds.push(round);
      },
    });
    appendDone(file, group.name);
    progress.advance(group.name);
    await quiet();
  }
  progress.stop();

  const report: ScaleReport = { circumstances, groups: groupsOf(everybody), rounds };
  process.stdout.write(formatScale(summariseScale(report)));
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(report)}\n`);
}

/**
 * Waits until the kernel has freed the last hosts: it does so behind our back, and while thousands of links go nobody on the
 * machine can make a network namespace.
 */
async function quiet(): Promise<void> {
  for (let quick = 0; quick < QUICK_IN_A_ROW; ) {
    await delay(PAUSE_MS);
    const started = performance.now();
    await execa('unshare', ['--net', 'true']);
    quick = performance.now() - started < QUICK_MS ? quick + 1 : 0;
  }
}

// The axis whose hundredth-worst times are promised.
function factorOf(axis: string): number {
  return axis === 'attachments' ? 2.5 : 1;
}

function numberOf(text: string): number {
  const number = Number(text);
  if (!(number > 0)) throw new Error(`Cannot take "${text}" as a number`);
  return number;
}

/** Everybody who is on this machine, and their versions by name; who is missing is said on stderr. */
async function findCast(): Promise<{ cast: Cast; versions: Record<string, string> }> {
  const contestants = new Map<ContestantName, Contestant>();
  const implementations = new Map<ContestantName, Implementation>();
  const versions: Record<string, string> = {};

  function take(name: ContestantName, implementation: Implementation, ipMasq: 'default' | 'nftables'): void {
    contestants.set(name, cniContestant(name, implementation, ipMasq));
    implementations.set(name, implementation);
  }

  take('ours', { name: 'ours', directory: join(DIST, 'bin') }, 'default');
  const reference = await findReference(undefined, (doing) => process.stderr.write(`${doing}\n`));
  take('reference', reference, 'default');
  versions['reference'] = reference.version;
  if (reference.hasNftables) take('reference, nftables', reference, 'nftables');

  const debian = await findDebianPlugins();
  if (debian !== undefined) {
    take('Debian 1.1.1', { name: 'Debian 1.1.1', directory: debian.path }, 'default');
    versions['Debian 1.1.1'] = debian.version;
  }
  const netavark = await findNetavark();
  if (netavark !== undefined) {
    contestants.set('netavark', netavarkContestant(netavark.path));
    versions['netavark'] = netavark.version;
  }
  const docker = await findDocker();
  if (docker !== undefined) {
    contestants.set('Docker', dockerContestant());
    versions['Docker'] = docker.version;
  }
  return { cast: { contestants, implementations, netavark: netavark?.path }, versions };
}
