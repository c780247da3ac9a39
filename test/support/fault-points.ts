// The moments at which a verb can be hurt: every system call that changes something, found by strace, one by one.
// Called by the faults tests, which kill the verb there, or let the call or the kernel's answer fail.
import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import type { PrivateHost } from './private-host.ts';
import type { PluginCall, Verb } from './run-plugin.ts';
import { runTraced, type Traced } from './strace.ts';

/** A system call as strace finds it: its name, and which of that name in the life of the main thread. */
export interface Moment {
  readonly syscall: string;
  readonly when: number;
  /** Where only calls on this file count. */
  readonly path?: string | undefined;
}

/** A system call that changes something, or asks the kernel over netlink: the n-th of its label in the life of a verb. */
export interface Point {
  /** The call without what differs from run to run: `sendto RTM_NEWLINK`, `link ports/draft n1/A`. */
  readonly label: string;
  readonly nth: number;
  /** False for questions over netlink: dying there is dying after the change before. */
  readonly isChange: boolean;
  /** The labels of the changes before it, by which it is known whether a verb died here. */
  readonly past: readonly string[];
  /** The call itself; undefined where its count differs from run to run. */
  readonly call: Moment | undefined;
  /** Dying on the way into these is dying right before it, and right after it. */
  readonly before: Moment;
  readonly after: Moment | undefined;
  /** For netlink: where the kernel's answer is received, and to which message it answers. */
  readonly answer: Answer | undefined;
}

/** Where a verb is killed. */
export interface Place {
  readonly point: Point;
  readonly side: Side;
}

/**
 * Before and after each change among these points. Right after one is right before the next, so that is one place, unless
 * a program runs meanwhile, or others were left out between them.
 */
export function placesOf(points: readonly Point[]): Place[] {
  const changes = points.filter(({ isChange }) => isChange);
  return changes.flatMap((point, index) => {
    const previous = changes[index - 1];
    const isNext = previous !== undefined && previous.past.length + 1 === point.past.length;
    const after = { point, side: 'after' as const };
    return isNext && !isAboutPrograms(previous) ? [after] : [{ point, side: 'before' as const }, after];
  });
}

/** How messages name a point. */
export function textOf({ label, nth }: Point): string {
  return `${label} (${nth})`;
}

interface Answer {
  readonly received: Moment;
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
  { before }: Point,
  meanwhile: () => Promise<unknown>,
): Promise<Traced> {
  const fault = { at: before, what: `delay_enter=${1000 * DELAY_MS}` };
  const [traced] = await Promise.all([
    runTraced(host, verb, call, faultsOf(fault)),
    delay(DELAY_MS / 2).then(meanwhile),
  ]);
  return traced;
}

// The first half is for the verb to come that far, the second for what happens meanwhile.
const DELAY_MS = 1500;

/** Runs the verb and kills it at the point. A shot that missed is told by `undefined`. */
export async function runKilled(
  host: PrivateHost,
  verb: Verb,
  call: PluginCall,
  { point, side }: Place,
): Promise<Traced | undefined> {
  const target = point[side];
  if (target === undefined) throw new Error(`Nothing comes after "${textOf(point)}"`);
  const traced = await runTraced(host, verb, call, faultsOf({ at: target, what: 'signal=SIGKILL' }));
  const done = side === 'before' ? point.past : [...point.past, point.label];
  return traced.exitCode === 137 && isDeepStrictEqual(changesDone(traced.lines), done) ? traced : undefined;
}

/** Runs the verb and lets the call fail with the error, without the kernel seeing it; `undefined` as above. */
export async function runRefused(
  host: PrivateHost,
  verb: Verb,
  call: PluginCall,
  point: Point,
  errno: string,
): Promise<Traced | undefined> {
  if (point.call === undefined) throw new Error(`"${textOf(point)}" cannot be met for certain`);
  const traced = await runTraced(host, verb, call, faultsOf({ at: point.call, what: `error=${errno}` }));
  return isMet(traced, point) ? traced : undefined;
}

/**
 * Runs the verb and answers one message in the kernel's place: the message is not sent, and what is received is an
 * NLMSG_ERROR with the number (include/uapi/linux/netlink.h). A batch is refused at its last message.
 */
export async function runAnswered(
  host: PrivateHost,
  verb: Verb,
  call: PluginCall,
  point: Point,
  errno: number,
): Promise<Traced | undefined> {
  const { answer, call: request } = point;
  if (answer === undefined || request === undefined) throw new Error(`"${textOf(point)}" gets no answer`);
  const message = encodeRefusal(answer.sequence, errno);
  const poked = `poke_exit=@arg2=${message.toString('hex')}`;
  const swallowed = { at: request, what: `retval=${answer.requestLength}` };
  const answered = { at: answer.received, what: `retval=${message.length}:${poked}` };
  const traced = await runTraced(host, verb, call, faultsOf(swallowed, answered));
  return isMet(traced, point) ? traced : undefined;
}

const SHOTS = 10;

/** Gives what the first shot that hit gives. A shot that missed must leave things as it found them. Throws after ten. */
export async function untilMet<T>(shoot: () => Promise<T | undefined>): Promise<T> {
  for (let shot = 1; shot <= SHOTS; shot += 1) {
    const hit = await shoot();
    if (hit !== undefined) return hit;
  }
  throw new Error(`The point was not met in ${SHOTS} runs`);
}

/** The kind of call that a point is, by which tests pick those they have something to say about. */
export function isNetlink({ label }: Point): boolean {
  return label.startsWith('sendto ');
}

/** Whether it is about the rules of nf_tables, or the lock under which they are changed. */
export function isAboutRules({ label }: Point): boolean {
  return /NFNL|nftables/.test(label);
}

/** Whether it is about another program, which is started, or told what to do. */
export function isAboutPrograms({ label }: Point): boolean {
  return label === PROGRAM || label === TO_PROGRAM;
}

const PROGRAM = 'start a program';
const TO_PROGRAM = 'write to a program';

const LOOKING = ['-y', '-s', '200'];

/** What changes something; an architecture may lack some of them. */
const CHANGING = new Set(
  (
    'sendto sendmsg setns flock open openat link linkat symlink symlinkat unlink unlinkat rename renameat renameat2 ' +
    'mkdir mkdirat rmdir utimensat lsetxattr fsetxattr setxattr write pwrite64 writev ftruncate chmod fchmod ' +
    'chown fchown clone clone3 vfork fork'
  ).split(' '),
);

// Made by the runtime for itself, as often as it likes: a child's end may be told to any of its threads, which then write
// to each other.
const RESTLESS =
  /^(futex|madvise|mmap|munmap|mprotect|brk|getpid|gettid|clock_\w+|sched_yield|getrandom|rt_sig\w+|epoll_\w+|read|write)$/;

interface Fault {
  readonly at: Moment;
  /** As strace's `inject` has it, such as `error=EIO`. */
  readonly what: string;
}

/** strace's options for these faults, and a look at what changes something and at what the kernel answers. */
function faultsOf(...faults: readonly Fault[]): string[] {
  const traced = [...CHANGING, 'recvfrom', ...faults.map(({ at }) => at.syscall)].map((name) => `?${name}`);
  const injected = faults.flatMap(({ at: { syscall, when, path }, what }) => [
    ...(path === undefined ? [] : ['-P', path]),
    '-e',
    `inject=${syscall}:${what}:when=${when}`,
  ]);
  return [...LOOKING, '-e', `trace=${traced.join(',')}`, ...injected];
}

function pointsIn(lines: readonly string[]): Point[] {
  const calls = callsIn(lines);
  const places = [...calls.keys()].filter((place) => isPoint(calls[place] as Call));
  const past: string[] = [];
  const counts = new Map<string, number>();
  return places.map((place, index): Point => {
    const call = calls[place] as Call;
    const label = labelOf(call.line);
    const since = calls.slice((places[index - 1] ?? -1) + 1, place + 1);
    const until = calls.slice(place + 1, (places[index + 1] ?? calls.length) + 1);
    const received = calls.slice(place + 1).find(({ at }) => at.syscall === 'recvfrom')?.at;
    const point: Point = {
      label,
      nth: countIn(counts, label),
      isChange: !isQuestion(call.line),
      past: [...past],
      call: isSteady(call) ? call.at : call.inFile,
      before: (since.findLast(isSteady) ?? call).at,
      after: (until.find(isSteady) ?? until.at(-1))?.at,
      answer: received && answerTo(call, received),
    };
    if (point.isChange) past.push(label);
    return point;
  });
}

interface Call {
  readonly line: string;
  readonly at: Moment;
  /** The same counted for a file alone, when it writes to one. */
  readonly inFile: Moment | undefined;
}

function callsIn(lines: readonly string[]): Call[] {
  const counts = new Map<string, number>();
  return lines.flatMap((line) => {
    const syscall = /^(\w+)\(/.exec(line)?.[1];
    if (syscall === undefined) return [];
    const path = /^write\(\d+<(\/[^>]*)>/.exec(line)?.[1];
    const inFile = path === undefined ? undefined : { syscall, path, when: countIn(counts, path) };
    return [{ line, at: { syscall, when: countIn(counts, syscall) }, inFile }];
  });
}

function countIn(counts: Map<string, number>, key: string): number {
  const count = (counts.get(key) ?? 0) + 1;
  counts.set(key, count);
  return count;
}

function isSteady({ at: { syscall } }: Call): boolean {
  return !RESTLESS.test(syscall);
}

// Opening counts where it makes a file, cloning where it makes a process. Pipes and eventfds are the runtime talking to
// itself.
function isPoint({ at: { syscall }, line }: Call): boolean {
  if (syscall === 'openat' || syscall === 'open') return line.includes('O_CREAT');
  if (!CHANGING.has(syscall) || line.includes('CLONE_THREAD')) return false;
  return !/^\w+\(\d+<(pipe:|anon_inode:)/.test(line);
}

/** The labels of the changes that a trace has, but for one that was cut off. */
function changesDone(lines: readonly string[]): string[] {
  const whole = lines.filter((line) => !/(<unfinished \.\.\.>|= \?)/.test(line));
  return pointsIn(whole).flatMap(({ label, isChange }) => (isChange ? [label] : []));
}

function isMet({ lines }: Traced, { label }: Point): boolean {
  return lines.some((line) => line.includes('(INJECTED)') && labelOf(line) === label);
}

/** Types of messages, else the paths, with their last two parts; addresses, names and numbers of links masked. */
function labelOf(line: string): string {
  const syscall = /^\w+/.exec(line)?.[0] ?? '';
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
function answerTo({ line, at }: Call, received: Moment): Answer | undefined {
  if (at.syscall !== 'sendto') return undefined;
  const headers = [...line.matchAll(/nlmsg_type=([^ ,]+).*?nlmsg_seq=(\d+)/g)];
  const own = headers.filter(([, type = '']) => !type.includes('BATCH'));
  const sequence = Number(own.at(-1)?.[2]);
  const requestLength = Number(/= (\d+)$/.exec(line)?.[1]);
  return Number.isNaN(sequence) || Number.isNaN(requestLength)
    ? undefined
    : { received, sequence, requestLength };
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
