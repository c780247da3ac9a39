// Plans of published ports and the iptables-restore text they become, compared with what the reference makes.
// Run by vitest, project "unit".

import { describe, expect, test } from 'vitest';
import { formatIp, parseCidr } from '../../../shared/ip/cidr.ts';
import {
  encodeNewChain,
  encodeRemoval,
  encodeReplacement,
  findDifference,
  type HostportsWish,
  listPorts,
  planHostports,
} from '../../../shared/iptables/hostports-plan.ts';
import { parseSave } from '../../../shared/iptables/save-format.ts';
import type { Condition } from '../../../shared/nftables/conditions.ts';
import { capturedListing, HOSTPORT_CASES, mapping, wish } from '../../fixtures/iptables/hostports.ts';

const CHAIN = 'CNI-DN-7be53730afe4dc6eb2178';
const FAMILIES = [4, 6] as const;
const TITLED = HOSTPORT_CASES.flatMap((request) =>
  FAMILIES.map((family) => [request.title, family, request] as const),
);

function commandsOf(text: string | undefined): string[] {
  const lines = text?.split('\n') ?? [];
  expect([lines[0], ...lines.slice(-2)]).toEqual(['*nat', 'COMMIT', '']);
  return lines.slice(1, -2);
}

/** The rules of a listing or a text, chain after chain, in order within each. */
function rulesByChain(lines: readonly string[]): string[] {
  const rules = lines
    .map((line) => line.replace(/^-I (\S+) 1/, '-A $1'))
    .filter((line) => /^-[AC] /.test(line));
  const chainOf = (rule: string) => rule.split(' ')[1] ?? '';
  return rules
    .map((rule) => rule.replace(/^-C/, '-A'))
    .sort((a, b) => Number(chainOf(a) > chainOf(b)) - Number(chainOf(a) < chainOf(b)));
}

function saved(lines: readonly string[]) {
  return parseSave(lines.join('\n'));
}

describe.each(TITLED)('%s, IPv%i', (title, family, request) => {
  const plan = planHostports(request.wish);
  const captured = capturedListing(title, family);

  test('a new chain wants and makes the rules the reference makes', () => {
    expect(rulesByChain(commandsOf(encodeNewChain(plan, family)))).toEqual(rulesByChain(captured));
  });

  test('on a host that has nothing, everything is made', () => {
    const commands = commandsOf(encodeReplacement(plan, family, saved([])));
    expect(rulesByChain(commands)).toEqual(rulesByChain(captured));
    const chains = captured.filter((line) => line.startsWith(':')).map((line) => line.split(/[ :]/)[1]);
    expect(
      commands
        .filter((line) => line.startsWith('-N'))
        .map((line) => line.slice(3))
        .sort(),
    ).toEqual(chains);
  });

  test('nothing differs from what the reference made', () => {
    expect(findDifference(plan, family, saved(captured))).toBeUndefined();
  });

  test('whatever is taken away is missed', () => {
    for (const line of captured) {
      const rest = captured.filter((other) => other !== line);
      const name = line.replace(/^-A \S+ |^:| -$/g, '');
      expect(findDifference(plan, family, saved(rest)), line).toContain(name);
    }
  });
});

describe('text for iptables-restore', () => {
  test('is checked, made and published in this order, so that it holds as a whole or not at all', () => {
    const plan = planHostports(wish({ snat: false }));
    const comment = '-m comment --comment "dnat name: \\"n1\\" id: \\"c1\\""';
    expect(commandsOf(encodeNewChain(plan, 4))).toEqual([
      '-C PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT',
      '-C OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT',
      `-N ${CHAIN}`,
      `-A ${CHAIN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.22.0.2:80`,
      `-A CNI-HOSTPORT-DNAT -p tcp ${comment} -m multiport --dports 8080 -j ${CHAIN}`,
    ]);
  });

  test('puts the masquerade of marked packets before all others, and what packets reach first where it was', () => {
    const hook = '-m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ';
    const commands = commandsOf(encodeReplacement(planHostports(wish({})), 4, saved([])));
    expect(commands).toContain(`-I POSTROUTING 1 ${hook}`);
    const listing = [':CNI-HOSTPORT-MASQ -', '-A POSTROUTING -j OTHER', `-A POSTROUTING ${hook}`];
    const again = commandsOf(encodeReplacement(planHostports(wish({})), 4, saved(listing)));
    expect(again.filter((command) => command.includes('POSTROUTING'))).toEqual([]);
  });

  test('replaces what the container had, whichever ports and rules that were', () => {
    const listing = [
      ...capturedListing('every protocol and kind of host address', 4),
      `-A ELSEWHERE -p tcp -j ${CHAIN}`,
    ];
    const commands = commandsOf(encodeReplacement(planHostports(wish({ snat: false })), 4, saved(listing)));
    expect(commands).toEqual([
      ...listing.filter((line) => line.endsWith(`-j ${CHAIN}`)).map((line) => line.replace('-A', '-D')),
      `-F ${CHAIN}`,
      expect.stringContaining(`-A ${CHAIN} -p tcp`),
      expect.stringContaining('--dports 8080'),
    ]);
  });

  test('keeps the mark of another network beside its own', () => {
    const listing = capturedListing('all masqueraded, by another bit', 4);
    const commands = commandsOf(encodeReplacement(planHostports(wish({})), 4, saved(listing)));
    expect(
      commands.filter((command) => command.includes('0x')).map((command) => command.slice(0, 24)),
    ).toEqual(['-A CNI-HOSTPORT-SETMARK ', '-A CNI-HOSTPORT-MASQ -m ']);
    expect(commands.filter((command) => /^-[NF] CNI-HOSTPORT/.test(command))).toEqual([]);
  });

  test('has one jump for each alternative of the conditions', () => {
    const from = (cidr: string): Condition => ({
      kind: 'saddr',
      cidr: parseCidr(cidr),
      negated: false,
    });
    const conditions4 = [[from('192.0.2.0/25')], [from('198.51.100.7/32')]];
    const commands = commandsOf(encodeNewChain(planHostports(wish({ conditions4 })), 4));
    expect(commands.slice(-2)).toEqual([
      expect.stringMatching(/^-A CNI-HOSTPORT-DNAT -s 192.0.2.0\/25 -p tcp .* --dports 8080 /),
      expect.stringMatching(/^-A CNI-HOSTPORT-DNAT -s 198.51.100.7\/32 -p tcp .* --dports 8080 /),
    ]);
    const other = commandsOf(encodeNewChain(planHostports(wish({ conditions4 })), 6));
    expect(other.at(-1)).toMatch(/^-A CNI-HOSTPORT-DNAT -p tcp/);
  });
});

describe('a difference', () => {
  const plan = planHostports(wish({}));
  const listing = rulesOf(plan, 4);

  function rulesOf(wanted: HostportsWish & { chain: string }, family: 4 | 6): string[] {
    const commands = commandsOf(encodeReplacement(planHostports(wanted), family, saved([])));
    return [
      ...commands.filter((line) => line.startsWith('-N')).map((line) => `:${line.slice(3)} - [0:0]`),
      ...rulesByChain(commands),
    ];
  }

  test('is a rule of an earlier ADD that would win, and one that is there twice', () => {
    const old = `-A ${CHAIN} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.22.0.9:80`;
    const first = listing.findIndex((line) => line.startsWith(`-A ${CHAIN}`));
    const sentence = `chain "${CHAIN}" has a rule that is not wanted there: "${old.slice(CHAIN.length + 4)}"`;
    expect(findDifference(plan, 4, saved(listing.toSpliced(first, 0, old)))).toBe(sentence);
    const twice = [...listing, listing.at(first) ?? ''];
    expect(findDifference(plan, 4, saved(twice))).toContain('not wanted');
  });

  test('is a jump for ports that are not published any more', () => {
    const jump = listing.find((line) => line.includes('--dports 8080')) ?? '';
    const stale = jump.replace('8080', '9090');
    expect(findDifference(plan, 4, saved([...listing, stale]))).toContain('--dports 9090');
  });

  test('is not what other containers have, nor how a program spells a rule', () => {
    const others = rulesOf(planHostports(wish({ containerId: 'c2' })), 4);
    const spelt = listing.map((line) =>
      line.replace(/-p tcp -m tcp --dport (\d+)/, '-m tcp --dport $1 -p 6'),
    );
    expect(spelt).not.toEqual(listing);
    expect(findDifference(plan, 4, saved([...others, ...spelt]))).toBeUndefined();
  });

  test('is a rule whose port, mark or destination was changed', () => {
    for (const [was, is] of [
      ['10.22.0.2:80', '10.22.0.2:81'],
      ['--dport 8080', '--dport 8081'],
      ['0x2000/0x2000', '0x4000/0x4000'],
      ['--dst-type LOCAL', '--dst-type UNICAST'],
      ['-s 10.22.0.0/24', '! -s 10.22.0.0/24'],
    ] as const) {
      const changed = listing.map((line) => line.replace(was, is));
      expect(findDifference(plan, 4, saved(changed)), is).toContain(was);
    }
  });
});

describe('removing', () => {
  const chains = [CHAIN, CHAIN.replace('DN', 'SN')];

  test('takes the chains and all that leads to them, and leaves what others share', () => {
    const listing = capturedListing('every protocol and kind of host address', 4);
    const [dn = '', sn = ''] = chains;
    const jump = `-A CNI-HOSTPORT-SNAT -s 127.0.0.1/32 -j ${sn}`;
    const inner = `-A ${dn} -j ${sn}`;
    const commands = commandsOf(encodeRemoval(chains, saved([...listing, `:${sn} - [0:0]`, jump, inner])));
    expect(commands).toEqual([
      ...listing.filter((line) => line.endsWith(`-j ${dn}`)).map((line) => line.replace('-A', '-D')),
      jump.replace('-A', '-D'),
      `-F ${dn}`,
      `-F ${sn}`,
      `-X ${dn}`,
      `-X ${sn}`,
    ]);
  });

  test('does nothing where there is nothing', () => {
    const others = HOSTPORT_CASES.find(({ wish }) => wish.containerId !== 'c1');
    expect(encodeRemoval(chains, saved(capturedListing(others?.title ?? '', 4)))).toBeUndefined();
  });
});

describe('a listing tells which ports a chain publishes', () => {
  const title = 'every protocol and kind of host address';

  test.each([
    [4, ['tcp 8080 10.22.0.2', 'tcp 8443 10.22.0.2', 'udp 5353 10.22.0.2']],
    [6, ['tcp 8080 fd00:22::2', 'sctp 9 fd00:22::2']],
  ] as const)('of IPv%i', (family, ports) => {
    const found = listPorts([CHAIN], saved(capturedListing(title, family)));
    expect(
      found.map(({ protocol, hostPort, target }) => `${protocol} ${hostPort} ${formatIp(target)}`),
    ).toEqual(ports);
    expect(listPorts(['CNI-DN-of-somebody-else'], saved(capturedListing(title, family)))).toEqual([]);
  });

  test('also where protocols are numbers, and passes over what it cannot read', () => {
    const lines = [
      `-A ${CHAIN} -p 17 -m udp --dport 53 -j DNAT --to-destination 10.22.0.2:53`,
      `-A ${CHAIN} -p udp -m udp --dport 54 -j DNAT --to-destination 10.22.0.999:53`,
      `-A ${CHAIN} -j DNAT --to-destination 10.22.0.2`,
    ];
    // The programs print numbers for protocols that the host has no name for.
    expect(listPorts([CHAIN], saved(lines)).map(({ hostPort }) => hostPort)).toEqual([53]);
  });
});

describe('a plan is refused', () => {
  const link = (name: string): Condition => ({
    kind: 'iifname',
    name,
    isPrefix: false,
    negated: false,
  });
  const from = (cidr: string): Condition => ({
    kind: 'saddr',
    cidr: parseCidr(cidr),
    negated: false,
  });

  test.each([
    ['a name that could write rules', { network: 'n1"\n-F' }, 'network name'],
    ['a host port that is none', { mappings: [mapping('tcp', 65536, 80)] }, 'host port 65536'],
    ['a container port that is none', { mappings: [mapping('tcp', 80, 0)] }, 'container port 0'],
    ['half a port', { mappings: [mapping('tcp', 80.5, 80)] }, 'host port 80.5'],
    ['a bit that no mark has', { markMasqBit: 32 }, 'mark bit 32'],
    ['a chain that starts an option', { externalSetMarkChain: '-F' }, 'chain "-F"'],
    ['a chain with a line break', { externalSetMarkChain: 'A\nCOMMIT' }, 'chain "A\\nCOMMIT"'],
    ['a chain that is too long', { externalSetMarkChain: 'A'.repeat(29) }, `chain "${'A'.repeat(29)}"`],
    ['a link name with a wildcard of its own', { conditions4: [[link('eth+')]] }, 'link name "eth+"'],
    ['a link name with blanks', { conditions4: [[link('a -j B')]] }, 'link name "a -j B"'],
    ['no link name', { conditions4: [[link('')]] }, 'link name ""'],
    ['an address of the other family', { conditions6: [[from('192.0.2.0/24')]] }, 'for IPv6'],
    ['two conditions of one kind', { conditions4: [[from('192.0.2.0/24'), from('10.0.0.0/8')]] }, '"-s"'],
  ])('with %s', (_, parts: Partial<HostportsWish>, words) => {
    expect(() => planHostports(wish(parts))).toThrow(words);
  });
});
