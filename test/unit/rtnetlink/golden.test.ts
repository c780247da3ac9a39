// Our encoders against the bytes that `ip` and `bridge` send: every golden of test/fixtures/netlink, and no other.
import { readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { type Cidr, parseCidr, parseIp } from '../../../shared/ip/cidr.ts';
import type { Netns } from '../../../shared/linux/netns.ts';
import {
  encodeMessage,
  type NetlinkRequest,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_REQUEST,
} from '../../../shared/netlink/message.ts';
import { encodeDeleteAddr, encodeNewAddr } from '../../../shared/rtnetlink/addr.ts';
import { encodeSetPort } from '../../../shared/rtnetlink/bridge-port.ts';
import { encodeAddVlans, encodeListVlans, encodeRemoveVlans } from '../../../shared/rtnetlink/bridge-vlan.ts';
import {
  encodeDeleteLink,
  encodeGetLink,
  encodeNewLink,
  encodeSetLink,
} from '../../../shared/rtnetlink/link.ts';
import { encodeGetFdb, encodeGetNeigh, encodeNewFdb } from '../../../shared/rtnetlink/neigh.ts';
import { encodeNewRoute } from '../../../shared/rtnetlink/route.ts';
import { expectGolden, readGolden } from '../../support/hex.ts';

const FOLDER = new URL('../../fixtures/netlink/', import.meta.url);

const MAC = '02:00:00:00:00:01';
const PEER_MAC = '02:00:00:00:00:02';
// Its descriptor is masked in the goldens.
const SANDBOX: Netns = { path: '/run/netns/sandbox', fd: 5, device: 0n, inode: 0n, [Symbol.dispose]() {} };
// As in the prepared worlds: lo, cni0, then far0 and eth0, or far0 and eth0 alone.
const CNI0 = 2;
const ETH0 = 3;
const ETH0_BESIDE_CNI0 = 4;

const WISHES: Readonly<Record<string, NetlinkRequest>> = {
  'link-add-bridge': encodeNewLink({ kind: 'bridge', name: 'cni0', mtu: 1450, mac: MAC, up: true }),
  'link-add-bridge-options': encodeNewLink({ kind: 'bridge', name: 'cni0', groupForwardMask: 8 }),
  'link-add-veth': encodeNewLink({
    kind: 'veth',
    name: 'veth0',
    mtu: 1400,
    mac: MAC,
    master: CNI0,
    up: true,
    peer: { name: 'eth0', mtu: 1400, mac: PEER_MAC, netns: SANDBOX },
  }),
  'link-set': encodeSetLink(ETH0_BESIDE_CNI0, {
    up: true,
    promiscuous: true,
    allmulti: false,
    mtu: 1300,
    mac: MAC,
    master: CNI0,
    alias: 'who',
  }),
  'link-set-queue': encodeSetLink(ETH0, { promiscuous: false, allmulti: true, txQueueLength: 500 }),
  'link-set-netns': encodeSetLink(ETH0, { netns: SANDBOX, name: 'eth1' }),
  'link-get': encodeGetLink({ name: 'eth0' }),
  'link-delete': encodeDeleteLink({ index: ETH0 }),
  'link-set-port': encodeSetPort(ETH0_BESIDE_CNI0, { hairpin: true, learning: false, isolated: true }),
  'addr-add': encodeNewAddr({
    index: ETH0,
    address: cidr('10.22.0.9/24'),
    broadcast: parseIp('10.22.0.255'),
  }),
  'addr-add-ipv6': encodeNewAddr({ index: ETH0, address: cidr('fd00::9/64'), noDad: true }),
  'addr-add-link-scope': encodeNewAddr({ index: ETH0, address: cidr('169.254.1.1/32'), scope: 253 }),
  'addr-delete': encodeDeleteAddr({ index: ETH0, address: cidr('10.22.0.2/24') }),
  'route-add-default': encodeNewRoute({
    dst: cidr('0.0.0.0/0'),
    gw: parseIp('10.22.0.1'),
    oif: ETH0,
    onlink: true,
  }),
  'route-add-full': encodeNewRoute({
    dst: cidr('10.1.0.0/16'),
    gw: parseIp('10.22.0.1'),
    src: parseIp('10.22.0.2'),
    priority: 5,
    table: 1000,
    oif: ETH0,
    mtu: 1400,
    advmss: 1360,
  }),
  'route-add-link-scope': encodeNewRoute({ dst: cidr('10.2.0.1/32'), oif: ETH0, table: 100, scope: 253 }),
  'route-add-ipv6': encodeNewRoute({ dst: cidr('fd01::/48'), gw: parseIp('fd00::1'), oif: ETH0 }),
  'route-add-via-ipv6': encodeNewRoute({ dst: cidr('10.3.0.0/16'), gw: parseIp('fd00::1'), oif: ETH0 }),
  'neigh-get': encodeGetNeigh({ index: ETH0, ip: parseIp('10.22.0.3') }),
  'link-add-bridge-vlans': encodeNewLink({ kind: 'bridge', name: 'cni0', vlanFiltering: true }),
  'vlan-add': encodeAddVlans(ETH0_BESIDE_CNI0, [{ first: 100, last: 100, pvid: true, untagged: true }]),
  'vlan-add-range': encodeAddVlans(ETH0_BESIDE_CNI0, [
    { first: 200, last: 210, pvid: false, untagged: false },
  ]),
  'vlan-remove': encodeRemoveVlans(ETH0_BESIDE_CNI0, [{ first: 1, last: 1 }]),
  'vlan-list': encodeListVlans(),
  'fdb-add': encodeNewFdb({ index: ETH0_BESIDE_CNI0, lladdr: PEER_MAC }),
  'fdb-get': encodeGetFdb({ master: CNI0, lladdr: MAC }),
};

test.each(Object.entries(WISHES))('%s is what the tool sends', (name, wish) => {
  const kind = /-(get|list)$/.exec(name)?.[1];
  const added = kind === 'get' ? 0 : kind === 'list' ? NLM_F_DUMP : NLM_F_ACK;
  const flags = wish.flags | NLM_F_REQUEST | added; // what the connection adds
  expectGolden(encodeMessage({ ...wish, flags, sequence: 7 }), readGolden(new URL(`${name}.hex`, FOLDER)));
});

test('every golden has its wish', () => {
  const goldens = readdirSync(FOLDER).filter((file) => file.endsWith('.hex'));
  expect(goldens.toSorted()).toEqual(
    Object.keys(WISHES)
      .map((name) => `${name}.hex`)
      .toSorted(),
  );
});

function cidr(text: string): Cidr {
  return parseCidr(text);
}
