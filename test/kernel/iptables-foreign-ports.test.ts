// Ports that others publish, read over netlink from the chains that iptables makes and from the rules of the reference's
// nftables backend. Run by vitest, project "kernel", as root.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { formatCidr, formatIp, parseCidr, parseIp } from '../../shared/ip/cidr.ts';
import { type ForeignPort, listForeignPorts } from '../../shared/iptables/foreign-ports.ts';
import { addHostports, removeChains } from '../../shared/iptables/hostports.ts';
import { type HostportsWish, planHostports } from '../../shared/iptables/hostports-plan.ts';
import { mapping, wish } from '../fixtures/iptables/hostports.ts';
import { feedNat, listNat } from '../support/nat-table.ts';
import { insideWithNftables, openTestNetns, type TestNetns } from '../support/sandbox.ts';

const STRANGER = { network: 'n1', containerId: 'stranger', addresses: [] };

let host: TestNetns;

beforeEach(() => {
  host = openTestNetns();
});

afterEach(() => {
  host[Symbol.dispose]();
});

function add(parts: Partial<HostportsWish> = {}): void {
  insideWithNftables(host, () => addHostports(planHostports(wish(parts))));
}

function wanted(...ports: readonly (readonly [4 | 6, ForeignPort['protocol'], number])[]) {
  return ports.map(([family, protocol, hostPort]) => ({ family, protocol, hostPort }));
}

/** Each port in words: `tcp 8080 to 10.22.0.2 by "net: n1, id: c1" in iptables, if daddr 192.0.2.7/32`. */
function portsOf(ports: ReturnType<typeof wanted>, seeker = STRANGER): string[] {
  return insideWithNftables(host, (nft) => listForeignPorts(nft, seeker, ports).ports).map(
    ({ protocol, hostPort, target, holder, conditions }) => {
      const lists = conditions.map((list) =>
        list
          .map((one) => {
            const value =
              one.kind === 'iifname' ? `${one.name}${one.isPrefix ? '*' : ''}` : formatCidr(one.cidr);
            return `${one.kind} ${one.negated ? 'not ' : ''}${value}`;
          })
          .join(' and '),
      );
      const led = target === undefined ? '' : ` to ${formatIp(target)}`;
      return [`${protocol} ${hostPort}${led} belongs ${holder}`, ...lists.filter(Boolean)].join(', ');
    },
  );
}

describe('what iptables publishes', () => {
  test('is told with protocol, address, conditions and holder, in both families', () => {
    add({
      mappings: [
        mapping('tcp', 8080, 80),
        mapping('udp', 53, 5353, '192.0.2.7'),
        mapping('sctp', 9, 9),
        mapping('tcp', 8443, 443, '2001:db8::7'),
      ],
      conditions4: [
        [
          { kind: 'saddr', cidr: parseCidr('192.0.2.0/23'), negated: true },
          { kind: 'iifname', name: 'eth', isPrefix: true, negated: false },
        ],
      ],
      conditions6: [[{ kind: 'daddr', cidr: parseCidr('2001:db8::/32'), negated: true }]],
    });
    const by = 'belongs to "net: n1, id: c1" in iptables';
    const if4 = 'iifname eth* and saddr not 192.0.2.0/23';
    const if6 = 'daddr not 2001:db8::/32';
    const ports = wanted([4, 'tcp', 8080], [4, 'udp', 53], [4, 'sctp', 9], [6, 'sctp', 9], [6, 'tcp', 8443]);
    expect(portsOf(ports).sort()).toEqual([
      `sctp 9 to 10.22.0.2 ${by}, ${if4}`,
      `sctp 9 to fd00:22::2 ${by}, ${if6}`,
      `tcp 8080 to 10.22.0.2 ${by}, ${if4}`,
      `tcp 8443 to fd00:22::2 ${by}, ${if6} and daddr 2001:db8::7/128`,
      `udp 53 to 10.22.0.2 ${by}, ${if4} and daddr 192.0.2.7/32`,
    ]);
  });

  test('is looked for among hundreds of ports, and only what is wanted is told', () => {
    add({ mappings: Array.from({ length: 300 }, (_, n) => mapping('tcp', 20_000 + n, 80)) });
    add({ containerId: 'c2', mappings: [mapping('tcp', 8080, 80)] });
    expect(portsOf(wanted([4, 'tcp', 20_299]))).toEqual([
      'tcp 20299 to 10.22.0.2 belongs to "net: n1, id: c1" in iptables',
    ]);
    expect(portsOf(wanted([4, 'udp', 20_299], [4, 'tcp', 20_300]))).toEqual([]);
    expect(portsOf([])).toEqual([]);
  });

  test('by the one who asks is its own, and removed by the chain that was found', () => {
    add();
    add({ containerId: 'c2', mappings: [mapping('tcp', 9090, 90)] });
    const { own } = insideWithNftables(host, (nft) =>
      listForeignPorts(nft, { network: 'n1', containerId: 'c1', addresses: [] }, []),
    );
    expect(own.map((node) => node.kind === 'iptables-chain' && node.family)).toEqual([4, 6]);
    const chains = own.flatMap((node) => (node.kind === 'iptables-chain' ? [node] : []));
    const removed = insideWithNftables(host, () => removeChains([...chains, ...chains]));
    expect(removed.length).toBeGreaterThan(0);
    for (const family of [4, 6] as const) {
      const left = listNat(host, family).filter((line) => /^:CNI-DN-/.test(line));
      expect(left).toHaveLength(1);
    }
  });

  test('costs no more on a host with thousands of rules of others, whose chains are not read', () => {
    const noise = Array.from({ length: 3000 }, (_, n) => `-A NOISE -p tcp -m tcp --dport ${1 + n} -j RETURN`);
    feedNat(host, 4, 'nft', '-N NOISE', ...noise);
    add();
    insideWithNftables(host, (nft) => {
      const listRules = vi.spyOn(nft, 'listRules');
      listForeignPorts(nft, STRANGER, wanted([4, 'tcp', 8080]));
      const read = listRules.mock.results.flatMap(({ value }) => value as unknown[]);
      expect(read.length).toBeGreaterThan(0);
      expect(read.length).toBeLessThan(20);
    });
  });

  test('is overlooked in chains that only look like it', () => {
    feedNat(
      host,
      4,
      'nft',
      '-N CNI-HOSTPORT-DNAT',
      '-N OTHER',
      '-A OTHER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.1:80',
      '-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 8080 -j OTHER',
      '-A CNI-HOSTPORT-DNAT -p tcp -m multiport --sports 8080 -j ACCEPT',
    );
    expect(portsOf(wanted([4, 'tcp', 8080]))).toEqual([]);
  });
});

test('what the reference publishes natively is told with its container, and the rules of who asks are its own', () => {
  const input = `table ip cni_hostport {
    chain hostports {
      tcp dport 8080 dnat to 10.22.0.2:80 comment "c1"
      ip daddr 192.0.2.7 udp dport 53 dnat to 10.22.0.3:53 comment "c2"
      tcp dport 9090 dnat to 10.99.0.2:90 comment "c1"
    }
    chain masquerading {
      type nat hook postrouting priority srcnat; policy accept;
      ip saddr 10.22.0.2 ip daddr 10.22.0.2 masquerade comment "c1"
    }
  }`;
  host.feed(input, 'nft', '-f', '-');
  const ports = wanted([4, 'tcp', 8080], [4, 'udp', 53], [4, 'tcp', 9090], [6, 'tcp', 8080]);
  expect(portsOf(ports)).toEqual([
    'tcp 8080 to 10.22.0.2 belongs to container "c1" in table "ip cni_hostport"',
    'udp 53 to 10.22.0.3 belongs to container "c2" in table "ip cni_hostport", daddr 192.0.2.7/32',
    'tcp 9090 to 10.99.0.2 belongs to container "c1" in table "ip cni_hostport"',
  ]);
  const seeker = { network: 'n1', containerId: 'c1', addresses: [parseIp('10.22.0.2')] };
  const found = insideWithNftables(host, (nft) => listForeignPorts(nft, seeker, ports));
  expect(found.own).toHaveLength(2);
  expect(found.ports.map(({ hostPort }) => hostPort)).toEqual([53, 9090]);
});

test('a host without such tables is asked one question', () => {
  insideWithNftables(host, (nft) => {
    const listRules = vi.spyOn(nft, 'listRules');
    expect(listForeignPorts(nft, STRANGER, wanted([4, 'tcp', 80]))).toEqual({ ports: [], own: [] });
    expect(listRules).not.toHaveBeenCalled();
  });
});
