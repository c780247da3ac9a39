// The moments at which a verb can be hurt: every system call that changes something, found by strace, one by one.
// Called by the faults tests, which kill the verb there, or let the call or the kernel's answer fail.
import { setTimeout as delay } from 'node:timers/promises';
import type { PrivateHost } from './private-host.ts';
import type { PluginCall, Verb } from './run-plugin.ts';
import { runTraced, type Traced } from './strace.ts';

/** A system call by its name, and which of that name in the life of the main thread. */
export interface Moment {
  readonly syscall: string;
  readonly when: number;
}

/** A system call that changes something, or asks the kernel over netlink. */
export interface Point extends Moment {
  /** The call without what differs from run to run: `sendto RTM_NEWLINK`, `link ports/draft n1/A`. */
  readonly label: string;
  /** False for questions over netlink: dying there is dying after the change before. */
  readonly isChange: boolean;
  /** The system call after it; dying on the way into that one is dying right after this one. */
  readonly next: Moment | undefined;
  /** For netlink: where the kernel's answer is received, and to which message it answers. */
  readonly answer: Answer | undefined;
}

interface Answer {
  readonly when: number;
  readonly sequence: number;
  readonly requestLength: number;
}

/** `before`: the kernel never sees the call. `after`: it has done its work, and nobody hears of it. */
export type Side = 'before' | 'after';

/** Runs the verb to its end and gives every point it passes. Throws unless it succeeds. */
export async function listPoints(host: PrivateHost, verb: Verb, call: PluginCall): Promise<Point[]> {
  const traced = await runTraced(host, verb, call, LOOKING);
  if (traced.exitCode !== 0) throw new Error(`${verb} under strace failed: ${traced.stdout}${traced.stderr}`);
  return pointsIn(traced.lines);
}

/**
 * Runs the verb to its end and gives what other threads than the main one change: nothing, or the points are not all there
 * is. Throws unless it succeeds.
 */
export async function listElsewhere(host: PrivateHost, verb: Verb, call: PluginCall): Promise<string[]> {
  const traced = await runTraced(host, verb, call, ['-f', ...LOOKING]);
  if (traced.exitCode !== 0) throw new Error(`${verb} under strace failed: ${traced.stdout}${traced.stderr}`);
  const lines = traced.lines.map((line) => /^(\d+) +(.*)$/.exec(line)?.slice(1) ?? ['', line]);
  const main = lines[0]?.[0];
  const others = lines.filter(([thread]) => thread !== main).map(([, text = '']) => text);
  return pointsIn(others).map(({ label }) => label);
}

/** Runs the verb, and `meanwhile` while it is about to make the call. */
export async function runDelayed(
  host: PrivateHost,
  verb: Verb,
  call: PluginCall,
  { syscall, when }: Moment,
  meanwhile: () => Promise<unknown>,
): Promise<Traced> {
  const calls = [...new Set([syscall, 'recvfrom'])].join(',');
  const fault = `${syscall}:delay_enter=${1000 * DELAY_MS}:when=${when}`;
  const options = [...LOOKING, '-e', `trace=${calls}`, '-e', `inject=${fault}`];
  const [traced] = await Promise.all([
    runTraced(host, verb, call, options),
    delay(DELAY_MS / 2).then(meanwhile),
  ]);
  return traced;
}

// The first half is for the verb to come that far, the second for what happens meanwhile.
const DELAY_MS = 1500;

/**
 * Runs the verb and kills it at the point. Counting is exact but for what threads of the runtime do to each other, so
 * what was hit is looked at, and a shot that missed is told by `undefined`.
 */
export async function runKilled(
  host: PrivateHost,
  verb: Verb,
  call: PluginCall,
  point: Point,
  side: Side,
): Promise<Traced | undefined> {
  const target = side === 'before' ? point : point.next;
  if (target === undefined) throw new Error(`Nothing comes after "${point.label}"`);
  const calls = [...new Set([point.syscall, target.syscall])].join(',');
  const fault = `${target.syscall}:signal=SIGKILL:when=${target.when}`;
  const traced = await runTraced(host, verb, call, [
    ...LOOKING,
    '-e',
    `trace=${calls}`,
    '-e',
    `inject=${fault}`,
  ]);
  return traced.exitCode === 137 && isHit(traced, point, side) ? traced : undefined;
}

/** Runs the verb and lets the call fail with the error, without the kernel seeing it. */
export function runRefused(
  host: PrivateHost,
  verb: Verb,
  call: PluginCall,
  { syscall, when }: Moment,
  errno: string,
): Promise<Traced> {
  const fault = `${syscall}:error=${errno}:when=${when}`;
  return runTraced(host, verb, call, [...LOOKING, '-e', `trace=${syscall}`, '-e', `inject=${fault}`]);
}

/**
 * Runs the verb and answers one message in the kernel's place: the message is not sent, and what is received is an
 * NLMSG_ERROR with the number (include/uapi/linux/netlink.h). A batch is refused at its last message.
 */
export function runAnswered(
  host: PrivateHost,
  verb: Verb,
  call: PluginCall,
  point: Point,
  errno: number,
): Promise<Traced> {
  const { answer } = point;
  if (answer === undefined) throw new Error(`"${point.label}" gets no answer`);
  const swallowed = `sendto:retval=${answer.requestLength}:when=${point.when}`;
  const message = encodeRefusal(answer.sequence, errno);
  const poked = `poke_exit=@arg2=${message.toString('hex')}`;
  const answered = `recvfrom:retval=${message.length}:${poked}:when=${answer.when}`;
  return runTraced(host, verb, call, [
    '-e',
    'trace=sendto,recvfrom',
    '-e',
    `inject=${swallowed}`,
    '-e',
    `inject=${answered}`,
  ]);
}

/** The kind of call that a point is, by which tests pick those they have something to say about. */
export function isNetlink({ syscall }: Moment): boolean {
  return syscall === 'sendto';
}

/** Whether it is about another program, which is started, or told what to do. */
export function isAboutPrograms({ label }: Point): boolean {
  return label === PROGRAM || label === TO_PROGRAM;
}

const PROGRAM = 'start a program';
const TO_PROGRAM = 'write to a program';

const LOOKING = ['-y', '-s', '200'];

const CHANGING =
  /^(sendto|sendmsg|setns|flock|link|linkat|symlink|symlinkat|unlink|unlinkat|rename|renameat2?|mkdir|mkdirat|rmdir|utimensat|lsetxattr|fsetxattr|setxattr|write|pwrite64|writev|ftruncate|chmod|fchmod|chown|fchown|clone3?|v?fork)$/;

// What the runtime does for itself, as often as it likes.
const NOISE =
  /^(futex|madvise|mmap|munmap|mprotect|brk|getpid|gettid|clock_\w+|sched_yield|getrandom|rt_sig\w+)$/;

function pointsIn(lines: readonly string[]): Point[] {
  const counts = new Map<string, number>();
  const calls = lines.flatMap((line) => {
    const syscall = syscallOf(line);
    if (syscall === undefined) return [];
    const when = (counts.get(syscall) ?? 0) + 1;
    counts.set(syscall, when);
    return [{ syscall, when, line }];
  });
  return calls.flatMap(({ syscall, when, line }, position): Point[] => {
    if (!isPoint(syscall, line)) return [];
    const rest = calls.slice(position + 1);
    const next = rest.find((call) => !NOISE.test(call.syscall));
    const receive = rest.find((call) => call.syscall === 'recvfrom');
    return [
      {
        syscall,
        when,
        label: labelOf(line),
        isChange: !isQuestion(line),
        next,
        answer: syscall === 'sendto' && receive ? answerTo(line, receive.when) : undefined,
      },
    ];
  });
}

function syscallOf(line: string): string | undefined {
  return /^(\w+)\(/.exec(line)?.[1];
}

// Opening counts where it makes a file, cloning where it makes a process. Pipes and eventfds are the runtime talking to
// itself; 1 is stdout.
function isPoint(syscall: string, line: string): boolean {
  if (syscall === 'openat' || syscall === 'open') return line.includes('O_CREAT');
  if (!CHANGING.test(syscall) || line.includes('CLONE_THREAD')) return false;
  return !/^\w+\((?!1<)\d+<(pipe:|anon_inode:)/.test(line);
}

function isHit({ lines }: Traced, point: Point, side: Side): boolean {
  const own = lines.filter((line) => syscallOf(line) === point.syscall);
  const hit = own[point.when - 1];
  if (hit === undefined || labelOf(hit) !== point.label) return false;
  const isDone = !/(<unfinished \.\.\.>|= \?)/.test(hit);
  return isDone === (side === 'after');
}

/** Types of messages, else the paths, with their last two parts; addresses, names and numbers of links masked. */
function labelOf(line: string): string {
  const syscall = syscallOf(line) ?? '';
  if (/^write\(1</.test(line)) return 'write stdout';
  if (/^(clone3?|v?fork)\(/.test(line)) return PROGRAM;
  if (/^write\(\d+<(UNIX|socket)/.test(line)) return TO_PROGRAM;
  const types = typesIn(line);
  if (types.length > 0) return `${syscall} ${types.join(' ')}`;
  const quoted = syscall === 'write' ? [] : [...line.matchAll(/"([^"]*)"/g)].map(([, text = '']) => text);
  const opened = /^\w+\(\d+<([^>]*)>/.exec(line)?.[1];
  const paths = quoted.some((text) => text.startsWith('/')) ? quoted : [opened ?? ''];
  return [syscall, ...paths.map(masked)].join(' ');
}

function masked(path: string): string {
  return path
    .split('/')
    .slice(-2)
    .join('/')
    .replace(/^v1-.*/, 'STAMP')
    .replace(/\b[0-9a-f]*:[0-9a-f:]*|\b\d+(\.\d+){3}/g, 'A')
    .replace(/A(,A)+/, 'A')
    .replace(/veth[0-9a-f]{11}/, 'veth')
    .replace(/\[\d+\]/, '');
}

function typesIn(line: string): string[] {
  return [...line.matchAll(/nlmsg_type=([^ ,]+)/g)].map(([, type = '']) => TYPES[type] ?? type);
}

// strace does not know the protocol of a socket of another namespace, nor of one that has not spoken yet.
const TYPES: Readonly<Record<string, string>> = {
  '0x10': 'RTM_NEWLINK',
  '0x11': 'RTM_DELLINK',
  '0x12': 'RTM_GETLINK',
  '0x13': 'RTM_SETLINK',
  '0x14': 'RTM_NEWADDR',
  '0x15': 'RTM_DELADDR',
  '0x16': 'RTM_GETADDR',
  '0x18': 'RTM_NEWROUTE',
  '0x1a': 'RTM_GETROUTE',
  '0x1e': 'RTM_GETNEIGH',
  '0xa01': 'NFNL_SUBSYS_NFTABLES<<8|NFT_MSG_GETTABLE',
  '0xa04': 'NFNL_SUBSYS_NFTABLES<<8|NFT_MSG_GETCHAIN',
  '0xa07': 'NFNL_SUBSYS_NFTABLES<<8|NFT_MSG_GETRULE',
  '0xa0d': 'NFNL_SUBSYS_NFTABLES<<8|NFT_MSG_GETSETELEM',
  '0xa10': 'NFNL_SUBSYS_NFTABLES<<8|NFT_MSG_GETGEN',
  '0x105': 'NFNL_SUBSYS_CTNETLINK<<8|IPCTNL_MSG_CT_GET_STATS',
  '0x101': 'NFNL_SUBSYS_CTNETLINK<<8|IPCTNL_MSG_CT_GET',
};

function isQuestion(line: string): boolean {
  const types = typesIn(line);
  return types.length > 0 && types.every((type) => /GET/.test(type));
}

// Of a batch the last message before its end.
function answerTo(line: string, when: number): Answer | undefined {
  const headers = [...line.matchAll(/nlmsg_type=([^ ,]+).*?nlmsg_seq=(\d+)/g)];
  const own = headers.filter(([, type = '']) => !type.includes('BATCH'));
  const sequence = Number(own.at(-1)?.[2]);
  const requestLength = Number(/= (\d+)$/.exec(line)?.[1]);
  return Number.isNaN(sequence) || Number.isNaN(requestLength)
    ? undefined
    : { when, sequence, requestLength };
}

// struct nlmsghdr { __u32 len; __u16 type; __u16 flags; __u32 seq; __u32 pid; }; struct nlmsgerr { int error; struct nlmsghdr msg; };
function encodeRefusal(sequence: number, errno: number): Buffer {
  const NLMSG_ERROR = 2;
  const NLM_F_CAPPED = 0x100;
  const header = 16;
  const message = Buffer.alloc(header + 4 + header);
  message.writeUInt32LE(message.length, 0);
  message.writeUInt16LE(NLMSG_ERROR, 4);
  message.writeUInt16LE(NLM_F_CAPPED, 6);
  message.writeUInt32LE(sequence, 8);
  message.writeInt32LE(-errno, header);
  message.writeUInt32LE(header, header + 4);
  message.writeUInt32LE(sequence, header + 12);
  return message;
}
