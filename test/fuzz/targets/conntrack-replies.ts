// What the kernel says of flows, and which of them are forgotten.
import fc from 'fast-check';
import { connectConntrack, type FlowFilter } from '../../../shared/conntrack/conntrack.ts';
import {
  CTA_STATS_GLOBAL_ENTRIES,
  IPCTNL_MSG_CT_GET,
  IPCTNL_MSG_CT_GET_STATS,
  IPCTNL_MSG_CT_NEW,
} from '../../../shared/conntrack/constants.ts';
import { messageType } from '../../../shared/conntrack/flow.ts';
import { AttributeWriter } from '../../../shared/netlink/attributes.ts';
import { flow, told } from '../../unit/conntrack/flows.ts';
import { defineTarget } from '../driver.ts';
import { mutated } from '../inputs/bytes.ts';
import { connectTo, kernelPlan } from '../inputs/kernel.ts';
import { attempt } from '../target.ts';

const FLOWS = [
  flow({ dst: '203.0.113.1', dstPort: 53, id: 1, answeredBy: '10.66.0.7' }),
  flow({ dst: '203.0.113.1', dstPort: 53, protocol: 'tcp', id: 2 }),
  flow({ dst: '2001:db8::1', dstPort: 53, id: 3 }),
  flow({ dst: '2001:db8::1', dstPort: 5060, protocol: 'sctp', id: 4, zone: 7 }),
];
const COUNT = new AttributeWriter(new Uint8Array(4)).u32be(CTA_STATS_GLOBAL_ENTRIES, 4).done().slice();
const OBJECTS = [
  ...FLOWS.map((known) => ({ type: messageType(IPCTNL_MSG_CT_NEW), flags: 0, body: told(known).body })),
  { type: messageType(IPCTNL_MSG_CT_GET_STATS), flags: 0, body: COUNT },
];
const COUNTED = { type: messageType(IPCTNL_MSG_CT_GET_STATS), flags: 0, body: COUNT };

const FILTERS: readonly FlowFilter[] = [
  { family: 4, protocol: 'udp', dstPort: 53 },
  { family: 6, protocol: 'udp', dstPort: 53 },
  { family: 6, protocol: 'sctp', dstPort: 5060 },
];

const TEXT = fc.constant(
  new Uint8Array(
    Buffer.from(
      'ipv4     2 udp      17 29 src=192.0.2.1 dst=203.0.113.1 sport=4000 dport=53 [UNREPLIED] src=10.66.0.7 dst=192.0.2.1 sport=53 dport=4000 mark=0 zone=1 use=2\n' +
        'ipv6     10 sctp     132 29 src=2001:db8::2 dst=2001:db8::1 sport=4000 dport=5060 src=2001:db8::1 dst=2001:db8::2 sport=5060 dport=4000 mark=0 use=2\n',
    ),
  ),
);

export const conntrackReplies = defineTarget({
  name: 'conntrack replies',
  weight: 10,
  input: fc.record({
    text: fc.option(mutated(TEXT, { tokens: [' ', '\n', 'dport=53 ', 'ipv6'] }), { nil: undefined }),
    filters: fc.subarray([...FILTERS], { minLength: 1 }),
    plan: kernelPlan(OBJECTS),
  }),
  run: ({ filters, plan, text }) =>
    attempt(() => {
      const objects = [...plan.objects, COUNTED];
      const isGet = (type: number) => type === messageType(IPCTNL_MSG_CT_GET);
      using conntrack = connectConntrack(
        connectTo({ ...plan, objects }, ({ type }) => (isGet(type) ? messageType(IPCTNL_MSG_CT_NEW) : type)),
        () => text && Buffer.from(text).toString(),
      );
      for (const found of conntrack.list(filters)) conntrack.delete(found);
      return 'ok';
    }),
});
