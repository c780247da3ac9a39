// The journal of systemd, by its native protocol: one datagram is one entry. Called by cni/call-log.ts.
import { closeSync } from 'node:fs';
import { AF_UNIX, MSG_DONTWAIT, SOCK_DGRAM, sendTo, socket } from './libc.ts';

const SOCKET = '/run/systemd/journal/socket';

/** Names of upper case letters, digits and underscores, none of which begins with an underscore. */
export type JournalFields = Readonly<Record<string, string>>;

/**
 * Sends an entry. Never waits: a journal that does not read is an error like one that is not there.
 *
 * Throws Error with SystemError as its cause: ENOENT and ECONNREFUSED without a journal, EAGAIN when it does not keep
 * up, EMSGSIZE for more than some 200 KB. Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL
 * Equivalent to: `logger --journald`
 */
export function sendToJournal(fields: JournalFields): void {
  try {
    const fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    try {
      sendTo(fd, encodeEntry(fields), MSG_DONTWAIT, unixAddress(SOCKET));
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    throw new Error('Cannot write to the journal', { cause });
  }
}

/**
 * The datagram of an entry: `NAME=value` and a newline, or, for a value that holds one,
 *
 *     NAME newline, u64 length in little endian, value newline
 */
export function encodeEntry(fields: JournalFields): Uint8Array {
  return Buffer.concat(Object.entries(fields).map(([name, value]) => encodeField(name, Buffer.from(value))));
}

function encodeField(name: string, value: Buffer): Uint8Array {
  const newline = Buffer.from('\n');
  if (!value.includes(newline)) return Buffer.concat([Buffer.from(`${name}=`), value, newline]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(value.length));
  return Buffer.concat([Buffer.from(`${name}\n`), length, value, newline]);
}

/** `struct sockaddr_un { sa_family_t sun_family; char sun_path[108]; }`, unix(7). */
function unixAddress(path: string): Uint8Array {
  const family = new Uint8Array(Uint16Array.of(AF_UNIX).buffer);
  return Buffer.concat([family, Buffer.from(`${path}\0`)]);
}
