// The nat tables of a namespace as the programs of either iptables show them, the reference plugins run there, and our
// code run there by a process of its own. Used by the kernel tests of the iptables formats.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { LOCK_DEADLINE_MS } from '../../shared/cni/lock.ts';
import type { TestNetns } from './sandbox.ts';

/** Which side of the kernel holds a table. */
export type NatFlavour = 'nft' | 'legacy';

/** Directory of Debian's package containernetworking-plugins, release 1.1.1. */
export const REFERENCE = '/usr/lib/cni';

const PROGRAMS = { 4: 'iptables', 6: 'ip6tables' } as const;

/** The rules and own chains of a nat table as the program prints them, without counters. */
export function listNat(host: TestNetns, family: 4 | 6, flavour: NatFlavour = 'nft'): string[] {
  return host
    .run(`${PROGRAMS[family]}-${flavour}-save`, '-t', 'nat')
    .split('\n')
    .filter((line) => /^(-A|:CNI)/.test(line))
    .map((line) => line.replace(/ \[\d+:\d+\]$/, ''));
}

/** Has the program carry out commands on a nat table. */
export function feedNat(
  host: TestNetns,
  family: 4 | 6,
  flavour: NatFlavour,
  ...commands: readonly string[]
): void {
  feedText(host, family, flavour, `*nat\n${commands.join('\n')}\nCOMMIT\n`);
}

/** As `feedNat`, with a text as iptables-restore reads it. */
export function feedText(host: TestNetns, family: 4 | 6, flavour: NatFlavour, text: string): void {
  host.feed(text, `${PROGRAMS[family]}-${flavour}-restore`, '--noflush');
}

/** What a reference plugin is called with besides its config. */
export interface ReferenceCall {
  readonly plugin: string;
  readonly verb: 'ADD' | 'DEL';
  readonly containerId: string;
  readonly ifname?: string;
  readonly netns: string;
}

/** Runs a reference plugin in the namespace; throws when it fails. */
export function runReference(host: TestNetns, call: ReferenceCall, config: object): void {
  const environment = Object.entries({
    PATH: '/usr/sbin:/usr/bin:/sbin:/bin',
    CNI_COMMAND: call.verb,
    CNI_CONTAINERID: call.containerId,
    CNI_IFNAME: call.ifname ?? 'eth0',
    CNI_NETNS: call.netns,
    CNI_PATH: REFERENCE,
  }).map(([name, value]) => `${name}=${value}`);
  host.feed(JSON.stringify(config), 'env', '-i', ...environment, `${REFERENCE}/${call.plugin}`);
}

/**
 * Runs lines of our code in the namespace by a process of its own, entered through `wrapper`, and gives its exit code.
 * The lines get what they name from the files of this checkout: `{ addHostports: 'shared/iptables/hostports.ts' }`.
 */
export async function runInAnotherProcess(
  host: TestNetns,
  lines: string,
  imports: Readonly<Record<string, string>>,
  wrapper: readonly string[] = [],
): Promise<number | null> {
  const root = join(import.meta.dirname, '../..');
  const imported = Object.entries(imports).map(
    ([name, file]) => `import { ${name} } from '${root}/${file}';`,
  );
  const script = [...imported, lines].join('\n');
  const node = [
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    '--input-type=module',
    '-e',
    script,
  ];
  const child = spawn('nsenter', [`--net=${host.path}`, ...wrapper, ...node], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  await once(child, 'exit');
  return child.exitCode;
}

/**
 * How many processes that take turns at one lock may run at once here: `wanted`, or as few as can be done before the
 * first of them gives up waiting. `once` does the work of one alone. On however many processors, the last of N has
 * waited no longer than N alone take one after the other, and giving up after that time is promised, no failure: an
 * emulated machine, on which a program takes twenty times as long to start, gets fewer, and says so.
 */
export async function countAtOnce(wanted: number, once: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await once();
  const ms = performance.now() - start;
  const count = Math.max(2, Math.min(wanted, Math.floor(LOCK_DEADLINE_MS / ms)));
  if (count < wanted) {
    console.log(`${count} at once instead of ${wanted}: one alone takes ${Math.round(ms)} ms here`);
  }
  return count;
}
