// The reference's native nftables masquerade, loaded as it was captured and removed by ours in one batch.
// Run by vitest, project "kernel", as root.

import { afterEach, beforeEach, expect, test } from 'vitest';
import { parseCidr } from '../../shared/ip/cidr.ts';
import {
  hasReferenceMasquerade,
  planReferenceCleanup,
  planReferenceGc,
} from '../../shared/iptables/reference-nftables.ts';
import { type Nftables, openNftables } from '../../shared/nftables/nftables.ts';
import { openTestNetns, type TestNetns } from '../support/sandbox.ts';

// Captured from release 1.9.1: network n1, containers c1 and c2; n2 is the same under another network's hash.
const CAPTURED = `
table inet cni_plugins_masquerade {
  comment "Masquerading for plugins from github.com/containernetworking/plugins"
  chain masq_checks {
    ip saddr 10.22.0.2 ip daddr != 10.22.0.0/24 masquerade comment "43d91f8451058a70-f4d01f2ef4b92245, net: n1, if: eth0, id: c1"
    ip6 saddr fd00:22::2 ip6 daddr != fd00:22::/64 masquerade comment "43d91f8451058a70-f4d01f2ef4b92245, net: n1, if: eth0, id: c1"
    ip saddr 10.22.0.3 ip daddr != 10.22.0.0/24 masquerade comment "43d91f8451058a70-8c6ebb285a95686c, net: n1, if: eth0, id: c2"
    ip saddr 10.99.0.3 ip daddr != 10.99.0.0/24 masquerade comment "00000000000000ff-8c6ebb285a95686c, net: n2, if: eth0, id: c2"
    ip saddr 192.0.2.1 masquerade
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip daddr 224.0.0.0/4 return
    ip6 daddr ff00::/8 return
    goto masq_checks
  }
}`;

const C1 = { network: 'n1', containerId: 'c1', ifname: 'eth0' };

let host: TestNetns;
let nft: Nftables;

beforeEach(() => {
  host = openTestNetns();
  nft = openNftables({ netns: host.netns });
});

afterEach(() => {
  nft[Symbol.dispose]();
  host[Symbol.dispose]();
});

function sources(): string[] {
  const listing = host.run('nft', 'list', 'chain', 'inet', 'cni_plugins_masquerade', 'masq_checks');
  return Array.from(listing.matchAll(/saddr (\S+)/g), ([, address]) => address ?? '');
}

test('the rules of one attachment go, of both families, and no others', () => {
  host.feed(CAPTURED, 'nft', '-f', '-');
  const generation = nft.generation();
  nft.commit(planReferenceCleanup(nft, C1), { generation });
  expect(sources()).toEqual(['10.22.0.3', '10.99.0.3', '192.0.2.1']);
  expect(planReferenceCleanup(nft, C1)).toEqual([]);
});

test('another ifname of the same container is another attachment', () => {
  host.feed(CAPTURED, 'nft', '-f', '-');
  expect(planReferenceCleanup(nft, { ...C1, ifname: 'eth1' })).toEqual([]);
});

test('there is nothing to do on a host the reference never masqueraded on', () => {
  expect(planReferenceCleanup(nft, C1)).toEqual([]);
  expect(planReferenceGc(nft, { network: 'n1', attachments: [] })).toEqual([]);
  expect(hasReferenceMasquerade(nft, C1, [parseCidr('10.22.0.2/24')])).toBe(false);
});

test('stale attachments of a network go, valid ones and other networks stay', () => {
  host.feed(CAPTURED, 'nft', '-f', '-');
  nft.commit(planReferenceGc(nft, { network: 'n1', attachments: [{ containerId: 'c2', ifname: 'eth0' }] }));
  expect(sources()).toEqual(['10.22.0.3', '10.99.0.3', '192.0.2.1']);
});

test('an attachment counts as masqueraded when each of its addresses has a rule', () => {
  host.feed(CAPTURED, 'nft', '-f', '-');
  const both = ['10.22.0.2/24', 'fd00:22::2/64'].map(parseCidr);
  expect(hasReferenceMasquerade(nft, C1, both)).toBe(true);
  expect(hasReferenceMasquerade(nft, C1, [...both, parseCidr('10.22.0.3/24')])).toBe(false);
  expect(hasReferenceMasquerade(nft, { ...C1, containerId: 'c3' }, both)).toBe(false);
});
