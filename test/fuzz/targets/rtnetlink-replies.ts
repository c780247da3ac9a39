// What the kernel says of links, addresses, routes, neighbours and VLANs, and what plugins make of it.
import fc from 'fast-check';
import { findHostLink, findLinkTowards, stalenessOf } from '../../../shared/host/links.ts';
import { parseCidr, parseIp } from '../../../shared/ip/cidr.ts';
import { encodeNewAddr } from '../../../shared/rtnetlink/addr.ts';
import { encodeSetPort } from '../../../shared/rtnetlink/bridge-port.ts';
import { encodeAddVlans } from '../../../shared/rtnetlink/bridge-vlan.ts';
import {
  RTM_NEWADDR,
  RTM_NEWLINK,
  RTM_NEWNEIGH,
  RTM_NEWROUTE,
  RTM_NEWVLAN,
} from '../../../shared/rtnetlink/constants.ts';
import { encodeNewLink, encodeSetLink } from '../../../shared/rtnetlink/link.ts';
import { encodeGetNeigh, encodeNewFdb } from '../../../shared/rtnetlink/neigh.ts';
import { encodeNewRoute } from '../../../shared/rtnetlink/route.ts';
import { type Rtnetlink, rtnetlinkOver } from '../../../shared/rtnetlink/rtnetlink.ts';
import { defineTarget } from '../driver.ts';
import { connectTo, kernelPlan } from '../inputs/kernel.ts';
import { attempt } from '../target.ts';

const MAC = '02:00:5e:00:53:01';
const IP4 = parseIp('10.66.0.7');
const IP6 = parseIp('fd00:66::7');
const DST4 = parseCidr('10.67.0.0/16');

const OBJECTS = [
  ...[
    encodeNewLink({ kind: 'bridge', name: 'cni0', mtu: 1450, mac: MAC, up: true }),
    encodeNewLink({ kind: 'veth', name: 'veth0', mac: MAC, master: 2, peer: { name: 'eth0', mtu: 1400 } }),
    encodeSetLink(3, {
      up: true,
      promiscuous: true,
      mtu: 1300,
      mac: MAC,
      master: 2,
      alias: 'who',
      txQueueLength: 9,
    }),
    encodeSetPort(3, { hairpin: true, isolated: true }),
  ].map(({ body }) => ({ type: RTM_NEWLINK, body })),
  ...[
    encodeNewAddr({ index: 2, address: parseCidr('10.66.0.1/24'), broadcast: parseIp('10.66.0.255') }),
    encodeNewAddr({ index: 2, address: parseCidr('fd00:66::1/64'), noDad: true }),
  ].map(({ body }) => ({ type: RTM_NEWADDR, body })),
  ...[
    encodeNewRoute({ dst: parseCidr('0.0.0.0/0'), gw: parseIp('10.66.0.1'), oif: 2, onlink: true }),
    encodeNewRoute({ dst: DST4, gw: parseIp('10.66.0.1'), src: IP4, oif: 2, mtu: 1300, advmss: 1200 }),
    encodeNewRoute({ dst: parseCidr('fd00:67::/64'), gw: IP6, oif: 2 }),
  ].map(({ body }) => ({ type: RTM_NEWROUTE, body })),
  ...[encodeGetNeigh({ index: 2, ip: IP4 }), encodeNewFdb({ index: 3, lladdr: MAC })].map(({ body }) => ({
    type: RTM_NEWNEIGH,
    body,
  })),
  ...[encodeAddVlans(3, [{ first: 1, last: 9, pvid: false, untagged: true }])].map(({ body }) => ({
    type: RTM_NEWVLAN,
    body,
  })),
].map((object) => ({ ...object, flags: 0, body: object.body.slice() }));

const ATTACHMENT = { network: 'fuzz', containerId: 'fuzzed', ifname: 'eth0' };
const OWNER = { ownerHash: '0', networkHash: '0', hostLink: 'veth0', station: undefined };

/** What plugins ask. */
const QUESTIONS: Readonly<Record<string, (rt: Rtnetlink) => unknown>> = {
  'find link': ({ link }) => link.find({ name: 'cni0' }),
  'get link': ({ link }) => link.get({ index: 2 }),
  'list links': ({ link }) => link.list({ kind: 'veth', master: 2 }),
  'add link': ({ link }) => link.add({ kind: 'bridge', name: 'cni0' }),
  'set link': ({ link }) => link.set(2, { up: true }),
  'remove link': ({ link }) => link.remove({ name: 'veth0' }),
  'list addrs': ({ addr }) => addr.list({ index: 2 }),
  'remove addr': ({ addr }) => addr.remove({ index: 2, address: parseCidr('10.66.0.1/24') }),
  'list routes': ({ route }) => route.list({ family: 4, oif: 2 }),
  'look up route': ({ route }) => route.lookup(IP4),
  'add route': ({ route }) => route.add({ dst: DST4, oif: 2 }),
  'find neigh': ({ neigh }) => neigh.find({ index: 2, ip: IP4 }),
  'list neighs': ({ neigh }) => neigh.list({ family: 4 }),
  'find fdb': ({ neigh }) => neigh.findFdb({ master: 2, lladdr: MAC }),
  'list VLANs': ({ vlan }) => vlan.list({ index: 3 }),
  'add VLANs': ({ vlan }) => vlan.add(3, [{ first: 1, last: 9, pvid: false, untagged: true }]),
  'host link': (rt) => findHostLink(rt, ATTACHMENT, { interfaces: [{ name: 'veth0' }] }),
  'link towards': (rt) => findLinkTowards(rt, IP6),
  staleness: (rt) => stalenessOf(rt, { network: NETWORK, validAttachments: undefined })(OWNER),
};

const NETWORK = {
  cniVersion: '1.1.0',
  name: 'fuzz',
  type: undefined,
  raw: {},
  prevResult: undefined,
  validAttachments: undefined,
} as const;

export const rtnetlinkReplies = defineTarget({
  name: 'rtnetlink replies',
  weight: 16,
  input: fc.record({ question: fc.constantFrom(...Object.keys(QUESTIONS)), plan: kernelPlan(OBJECTS) }),
  run: ({ question, plan }) =>
    attempt(() => {
      // A get has the number of its object plus two.
      using rt = rtnetlinkOver(connectTo(plan, (request) => request.type - 2));
      QUESTIONS[question]?.(rt);
      return 'ok';
    }),
});
