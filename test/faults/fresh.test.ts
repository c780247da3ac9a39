// The very first ADD on a host, which also makes bridge, gateway addresses, store, table and settings: killed anywhere,
// the next one finishes the work; and what somebody else makes in the same moment is taken as it is. Part of `npm test`
// with a share of these points, and of `npm run test:faults` with every recovery at every point.
import { describe, expect, test } from 'vitest';
import { type Chain, NATIVE, nameOf, type Stage, stagesOf, TOGETHER } from '../support/fault-chain.ts';
import {
  listElsewhere,
  listPoints,
  type Place,
  type Point,
  placesOf,
  runDelayed,
  runKilled,
  textOf,
  untilMet,
} from '../support/fault-points.ts';
import { inParallel, pick, report, TIMEOUT, thin } from '../support/fault-scale.ts';
import {
  calls,
  collect,
  delChain,
  finishChain,
  type Ground,
  type Progress,
  reach,
  retryChain,
  settle,
} from '../support/fault-scene.ts';
import { openPrivateHost } from '../support/private-host.ts';
import { expectError, expectResult, type PluginCall } from '../support/run-plugin.ts';
import { difference, type Snapshot } from '../support/snapshot.ts';
import type { Traced } from '../support/strace.ts';

const LANES = 3;

interface FreshGround extends Ground, AsyncDisposable {}

async function openFresh(chain = NATIVE): Promise<FreshGround> {
  const host = await openPrivateHost();
  const sandbox = await host.addSandbox('pod');
  return { chain, host, sandbox, [Symbol.asyncDispose]: () => host.close() };
}

const ADDITIONS = [NATIVE, TOGETHER]
  .flatMap(stagesOf)
  .filter(({ verb }) => verb === 'ADD')
  .map((stage) => [nameOf(stage), stage] as const);
const [FIRST] = stagesOf(NATIVE) as [Stage];

interface Recovery {
  readonly name: string;
  run(ground: Ground, progress: Progress): Promise<void>;
}

const RECOVERIES: readonly Recovery[] = [
  {
    name: 'DEL without anything known',
    run: (ground, { result }) => delChain(ground, result, { netns: false, prevResult: false }),
  },
  {
    name: 'ADD again',
    async run(ground, { result }) {
      await delChain(ground, (await retryChain(ground)) ?? result);
    },
  },
  { name: 'GC', run: collect },
];

interface Trial extends Place {
  readonly stage: Stage;
  readonly recovery: Recovery;
}

describe('the first ADD of a host, killed at any system call that changes something,', () => {
  test.for(ADDITIONS)('is made good: %s', TIMEOUT, async ([, stage]) => {
    const wanted = await afterOneAttachment(stage.chain);
    const points = await pointsOf(stage);
    const places = thin(placesOf(points), 3);
    const trials = places.flatMap((place, turn) =>
      pick(RECOVERIES, turn).map((recovery): Trial => ({ ...place, stage, recovery })),
    );
    const outcomes = await inParallel(trials, LANES, async (trial) => {
      const { point, side, recovery } = trial;
      try {
        await untilMet(() => tryOnce(trial, wanted));
        return undefined;
      } catch (error) {
        const said = error instanceof Error ? error.message : String(error);
        return `killed ${side} ${textOf(point)}, then ${recovery.name}: ${said}`;
      }
    });
    const problems = outcomes.filter((problem) => problem !== undefined);
    report(`${nameOf(stage)}, on a fresh host`, {
      points: points.length,
      'points killed': trials.length,
      converged: trials.length - problems.length,
    });
    expect(problems).toEqual([]);
  });
});

async function tryOnce(trial: Trial, wanted: Snapshot): Promise<true | undefined> {
  const { stage, recovery } = trial;
  await using ground = await openFresh(stage.chain);
  const progress = await reach(ground, stage);
  const killed = await runKilled(ground.host, stage.verb, progress.call, trial);
  if (killed === undefined) return undefined;
  await recovery.run(ground, progress);
  expect((await stateOf(ground)).filter((line) => TRACE.test(line))).toEqual([]);
  await settle(ground);
  expect(difference(wanted, await stateOf(ground))).toEqual([]);
  return true;
}

/** What no attachment leaves behind: links, addresses, elements. */
const TRACE = /^(host link veth|pod link eth0|nft element|file \S+\/10\.92\.\S+ |file \S+\/fd00:\S+ )/;

async function pointsOf(stage: Stage): Promise<Point[]> {
  await using ground = await openFresh(stage.chain);
  const { call } = await reach(ground, stage);
  const points = await listPoints(ground.host, stage.verb, call);
  return points.filter(({ isChange }) => isChange);
}

async function afterOneAttachment(chain: Chain): Promise<Snapshot> {
  await using ground = await openFresh(chain);
  await settle(ground);
  return await stateOf(ground);
}

/** The bridge has a MAC of its own on every host, and the index beside the store is no state. */
async function stateOf({ host }: Ground): Promise<Snapshot> {
  const lines = await host.snapshot();
  return lines
    .filter((line) => !line.includes('/networks/.patchbay'))
    .map((line) => line.replace(/^(host link cni-ports0 .*address) \S+/, '$1 MASKED'))
    .sort();
}

interface Race {
  readonly title: string;
  /** The point before which it happens, by label and count. */
  readonly label: RegExp;
  readonly nth: number;
  /** What somebody else does, a line of shell. */
  readonly rival: string;
  /** What the trace shows when the race was one. */
  readonly sign: RegExp;
}

const RACES: readonly Race[] = [
  {
    title: 'the bridge',
    label: /RTM_NEWLINK$/,
    nth: 0,
    rival: 'ip link add cni-ports0 type bridge',
    sign: /EEXIST/,
  },
  {
    title: 'the IPv4 gateway address',
    label: /RTM_NEWADDR$/,
    nth: 0,
    rival: 'ip addr add 10.92.0.1/24 dev cni-ports0',
    sign: /EEXIST/,
  },
  {
    title: 'the IPv6 gateway address',
    label: /RTM_NEWADDR$/,
    nth: 1,
    rival: 'ip addr add fd00:92::1/64 dev cni-ports0 nodad',
    sign: /EEXIST/,
  },
  {
    title: 'the directory of the store',
    label: /^mkdir networks\/ports$/,
    nth: -1,
    rival: 'mkdir -p /var/lib/cni/networks/ports',
    sign: /EEXIST/,
  },
  {
    title: 'the table',
    label: /BATCH_BEGIN/,
    nth: 0,
    rival: 'nft add table inet patchbay',
    sign: /ERESTART/,
  },
];

describe('what somebody else makes at the same moment is as good as ours:', () => {
  test.each(RACES)('$title', async ({ label, nth, rival, sign }) => {
    const points = (await pointsOf(FIRST)).filter((point) => label.test(point.label));
    const point = points.at(nth);
    if (point === undefined) throw new Error(`There is no ${label}`);
    await using ground = await openFresh();
    const { host } = ground;
    const call = firstCall(ground);
    const traced = await runDelayed(host, 'ADD', call, point, () => host.shell(rival));
    expect(traced.lines.join('\n')).toMatch(sign);
    await finishChain(ground, { stage: FIRST, call, result: undefined }, traced);
  });
});

describe('what somebody else makes at the same moment stays theirs:', () => {
  test('a link of the same name in the sandbox, and nothing else is left', async () => {
    await using ground = await openFresh();
    await settle(ground);
    const traced = await raced(ground, /RTM_NEWLINK$/, 'ip -n pod link add eth0 type bridge');
    expect(expectError(traced)).toMatchObject({ code: 102, msg: expect.stringMatching(/DEL/) });
    const lines = await stateOf(ground);
    expect(lines).toContainEqual(expect.stringMatching(/^pod link eth0 .*info_kind bridge/));
    expect(lines.filter((line) => TRACE.test(line) && !line.startsWith('pod link eth0'))).toEqual([]);
  });

  test('an address of the store, and the next one is given', async () => {
    await using ground = await openFresh();
    await settle(ground);
    const rival = 'printf "rival\\r\\neth0" > /var/lib/cni/networks/ports/10.92.0.3';
    const { ips } = expectResult(await raced(ground, /^link /, rival));
    expect(ips?.[0]?.address).toBe('10.92.0.4/24');
    await delChain(ground, undefined);
    expect((await stateOf(ground)).filter((line) => TRACE.test(line))).toEqual([
      expect.stringContaining('"rival\\r\\neth0"'),
    ]);
  });

  async function raced(ground: Ground, label: RegExp, rival: string): Promise<Traced> {
    const { host } = ground;
    const call = firstCall(ground);
    const point = (await pointsOfSettled()).find((candidate) => label.test(candidate.label));
    if (point === undefined) throw new Error(`There is no ${label}`);
    return runDelayed(host, 'ADD', call, point, () => host.shell(rival));
  }

  async function pointsOfSettled(): Promise<Point[]> {
    await using ground = await openFresh();
    await settle(ground);
    return await listPoints(ground.host, 'ADD', firstCall(ground));
  }
});

test('nothing is changed by any thread but the one that is looked at', async () => {
  await using ground = await openFresh();
  const call = firstCall(ground);
  expect(await listElsewhere(ground.host, 'ADD', call)).toEqual([]);
  expect(await listElsewhere(ground.host, 'DEL', call)).toEqual([]);
});

function firstCall(ground: Ground): PluginCall {
  return calls(ground, undefined)[0] as PluginCall;
}
