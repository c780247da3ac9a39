// Datagrams as such: messages, attributes, acknowledgements, and the dump for people.
import fc from 'fast-check';
import { decodeAck, decodeDone } from '../../../shared/netlink/ack.ts';
import { type Attributes, AttributeWriter, readAttributes } from '../../../shared/netlink/attributes.ts';
import {
  encodeMessages,
  NLM_F_ACK_TLVS,
  NLMSG_DONE,
  NLMSG_ERROR,
  splitMessages,
} from '../../../shared/netlink/message.ts';
import { formatMessages } from '../../../shared/netlink/trace.ts';
import { defineTarget } from '../driver.ts';
import { mutated } from '../inputs/bytes.ts';
import { promise } from '../target.ts';

/** Of the family, before its attributes. */
const HEADER = 16;

const BODIES = [
  new AttributeWriter(new Uint8Array(HEADER))
    .string(3, 'eth0')
    .nest(18, (info) => info.string(1, 'veth').u32(2, 7))
    .done(),
  new AttributeWriter(new Uint8Array(20)).string(1, 'The kernel says no').u32(2, 24).done(),
  new AttributeWriter(new Uint8Array(HEADER)).u8(1, 1).u16be(2, 2).u64(3, 3n).flag(4).done(),
  new Uint8Array(20),
].map((bytes) => bytes.slice());

const DATAGRAM = fc
  .array(
    fc.record({
      type: fc.constantFrom(NLMSG_ERROR, NLMSG_DONE, 16, 24, 2560),
      flags: fc.constantFrom(0, 2, NLM_F_ACK_TLVS),
      body: fc.constantFrom(...BODIES),
    }),
    { minLength: 1, maxLength: 4 },
  )
  .map((messages) => encodeMessages(messages, 1));

export const netlinkMessages = defineTarget({
  name: 'netlink messages',
  weight: 10,
  input: mutated(DATAGRAM),
  run(bytes) {
    const text = formatMessages(bytes, () => 16);
    // A byte is a line at most, and a header has six.
    promise(
      text.length <= 400 + bytes.length * 80,
      `The dump of ${bytes.length} bytes has ${text.length} letters`,
    );
    return malformedOr(() => {
      for (const message of splitMessages(bytes)) {
        if (message.type === NLMSG_ERROR) decodeAck(message);
        else if (message.type === NLMSG_DONE) decodeDone(message);
        else readDeep(readAttributes(message.body, HEADER), 4);
      }
    });
  },
});

// Whatever an attribute holds may be read as attributes; most is none.
function readDeep(attributes: Attributes, depth: number): void {
  for (const { type, value } of attributes.entries()) {
    attributes.string(type);
    promise(attributes.has(type) && value.length <= 0xffff, 'An attribute is longer than it can be');
    if (depth > 0) malformedOr(() => readDeep(readAttributes(value), depth - 1));
  }
}

function malformedOr(read: () => void): string {
  try {
    read();
    return 'ok';
  } catch (error) {
    const isTold =
      error instanceof Error && error.name === 'Error' && error.message.startsWith('Malformed netlink');
    promise(isTold, `Malformed messages are told otherwise: ${error}`);
    return 'malformed';
  }
}
