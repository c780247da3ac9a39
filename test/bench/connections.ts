// Both ends of many short TCP connections, with system calls alone between the clock and the kernel: node:net would
// cost more than what is measured. Started by clients.ts: `accept PORT`, or `connect ADDRESS PORT COUNT`.

import { dlopen } from 'node:ffi';

const AF_INET = 2;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_LINGER = 13;
// All that one client opens fits: a full queue would cost the client a second for each SYN sent again.
const BACKLOG = 4096;
const UNMEASURED = 100;

const { functions: libc } = dlopen('libc.so.6', {
  socket: { return: 'int32', arguments: ['int32', 'int32', 'int32'] },
  setsockopt: { return: 'int32', arguments: ['int32', 'int32', 'int32', 'buffer', 'uint32'] },
  bind: { return: 'int32', arguments: ['int32', 'buffer', 'uint32'] },
  listen: { return: 'int32', arguments: ['int32', 'int32'] },
  accept: { return: 'int32', arguments: ['int32', 'buffer', 'buffer'] },
  connect: { return: 'int32', arguments: ['int32', 'buffer', 'uint32'] },
  close: { return: 'int32', arguments: ['int32'] },
});

// struct linger, on and 0 seconds: close(2) sends a RST, and no end of the connection is left in TIME_WAIT.
const NO_LINGER = Buffer.from(Int32Array.of(1, 0).buffer);
const YES = Buffer.from(Int32Array.of(1).buffer);

const [role, ...words] = process.argv.slice(2);
if (role === 'accept') accept(Number(words[0]));
else process.stdout.write(`${connect(words[0] ?? '', Number(words[1]), Number(words[2]))}\n`);

/** Takes connections and closes them, until it is killed with its host. */
function accept(port: number): void {
  const listener = openSocket();
  libc.setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, YES, YES.length);
  const address = socketAddress('0.0.0.0', port);
  expectDone('bind', libc.bind(listener, address, address.length));
  expectDone('listen', libc.listen(listener, BACKLOG));
  const length = Buffer.from(Int32Array.of(address.length).buffer);
  for (;;) libc.close(expectDone('accept', libc.accept(listener, address, length)));
}

/** Opens and closes `count` connections, one after the other, and returns how many milliseconds they took. */
function connect(host: string, port: number, count: number): number {
  const address = socketAddress(host, port);
  for (let i = 0; i < UNMEASURED; i++) connectOnce(address);
  const started = process.hrtime.bigint();
  for (let i = 0; i < count; i++) connectOnce(address);
  return Number(process.hrtime.bigint() - started) / 1e6;
}

function connectOnce(address: Buffer): void {
  const socket = openSocket();
  libc.setsockopt(socket, SOL_SOCKET, SO_LINGER, NO_LINGER, NO_LINGER.length);
  expectDone('connect', libc.connect(socket, address, address.length));
  libc.close(socket);
}

function openSocket(): number {
  return expectDone('socket', libc.socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

// struct sockaddr_in.
function socketAddress(host: string, port: number): Buffer {
  const address = Buffer.alloc(16);
  address.writeUInt16LE(AF_INET, 0);
  address.writeUInt16BE(port, 2);
  address.set(host.split('.').map(Number), 4);
  return address;
}

function expectDone(call: string, returned: number): number {
  if (returned < 0) throw new Error(`Cannot ${call}`);
  return returned;
}
