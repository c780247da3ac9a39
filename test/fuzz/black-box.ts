// The packaged executables on private hosts: whatever a call holds, it ends with a result or a typed error, and a call that
// fails leaves the host as it was. Called by fuzz.ts for the long run and by black-box.test.ts for the short one.
import fc from 'fast-check';
import { difference } from '../support/snapshot.ts';
import type { WireEnd } from './black-box-runner.ts';
import type { ChunkReport, Finding } from './driver.ts';
import { type FuzzHost, openFuzzHost } from './fuzz-host.ts';
import { type FuzzedCall, processCall } from './inputs/calls.ts';
import { judge } from './judge.ts';
import { BLACK_BOX } from './state.ts';
import { BrokenPromise, promise } from './target.ts';

export interface BlackBoxRun {
  readonly seed: number;
  readonly cases: number;
  /** Where an earlier run was stopped. */
  readonly firstBatch: number;
  /** Called after each batch, in order; false ends the run. */
  readonly onBatch: (report: ChunkReport) => boolean;
}

const CALL = processCall();

/** Calls between two looks at the host. */
const BATCH = 100;

/** Hosts in use at a time; each runs one call after the other. */
const LANES = 2;

/** Runs as many batches as make up the cases. */
export async function runBlackBox({ seed, cases, firstBatch, onBatch }: BlackBoxRun): Promise<void> {
  const count = Math.ceil(cases / BATCH);
  if (firstBatch >= count) return;
  const lanes = await Promise.all(Array.from({ length: LANES }, () => openLane()));
  try {
    for (let batch = firstBatch; batch < count; batch += LANES) {
      const reports = await Promise.all(
        lanes.slice(0, count - batch).map((lane, offset) => runBatch(lane, seed, batch + offset)),
      );
      if (!reports.map(onBatch).every((goesOn) => goesOn)) return;
    }
  } finally {
    await Promise.all(lanes.map((lane) => lane.host[Symbol.asyncDispose]()));
  }
}

/** Makes one call of a finding again, `BATCH:INDEX` on a host of its own; throws what it breaks. */
export async function replayBlackBox(seed: number, path: string): Promise<string> {
  const [batch, index] = path.split(':').map(Number);
  const call = callsOf(seed, batch ?? 0)[index ?? 0];
  if (call === undefined) throw new Error(`There is no case ${path}`);
  console.log(describeCall(call));
  const { ends, changes } = await runOnFreshHost([call]);
  const outcome = judgeEnd(call, ends[0]);
  if (mayChange(call, ends[0])) expectNothingLeft(changes);
  else promise(changes.length === 0, `The host changed: ${changes.join('\n')}`);
  return outcome;
}

/** A host that is used until something stays on it. */
interface Lane {
  host: FuzzHost;
  before: Awaited<ReturnType<FuzzHost['snapshot']>>;
}

async function openLane(): Promise<Lane> {
  const host = await openFuzzHost();
  return { host, before: await host.snapshot() };
}

async function renew(lane: Lane): Promise<void> {
  await lane.host[Symbol.asyncDispose]();
  Object.assign(lane, await openLane());
}

async function runBatch(lane: Lane, seed: number, batch: number): Promise<ChunkReport> {
  const calls = callsOf(seed, batch);
  const outcomes: Record<string, number> = {};
  const report = (index: number, error: unknown): ChunkReport => ({
    cases: calls.length,
    outcomes,
    finding: findingOf(seed, batch, index, calls[index], error),
  });
  const ends = await lane.host.run(calls);
  const changes = difference(lane.before, await lane.host.snapshot());
  if (changes.length > 0) await renew(lane);
  for (const [index, call] of calls.entries()) {
    try {
      const outcome = judgeEnd(call, ends[index]);
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    } catch (error) {
      return report(index, error);
    }
  }
  const guilty = changes.length === 0 ? undefined : await findGuilty(calls, ends, changes);
  return guilty === undefined ? { cases: calls.length, outcomes } : report(guilty.index, guilty.error);
}

interface Guilty {
  readonly index: number;
  readonly error: unknown;
}

// A call that succeeded may leave what is meant to stay, but nothing of an attachment.
async function findGuilty(
  calls: readonly FuzzedCall[],
  ends: readonly WireEnd[],
  changes: readonly string[],
): Promise<Guilty | undefined> {
  const run = async (indices: readonly number[]): Promise<readonly string[]> =>
    (await runOnFreshHost(indices.flatMap((index) => calls[index] ?? []))).changes;
  const all = [...calls.keys()];
  const innocent = all.filter((index) => !mayChange(calls[index], ends[index]));
  const changed = await bisect(innocent, run, (lines) => lines.length > 0);
  if (changed !== undefined || !changes.some(isOfAttachment)) return changed;
  return await bisect(all, run, (lines) => lines.some(isOfAttachment));
}

/**
 * The one of the calls after which a fresh host is different in that way; undefined when it is after none. Where it takes
 * several together, the first of them stands for all.
 */
export async function bisect(
  indices: readonly number[],
  run: (indices: readonly number[]) => Promise<readonly string[]>,
  isBad: (changes: readonly string[]) => boolean,
): Promise<Guilty | undefined> {
  const changes = await run(indices);
  const [first, ...others] = indices;
  if (first === undefined || !isBad(changes)) return undefined;
  const itself = { index: first, error: new BrokenPromise(`The host changed:\n${changes.join('\n')}`) };
  if (others.length === 0) return itself;
  const half = Math.ceil(indices.length / 2);
  return (
    (await bisect(indices.slice(0, half), run, isBad)) ??
    (await bisect(indices.slice(half), run, isBad)) ??
    itself
  );
}

async function runOnFreshHost(
  calls: readonly FuzzedCall[],
): Promise<{ ends: readonly WireEnd[]; changes: string[] }> {
  await using host = await openFuzzHost();
  const before = await host.snapshot();
  const ends = await host.run(calls);
  return { ends, changes: difference(before, await host.snapshot()) };
}

/** Whether a call that ended so has the right to leave something: a bridge that was made, a chain, a directory. */
function mayChange(call: FuzzedCall | undefined, end: WireEnd | undefined): boolean {
  const command = call?.env['CNI_COMMAND'] ?? '';
  return end?.exitCode === 0 && ['ADD', 'DEL', 'GC'].includes(command);
}

/**
 * What belongs to an attachment goes with it, whatever else stays: host links, elements, leases. The resident's are never
 * touched.
 */
function isOfAttachment(line: string): boolean {
  return /\bveth[0-9a-f]{11}\b|nft element|\\r\\n|resident/.test(line);
}

function expectNothingLeft(changes: readonly string[]): void {
  promise(!changes.some(isOfAttachment), `Something is left:\n${changes.join('\n')}`);
}

/** The end of a call, and of the DEL that undid it, as a word. Throws BrokenPromise. */
function judgeEnd({ env }: FuzzedCall, end: WireEnd | undefined): string {
  if (end === undefined) throw new BrokenPromise('There is no end');
  const command = env['CNI_COMMAND'] ?? '';
  promise(end.signal === null, `It was ended by ${end.signal}: ${end.stderr}`);
  promise(!/FATAL|node:internal|^ {4}at /m.test(end.stderr), `It said: ${end.stderr}`);
  if (command === '') return end.exitCode === 0 ? 'ok' : judge(command, end);
  const outcome = judge(command, end);
  if (end.undone !== undefined) {
    const undone = judge('DEL', end.undone);
    promise(undone === 'ok', `The DEL after the ADD ended with ${undone}: ${end.undone.stdout}`);
  }
  return `${isVerb(command) ? command : 'other'} ${outcome}`;
}

function isVerb(command: string): boolean {
  return ['ADD', 'CHECK', 'DEL', 'STATUS', 'GC', 'VERSION'].includes(command);
}

function callsOf(seed: number, batch: number): readonly FuzzedCall[] {
  return fc.sample(CALL, { seed: (seed + Math.imul(batch, 0x9e3779b1)) | 0, numRuns: BATCH });
}

function findingOf(
  seed: number,
  batch: number,
  index: number,
  call: FuzzedCall | undefined,
  error: unknown,
): Finding {
  return {
    target: BLACK_BOX,
    replay: `${BLACK_BOX}:${seed}:${batch}:${index}`,
    input: call === undefined ? '' : describeCall(call),
    error: error instanceof Error ? error.message : String(error),
  };
}

function describeCall({ plugin, env, stdin }: FuzzedCall): string {
  const variables = Object.entries(env).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return `${variables.join(' ')} ${plugin} <<< ${JSON.stringify(Buffer.from(stdin).toString('latin1'))}`;
}
