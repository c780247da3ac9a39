// Masquerade in the reference's format on a real kernel: made by ours and compared with the reference's, made by the
// reference and removed by ours, in both iptables. Run by vitest, project "kernel", as root.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { type Cidr, parseCidr } from '../../shared/ip/cidr.ts';
import {
  addMasquerade,
  expectMasquerade,
  findMasquerade,
  hasMasquerade,
  removeMasquerade,
  removeStaleMasquerade,
} from '../../shared/iptables/masquerade.ts';
import { encodeNewChain, planMasquerade } from '../../shared/iptables/masquerade-plan.ts';
import * as spawning from '../../shared/linux/spawn.ts';
import type { Nftables } from '../../shared/nftables/nftables.ts';
import {
  feedNat,
  feedText,
  listNat,
  type NatFlavour,
  runInAnotherProcess,
  runReference,
} from '../support/nat-table.ts';
import { insideWithNftables, openTestNetns, type TestNetns } from '../support/sandbox.ts';

vi.mock('../../shared/linux/spawn.ts', { spy: true });

const CHAIN = 'CNI-7be53730afe4dc6eb2178d03';
const OWNER = { network: 'n1', containerId: 'c1' };
const BOTH = ['10.22.0.2/24', 'fd00:22::2/64'].map(parseCidr);

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

function add(...addresses: readonly Cidr[]): void {
  onHost(() => addMasquerade(planMasquerade({ ...OWNER, addresses })));
}

/** The rules of the nat tables of both families, as the programs print them. */
function rules(flavour: NatFlavour = 'nft'): string[] {
  return both(flavour).filter((line) => line.startsWith('-A'));
}

function chains(flavour: NatFlavour = 'nft'): string[] {
  return both(flavour).filter((line) => line.startsWith(':CNI'));
}

function both(flavour: NatFlavour): string[] {
  return [...listNat(host, 4, flavour), ...listNat(host, 6, flavour)];
}

describe('beside the reference plugin', () => {
  let store: string;
  let sandbox: TestNetns;

  beforeEach(() => {
    store = mkdtempSync(join(tmpdir(), 'patchbay-iptables-'));
    sandbox = openTestNetns();
  });

  afterEach(() => {
    sandbox[Symbol.dispose]();
    rmSync(store, { recursive: true });
  });

  function reference(
    verb: 'ADD' | 'DEL',
    options: { ipMasq: boolean; ifname?: string; subnet?: string },
  ): void {
    const subnet = options.subnet ?? '10.22.0.0/24';
    const config = {
      cniVersion: '1.0.0',
      name: 'n1',
      type: 'bridge',
      bridge: 'br0',
      ipMasq: options.ipMasq,
      ipam: {
        type: 'host-local',
        dataDir: join(store, subnet.replaceAll('/', '-')),
        ranges: [[{ subnet }], [{ subnet: 'fd00:22::/64' }]],
      },
    };
    const call = { plugin: 'bridge', verb, containerId: 'c1', netns: sandbox.path } as const;
    runReference(host, { ...call, ...(options.ifname && { ifname: options.ifname }) }, config);
  }

  test('our rules are its rules, byte for byte', () => {
    reference('ADD', { ipMasq: true });
    const theirs = rules();
    expect(theirs).toHaveLength(6);
    onHost((nft) => removeMasquerade(nft, OWNER));
    expect(rules()).toEqual([]);
    add(...BOTH);
    expect(rules()).toEqual(theirs);
  });

  test('what it made counts as masqueraded, and is removed with nothing left behind', () => {
    reference('ADD', { ipMasq: true });
    const plan = planMasquerade({ ...OWNER, addresses: BOTH });
    expect(onHost((nft) => hasMasquerade(nft, plan))).toBe(true);
    onHost((nft) => removeMasquerade(nft, { ...OWNER, addresses: BOTH }));
    expect(rules()).toEqual([]);
    expect(chains()).toEqual([]);
    expect(onHost((nft) => hasMasquerade(nft, plan))).toBe(false);
  });

  test('its DEL removes what ours made', () => {
    reference('ADD', { ipMasq: false });
    add(...BOTH);
    expect(chains()).toHaveLength(2);
    reference('DEL', { ipMasq: true });
    expect(rules()).toEqual([]);
    expect(chains()).toEqual([]);
  });

  test('of two attachments of one container the second keeps its rules', () => {
    reference('ADD', { ipMasq: true });
    reference('ADD', { ipMasq: true, ifname: 'eth1', subnet: '10.23.0.0/24' });
    onHost((nft) => removeMasquerade(nft, { ...OWNER, addresses: BOTH }));
    const left = rules().join('\n');
    expect(left).toContain(`-A POSTROUTING -s 10.23.0.2/32`);
    expect(left).toContain(`-A ${CHAIN} -d 10.23.0.0/24`);
    expect(left).not.toContain('10.22.0');
  });
});

describe('adding', () => {
  test('twice is adding once', () => {
    add(...BOTH);
    const once = rules();
    add(...BOTH);
    expect(rules()).toEqual(once);
  });

  test('a second attachment puts its exception before the masquerade of the first', () => {
    add(parseCidr('10.22.0.2/24'));
    add(parseCidr('10.23.0.9/24'));
    const targets = rules()
      .filter((rule) => rule.startsWith(`-A ${CHAIN}`))
      .map((rule) => rule.split(' ').at(-1));
    expect(targets).toEqual(['ACCEPT', 'ACCEPT', 'MASQUERADE']);
    expect(rules().filter((rule) => rule.endsWith(`-j ${CHAIN}`))).toHaveLength(2);
  });

  test('starts one program a family', () => {
    add(...BOTH);
    expect(vi.mocked(spawning.run).mock.calls.map(([program]) => program)).toEqual([
      '/usr/sbin/iptables-restore',
      '/usr/sbin/ip6tables-restore',
    ]);
  });

  test('six attachments of one container at once lose nothing of each other', async () => {
    const subnets = Array.from({ length: 6 }, (_, i) => `10.${30 + i}.0.2/24`);
    const codes = await Promise.all(subnets.map(addInAnotherProcess));
    expect(codes).toEqual(subnets.map(() => 0));
    const plan = planMasquerade({ ...OWNER, addresses: subnets.map(parseCidr) });
    onHost(() => expectMasquerade(plan));
    const targets = rules()
      .filter((rule) => rule.startsWith(`-A ${CHAIN}`))
      .map((rule) => rule.split(' ').at(-1));
    expect(targets).toEqual([...subnets.map(() => 'ACCEPT'), 'MASQUERADE']);
  });

  test('says what the program said when the kernel refuses', () => {
    onHost(() => {
      vi.mocked(spawning.run).mockReturnValueOnce({
        exitCode: 4,
        signal: undefined,
        timedOut: false,
        stdout: Buffer.alloc(0),
        stderr: Buffer.from('iptables-restore: Permission denied (you must be root)\nmore\n'),
      });
      const plan = planMasquerade({ ...OWNER, addresses: BOTH });
      expect(() => addMasquerade(plan)).toThrow(
        `Cannot add chain "${CHAIN}" with "/usr/sbin/iptables-restore": iptables-restore: Permission denied (you must be root)`,
      );
    });
  });
});

function addInAnotherProcess(address: string): Promise<number | null> {
  const line = `addMasquerade(planMasquerade({ network: 'n1', containerId: 'c1', addresses: [parseCidr('${address}')] }));`;
  return runInAnotherProcess(host, line, {
    addMasquerade: 'shared/iptables/masquerade.ts',
    planMasquerade: 'shared/iptables/masquerade-plan.ts',
    parseCidr: 'shared/ip/cidr.ts',
  });
}

describe('checking', () => {
  test('passes right after adding', () => {
    add(...BOTH);
    onHost(() => expectMasquerade(planMasquerade({ ...OWNER, addresses: BOTH })));
  });

  test('names a jump that is gone', () => {
    add(...BOTH);
    const [jump = ''] = rules();
    feedNat(host, 4, 'nft', jump.replace('-A', '-D'));
    expect(() => onHost(() => expectMasquerade(planMasquerade({ ...OWNER, addresses: BOTH })))).toThrow(
      `Cannot find the jump of address "10.22.0.2" to chain "${CHAIN}" in table nat of IPv4`,
    );
  });
});

describe('removing', () => {
  const text = encodeNewChain(planMasquerade({ ...OWNER, addresses: BOTH }), 4);

  test.each(['nft', 'legacy'] as const)('empties the %s tables', (flavour) => {
    feedText(host, 4, flavour, text);
    expect(chains(flavour)).toHaveLength(1);
    onHost((nft) => removeMasquerade(nft, OWNER));
    expect(rules(flavour)).toEqual([]);
    expect(chains(flavour)).toEqual([]);
  });

  test('empties both tables when both hold the chain', () => {
    feedText(host, 4, 'nft', text);
    feedText(host, 4, 'legacy', text);
    expect(onHost((nft) => findMasquerade(nft, OWNER))).toEqual([
      { name: 'nat', family: 4, flavour: 'nft' },
      { name: 'nat', family: 4, flavour: 'legacy' },
    ]);
    onHost((nft) => removeMasquerade(nft, { ...OWNER, addresses: BOTH }));
    expect([...chains('nft'), ...chains('legacy')]).toEqual([]);
  });

  test('takes jumps in the historic spelling', () => {
    const historic = text.replace('-s 10.22.0.2/32', '-s 10.22.0.2/24');
    feedText(host, 4, 'nft', historic);
    onHost((nft) => removeMasquerade(nft, { ...OWNER, addresses: BOTH }));
    expect(chains()).toEqual([]);
    expect(rules()).toEqual([]);
  });

  test('starts one program a family when the addresses are known and no other attachment is there', () => {
    add(...BOTH);
    vi.clearAllMocks();
    onHost((nft) => removeMasquerade(nft, { ...OWNER, addresses: BOTH }));
    expect(vi.mocked(spawning.run).mock.calls.map(([program]) => program)).toEqual([
      '/usr/sbin/iptables-nft-restore',
      '/usr/sbin/ip6tables-nft-restore',
    ]);
    expect(chains()).toEqual([]);
  });

  test('starts no program on a host without iptables rules', () => {
    onHost((nft) => removeMasquerade(nft, OWNER));
    expect(spawning.run).not.toHaveBeenCalled();
  });

  test('starts no program when other chains are all there is', () => {
    const others = { network: 'n1', containerId: 'c2', addresses: BOTH };
    feedText(host, 4, 'nft', encodeNewChain(planMasquerade(others), 4));
    onHost((nft) => removeMasquerade(nft, OWNER));
    expect(spawning.run).not.toHaveBeenCalled();
    expect(chains()).toHaveLength(1);
  });

  test('twice is removing once, and leaves what belongs to others', () => {
    const foreign = '-A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE';
    feedNat(host, 4, 'nft', foreign);
    add(...BOTH);
    onHost((nft) => removeMasquerade(nft, OWNER));
    onHost((nft) => removeMasquerade(nft, OWNER));
    expect(rules()).toEqual([foreign]);
  });

  test('of stale containers spares valid ones, other networks, and foreign rules with a copied comment', () => {
    for (const owner of [OWNER, { network: 'n1', containerId: 'c2' }, { network: 'n2', containerId: 'c1' }]) {
      onHost(() => addMasquerade(planMasquerade({ ...owner, addresses: BOTH })));
    }
    const copied =
      '-A POSTROUTING -s 192.0.2.0/24 -m comment --comment "name: \\"n1\\" id: \\"c9\\"" -j ACCEPT';
    feedNat(host, 4, 'nft', copied);
    onHost((nft) => removeStaleMasquerade(nft, { network: 'n1', containerIds: ['c1'] }));
    const left = rules();
    expect(left).toContain(copied);
    expect(left.filter((rule) => rule.includes('id: \\"c2\\"'))).toEqual([]);
    expect(left.filter((rule) => rule.startsWith('-A POSTROUTING') && rule.includes('CNI-'))).toHaveLength(4);
    expect(chains()).toHaveLength(4);
  });
});
