// Published ports in the reference's format on a real kernel: made by ours and compared with the reference's, made by
// the reference and removed by ours, in both iptables. Run by vitest, project "kernel", as root.

import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { parseCidr } from '../../shared/ip/cidr.ts';
import {
  addHostports,
  expectHostports,
  findHostports,
  hasHostports,
  removeHostports,
  removeStaleHostports,
} from '../../shared/iptables/hostports.ts';
import {
  encodeReplacement,
  type HostportsWish,
  planHostports,
} from '../../shared/iptables/hostports-plan.ts';
import { hasReferenceHostports } from '../../shared/iptables/reference-hostports.ts';
import * as spawning from '../../shared/linux/spawn.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import { capturedListing, HOSTPORT_CASES, mapping, wish } from '../fixtures/iptables/hostports.ts';
import {
  countAtOnce,
  feedNat,
  feedText,
  listNat,
  type NatFlavour,
  runInAnotherProcess,
  runReference,
} from '../support/nat-table.ts';
import { insideWithNftables, openTestNetns, type TestNetns } from '../support/sandbox.ts';

vi.mock('../../shared/linux/spawn.ts', { spy: true });

const OWNER = { network: 'n1', containerId: 'c1' };
const CHAIN = 'CNI-DN-7be53730afe4dc6eb2178';

let host: TestNetns;

beforeEach(() => {
  host = openTestNetns();
  vi.clearAllMocks();
});

afterEach(() => {
  host[Symbol.dispose]();
});

function onHost<T>(work: (nft: Nftables) => T): T {
  return insideWithNftables(host, work);
}

function add(parts: Partial<HostportsWish> = {}): void {
  onHost(() => addHostports(planHostports(wish(parts))));
}

function expectAll(parts: Partial<HostportsWish> = {}): void {
  onHost(() => expectHostports(planHostports(wish(parts))));
}

function listing(family: 4 | 6, flavour: NatFlavour = 'nft'): string[] {
  return listNat(host, family, flavour);
}

/** What belongs to a container, and what the containers share. */
function parts(family: 4 | 6, flavour: NatFlavour = 'nft'): { own: string[]; shared: string[] } {
  const lines = listing(family, flavour);
  const isOwn = (line: string) => /CNI-[DS]N-/.test(line);
  return { own: lines.filter(isOwn), shared: lines.filter((line) => !isOwn(line)) };
}

function programs(): string[] {
  return vi.mocked(spawning.run).mock.calls.map(([program]) => program.replace('/usr/sbin/', ''));
}

function feed(family: 4 | 6, flavour: NatFlavour, ...commands: readonly string[]): void {
  feedNat(host, family, flavour, ...commands);
}

describe.each(HOSTPORT_CASES.map((request) => [request.title, request] as const))('%s', (title, request) => {
  test('the table is what the reference makes of it, and CHECK is content', () => {
    for (const family of [4, 6] as const) feed(family, 'nft', '-N KUBE-MARK-MASQ');
    const plan = planHostports(request.wish);
    onHost(() => addHostports(plan));
    expect(listing(4)).toEqual(capturedListing(title, 4));
    expect(listing(6)).toEqual(capturedListing(title, 6));
    onHost(() => expectHostports(plan));
  });
});

describe('beside the reference plugin', () => {
  let sandbox: TestNetns;

  beforeEach(() => {
    sandbox = openTestNetns();
    for (const family of [4, 6] as const) feed(family, 'nft', '-N KUBE-MARK-MASQ');
    vi.clearAllMocks();
  });

  afterEach(() => {
    sandbox[Symbol.dispose]();
  });

  function reference(verb: 'ADD' | 'DEL', request: (typeof HOSTPORT_CASES)[number]): void {
    const config = {
      cniVersion: '1.0.0',
      name: 'n1',
      type: 'portmap',
      ...request.config,
      runtimeConfig: { portMappings: request.portMappings },
      prevResult: {
        cniVersion: '1.0.0',
        interfaces: [{ name: 'eth0', sandbox: sandbox.path }],
        ips:
          request.wish.addresses.length === 0
            ? []
            : [
                { address: '10.22.0.2/24', interface: 0 },
                { address: 'fd00:22::2/64', interface: 0 },
              ],
      },
    };
    const { containerId } = request.wish;
    runReference(host, { plugin: 'portmap', verb, containerId, netns: sandbox.path }, config);
  }

  const known = HOSTPORT_CASES.filter(({ isOld }) => isOld).map(
    (request) => [request.title, request] as const,
  );

  test.each(known)('its rules are ours, count as published, and are removed: %s', (_, request) => {
    reference('ADD', request);
    const theirs = [...listing(4), ...listing(6)];
    const plan = planHostports(request.wish);
    onHost(() => expectHostports(plan));
    expect(onHost((nft) => hasReferenceHostports(nft, plan))).toBe(true);
    onHost((nft) => removeHostports(nft, request.wish));
    expect([...parts(4).own, ...parts(6).own]).toEqual([]);
    expect(onHost((nft) => hasReferenceHostports(nft, plan))).toBe(false);
    onHost(() => addHostports(plan));
    expect([...listing(4), ...listing(6)]).toEqual(theirs);
  });

  test.each(known)('its DEL removes what ours made: %s', (_, request) => {
    onHost(() => addHostports(planHostports(request.wish)));
    expect([...parts(4).own, ...parts(6).own]).not.toEqual([]);
    reference('DEL', request);
    expect([...parts(4).own, ...parts(6).own]).toEqual([]);
  });

  test('its ADD after ours changes nothing, nor does ours after its', () => {
    const [request] = HOSTPORT_CASES;
    if (request === undefined) throw new Error('No case');
    onHost(() => addHostports(planHostports(request.wish)));
    const ours = [...listing(4), ...listing(6)];
    reference('ADD', request);
    expect([...listing(4), ...listing(6)]).toEqual(ours);
    onHost(() => addHostports(planHostports(request.wish)));
    expect([...listing(4), ...listing(6)]).toEqual(ours);
  });

  test('a container on which it failed to see a new address is repaired by ours', () => {
    const [request] = HOSTPORT_CASES;
    if (request === undefined) throw new Error('No case');
    const moved = { ...request.wish, addresses: ['10.22.0.9/24', 'fd00:22::9/64'].map(parseCidr) };
    onHost(() => addHostports(planHostports(moved)));
    reference('ADD', request); // appends its rules behind those that win
    expect(onHost((nft) => hasHostports(nft, planHostports(request.wish), 4))).toBe(false);
    onHost(() => addHostports(planHostports(request.wish)));
    onHost(() => expectHostports(planHostports(request.wish)));
    expect([...listing(4), ...listing(6)].join('\n')).not.toContain('22.0.9');
  });
});

describe('adding', () => {
  test('starts one program a family once the host has the hooks', () => {
    add();
    vi.clearAllMocks();
    add({ containerId: 'c2', mappings: [mapping('udp', 53, 53)] });
    expect(programs()).toEqual(['iptables-restore', 'ip6tables-restore']);
    expectAll();
    expectAll({ containerId: 'c2', mappings: [mapping('udp', 53, 53)] });
  });

  test('nothing starts no program', () => {
    add({ mappings: [] });
    add({ addresses: [] });
    expectAll({ mappings: [] });
    expect(programs()).toEqual([]);
  });

  test('touches the families alone that the container has', () => {
    add({ addresses: [parseCidr('fd00:22::2/64')] });
    expect(parts(4)).toEqual({ own: [], shared: [] });
    expect(parts(6).own).not.toEqual([]);
  });

  test('twice is adding once', () => {
    add();
    const before = [...listing(4), ...listing(6)];
    add();
    expect([...listing(4), ...listing(6)]).toEqual(before);
  });

  test('again with other ports, address and options replaces all the container had', () => {
    add();
    add({ containerId: 'c2' });
    const other = {
      addresses: ['10.22.0.9/24', 'fd00:22::9/64'].map(parseCidr),
      mappings: [mapping('udp', 5353, 53)],
      masqAll: true,
    };
    add(other);
    expectAll(other);
    expectAll({ containerId: 'c2' });
    const own = parts(4).own.filter((line) => line.includes(CHAIN));
    expect(own.join('\n')).not.toMatch(/8080|10\.22\.0\.2/);
    expect(own).toHaveLength(4);
  });

  test('makes a hook that somebody removed, and its place before other masquerade', () => {
    add();
    const missing = parts(4).shared.filter((line) => /^-A (OUTPUT|POSTROUTING)/.test(line));
    expect(missing).toHaveLength(2);
    feed(4, 'nft', ...missing.map((line) => line.replace('-A', '-D')), '-A POSTROUTING -j MASQUERADE');
    expect(() => expectAll()).toThrow('chain "POSTROUTING" lacks rule');
    add({ containerId: 'c2' });
    expectAll();
    expect(parts(4).shared.filter((line) => line.startsWith('-A POSTROUTING'))).toEqual([
      expect.stringContaining('-j CNI-HOSTPORT-MASQ'),
      '-A POSTROUTING -j MASQUERADE',
    ]);
  });

  test('by two bits of the mark serves both networks', () => {
    add();
    add({ containerId: 'c2', markMasqBit: 5 });
    expectAll();
    expectAll({ containerId: 'c2', markMasqBit: 5 });
  });

  test('is refused as a whole, with the words of the program', () => {
    const plan = planHostports(wish({ externalSetMarkChain: 'MISSING' }));
    expect(() => onHost(() => addHostports(plan))).toThrow(
      new RegExp(`^Cannot add chain "${CHAIN}" with "/usr/sbin/iptables-restore": .*(MISSING|failed)`),
    );
    expect(parts(4).own).toEqual([]);
    expect(programs().filter((program) => program === 'iptables-restore')).toHaveLength(2);
  });

  test('takes a thousand ports', () => {
    const mappings = Array.from({ length: 1000 }, (_, i) => mapping('tcp', 20_000 + i, 80));
    add({ mappings });
    expectAll({ mappings });
    onHost((nft) => removeHostports(nft, OWNER));
    expect([...parts(4).own, ...parts(6).own]).toEqual([]);
  });
});

describe('twelve ADDs at once, or as many as this machine is fast enough for,', () => {
  // Legacy by standing in for the other for the length of a process: its programs go by the names they are called.
  const LEGACY = 'mount --bind /usr/sbin/xtables-legacy-multi /usr/sbin/xtables-nft-multi && exec "$0" "$@"';
  const AS = { nft: [], legacy: ['unshare', '--mount', 'sh', '-c', LEGACY] } as const;
  const FLAVOURS = ['nft', 'legacy'] as const;
  let count = 0;

  beforeAll(async () => {
    using other = openTestNetns();
    count = await countAtOnce(12, () => addInAnotherProcess(other, 'c1', AS.nft));
  });

  test.each(FLAVOURS)('leave each shared rule once on a host that had none, in %s', async (flavour) => {
    await addAtOnce(flavour);
    for (const family of [4, 6] as const) expectEachOnce(family, flavour);
  });

  test.each(FLAVOURS)('leave each shared rule once where the hooks were lost, in %s', async (flavour) => {
    const chains = ['DNAT', 'MASQ', 'SETMARK'].map((name) => `-N CNI-HOSTPORT-${name}`);
    for (const family of [4, 6] as const) feed(family, flavour, ...chains);
    await addAtOnce(flavour);
    for (const family of [4, 6] as const) expectEachOnce(family, flavour);
  });

  async function addAtOnce(flavour: NatFlavour): Promise<void> {
    const ids = Array.from({ length: count }, (_, i) => `c${i}`);
    const codes = await Promise.all(ids.map((id) => addInAnotherProcess(host, id, AS[flavour])));
    expect(codes).toEqual(ids.map(() => 0));
  }

  function expectEachOnce(family: 4 | 6, flavour: NatFlavour): void {
    const { own, shared } = parts(family, flavour);
    const alone = capturedListing('every protocol and kind of host address', family);
    expect(shared.sort()).toEqual(alone.filter((line) => !line.includes('CNI-DN-')).sort());
    expect(own.filter((line) => line.startsWith(':'))).toHaveLength(count);
    expect(own.filter((line) => line.startsWith('-A CNI-HOSTPORT-DNAT'))).toHaveLength(count);
  }

  function addInAnotherProcess(where: TestNetns, id: string, wrapper: readonly string[]) {
    const line = `addHostports(planHostports(wish({ containerId: '${id}' })));`;
    const imports = {
      addHostports: 'shared/iptables/hostports.ts',
      planHostports: 'shared/iptables/hostports-plan.ts',
      wish: 'test/fixtures/iptables/hostports.ts',
    };
    return runInAnotherProcess(where, line, imports, wrapper);
  }
});

describe('checking', () => {
  test('names what is missing or different, in both families', () => {
    add();
    const chain6 = parts(6).own.find((line) => line.includes('[fd00:22::2]:80')) ?? '';
    feed(6, 'nft', chain6.replace('-A', '-D'));
    expect(() => expectAll()).toThrow(
      `In table nat of IPv6, chain "${CHAIN}" lacks rule "${chain6.slice(CHAIN.length + 4)}"`,
    );
    feed(4, 'nft', `-I ${CHAIN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 192.0.2.1:1`);
    expect(() => expectAll()).toThrow(`In table nat of IPv4, chain "${CHAIN}" has a rule that is not wanted`);
  });

  test('names the chain on a host that has none', () => {
    expect(() => expectAll()).toThrow(
      expect.objectContaining({
        code: 107,
        message: 'In table nat of IPv4, chain "CNI-HOSTPORT-SETMARK" is missing',
      }),
    );
  });
});

describe('removing', () => {
  const plan = planHostports(wish({}));
  const text = encodeReplacement(plan, 4, { chains: [], policies: new Map(), rules: [] });

  test.each(['nft', 'legacy'] as const)(
    'takes all of the container from %s, and nothing that is shared',
    (flavour) => {
      feedText(host, 4, flavour, text);
      const { shared } = parts(4, flavour);
      expect(onHost((nft) => hasHostports(nft, plan, 4))).toBe(true);
      onHost((nft) => removeHostports(nft, OWNER));
      expect(parts(4, flavour)).toEqual({ own: [], shared });
      onHost((nft) => removeHostports(nft, OWNER));
      expect(parts(4, flavour)).toEqual({ own: [], shared });
    },
  );

  test.each(['nft', 'legacy'] as const)('takes the source chain of an early release from %s', (flavour) => {
    const sn = CHAIN.replace('DN', 'SN');
    const comment = '-m comment --comment "snat name: \\"n1\\" id: \\"c1\\""';
    feed(
      4,
      flavour,
      '-N CNI-HOSTPORT-SNAT',
      `-N ${sn}`,
      `-A ${sn} -s 127.0.0.1/32 -d 10.22.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE`,
      `-A CNI-HOSTPORT-SNAT -p tcp ${comment} -m multiport --dports 80 -j ${sn}`,
      `-A POSTROUTING -s 127.0.0.1/32 ! -d 127.0.0.1/32 -j CNI-HOSTPORT-SNAT`,
    );
    onHost((nft) => removeHostports(nft, OWNER));
    expect(parts(4, flavour).own).toEqual([]);
    expect(parts(4, flavour).shared).toEqual([
      ':CNI-HOSTPORT-SNAT -',
      '-A POSTROUTING -s 127.0.0.1/32 ! -d 127.0.0.1/32 -j CNI-HOSTPORT-SNAT',
    ]);
  });

  test('empties both tables when both hold the chain', () => {
    feedText(host, 4, 'nft', text);
    feedText(host, 4, 'legacy', text);
    expect(onHost((nft) => findHostports(nft, OWNER))).toEqual([
      { name: 'nat', family: 4, flavour: 'nft' },
      { name: 'nat', family: 4, flavour: 'legacy' },
    ]);
    onHost((nft) => removeHostports(nft, OWNER));
    expect([...parts(4, 'nft').own, ...parts(4, 'legacy').own]).toEqual([]);
  });

  test('starts no program on a host without such a chain', () => {
    onHost((nft) => removeHostports(nft, OWNER));
    add({ containerId: 'c2' });
    vi.clearAllMocks();
    onHost((nft) => removeHostports(nft, OWNER));
    onHost((nft) => removeStaleHostports(nft, { network: 'n1', containerIds: ['c2'] }));
    expect(programs().filter((program) => program.endsWith('restore'))).toEqual([]);
    onHost((nft) => removeHostports(nft, { network: 'n2', containerId: 'c2' }));
    expectAll({ containerId: 'c2' });
  });

  test('of stale containers spares valid ones, other networks, and foreign rules with a copied comment', () => {
    add();
    add({ containerId: 'c2' });
    add({ network: 'n2' });
    const copied =
      '-A POSTROUTING -s 192.0.2.0/24 -m comment --comment "dnat name: \\"n1\\" id: \\"c9\\"" -j ACCEPT';
    feed(4, 'nft', copied);
    onHost((nft) => removeStaleHostports(nft, { network: 'n1', containerIds: ['c1'] }));
    expectAll();
    expectAll({ network: 'n2' });
    expect(listing(4)).toContain(copied);
    expect(listing(4).filter((line) => line.includes('id: \\"c2\\"'))).toEqual([]);
    expect(parts(6).own.filter((line) => line.startsWith(':'))).toHaveLength(2);
  });
});
