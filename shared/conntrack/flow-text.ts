// The kernel's list of flows as text, /proc/net/nf_conntrack: what a line says, and reading them all.
// conntrack.ts looks there when there are few flows, since the kernel passes its empty buckets without a lock then.
import { type Family, type Ip, parseIp } from '../ip/cidr.ts';
import { readContent } from '../linux/files.ts';
import { inPhase } from '../linux/phases.ts';
import { type FlowFilter, type FlowIdentity, type FlowProtocol, matches } from './flow.ts';

/**
 * The flows of the namespace this thread is in, a line each; `undefined` where the kernel was built without the file, or where it
 * belongs to nobody, as in a user namespace made together with its network namespace. Throws Node's error when it cannot be
 * read for another reason. Equivalent to: `cat /proc/net/nf_conntrack`
 */
export function readFlowText(): string | undefined {
  try {
    const content = inPhase('flows', () => readContent('/proc/thread-self/net/nf_conntrack'));
    return typeof content === 'object' ? content.text : undefined;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EACCES') return undefined;
    throw error;
  }
}

/**
 * Of the flows in `text` those that match any of the filters. A line that is not as net/netfilter/nf_conntrack_standalone.c
 * writes it is left out.
 */
export function findFlows(text: string, filters: readonly FlowFilter[]): FlowIdentity[] {
  const found: FlowIdentity[] = [];
  for (const line of text.split('\n')) {
    // Looking for a word is much cheaper than taking every line apart; the port of the reply comes later in the line.
    if (!filters.some(({ dstPort }) => line.includes(` dport=${dstPort} `))) continue;
    const flow = parseLine(line);
    if (flow === undefined) continue;
    const key = { family: flow.family, protocol: flow.protocol, dstPort: flow.original.dstPort };
    if (filters.some((filter) => matches(filter, key))) found.push(flow);
  }
  return found;
}

/** `ipv4     2 udp      17 29 src=192.0.2.1 dst=203.0.113.1 sport=4000 dport=53 [UNREPLIED] src=… zone=1 use=2` */
const LINE = /^ipv([46]) +\d+ (tcp|udp|sctp) .*?src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+) /;
const ZONE = / zone(?:-orig)?=(\d+) /;

function parseLine(line: string): FlowIdentity | undefined {
  const [, version, protocol, src, dst, srcPort, dstPort] = LINE.exec(line) ?? [];
  const family: Family = version === '6' ? 6 : 4;
  const [source, destination] = [toIp(src, family), toIp(dst, family)];
  if (source === undefined || destination === undefined) return undefined;
  return {
    family,
    protocol: protocol as FlowProtocol,
    original: { src: source, dst: destination, srcPort: Number(srcPort), dstPort: Number(dstPort) },
    zone: Number(ZONE.exec(line)?.[1] ?? 0),
  };
}

function toIp(text: string | undefined, family: Family): Ip | undefined {
  try {
    const ip = parseIp(text ?? '');
    return ip.family === family ? ip : undefined;
  } catch {
    return undefined;
  }
}
