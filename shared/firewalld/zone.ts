// firewalld, asked over the system bus to take a container's addresses into a zone, as the reference does. Called by
// firewall; `busctl` runs only where firewalld is, or where the config says so.
import { internal, notAvailable } from '../cni/error.ts';
import { formatIp, type Ip, ipToBytes } from '../ip/cidr.ts';
import { inPhase } from '../linux/phases.ts';
import { findProgram, PROGRAM_DIRECTORIES } from '../linux/programs.ts';
import { run } from '../linux/spawn.ts';
import type { Nftables } from '../nftables/nftables.ts';
import type { TableRef } from '../nftables/objects.ts';

const BUS_NAME = 'org.fedoraproject.FirewallD1';
const OBJECT = '/org/fedoraproject/FirewallD1';
const INTERFACE = 'org.fedoraproject.FirewallD1.zone';
/** Reloading firewalld takes seconds, during which it answers nobody. */
const TIMEOUT_MS = 30_000;

/** Where firewalld with nftables keeps its rules: of family inet, or ip and ip6 in early releases. */
const TABLES: readonly TableRef[] = (['inet', 'ip', 'ip6'] as const).map((family) => ({
  family,
  name: 'firewalld',
}));

/** Whether a table is firewalld's own. */
export function isFirewalldTable({ family, name }: TableRef): boolean {
  return TABLES.some((table) => table.family === family && table.name === name);
}

/** Whether `busctl`, by which we speak to it, is installed. */
export function hasBusctl(): boolean {
  return findProgram('busctl') !== undefined;
}

/**
 * Takes the address into the zone; one that is in it already stays. Throws CniError `notAvailable` when firewalld does
 * not answer or `busctl` is missing, `internal` with its words when it refuses.
 * Equivalent to: `firewall-cmd --zone=trusted --add-source=10.22.0.2/32`
 */
export function addSource(zone: string, ip: Ip): void {
  const { refusal } = call('addSource', zone, ip);
  if (refusal === undefined || (/ALREADY/.test(refusal) && querySource(zone, ip))) {
    return;
  }
  throw internal(`Cannot add "${sourceOf(ip)}" to zone "${zone}" of firewalld: ${refusal}`);
}

/** Takes the address out of the zone; one that is not in it is no error. Throws as `addSource` does. */
export function removeSource(zone: string, ip: Ip): void {
  const { refusal } = call('removeSource', zone, ip);
  if (refusal !== undefined && !/UNKNOWN_SOURCE|NOT_ENABLED|INVALID_ZONE|ZONE_CONFLICT/.test(refusal)) {
    throw internal(`Cannot remove "${sourceOf(ip)}" from zone "${zone}" of firewalld: ${refusal}`);
  }
}

/** Whether the zone has the address. Throws as `addSource` does. */
export function querySource(zone: string, ip: Ip): boolean {
  const { refusal, answer } = call('querySource', zone, ip);
  if (refusal !== undefined) {
    throw internal(`Cannot ask for "${sourceOf(ip)}" in zone "${zone}" of firewalld: ${refusal}`);
  }
  return answer === 'b true';
}

/** Throws CniError `notAvailable` unless firewalld answers on the bus. */
export function expectFirewalld(): void {
  const bus = 'org.freedesktop.DBus';
  const question = ['call', bus, '/org/freedesktop/DBus', bus, 'NameHasOwner', 's', BUS_NAME];
  const { stdout, stderr } = runBusctl(question);
  if (stdout.trim() !== 'b true') {
    throw notRunning(stderr);
  }
}

/** Whether a rule of firewalld's tables names the address: what is not in the kernel need not be taken out. */
export function isNamedByFirewalld(nft: Nftables, ip: Ip): boolean {
  const address = ipToBytes(ip);
  return TABLES.some((table) =>
    nft.listRules({ table }).some(({ program }) => {
      return Buffer.from(program.buffer, program.byteOffset, program.length).includes(address);
    }),
  );
}

interface Reply {
  /** What firewalld said when it refused. */
  readonly refusal: string | undefined;
  readonly answer: string;
}

function call(method: string, zone: string, ip: Ip): Reply {
  const args = ['call', BUS_NAME, OBJECT, INTERFACE, method, 'ss', zone, sourceOf(ip)];
  const { exitCode, stdout, stderr } = runBusctl(args);
  const refusal = exitCode === 0 ? undefined : /^Call failed: ([A-Z_]+: .*)$/m.exec(stderr)?.[1];
  if (exitCode !== 0 && refusal === undefined) {
    throw notRunning(stderr);
  }
  return { refusal, answer: stdout.trim() };
}

function runBusctl(args: readonly string[]): {
  exitCode: number | undefined;
  stdout: string;
  stderr: string;
} {
  const program = findProgram('busctl');
  if (program === undefined) {
    throw notAvailable(
      'Cannot find program "busctl", by which firewalld is asked: install package "systemd"',
      {
        details: `Searched ${PROGRAM_DIRECTORIES.join(', ')}`,
      },
    );
  }
  // A call must not be what starts firewalld.
  const options = ['--system', '--auto-start=no', '--'];
  const wish = { args: [...options, ...args], timeoutMs: TIMEOUT_MS };
  const { exitCode, stdout, stderr } = inPhase('programs', () => run(program, wish));
  return { exitCode, stdout: stdout.toString(), stderr: stderr.toString() };
}

function notRunning(stderr: string): Error {
  const reason = stderr.trim().split('\n')[0] ?? '';
  return notAvailable(
    'firewalld does not answer on the system bus; start it, or set "backend" to "nftables"',
    {
      ...(reason !== '' && { details: reason }),
    },
  );
}

function sourceOf(ip: Ip): string {
  return `${formatIp(ip)}/${ip.family === 4 ? 32 : 128}`;
}
