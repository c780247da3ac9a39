// Turns the recording of a verb into C statements that make the same system calls with the same bytes.
// Called by limit.ts, pure. Two recordings of the verb tell what differs from run to run, and has to be put in.
import type { RecordedCall } from './recording.ts';

/** The values in a recording that another run has others for. */
export interface Varying {
  /** Index of the host's end of the link, and of the sandbox's. */
  readonly hostIndex: number;
  readonly sandboxIndex: number;
}

/** Bytes of a message that are put in before it is sent: 32 bits at this offset. */
interface Patch {
  readonly offset: number;
  readonly variable: string;
}

const RTM_NEWLINK = 16;
const NFT_MSG_NEWGEN = 0xa0f;

/**
 * The statements. The recordings are of the same verb, the second with all descriptors one higher, other link indexes and
 * another generation of the ruleset. Throws Error when they differ in anything else that is sent.
 */
export function translate(
  first: readonly RecordedCall[],
  second: readonly RecordedCall[],
  varying: readonly [Varying, Varying],
): string {
  expectSameCalls(first, second);
  return first.map((call, i) => statementOf(call, second[i] ?? call, varying)).join('');
}

/** Throws Error unless both recordings have the same calls in the same order. */
export function expectSameCalls(first: readonly RecordedCall[], second: readonly RecordedCall[]): void {
  const shape = (calls: readonly RecordedCall[]) =>
    calls.map(({ name, result, bytes }) => `${name} ${result !== undefined} ${bytes.length}`);
  const [one, other] = [shape(first), shape(second)];
  const at = one.findIndex((call, i) => call !== other[i]);
  if (at < 0 && one.length === other.length) return;
  throw new Error(`Two runs of a verb differ at call ${at}: "${one[at]}" and "${other[at]}"`);
}

function statementOf(call: RecordedCall, other: RecordedCall, varying: readonly [Varying, Varying]): string {
  const { name, args, result } = call;
  switch (name) {
    case 'sendto':
      return send(call, other, varying);
    case 'recvfrom':
      return receive(call, other, varying);
    case 'socketpair': {
      const [, kind, a, b] = expectMatch(/^(.*), \[(\d+), (\d+)\]$/, call);
      return `  { int pair[2]; must("socketpair", socketpair(${kind}, pair)); fd[${a}] = pair[0]; fd[${b}] = pair[1]; }\n`;
    }
    case 'sendmsg': {
      const [, to] = expectMatch(/^(\d+)/, call);
      const [, a, b] = expectMatch(/cmsg_data=\[(\d+), (\d+)\]/, call);
      return `  send_descriptors(fd[${to}], fd[${a}], fd[${b}]);\n`;
    }
    default: {
      const text = `${plainCall(call)}`;
      const opens = ['openat', 'openat2', 'socket'].includes(name) && result !== undefined;
      if (opens) return `  fd[${result}] = must("${name}", ${text});\n`;
      return result === undefined ? `  (void)!${text};\n` : `  must("${name}", ${text});\n`;
    }
  }
  function expectMatch(pattern: RegExp, { args: text }: RecordedCall): RegExpExecArray {
    const match = pattern.exec(text);
    if (match === null) throw new Error(`Cannot read the arguments of ${name}: ${args}`);
    return match;
  }
}

// strace prints names of constants and strings as C has them, so most arguments can stay.
function plainCall({ name, args }: RecordedCall): string {
  const withFd = args.replace(/^(\d+)/, 'fd[$1]');
  const path = /^"(?:[^"\\]|\\.)*"/.exec(args)?.[0] ?? '';
  const descriptor = /^"\/proc\/self\/fd\/(\d+)"$/.exec(path)?.[1];
  switch (name) {
    case 'close':
    case 'flock':
    case 'setns':
    case 'ioctl':
    case 'write':
      return `${name}(${withFd})`;
    case 'openat':
    case 'socket':
    case 'unlink':
    case 'symlink':
    case 'link':
    case 'rename':
    case 'mkdir':
    case 'rmdir':
    case 'lsetxattr':
      return `${name}(${args})`;
    case 'read':
      return `read(${withFd.replace(/,.*, /s, ', in, ')})`;
    case 'readlink':
      return `readlink(${path}, (char *)in, 4096)`;
    case 'statfs':
      return `statfs(${descriptor === undefined ? path : `fd_path(fd[${descriptor}])`}, &stfs)`;
    case 'fstatfs':
      return `fstatfs(${withFd.replace(/,.*$/s, '')}, &stfs)`;
    case 'openat2': {
      const how = withFd.replace(/\b(flags|mode|resolve)=/g, '.$1=').replace('{', '&(struct open_how){');
      return `syscall(SYS_openat2, ${how})`;
    }
    case 'statx':
      return `statx(${withFd.replace(/, (STATX_[A-Z_|]+), .*$/s, ', $1')}, &stx)`;
    case 'setsockopt':
      return `setsockopt(${withFd
        .replace('SO_RCVTIMEO_OLD', 'SO_RCVTIMEO')
        .replace(/, \[(\d+)\]/, ', (int[]){$1}')})`;
    case 'utimensat': {
      const times = [...args.matchAll(/tv_sec=(\d+), tv_nsec=(\d+)/g)].map(([, s, ns]) => `{${s}, ${ns}}`);
      const place = /^(AT_FDCWD, "(?:[^"\\]|\\.)*")/.exec(args)?.[1];
      return `utimensat(${place}, (struct timespec[]){${times.join(', ')}}, 0)`;
    }
    default:
      throw new Error(`There is no way yet to make system call ${name}(${args}) in C`);
  }
}

function send(
  { args, bytes }: RecordedCall,
  other: RecordedCall,
  varying: readonly [Varying, Varying],
): string {
  const socket = /^(\d+)/.exec(args)?.[1];
  const patches = patchesOf(bytes, other.bytes, varying);
  const put = patches
    .map(({ offset, variable }) => ` memcpy(message + ${offset}, &${variable}, 4);`)
    .join('');
  const length = bytes.length;
  return `  { static unsigned char message[] = ${literal(bytes)};${put} must("sendto", sendto(fd[${socket}], message, ${length}, 0, NULL, 0)); }\n`;
}

/** Where the messages of two runs differ, and by what. Throws Error for a difference that is none of those known. */
export function patchesOf(first: Buffer, second: Buffer, [one, two]: readonly [Varying, Varying]): Patch[] {
  const patches: Patch[] = [];
  for (let offset = 0; offset + 4 <= first.length; offset += 4) {
    const [a, b] = [first.readUInt32LE(offset), second.readUInt32LE(offset)];
    if (a === b || isMac(first, offset)) continue;
    const [bigA, bigB] = [first.readUInt32BE(offset), second.readUInt32BE(offset)];
    if (a === one.hostIndex && b === two.hostIndex) patches.push({ offset, variable: 'host_index' });
    else if (a === one.sandboxIndex && b === two.sandboxIndex)
      patches.push({ offset, variable: 'sandbox_index' });
    else if (isGeneration(first, offset) && bigB > bigA) patches.push({ offset, variable: 'generation' });
    else if (b === a + 1) patches.push({ offset, variable: `fd[${a}]` });
    else throw new Error(`Cannot tell what differs at offset ${offset}: ${a} and ${b}`);
  }
  return patches;
}

/** IFLA_ADDRESS of six bytes: they are drawn by lot, and any are as good. */
function isMac(message: Buffer, offset: number): boolean {
  return [4, 8].some((back) => offset >= back && message.readUInt32LE(offset - back) === 0x0001_000a);
}

/** NFNL_BATCH_GENID is the only attribute of NFNL_MSG_BATCH_BEGIN (16): both headers, and its own. */
function isGeneration(message: Buffer, offset: number): boolean {
  return offset === 24 && message.readUInt16LE(4) === 16;
}

function receive(
  { args, bytes, result }: RecordedCall,
  other: RecordedCall,
  [one, two]: readonly [Varying, Varying],
): string {
  const socket = /^(\d+)/.exec(args)?.[1];
  const flags = /, 65536, ([A-Z_|0]+), /.exec(args)?.[1] ?? '0';
  const text = `receive(fd[${socket}], ${flags})`;
  if (result === undefined) return `  (void)!${text};\n`;
  return `  must("recvfrom", ${text});${capture()}\n`;

  function capture(): string {
    if (bytes.length < 28) return '';
    const type = bytes.readUInt16LE(4);
    if (type === NFT_MSG_NEWGEN) return ' generation = generation_id();';
    if (type !== RTM_NEWLINK) return '';
    const [a, b] = [bytes.readUInt32LE(20), other.bytes.readUInt32LE(20)];
    if (a === one.hostIndex && b === two.hostIndex) return ' host_index = link_index();';
    if (a === one.sandboxIndex && b === two.sandboxIndex) return ' sandbox_index = link_index();';
    return '';
  }
}

function literal(bytes: Buffer): string {
  return `{${[...bytes].join(',')}}`;
}
