// What the texts for iptables-restore say about the chain FORWARD: shared rules once, one policy a bridge, nothing of others.
import { describe, expect, test } from 'vitest';
import { parseIp } from '../../../shared/ip/cidr.ts';
import {
  encodeAddition,
  encodeForwardRemoval,
  encodeUsualAddition,
  expectPlainBridge,
  type ForwardWish,
  findForwardDifference,
} from '../../../shared/iptables/forward-plan.ts';
import { parseSave } from '../../../shared/iptables/save-format.ts';

const WISH: ForwardWish = {
  addresses: [parseIp('10.22.0.2'), parseIp('fd00:22::2')],
  adminChain: 'CNI-ADMIN',
};
const ISOLATED: ForwardWish = { ...WISH, ingress: { bridge: 'cni0', policy: 'isolated' } };
const JUMP = '-A FORWARD -m comment --comment "CNI firewall plugin rules" -j CNI-FORWARD';
const ADMIN = '-A CNI-FORWARD -m comment --comment "CNI firewall plugin admin overrides" -j CNI-ADMIN';
const OWN = [
  '-A CNI-FORWARD -d 10.22.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
  '-A CNI-FORWARD -s 10.22.0.2/32 -j ACCEPT',
];
const comment = (policy: string) =>
  `-m comment --comment "CNI firewall plugin rules (ingressPolicy: ${policy})"`;
const BOTH = comment('same-bridge|isolated');
const STAGES = [
  `-A CNI-ISOLATION-STAGE-1 -i cni0 -o cni0 ${comment('isolated')} -j DROP`,
  `-A CNI-ISOLATION-STAGE-1 -i cni0 ! -o cni0 ${comment('isolated')} -j CNI-ISOLATION-STAGE-2`,
  `-A CNI-ISOLATION-STAGE-1 ${BOTH} -j RETURN`,
  `-A CNI-ISOLATION-STAGE-2 -o cni0 ${BOTH} -j DROP`,
  `-A CNI-ISOLATION-STAGE-2 ${BOTH} -j RETURN`,
];

/** A listing with these rules and the chains they stand in or jump to. */
function saved(...rules: readonly string[]) {
  const names = ['FORWARD', 'CNI-FORWARD', 'CNI-ADMIN', 'CNI-ISOLATION-STAGE-1', 'CNI-ISOLATION-STAGE-2'];
  const chains = names.filter(
    (name) => name === 'FORWARD' || rules.some((rule) => rule.includes(` ${name}`)),
  );
  return parseSave(['*filter', ...chains.map((name) => `:${name} - [0:0]`), ...rules, 'COMMIT'].join('\n'));
}

const commands = (text: string | undefined) => text?.split('\n').slice(1, -2);

describe('an addition', () => {
  test('to an empty table makes chains, jumps at the top, and the rules of one family', () => {
    expect(commands(encodeAddition(WISH, 4, saved()))).toEqual([
      '-N CNI-FORWARD',
      '-N CNI-ADMIN',
      JUMP.replace('-A FORWARD', '-I FORWARD 1'),
      ADMIN.replace('-A CNI-FORWARD', '-I CNI-FORWARD 1'),
      ...OWN,
    ]);
  });

  test('to a table that has it all is nothing', () => {
    expect(encodeAddition(WISH, 4, saved(JUMP, ADMIN, ...OWN))).toBeUndefined();
    expect(findForwardDifference(WISH, 4, saved(JUMP, ADMIN, ...OWN))).toBeUndefined();
  });

  test('of a policy keeps the order in which its rules have to stand', () => {
    expect(commands(encodeAddition(ISOLATED, 4, saved(JUMP, ADMIN, ...OWN)))).toEqual([
      '-N CNI-ISOLATION-STAGE-1',
      '-N CNI-ISOLATION-STAGE-2',
      `-I FORWARD 1 ${BOTH} -j CNI-ISOLATION-STAGE-1`,
      `-I CNI-ISOLATION-STAGE-1 1 -i cni0 ! -o cni0 ${comment('isolated')} -j CNI-ISOLATION-STAGE-2`,
      `-I CNI-ISOLATION-STAGE-1 1 -i cni0 -o cni0 ${comment('isolated')} -j DROP`,
      `-A CNI-ISOLATION-STAGE-1 ${BOTH} -j RETURN`,
      `-I CNI-ISOLATION-STAGE-2 1 -o cni0 ${BOTH} -j DROP`,
      `-A CNI-ISOLATION-STAGE-2 ${BOTH} -j RETURN`,
    ]);
  });

  test('of another policy removes the rules of the one before, and of no other bridge', () => {
    const other = `-A CNI-ISOLATION-STAGE-2 -o cni01 ${BOTH} -j DROP`;
    const listing = saved(
      `-A FORWARD ${BOTH} -j CNI-ISOLATION-STAGE-1`,
      JUMP,
      ADMIN,
      ...OWN,
      ...STAGES,
      other,
    );
    const open: ForwardWish = { ...WISH, ingress: { bridge: 'cni0', policy: 'open' } };
    expect(commands(encodeAddition(open, 4, listing))).toEqual([
      STAGES[0]?.replace('-A', '-D'),
      STAGES[1]?.replace('-A', '-D'),
      STAGES[3]?.replace('-A', '-D'),
    ]);
    expect(findForwardDifference(open, 4, listing)).toContain('a rule of another policy');
    expect(findForwardDifference(ISOLATED, 4, listing)).toBeUndefined();
  });

  test('lets nothing through before the rules that keep bridges apart', () => {
    const stage = `-A FORWARD ${BOTH} -j CNI-ISOLATION-STAGE-1`;
    const late = saved(JUMP, stage, ADMIN, ...OWN, ...STAGES);
    expect(findForwardDifference(ISOLATED, 4, late)).toContain('accepts packets before');
    expect(commands(encodeAddition(ISOLATED, 4, late))).toEqual([
      stage.replace('-A', '-D'),
      stage.replace('-A FORWARD', '-I FORWARD 1'),
    ]);
  });

  test('of the usual kind asks for what is shared and appends the rest', () => {
    const wish: ForwardWish = { ...WISH, publishedComment: 'whose' };
    expect(commands(encodeUsualAddition(wish, 6))).toEqual([
      JUMP.replace('-A', '-C'),
      ADMIN.replace('-A', '-C'),
      '-A CNI-FORWARD -d fd00:22::2/128 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
      '-A CNI-FORWARD -s fd00:22::2/128 -j ACCEPT',
      '-A CNI-FORWARD -d fd00:22::2/128 -m conntrack --ctstate DNAT -m comment --comment "whose" -j ACCEPT',
    ]);
  });

  test.each(['cni+', 'a b', '-j', 'x"y', ''])('with bridge %j is refused', (bridge) => {
    expect(() => expectPlainBridge({ ...WISH, ingress: { bridge, policy: 'open' } })).toThrow(
      `Cannot write link ${JSON.stringify(bridge)}`,
    );
  });
});

describe('a removal', () => {
  test('takes all rules of an address, with comments and without, each as often as it stands there', () => {
    const published =
      '-A CNI-FORWARD -d 10.22.0.2/32 -m conntrack --ctstate DNAT -m comment --comment "any" -j ACCEPT';
    const listing = saved(JUMP, ADMIN, ...OWN, published, ...OWN);
    expect(commands(encodeForwardRemoval([parseIp('10.22.0.2')], [], 4, listing))).toEqual(
      [...OWN, published, ...OWN].map((rule) => rule.replace('-A', '-D')),
    );
  });

  test('leaves other addresses, other chains and rules that ask for more', () => {
    const others = [
      '-A CNI-FORWARD -s 10.22.0.20/32 -j ACCEPT',
      '-A FORWARD -s 10.22.0.2/32 -j ACCEPT',
      '-A CNI-FORWARD -s 10.22.0.2/32 -p tcp -m tcp --dport 80 -j ACCEPT',
      '-A CNI-FORWARD -s 10.22.0.2/32 -j DROP',
    ];
    expect(
      encodeForwardRemoval([parseIp('10.22.0.2')], ['cni0'], 4, saved(JUMP, ADMIN, ...others)),
    ).toBeUndefined();
  });

  test('takes the policy of a bridge that nobody is left on', () => {
    expect(commands(encodeForwardRemoval([], ['cni0'], 4, saved(JUMP, ADMIN, ...STAGES)))).toEqual(
      [STAGES[0], STAGES[1], STAGES[3]].map((rule) => rule?.replace('-A', '-D')),
    );
  });
});
