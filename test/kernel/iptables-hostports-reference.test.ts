// The reference's native nftables ports, loaded as they were captured, recognised by CHECK and removed in one batch.
// Run by vitest, project "kernel", as root.

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parseCidr } from '../../shared/ip/cidr.ts';
import { type HostportsWish, planHostports } from '../../shared/iptables/hostports-plan.ts';
import {
  hasReferenceHostports,
  planReferenceHostportsCleanup,
} from '../../shared/iptables/reference-hostports.ts';
import { type Nftables, openNftables } from '../../shared/nftables/nftables.ts';
import { mapping, wish } from '../fixtures/iptables/hostports.ts';
import { openTestNetns, type TestNetns } from '../support/sandbox.ts';

// Captured from release 1.9.1 for container c1 on network n1; behind it the same container on n2, and another one.
const CAPTURED = `
table ip cni_hostport {
  comment "CNI portmap plugin"
  chain hostports {
    tcp dport 8080 dnat to 10.22.0.2:80 comment "c1"
    ip daddr 192.0.2.7 tcp dport 8443 dnat to 10.22.0.2:443 comment "c1"
    udp dport 5353 dnat to 10.22.0.2:53 comment "c1"
    tcp dport 9090 dnat to 10.99.0.5:90 comment "c1"
    tcp dport 7070 dnat to 10.22.0.3:70 comment "c2"
    tcp dport 6060 dnat to 192.0.2.1:60
  }
  chain hostip_hostports {
  }
  chain hostports_all {
    jump hostip_hostports
    jump hostports
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr != 198.51.100.0/24 fib daddr type local jump hostports_all
  }
  chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump hostports_all
  }
  chain masquerading {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.22.0.2 ip daddr 10.22.0.2 masquerade comment "c1"
    ip saddr 127.0.0.1 ip daddr 10.22.0.2 masquerade comment "c1"
    ip saddr 10.99.0.5 ip daddr 10.99.0.5 masquerade comment "c1"
    ip saddr 127.0.0.1 ip daddr 10.99.0.5 masquerade comment "c1"
  }
}
table ip6 cni_hostport {
  comment "CNI portmap plugin"
  chain hostports {
    tcp dport 8080 dnat to [fd00:22::2]:80 comment "c1"
    ip6 daddr 2001:db8::7 sctp dport 9 dnat to [fd00:22::2]:9 comment "c1"
  }
  chain hostip_hostports {
  }
  chain hostports_all {
    jump hostip_hostports
    jump hostports
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local jump hostports_all
  }
  chain output {
    type nat hook output priority -100; policy accept;
    fib daddr type local jump hostports_all
  }
  chain masquerading {
    type nat hook postrouting priority srcnat; policy accept;
    ip6 saddr fd00:22::2 ip6 daddr fd00:22::2 masquerade comment "c1"
  }
}`;

const ON_N1 = ['10.22.0.2/24', 'fd00:22::2/64'].map(parseCidr);
const MAPPINGS = [
  mapping('tcp', 8080, 80),
  mapping('tcp', 8443, 443, '192.0.2.7'),
  mapping('udp', 5353, 53, '0.0.0.0'),
  mapping('sctp', 9, 9, '2001:db8::7'),
];
const OF_OTHERS = [
  'tcp dport 9090 dnat to 10.99.0.5:90 comment "c1"',
  'tcp dport 7070 dnat to 10.22.0.3:70 comment "c2"',
  'tcp dport 6060 dnat to 192.0.2.1:60',
  'ip saddr 10.99.0.5 ip daddr 10.99.0.5 masquerade comment "c1"',
  'ip saddr 127.0.0.1 ip daddr 10.99.0.5 masquerade comment "c1"',
];

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

/** The rules that translate, as nft prints them. */
function rules(): string[] {
  return host
    .run('nft', 'list', 'ruleset')
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => /dnat to|masquerade/.test(line));
}

/** The captured ruleset with a rule changed or left out. */
function load(was = '', is = ''): void {
  const text = CAPTURED.replace(was, is);
  if (was !== '' && text === CAPTURED) throw new Error(`The ruleset has no "${was}"`);
  host.feed(text, 'nft', '-f', '-');
}

describe('the clean-up of an attachment', () => {
  test('takes the rules that lead to its addresses, of both families', () => {
    load();
    const generation = nft.generation();
    nft.commit(planReferenceHostportsCleanup(nft, { containerId: 'c1' }, ON_N1), { generation });
    expect(rules()).toEqual(OF_OTHERS);
    expect(planReferenceHostportsCleanup(nft, { containerId: 'c1' }, ON_N1)).toEqual([]);
  });

  test('takes all rules of the container when nobody knows its addresses', () => {
    load();
    nft.commit(planReferenceHostportsCleanup(nft, { containerId: 'c1' }, undefined));
    expect(rules()).toEqual(OF_OTHERS.filter((rule) => !rule.includes('"c1"')));
  });

  test('does not take a host address for the address a rule leads to', () => {
    load();
    expect(planReferenceHostportsCleanup(nft, { containerId: 'c1' }, [parseCidr('192.0.2.7/24')])).toEqual(
      [],
    );
  });

  test('takes rules for a host address out of the chain that older releases used', () => {
    load(
      'chain hostip_hostports {\n',
      'chain hostip_hostports {\ntcp dport 1 dnat to 10.22.0.2:1 comment "c1"\n',
    );
    nft.commit(planReferenceHostportsCleanup(nft, { containerId: 'c1' }, ON_N1));
    expect(rules()).toEqual(OF_OTHERS);
  });

  test('has nothing to do on a host the reference never published a port on', () => {
    expect(planReferenceHostportsCleanup(nft, { containerId: 'c1' }, undefined)).toEqual([]);
  });
});

describe('CHECK', () => {
  function isPublished(parts: Partial<HostportsWish> = {}): boolean {
    return hasReferenceHostports(nft, planHostports(wish({ mappings: MAPPINGS, ...parts })));
  }

  test('accepts each mapping the reference published, in both families', () => {
    load();
    expect(isPublished()).toBe(true);
    expect(isPublished({ snat: false })).toBe(true);
    expect(isPublished({ masqAll: true })).toBe(true);
  });

  test('takes one rule that masquerades every source for masqAll', () => {
    load(
      'ip saddr 10.22.0.2 ip daddr 10.22.0.2 masquerade comment "c1"\n    ip saddr 127.0.0.1 ip daddr 10.22.0.2 masquerade',
      'ip saddr 0.0.0.0/0 ip daddr 10.22.0.2 masquerade',
    );
    expect(isPublished({ masqAll: true })).toBe(true);
    expect(isPublished()).toBe(false);
  });

  test.each([
    ['a port', 'udp dport 5353 dnat', 'udp dport 5354 dnat'],
    ['a protocol', 'udp dport 5353 dnat', 'sctp dport 5353 dnat'],
    ['a container port', '10.22.0.2:53', '10.22.0.2:54'],
    ['an address', '10.22.0.2:53', '10.22.0.4:53'],
    ['a host address', 'ip daddr 192.0.2.7', 'ip daddr 192.0.2.8'],
    ['the absence of a host address', 'udp dport 5353', 'ip daddr 192.0.2.7 udp dport 5353'],
    ['an owner', 'dnat to 10.22.0.2:53 comment "c1"', 'dnat to 10.22.0.2:53 comment "c3"'],
    ['a port of IPv6', '[fd00:22::2]:9', '[fd00:22::2]:10'],
    [
      'the way back of local connections',
      'ip saddr 127.0.0.1 ip daddr 10.22.0.2',
      'ip saddr 127.0.0.2 ip daddr 10.22.0.2',
    ],
    ['the way back of IPv6', 'ip6 saddr fd00:22::2', 'ip6 saddr fd00:22::3'],
    ['a hook', 'type nat hook output priority -100; policy accept;', ''],
    ['what a hook does', 'ip daddr != 198.51.100.0/24 fib daddr type local jump hostports_all', 'accept'],
  ])('misses %s', (_, was, is) => {
    load(was, is);
    expect(isPublished()).toBe(false);
  });

  test('finds nothing of a host the reference never published a port on', () => {
    expect(isPublished()).toBe(false);
    expect(hasReferenceHostports(undefined, planHostports(wish({})))).toBe(false);
  });
});
