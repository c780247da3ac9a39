// What the benchmark of published ports prepares and promises, where no kernel is needed to tell.
// Run by vitest, project "unit".

import { expect, test } from 'vitest';
import { ownerIn } from '../../../shared/cni/attachment.ts';
import { judge } from '../../bench/limits.ts';
import type { Measured } from '../../bench/measure.ts';
import { portmapConfigOf, portsFrom } from '../../bench/network.ts';
import { crowdOf, foreignRules, portElements } from '../../bench/prefill.ts';
import { NAMES, scenariosOf } from '../../bench/scenarios.ts';

const CROWD = { attachments: 10, portsEach: 2, networks: 4, stored: 0, foreignRules: 0 } as const;
const SCENARIOS = scenariosOf({
  ours: { name: 'ours', directory: '/ours' },
  reference: { name: 'reference', directory: '/reference' },
  empty: undefined,
  referenceHasNftables: true,
  hasCompiler: true,
});

test('ports are consecutive, and take the protocols in turn', () => {
  expect(portsFrom(20_000, 3, ['tcp', 'udp'])).toEqual([
    { hostPort: 20_000, containerPort: 1000, protocol: 'tcp' },
    { hostPort: 20_001, containerPort: 1001, protocol: 'udp' },
    { hostPort: 20_002, containerPort: 1002, protocol: 'tcp' },
  ]);
});

test('both implementations are given a backend only where both run on the same', () => {
  const shape = { families: 'IPv4', ports: portsFrom(1, 1, ['tcp']) } as const;
  const config = (ipMasq: 'default' | 'nftables') =>
    portmapConfigOf({ ...shape, ipMasq }, { prevResult: {} });
  expect(config('default')).not.toHaveProperty('backend');
  expect(config('nftables')).toMatchObject({
    backend: 'nftables',
    runtimeConfig: { portMappings: shape.ports },
  });
});

test('each of a crowd has ports of its own, below the measured ones, and comments that name it', () => {
  const lines = portElements(crowdOf(CROWD), CROWD).trimEnd().split('\n');
  const ports = lines.flatMap((line) => /hostports4 \{ \w+ \. (\d+) /.exec(line)?.[1] ?? []);
  expect(ports.toSorted()).toEqual(Array.from({ length: 20 }, (_, i) => String(10_000 + i)));
  const owners = lines.map((line) => ownerIn(/comment "(.*)"/.exec(line)?.[1] ?? '')?.ownerHash);
  expect(owners).not.toContain(undefined);
  expect(new Set(owners).size).toBe(10);
});

test('an element leads to the address its owner was leased, and the way back to the chain of its subnet', () => {
  const [member] = crowdOf(CROWD).slice(5); // the second on network 1
  const lines = portElements(member === undefined ? [] : [member], CROWD);
  expect(lines).toMatch(/hostports4 \{ tcp \. 10010 comment ".*" : 10\.201\.0\.3 \. 1000 \}/);
  expect(lines).toMatch(/hostports4 \{ udp \. 10011 comment ".*" : 10\.201\.0\.3 \. 1001 \}/);
  expect(lines).toMatch(/hairpin4 \{ 10\.201\.0\.3 comment ".*" : jump hairpin4-10\.201\.0\.0\/16 \}/);
});

test('there are as many foreign rules as asked for, each in a chain that is declared', () => {
  const lines = foreignRules(20_000).split('\n');
  const declared = new Set(lines.flatMap((line) => /^:(\S+) /.exec(line)?.[1] ?? []));
  const used = lines.flatMap((line) => /^-A (\S+) /.exec(line)?.[1] ?? []);
  expect(used).toHaveLength(20_000);
  expect(used.filter((chain) => !declared.has(chain))).toEqual([]);
});

test('the crowd of portmap publishes 2,000 mappings', () => {
  const scenario = SCENARIOS.find(({ name }) => name === NAMES.connections);
  const [ours, alone] = scenario?.lanes ?? [];
  expect(ours?.prefill).toMatchObject({ attachments: 1000, portsEach: 2 });
  expect(alone?.prefill.attachments).toBe(0);
});

test('a figure in connections per second holds at its limit and above, and is missed below', () => {
  const figure = 'new connections per second at 2,000 mappings ÷ at 1';
  const verdict = (crowdedMs: number) =>
    judge([connections(crowdedMs, 90)], []).find((one) => one.figure === figure);
  expect(verdict(100)).toMatchObject({ bound: 'at least', value: 0.9, holds: true });
  expect(verdict(80)).toMatchObject({ holds: true });
  expect(verdict(101)).toMatchObject({ holds: false });
});

test('every promised ratio refers to a scenario and to lanes that exist', () => {
  const measured = SCENARIOS.map(({ name, lanes }): Measured => {
    const verbs = ['ADD', 'CHECK', 'DEL', 'DEL unknown', 'VERSION', 'connect'];
    const series = lanes.flatMap((lane) =>
      verbs.map((verb) => ({ lane: lane.name, verb, wallMs: [1], cpuMs: [1] })),
    );
    return { scenario: name, series };
  });
  const open = judge(measured, []).filter(({ holds }) => holds === undefined);
  const names = open.map(({ figure }) => figure).filter((figure) => !/^programs|^peak/.test(figure));
  // There is none among these contestants.
  expect(names).toEqual(['VERSION ÷ empty packaged program', 'whole patchbay ADD ÷ empty packaged program']);
});

test('programs are judged for each plugin apart', () => {
  const footprint = { implementation: 'ours', verb: 'ADD', peakMb: 50 } as const;
  const verdicts = judge(
    [],
    [
      { ...footprint, plugin: 'bridge', programs: 2 },
      { ...footprint, plugin: 'portmap', programs: 1 },
    ],
  );
  const holds = (figure: string) => verdicts.find((verdict) => verdict.figure === figure)?.holds;
  expect(holds('programs started by bridge ADD, own host-local')).toBe(false);
  expect(holds('programs started by portmap ADD')).toBe(true);
});

function connections(crowdedMs: number, aloneMs: number): Measured {
  const series = (lane: 'ours' | 'ours, 1 mapping', ms: number) => ({
    lane,
    verb: 'connect',
    wallMs: [ms],
    cpuMs: [ms],
  });
  return {
    scenario: NAMES.connections,
    series: [series('ours', crowdedMs), series('ours, 1 mapping', aloneMs)],
  };
}
