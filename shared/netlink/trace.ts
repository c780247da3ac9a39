// Every message as text, in the layout of libmnl's mnl_nlmsg_fprintf, so that two dumps can be held side by side
// with `nft --debug=all`. connection.ts feeds it; main.ts switches it on when PATCHBAY_TRACE says "netlink".
import { align, HOST_LITTLE_ENDIAN, viewOf } from './bytes.ts';
import { MESSAGE_HEADER, NLM_F_ACK, NLM_F_DUMP, NLM_F_ECHO, NLM_F_MULTI, NLM_F_REQUEST } from './message.ts';

let write: ((text: string) => void) | undefined;

/** Sends a dump of each message from now on to `sink`; without one, stops. */
export function enableTrace(sink?: (text: string) => void): void {
  write = sink;
}

/** Dumps a datagram under a line that says which way it went and what for. Costs nothing while switched off. */
export function traceMessages(
  direction: 'send' | 'receive',
  operation: string,
  datagram: Uint8Array,
  headerLength: (type: number) => number,
): void {
  if (write === undefined) return;
  write(`${direction === 'send' ? '>' : '<'} ${operation}\n${formatMessages(datagram, headerLength)}`);
}

/** The dump itself. Never throws: what does not parse is shown as bytes. */
export function formatMessages(datagram: Uint8Array, headerLength: (type: number) => number): string {
  const view = viewOf(datagram);
  const lines: string[] = [];
  let at = 0;
  while (datagram.length - at >= MESSAGE_HEADER) {
    const length = view.getUint32(at, HOST_LITTLE_ENDIAN);
    if (length < MESSAGE_HEADER || length > datagram.length - at) break;
    const type = view.getUint16(at + 4, HOST_LITTLE_ENDIAN);
    lines.push(...formatHeader(view, at));
    const control = type < 16; // NLMSG_MIN_TYPE: acknowledgements and the like carry no family header
    const header = Math.min(control ? length - MESSAGE_HEADER : headerLength(type), length - MESSAGE_HEADER);
    const start = at + MESSAGE_HEADER;
    for (let offset = start; offset < start + header; offset += 4) {
      lines.push(`| ${hex(datagram, offset, at + length)}  |\t|  extra header  |`);
    }
    lines.push(...formatAttributes(datagram, view, start + align(header), at + length));
    lines.push(RULE);
    at += align(length);
  }
  if (at < datagram.length) lines.push(`${datagram.length - at} bytes that are no message`);
  return `${lines.join('\n')}\n`;
}

const RULE = '----------------\t------------------';
const NLA_F_NESTED = 0x8000;
const NLA_F_NET_BYTEORDER = 0x4000;

function formatHeader(view: DataView, at: number): string[] {
  const u32 = (offset: number) => view.getUint32(at + offset, HOST_LITTLE_ENDIAN);
  const type = view.getUint16(at + 4, HOST_LITTLE_ENDIAN);
  const flags = view.getUint16(at + 6, HOST_LITTLE_ENDIAN);
  return [
    RULE,
    `|  ${decimal(u32(0), 10)}  |\t| message length |`,
    `| ${decimal(type, 5)} | ${formatFlags(flags)} |\t|  type | flags  |`,
    `|  ${decimal(u32(8), 10)}  |\t| sequence number|`,
    `|  ${decimal(u32(12), 10)}  |\t|     port ID    |`,
    RULE,
  ];
}

/** The letters libmnl uses: request, multipart, acknowledge, echo; then D for a dump. */
function formatFlags(flags: number): string {
  const letter = (flag: number, text: string) => ((flags & flag) === flag ? text : '-');
  const dump = letter(NLM_F_DUMP, 'D');
  const last = dump === 'D' ? dump : letter(NLM_F_ECHO, 'E');
  return letter(NLM_F_REQUEST, 'R') + letter(NLM_F_MULTI, 'M') + letter(NLM_F_ACK, 'A') + last;
}

function formatAttributes(bytes: Uint8Array, view: DataView, start: number, end: number): string[] {
  const lines: string[] = [];
  let at = start;
  while (end - at >= 4) {
    const length = view.getUint16(at, HOST_LITTLE_ENDIAN);
    if (length < 4 || length > end - at) break;
    const type = view.getUint16(at + 2, HOST_LITTLE_ENDIAN);
    const nested = (type & NLA_F_NESTED) !== 0;
    const marks = `${nested ? 'N' : '-'}${(type & NLA_F_NET_BYTEORDER) !== 0 ? 'B' : '-'}`;
    lines.push(`|${decimal(length, 5)}|${marks}|${decimal(type & 0x3fff, 5)}|\t|len |flags| type|`);
    if (nested) lines.push(...formatAttributes(bytes, view, at + 4, at + length));
    else lines.push(...formatData(bytes, at + 4, at + length));
    at += align(length);
  }
  if (at < end) lines.push(...formatData(bytes, at, end));
  return lines;
}

function formatData(bytes: Uint8Array, start: number, end: number): string[] {
  const lines: string[] = [];
  for (let at = start; at < end; at += 4) {
    lines.push(`| ${hex(bytes, at, end)}  |\t|      data      |\t${printable(bytes, at, end)}`);
  }
  return lines;
}

/** Four bytes; those beyond `end` are padding and shown as zero. */
function hex(bytes: Uint8Array, at: number, end: number): string {
  const byte = (offset: number) => (offset < end ? (bytes[offset] ?? 0) : 0).toString(16).padStart(2, '0');
  return `${byte(at)} ${byte(at + 1)} ${byte(at + 2)} ${byte(at + 3)}`;
}

function printable(bytes: Uint8Array, at: number, end: number): string {
  let text = '';
  for (let offset = at; offset < Math.min(at + 4, end); offset += 1) {
    const code = bytes[offset] ?? 0;
    text += code >= 0x20 && code < 0x7f ? ` ${String.fromCharCode(code)}` : '  ';
  }
  return text;
}

function decimal(value: number, width: number): string {
  return String(value).padStart(width, '0');
}
