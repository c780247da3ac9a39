// TCP and UDP services that tell each client who answers and under which address the client is seen.
// Used by the tests and the demo of published ports, whose questions are just these two.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import { formatIp, parseIp } from '../../shared/ip/cidr.ts';
import { HOST_PATH, type Place } from './place.ts';

export type Transport = 'tcp4' | 'tcp6' | 'udp4' | 'udp6';

export const TRANSPORTS: readonly Transport[] = ['tcp4', 'udp4', 'tcp6', 'udp6'];

export interface Service {
  readonly transport: Transport;
  readonly port: number;
  /** Listens on this address only. */
  readonly address?: string;
}

/** Whom to ask: a service, as a client addresses it. */
export interface Question {
  readonly transport: Transport;
  readonly address: string;
  readonly port: number;
}

/** Who answered, and the client's address as the service saw it. */
export interface Reply {
  readonly name: string;
  readonly client: string;
}

/** Starts services in a place under its name and returns once all of them listen; they die with the host. */
export async function serve(place: Place, services: readonly Service[]): Promise<AsyncDisposable> {
  const [program, args] = place.entering(process.execPath, [
    join(import.meta.dirname, 'answering-service.ts'),
    place.name,
    ...services.map(({ transport, port, address }) => `${transport}:${port}${address ? `@${address}` : ''}`),
  ]);
  const running = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH: HOST_PATH } });
  let said = '';
  for (const stream of [running.stdout, running.stderr]) {
    stream.on('data', (chunk) => {
      said += chunk;
    });
  }
  for (const deadline = Date.now() + 10_000; !said.includes('listening'); await delay(2)) {
    if (running.exitCode !== null || Date.now() > deadline) {
      throw new Error(`Services do not listen in ${place.name}: ${said.trim()}`);
    }
  }
  return {
    async [Symbol.asyncDispose]() {
      const gone = once(running, 'exit');
      running.stdin.end();
      await gone;
    },
  };
}

/** The same ports over every transport. */
export function onAllTransports(...ports: number[]): Service[] {
  return TRANSPORTS.flatMap((transport) => ports.map((port) => ({ transport, port })));
}

/** Asks all at once, each for 1.5 s at most; undefined where no answer came. */
export async function askAll(from: Place, questions: readonly Question[]): Promise<(Reply | undefined)[]> {
  const lines = questions.map(
    ({ transport, address, port }, position) =>
      `timeout 1.5 bash --norc -c "$ASK" ${transport.slice(0, 3)} ${address} ${port} ${position} 2> /dev/null &`,
  );
  const { stdout } = await from.shell([`export ASK='${ASK}'`, ...lines, 'wait'].join('\n'));
  const answers = stdout.split('\n').filter((line) => line !== '');
  const replies = new Map(answers.map((line) => [Number(line.split(' ')[0]), parseReply(line)]));
  return questions.map((_, position) => replies.get(position));
}

/** Asks one service; undefined when no answer comes. */
export async function ask(
  from: Place,
  transport: Transport,
  address: string,
  port: number,
): Promise<Reply | undefined> {
  const [reply] = await askAll(from, [{ transport, address, port }]);
  return reply;
}

/** Who answered, '' when nobody did. */
export async function whoAnswers(
  from: Place,
  transport: Transport,
  address: string,
  port: number,
): Promise<string> {
  return (await ask(from, transport, address, port))?.name ?? '';
}

/** A client that keeps its port, so that all it says belongs to one flow. */
export interface Talk extends AsyncDisposable {
  /** Sends a datagram and returns who answers it within a second, '' when nobody does. */
  say(): Promise<string>;
}

/** Opens a UDP client in a place; nothing is sent yet. */
export async function openTalk(
  from: Place,
  transport: 'udp4' | 'udp6',
  address: string,
  port: number,
): Promise<Talk> {
  const [program, args] = from.entering('bash', ['--norc', '-c', TALK, address, `${port}`]);
  const running = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'], env: { PATH: HOST_PATH } });
  const lines = createInterface(running.stdout)[Symbol.asyncIterator]();
  return {
    async say() {
      running.stdin.write(`${transport}\n`);
      const { value = '' } = await lines.next();
      return String(value).split(' ')[0] ?? '';
    },
    async [Symbol.asyncDispose]() {
      const gone = once(running, 'exit');
      running.stdin.end();
      await gone;
    },
  };
}

const TALK = `
  exec 3<> "/dev/udp/$0/$1"
  while read -r line; do
    echo hello >&3
    timeout 1 head -n 1 <&3 || echo
  done
`;

// The shell's own sockets. Its `read` takes a byte at a time, which loses the rest of a datagram.
const ASK = `
  exec 3<> /dev/$0/$1/$2
  [ $0 = tcp ] || echo hello >&3
  line=$(head -n 1 <&3) && [ -n "$line" ] && echo "$3 $line"
`;

function parseReply(line: string): Reply {
  const [, name = '', client = ''] = line.split(' ');
  return { name, client: client === '' ? '' : formatIp(parseIp(client.replace(/%.*/, ''))) };
}
