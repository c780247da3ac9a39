// The C programs that the benchmark holds ours against do what ours do, call by call and byte by byte.
// Run by vitest, project "binary".
import { describe, expect, test } from 'vitest';
import { type BenchHost, openBenchHost } from '../bench/host.ts';
import {
  findLimitObstacle,
  type Invocation,
  LIMIT_VERBS,
  type LimitVerb,
  makeLimitPrograms,
  trace,
} from '../bench/limit/limit.ts';
import { parseRecording, type RecordedCall } from '../bench/limit/recording.ts';
import { configOf, invocation, MEASURED, patchbayConfigOf, portsFrom, storeOf } from '../bench/network.ts';
import { pluginDirectory } from '../support/run-plugin.ts';

const SHAPE = { families: 'IPv4', ipMasq: 'default', ports: portsFrom(20_000, 2, ['tcp', 'udp']) } as const;
const obstacle = await findLimitObstacle();

describe.skipIf(obstacle !== undefined)(
  `Bare calls in C${obstacle === undefined ? '' : `: ${obstacle}`}`,
  () => {
    test.each(['bridge', 'patchbay'] as const)('do the work of %s', { timeout: 60_000 }, async (plugin) => {
      const call: Invocation = (verb, prevResult) =>
        invocation(
          { name: 'ours', directory: pluginDirectory() },
          plugin,
          verb,
          MEASURED,
          plugin === 'bridge' ? configOf(SHAPE, { prevResult }) : patchbayConfigOf(SHAPE, { prevResult }),
        );
      await using host = await openBenchHost();
      for (let round = 0; round < 2; round++) {
        const { stdout } = await host.run(call('ADD', undefined));
        await host.run(call('DEL', JSON.parse(stdout)));
      }
      using programs = await makeLimitPrograms(host, call, `${storeOf(0)}/last_reserved_ip.0`);
      const before = await stateOf(host);
      const bare = (verb: LimitVerb) => ({
        ...call(verb, programs.result),
        argv: [`${programs.directory}/${verb}`],
      });

      for (const verb of LIMIT_VERBS) {
        const { lines } = await trace(host, bare(verb));
        const [first, second] = programs.recordings[verb];
        expect(masked(parseRecording(lines), first, second), verb).toEqual(masked(first, first, second));
        if (verb === 'ADD')
          expect(await host.run(call('CHECK', programs.result))).toMatchObject({ exitCode: 0 });
      }
      expect(await stateOf(host)).toBe(before);
    });
  },
);

/** Names, whether they succeeded, and what was sent, without the words that two runs of ours differ in. */
function masked(
  calls: readonly RecordedCall[],
  first: readonly RecordedCall[],
  second: readonly RecordedCall[],
): string[] {
  return calls.map(({ name, result, bytes }, i) => {
    const sent = Buffer.from(name === 'sendto' ? bytes : []);
    const [one, two] = [first[i]?.bytes ?? sent, second[i]?.bytes ?? sent];
    for (let offset = 0; offset + 4 <= Math.min(sent.length, one.length, two.length); offset += 4) {
      if (one.readUInt32LE(offset) !== two.readUInt32LE(offset)) sent.fill(0, offset, offset + 4);
    }
    return `${name} ${result === undefined ? 'fails' : 'succeeds'} ${sent.toString('hex')}`;
  });
}

// Without whether a link is up: a bridge tells that it has lost its last port a little later.
async function stateOf(host: BenchHost): Promise<string> {
  return host.shell(`
    for host in '' '-n s1'; do ip $host -br link | cut -d ' ' -f 1; done; ls ${storeOf(0)}
    nft list ruleset | grep -v counter
  `);
}
