// The kernel's table of flows on one socket: which there are to some ports, and forgetting one.
// portmap opens it, since a flow keeps the translation that its first packet met, whatever the rules say since.
import { NETLINK_NETFILTER } from '../linux/netlink-socket.ts';
import { type Netns, withNetns } from '../linux/netns.ts';
import { EBADMSG, ENOENT, SystemError } from '../linux/system-error.ts';
import { type NetlinkConnection, openNetlink } from '../netlink/connection.ts';
import type { NetlinkMessage } from '../netlink/message.ts';
import { NetlinkError } from '../netlink/netlink-error.ts';
import {
  decodeCount,
  decodeFlow,
  decodeKey,
  describeFlow,
  encodeCount,
  encodeDelete,
  encodeGet,
  encodeList,
  encodeListAll,
  type Flow,
  type FlowFilter,
  type FlowIdentity,
  type FlowQuery,
  matches,
} from './flow.ts';
import { findFlows, readFlowText } from './flow-text.ts';

export type { Flow, FlowFilter, FlowProtocol, Tuple } from './flow.ts';

export interface Conntrack extends Disposable {
  /** How many flows there are, whatever their kind. Throws NetlinkError. Equivalent to: `conntrack -C` */
  count(): number;
  /**
   * The flows that match any of the filters, in no order; no filter, no flow. A short list is read as text, a long one
   * dumped, and flows of others left out by the kernel where it can, here where it cannot. Throws NetlinkError.
   * Equivalent to: `conntrack -L -f ipv4 -p udp --orig-port-dst 53`
   */
  list(filters: readonly FlowFilter[]): Flow[];
  /**
   * Forgets the flow; the next packet begins a new one and meets the rules of then. One that has gone already is as
   * good: flows end by themselves. Throws NetlinkError.
   * Equivalent to: `conntrack -D -f ipv4 -p udp -s 192.0.2.1 -d 203.0.113.1 --sport 4000 --dport 53`
   */
  delete(flow: Flow): void;
}

/**
 * Opens the flows of this namespace, or of another. There are none in a namespace without a rule that looks at them
 * (`ct state`, NAT).
 *
 * Throws an error `isConntrackMissing` knows when the kernel has no nf_conntrack_netlink and no module of it, else
 * SystemError or NetlinkError.
 */
export function openConntrack(options: { readonly netns?: Netns | undefined } = {}): Conntrack {
  let connection: NetlinkConnection;
  try {
    connection = openNetlink(NETLINK_NETFILTER, {
      netns: options.netns,
      headerLength: () => 4,
      phase: 'flows',
    });
  } catch (cause) {
    if (cause instanceof SystemError && cause.code === 'EPROTONOSUPPORT')
      throw new ConntrackMissing({ cause });
    throw cause;
  }
  const { netns } = options;
  return connectConntrack(
    connection,
    netns === undefined ? readFlowText : () => withNetns(netns, readFlowText),
  );
}

/**
 * The same over a connection of the caller's making, which is disposed with it, and a list of flows as text. Counts the flows once: a kernel with
 * nfnetlink but without ctnetlink is told apart here, where its EINVAL can mean nothing else.
 */
export function connectConntrack(connection: NetlinkConnection, readText: FlowText): Conntrack {
  const conntrack = new FlowTable(connection, readText);
  try {
    conntrack.count();
  } catch (cause) {
    conntrack[Symbol.dispose]();
    // what nfnetlink answers for a subsystem nobody registered and no module offers
    if (cause instanceof NetlinkError && cause.code === 'EINVAL') throw new ConntrackMissing({ cause });
    throw cause;
  }
  return conntrack;
}

/** Whether an error, or one of its causes, says that this kernel cannot tell of flows. */
export function isConntrackMissing(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof ConntrackMissing) return true;
  }
  return false;
}

/**
 * The dumps that answer `filters` soonest when there are `count` flows: one for each filter, or, as `undefined`, one of
 * everything. The kernel walks its whole table for every dump, even to find nothing.
 */
export function planDumps(filters: readonly FlowFilter[], count: number): FlowQuery[] | undefined {
  const queries = new Map<string, FlowQuery>();
  for (const { family, protocol, dstPort } of filters) {
    // The kernel compares ports of TCP and UDP alone.
    const query = protocol === 'sctp' ? { family, protocol } : { family, protocol, dstPort };
    queries.set(Object.values(query).join(), query);
  }
  const walk = WALK_US + count * PASS_US;
  return queries.size * walk <= walk + count * TELL_US ? [...queries.values()] : undefined;
}

/**
 * Microseconds for a walk over a table of 262,144 buckets, the kernel's choice from 4 GiB of memory on; for passing a
 * flow on the way; for telling of it and reading that. Measured with 100,000 flows on 6.18: 3.5 ms, 10 ms and 150 ms.
 */
const WALK_US = 3500;
const PASS_US = 0.1;
const TELL_US = 1.5;

/**
 * For how many flows at most the text is read. A dump takes and gives back a lock for each bucket, full or empty (10 ms
 * for 262,144 buckets here), the text takes none (0.15 ms); but it tells of every flow (2.5 µs), and until 6.15 goes through the table
 * again for each 25 of them.
 */
const TEXT_LIMIT = 300;

/** The flows of the namespace as lines; `undefined` where there is no such text. */
type FlowText = () => string | undefined;

class ConntrackMissing extends Error {
  override readonly name = 'ConntrackMissing';

  constructor(options: ErrorOptions) {
    super('Cannot look at flows: the kernel has no nf_conntrack_netlink', options);
  }
}

class FlowTable implements Conntrack {
  readonly #connection: NetlinkConnection;
  readonly #readText: FlowText;

  constructor(connection: NetlinkConnection, readText: FlowText) {
    this.#connection = connection;
    this.#readText = readText;
  }

  count(): number {
    const operation = 'count the flows';
    const reply = this.#connection.get(operation, encodeCount());
    const count = decodeCount(reply);
    if (count === undefined) throw new NetlinkError(operation, { errno: EBADMSG, sequence: reply.sequence });
    return count;
  }

  list(filters: readonly FlowFilter[]): Flow[] {
    const count = filters.length === 0 ? 0 : this.count();
    if (count === 0) return [];
    const text = count <= TEXT_LIMIT ? this.#readText() : undefined;
    if (text !== undefined) return findFlows(text, filters).flatMap((flow) => this.#find(flow) ?? []);
    const wanted = new Set(filters.map(textOf));
    const messages = this.#listFiltered(planDumps(filters, count)) ?? this.#listAll();
    return messages.flatMap((message) => {
      const key = decodeKey(message);
      return key !== undefined && wanted.has(textOf(key)) ? (decodeFlow(message) ?? []) : [];
    });
  }

  delete(flow: Flow): void {
    try {
      this.#connection.request(`delete flow ${describeFlow(flow)}`, encodeDelete(flow));
    } catch (error) {
      if (!(error instanceof NetlinkError) || error.code !== 'ENOENT') throw error;
    }
  }

  [Symbol.dispose](): void {
    this.#connection[Symbol.dispose]();
  }

  /** `undefined` when it has ended by now. */
  #find(flow: FlowIdentity): Flow | undefined {
    const answer = this.#connection.find(`get flow ${describeFlow(flow)}`, encodeGet(flow), [ENOENT]);
    return answer && decodeFlow(answer);
  }

  #listAll(): NetlinkMessage[] {
    return this.#connection.list('list the flows', encodeListAll());
  }

  /** `undefined` when the kernel knows no such filter: it refuses, or tells of flows nobody asked for. */
  #listFiltered(queries: readonly FlowQuery[] | undefined): NetlinkMessage[] | undefined {
    if (queries === undefined) return undefined;
    const found: NetlinkMessage[] = [];
    for (const query of queries) {
      const messages = this.#listOne(query);
      if (messages?.every((message) => matches(query, decodeKey(message))) !== true) return undefined;
      found.push(...messages);
    }
    return found;
  }

  #listOne(query: FlowQuery): NetlinkMessage[] | undefined {
    const { family, protocol, dstPort } = query;
    const port = dstPort === undefined ? '' : ` to port ${dstPort}`;
    try {
      return this.#connection.list(`list the IPv${family} ${protocol} flows${port}`, encodeList(query));
    } catch (error) {
      if (error instanceof NetlinkError && (error.code === 'EINVAL' || error.code === 'EOPNOTSUPP'))
        return undefined;
      throw error;
    }
  }
}

function textOf({ family, protocol, dstPort }: FlowFilter): string {
  return `${family} ${protocol} ${dstPort}`;
}
