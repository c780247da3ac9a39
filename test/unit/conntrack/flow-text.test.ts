// Lines of /proc/net/nf_conntrack, as net/netfilter/nf_conntrack_standalone.c writes them.
import { describe, expect, test } from 'vitest';
import type { FlowFilter } from '../../../shared/conntrack/flow.ts';
import { findFlows } from '../../../shared/conntrack/flow-text.ts';
import { parseIp } from '../../../shared/ip/cidr.ts';

const DNS: FlowFilter = { family: 4, protocol: 'udp', dstPort: 53 };
const DNS6: FlowFilter = { family: 6, protocol: 'udp', dstPort: 53 };

const QUERY = {
  family: 4,
  protocol: 'udp',
  original: { src: parseIp('192.0.2.1'), dst: parseIp('203.0.113.1'), srcPort: 4000, dstPort: 53 },
  zone: 0,
};
const LINE =
  'ipv4     2 udp      17 29 src=192.0.2.1 dst=203.0.113.1 sport=4000 dport=53 [UNREPLIED] ' +
  'src=203.0.113.1 dst=192.0.2.1 sport=53 dport=4000 mark=0 zone=0 use=2';

describe('a line of the list of flows', () => {
  test('tells protocol and first packet', () => {
    expect(findFlows(`${LINE}\n`, [DNS])).toEqual([QUERY]);
  });

  test('with counters, a state and a security context is read as well', () => {
    const counted = LINE.replace('dport=53 [', 'dport=53 packets=1 bytes=29 [').replace(
      'use',
      'secctx=x use',
    );
    expect(findFlows(counted, [DNS])).toEqual([QUERY]);
    const tcp = LINE.replace('udp      17 29', 'tcp      6 431999 ESTABLISHED');
    expect(findFlows(tcp, [{ ...DNS, protocol: 'tcp' }])).toEqual([{ ...QUERY, protocol: 'tcp' }]);
    const offloaded = LINE.replace('17 29 src', '17 src').replace('zone=0', '[OFFLOAD] zone=0');
    expect(findFlows(offloaded, [DNS])).toEqual([QUERY]);
  });

  test('of IPv6 has its addresses written out', () => {
    const line =
      'ipv6     10 udp      17 29 src=2001:0db8:0000:0000:0000:0000:0000:0002 ' +
      'dst=2001:0db8:0000:0000:0000:0000:0000:0001 sport=4000 dport=53 [UNREPLIED] ' +
      'src=2001:0db8:0000:0000:0000:0000:0000:0001 dst=2001:0db8:0000:0000:0000:0000:0000:0002 ' +
      'sport=53 dport=4000 mark=0 zone=0 use=2';
    const [flow] = findFlows(line, [DNS, DNS6]);
    expect(flow).toMatchObject({ family: 6, original: { dst: parseIp('2001:db8::1'), dstPort: 53 } });
  });

  test.each(['zone', 'zone-orig'])('tells the zone of the original direction by %s', (name) => {
    expect(findFlows(LINE.replace('zone=0', `${name}=7`), [DNS])).toEqual([{ ...QUERY, zone: 7 }]);
  });

  test('whose zone is that of the replies is in none', () => {
    expect(findFlows(LINE.replace('zone=0', 'zone-reply=7'), [DNS])).toEqual([QUERY]);
  });

  test.each([
    ['of another port', LINE.replaceAll('=53 ', '=54 ')],
    ['whose answers go to that port', LINE.replaceAll('=53 ', '=54 ').replaceAll('=4000 ', '=53 ')],
    ['of another protocol', LINE.replace('udp      17', 'tcp      6')],
    ['of another family', LINE.replace('ipv4     2', 'ipv6     10')],
    [
      'of a protocol without ports',
      'ipv4     2 icmp     1 29 src=192.0.2.1 dst=203.0.113.1 type=8 code=0 id=53 ',
    ],
    ['with an address that is none', LINE.replace('src=192.0.2.1', 'src=192.0.2.256')],
    ['that breaks off', LINE.slice(0, LINE.indexOf('dst='))],
    ['of other words', 'x dport=53 y'],
  ])('%s is left out', (_, line) => {
    expect(findFlows(`${line}\n\n`, [DNS])).toEqual([]);
  });
});
