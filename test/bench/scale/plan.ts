// What the scale benchmark measures: one group of hosts for each point of each axis, with everybody who can be there.
// Called by scale.ts, run.ts and the report, and pure: names and numbers alone.

/** One who attaches, as the tables call it. */
export const CONTESTANTS = [
  'ours',
  'reference',
  'reference, nftables',
  'Debian 1.1.1',
  'netavark',
  'Docker',
] as const;
export type ContestantName = (typeof CONTESTANTS)[number];

/** A contestant on a host of its own; the second of ours stands beside the first on an empty host. */
export type LaneName = ContestantName | 'ours, empty node';

/** What is on a host while attachments are made, and how many of those at once. */
export interface Scene {
  /** Attachments that are there already, on eight bridges. */
  readonly attachments: number;
  /** How many clients attach at once, each a sandbox of its own. */
  readonly parallel: number;
  /** TCP and UDP ports that the measured attachment publishes. */
  readonly ports: number;
  /** iptables rules of somebody else, in table nat. */
  readonly foreignRules: number;
  /** Addresses in host-local's store for this network. */
  readonly stored: number;
}

export type Axis = keyof Scene;

/** One point of one axis. */
export interface Group {
  readonly name: string;
  /** Verb by verb in turns; clients at once; or clients at once whose memory is looked at. */
  readonly kind: 'latency' | 'clients' | 'memory';
  readonly axis: Axis;
  readonly value: number;
  readonly scene: Scene;
  readonly lanes: readonly LaneName[];
  /** Who is not there, and why. */
  readonly leftOut: readonly { readonly contestant: ContestantName; readonly reason: string }[];
}

export const AXES: Readonly<Record<Axis, { readonly title: string; readonly values: readonly number[] }>> = {
  attachments: { title: 'attachments already present', values: [0, 100, 1000, 5000] },
  parallel: { title: 'clients at once', values: [1, 4, 16, 64, 128] },
  ports: { title: 'published ports', values: [0, 1, 32, 1000] },
  foreignRules: { title: 'iptables rules of others', values: [0, 10_000, 200_000] },
  stored: { title: 'stored addresses', values: [0, 1000, 10_000, 60_000] },
};

/** Alone, nothing else on the host, two ports: each axis leaves from there. */
export const PLAIN: Scene = { attachments: 0, parallel: 1, ports: 2, foreignRules: 0, stored: 0 };

/** All groups, axis by axis. */
export function groupsOf(contestants: readonly ContestantName[]): Group[] {
  const axes = Object.keys(AXES) as Axis[];
  return [
    ...axes.flatMap((axis) => AXES[axis].values.map((value) => groupOf(axis, value, contestants))),
    ...MEMORY_AT.map((parallel) => {
      const group = groupOf('parallel', parallel, contestants);
      return { ...group, name: `memory ${parallel}`, kind: 'memory' as const };
    }),
  ];
}

/** How many clients there are when memory is looked at. */
export const MEMORY_AT = [1, 32] as const;

function groupOf(axis: Axis, value: number, contestants: readonly ContestantName[]): Group {
  const scene = { ...PLAIN, [axis]: value };
  const leftOut = contestants.flatMap((contestant) => {
    const reason = reasonToLeaveOut(contestant, axis, value);
    return reason === undefined ? [] : [{ contestant, reason }];
  });
  const there = contestants.filter((name) => !leftOut.some(({ contestant }) => contestant === name));
  const hasEmpty = value > 0 && ['attachments', 'foreignRules', 'stored'].includes(axis);
  const beside: LaneName[] = hasEmpty ? ['ours, empty node'] : [];
  const kind = axis === 'parallel' ? 'clients' : 'latency';
  return { name: `${axis} ${value}`, kind, axis, value, scene, lanes: [...there, ...beside], leftOut };
}

/** What a peer has no part in, or what would take minutes to set up or to carry out once. */
function reasonToLeaveOut(contestant: ContestantName, axis: Axis, value: number): string | undefined {
  const hasOwnStore = contestant === 'netavark' || contestant === 'Docker';
  if (axis === 'stored' && hasOwnStore) return 'it does not allocate addresses from such a store';
  if (contestant === 'Docker' && axis === 'parallel' && value > 16)
    return 'each of its clients needs a running container, a second to start';
  if (contestant === 'Docker' && axis === 'ports' && value > 32)
    return 'it starts two proxies for each port, seconds for a hundred';
  return undefined;
}
