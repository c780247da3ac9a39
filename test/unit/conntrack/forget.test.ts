// Which flows are forgotten when ports are published and when they are withdrawn, and above all which are not.
import { describe, expect, test } from 'vitest';
import type { Flow } from '../../../shared/conntrack/flow.ts';
import { filtersOf, flowsToForget, type PublishedPort } from '../../../shared/conntrack/forget.ts';
import { formatIp, type Ip, parseIp } from '../../../shared/ip/cidr.ts';
import { flow } from './flows.ts';

const LOCAL = ['127.0.0.1', '::1', '203.0.113.1', '203.0.113.2', '2001:db8::1'];
const CONTAINER = '10.22.0.2';
const CONTAINER6 = 'fd00::2';

const UDP53 = publish({ hostPort: 53 });
const isLocal = (ip: Ip) => LOCAL.includes(formatIp(ip));

describe('when a port is published', () => {
  test.each([
    ['from outside', flow({ dst: '203.0.113.1' })],
    ['to another address of the host', flow({ dst: '203.0.113.2' })],
    ['to the loopback address', flow({ src: '127.0.0.1', dst: '127.0.0.1' })],
    ['over IPv6', flow({ dst: '2001:db8::1' })],
    ['that a former container answered', flow({ answeredBy: '10.22.0.9' })],
    ['from a neighbour in the same subnet', flow({ src: '10.22.0.3', answeredBy: '10.22.0.9' })],
    ['in a zone', flow({ zone: 7 })],
  ])('a flow %s is forgotten', (_, known) => {
    expect(flowsToForget([known], { mappings: [UDP53], isLocal })).toEqual([known]);
  });

  test.each([
    ['passes through to that port of another host', flow({ dst: '198.51.100.1' })],
    ['passes through to a container of the same port', flow({ dst: CONTAINER })],
    ['goes to another port', flow({ dstPort: 54 })],
    ['is TCP', flow({ protocol: 'tcp' })],
    ['is SCTP, published for UDP', flow({ protocol: 'sctp' })],
  ])('a flow that %s stays', (_, known) => {
    expect(flowsToForget([known], { mappings: [UDP53], isLocal })).toEqual([]);
  });

  test('a TCP mapping forgets nothing, not even TCP', () => {
    const mappings = [publish({ protocol: 'tcp', hostPort: 53 })];
    expect(flowsToForget([flow(), flow({ protocol: 'tcp' })], { mappings, isLocal })).toEqual([]);
  });

  test('an SCTP mapping forgets SCTP', () => {
    const sctp = flow({ protocol: 'sctp' });
    const mappings = [publish({ protocol: 'sctp', hostPort: 53 })];
    expect(flowsToForget([flow(), sctp], { mappings, isLocal })).toEqual([sctp]);
  });

  test('one family alone forgets nothing of the other', () => {
    const flows = [flow({ dst: '203.0.113.1' }), flow({ dst: '2001:db8::1' })];
    const mappings = [publish({ hostPort: 53, families: [6] })];
    expect(flowsToForget(flows, { mappings, isLocal })).toEqual(flows.slice(1));
  });

  test('on one address forgets nothing of the others', () => {
    const flows = ['203.0.113.1', '203.0.113.2', '127.0.0.1'].map((dst) => flow({ dst }));
    const mappings = [publish({ hostPort: 53, hostIp: '203.0.113.2' })];
    expect(flowsToForget(flows, { mappings, isLocal })).toEqual(flows.slice(1, 2));
  });

  test('on an address the host does not have, forgets nothing: such flows pass through', () => {
    const mappings = [publish({ hostPort: 53, hostIp: '198.51.100.1' })];
    expect(flowsToForget([flow({ dst: '198.51.100.1' })], { mappings, isLocal })).toEqual([]);
  });

  test('several mappings of a port each have their say, and a flow is forgotten once', () => {
    const flows = [flow({ dst: '203.0.113.2' }), flow({ dst: '2001:db8::1' }), flow({ dst: '127.0.0.1' })];
    const mappings = [
      publish({ hostPort: 53, hostIp: '203.0.113.2' }),
      publish({ hostPort: 53, families: [6] }),
      publish({ hostPort: 53, families: [6] }),
    ];
    expect(flowsToForget(flows, { mappings, isLocal })).toEqual(flows.slice(0, 2));
  });

  test('the kernel is asked about the destinations of matching flows alone', () => {
    const asked: string[] = [];
    const flows = [flow({ dst: '198.51.100.1' }), flow({ dstPort: 54 }), flow({ protocol: 'tcp' })];
    flowsToForget(flows, { mappings: [UDP53], isLocal: (ip) => asked.push(formatIp(ip)) > 99 });
    expect(asked).toEqual(['198.51.100.1']);
  });
});

describe('when a port is withdrawn', () => {
  const replySource = [parseIp(CONTAINER), parseIp(CONTAINER6)];
  const forgotten = (flows: readonly Flow[], from = replySource) =>
    flowsToForget(flows, { mappings: [UDP53], isLocal, replySource: from });

  test('flows that the container answers are forgotten, over both families', () => {
    const flows = [
      flow({ answeredBy: CONTAINER }),
      flow({ dst: '2001:db8::1', answeredBy: CONTAINER6 }),
      flow({ src: CONTAINER, answeredBy: CONTAINER }), // hairpin
    ];
    expect(forgotten(flows)).toEqual(flows);
  });

  test.each([
    ['the host itself answers', flow()],
    ['another container answers', flow({ answeredBy: '10.22.0.3' })],
    ['goes to another port of the host', flow({ dstPort: 54, answeredBy: CONTAINER })],
    ['goes to the container directly', flow({ dst: CONTAINER })],
    [
      'another translation, of an address that is not the host’s, leads to the container',
      flow({ dst: '198.51.100.1', answeredBy: CONTAINER }),
    ],
  ])('a flow that %s stays', (_, known) => {
    expect(forgotten([known])).toEqual([]);
  });

  test('a container without addresses has no flows', () => {
    expect(forgotten([flow(), flow({ answeredBy: CONTAINER })], [])).toEqual([]);
  });
});

describe('the filters', () => {
  test('name each family and port once, without TCP', () => {
    const mappings = [
      UDP53,
      publish({ hostPort: 53, families: [4] }),
      publish({ protocol: 'tcp', hostPort: 80 }),
      publish({ protocol: 'sctp', hostPort: 5060, families: [4] }),
    ];
    expect(filtersOf(mappings)).toEqual([
      { family: 4, protocol: 'udp', dstPort: 53 },
      { family: 6, protocol: 'udp', dstPort: 53 },
      { family: 4, protocol: 'sctp', dstPort: 5060 },
    ]);
  });

  test('of an address are of its family', () => {
    expect(filtersOf([publish({ hostPort: 53, hostIp: '2001:db8::1' })])).toEqual([
      { family: 6, protocol: 'udp', dstPort: 53 },
    ]);
  });
});

function publish(
  traits: Partial<Omit<PublishedPort, 'hostIp'>> & { hostPort: number; hostIp?: string },
): PublishedPort {
  const { hostIp, ...others } = traits;
  return {
    protocol: 'udp',
    families: [4, 6],
    hostIp: hostIp === undefined ? undefined : parseIp(hostIp),
    ...others,
  };
}
