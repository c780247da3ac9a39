// What the kernel says of the ruleset, ours and everybody's, and what plugins conclude from it.
import fc from 'fast-check';
import { ownerHash as hashOf, ownerComment } from '../../../shared/cni/attachment.ts';
import { parseCidr, parseIp } from '../../../shared/ip/cidr.ts';
import { listForeignPorts } from '../../../shared/iptables/foreign-ports.ts';
import { bridgesWithIngress } from '../../../shared/iptables/forward.ts';
import { AttributeWriter } from '../../../shared/netlink/attributes.ts';
import {
  NFT_MSG_NEWCHAIN,
  NFT_MSG_NEWGEN,
  NFT_MSG_NEWRULE,
  NFTA_CHAIN_HANDLE,
  NFTA_GEN_ID,
  NFTA_RULE_HANDLE,
} from '../../../shared/nftables/constants.ts';
import { encodeCommands, messageType } from '../../../shared/nftables/encode.ts';
import { connectNftables, type Nftables } from '../../../shared/nftables/nftables.ts';
import { add, type Command, chain, element, rule, table } from '../../../shared/nftables/objects.ts';
import { accept, ct, iifname, jump } from '../../../shared/nftables/statements.ts';
import { expectFirewall, findHolders, listAdmitted, planFirewall } from '../../../shared/ruleset/firewall.ts';
import { findClosedChains, findObstacles } from '../../../shared/ruleset/forward-path.ts';
import { planHostportsRemoval } from '../../../shared/ruleset/hostports.ts';
import { listHostports } from '../../../shared/ruleset/hostports-held.ts';
import { expectMasquerade, planOwnerRemoval } from '../../../shared/ruleset/masquerade.ts';
import { MASQUERADE4 } from '../../../shared/ruleset/table.ts';
import * as ruleset from '../../fixtures/nftables/rules.ts';
import { defineTarget } from '../driver.ts';
import { connectTo, kernelPlan } from '../inputs/kernel.ts';
import { attempt } from '../target.ts';

const ATTACHMENT = { network: 'fuzz', containerId: 'fuzzed', ifname: 'eth0' };
const OWN_COMMENT = ownerComment(ATTACHMENT);
const HASH = hashOf(ATTACHMENT);
const IP4 = parseIp('10.22.0.2');

const FILTER = table({ family: 'ip', name: 'filter' });
const FILTER_FORWARD = chain({
  table: FILTER,
  name: 'FORWARD',
  type: 'filter',
  hook: 'forward',
  priority: 0,
  policy: 'drop',
});
const NAT = table({ family: 'ip', name: 'nat' });
const REFERENCE = table({ family: 'ip', name: 'cni_hostport' });

const COMMANDS: readonly Command[] = [
  ...ruleset.rulesetCommands(),
  ...[
    FILTER,
    FILTER_FORWARD,
    NAT,
    REFERENCE,
    chain({ table: NAT, name: 'CNI-HOSTPORT-DNAT' }),
    chain({
      table: NAT,
      name: 'POSTROUTING',
      type: 'nat',
      hook: 'postrouting',
      priority: 100,
    }),
    chain({ table: REFERENCE, name: 'hostports' }),
    rule({ chain: FILTER_FORWARD, statements: [iifname.is('cni0'), accept()] }),
    rule({ chain: FILTER_FORWARD, statements: [jump(FILTER_FORWARD)] }),
    rule({ chain: FILTER_FORWARD, statements: [ct.state.isAnyOf('established', 'related'), accept()] }),
    element({
      set: ruleset.ADMITTED4,
      key: [ruleset.address('10.22.0.2'), Buffer.alloc(16, 'cni0\0', 'latin1')],
      comment: OWN_COMMENT,
    }),
  ].map(add),
];

// One message each: a kernel tells of an element in a message of its own, if it likes.
const OBJECTS = COMMANDS.flatMap((command) => encodeCommands([command])).map(({ type, body }) => ({
  type,
  flags: 0,
  body: new Uint8Array(Buffer.concat([body, handleOf(type)])),
}));

function handleOf(type: number): Uint8Array {
  if (type === messageType(NFT_MSG_NEWRULE))
    return new AttributeWriter().u64be(NFTA_RULE_HANDLE, 5n).done().slice();
  if (type === messageType(NFT_MSG_NEWCHAIN))
    return new AttributeWriter().u64be(NFTA_CHAIN_HANDLE, 6n).done().slice();
  return new Uint8Array(0);
}

const GENERATION = {
  type: messageType(NFT_MSG_NEWGEN),
  flags: 0,
  body: new AttributeWriter(new Uint8Array(4)).u32be(NFTA_GEN_ID, 4711).done().slice(),
};

const WISH = {
  attachment: ATTACHMENT,
  bridge: 'cni0',
  addresses: [IP4],
  policy: 'same-bridge',
  link: 'own',
} as const;
const WANTED = [{ family: 4, protocol: 'tcp', hostPort: 8080 }] as const;

const QUESTIONS: Readonly<Record<string, (nft: Nftables) => unknown>> = {
  tables: (nft) => nft.listTables(),
  table: (nft) => nft.findTable(ruleset.TABLE),
  chains: (nft) => nft.listChains(ruleset.TABLE),
  chain: (nft) => nft.findChain(ruleset.FORWARD),
  rules: (nft) => nft.listRules({ table: ruleset.TABLE }),
  elements: (nft) => nft.listElements(ruleset.HOSTPORTS4),
  'elements of an owner': (nft) => nft.listElements(MASQUERADE4, { commentPrefix: 'owner', limit: 2 }),
  element: (nft) => nft.findElement(MASQUERADE4, ruleset.address('10.22.0.2')),
  obstacles: (nft) => findObstacles(nft, { bridge: 'cni0', addresses: [IP4, parseIp('fd00:22::2')] }),
  'closed chains': (nft) => findClosedChains(nft),
  'published ports': (nft) => listHostports(nft),
  'ports of the reference': (nft) =>
    listForeignPorts(nft, { network: 'fuzz', containerId: 'fuzzed', addresses: [IP4] }, WANTED),
  admitted: (nft) => listAdmitted(nft, HASH),
  holders: (nft) => findHolders(nft, IP4),
  'expect firewall': (nft) => expectFirewall(nft, WISH),
  'expect masquerade': (nft) => expectMasquerade(nft, ATTACHMENT, [parseCidr('10.22.0.2/24')]),
  'bridges with ingress': (nft) => bridgesWithIngress(nft, ['cni0']),
  'add firewall': (nft) => nft.commit(planFirewall(nft, WISH)),
  'remove ports': (nft) =>
    nft.commit(planHostportsRemoval(nft, ({ ownerHash }) => ownerHash === HASH).commands),
  'remove masquerade': (nft) => nft.commit(planOwnerRemoval(nft, HASH)),
};

export const nftablesReplies = defineTarget({
  name: 'nftables replies',
  weight: 16,
  input: fc.record({ question: fc.constantFrom(...Object.keys(QUESTIONS)), plan: kernelPlan(OBJECTS) }),
  run: ({ question, plan }) =>
    attempt(() => {
      const objects = [GENERATION, ...plan.objects];
      // A get has the number of its object plus one.
      using nft = connectNftables(connectTo({ ...plan, objects }, (request) => request.type - 1));
      QUESTIONS[question]?.(nft);
      return 'ok';
    }),
});
