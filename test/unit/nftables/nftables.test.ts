// The service against a fake kernel: missing objects, a missing nf_tables, interrupted and inconsistent lists.
// Run with the unit tests.
import { describe, expect, test } from 'vitest';
import { SystemError } from '../../../shared/linux/system-error.ts';
import { AttributeWriter } from '../../../shared/netlink/attributes.ts';
import { connectNetlink } from '../../../shared/netlink/connection.ts';
import {
  type NetlinkMessage,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_MULTI,
} from '../../../shared/netlink/message.ts';
import {
  NFT_MSG_GETCHAIN,
  NFT_MSG_GETGEN,
  NFT_MSG_GETRULE,
  NFT_MSG_GETSETELEM,
  NFT_MSG_GETTABLE,
  NFT_MSG_NEWGEN,
  NFT_MSG_NEWRULE,
  NFT_MSG_NEWSETELEM,
  NFTA_GEN_ID,
  NFTA_RULE_HANDLE,
  NFTA_SET_ELEM_LIST_ELEMENTS,
} from '../../../shared/nftables/constants.ts';
import { encodeCommands, messageType } from '../../../shared/nftables/encode.ts';
import { connectNftables, isNfTablesMissing, type Nftables } from '../../../shared/nftables/nftables.ts';
import { add, type Command, chain, rule, table } from '../../../shared/nftables/objects.ts';
import * as ruleset from '../../fixtures/nftables/rules.ts';
import { caught } from '../../support/caught.ts';
import { type Answer, ack, datagram, done, fakeKernel, part, reply } from '../../support/fake-kernel.ts';

const ENOENT = 2;
const EINVAL = 22;
const EPERM = 1;
const { MASQUERADE4, POSTROUTING, TABLE } = ruleset;

/** A kernel that knows its generation, and otherwise answers as told. */
function open(
  answer: (request: NetlinkMessage) => readonly Answer[],
  number: () => number = () => 4711,
): Nftables {
  return connectNftables(
    connectNetlink(
      fakeKernel((request) =>
        request.type === messageType(NFT_MSG_GETGEN) ? [generation(request, number())] : answer(request),
      ),
    ),
  );
}

function generation(request: NetlinkMessage, number = 4711): Uint8Array {
  const body = new AttributeWriter(new Uint8Array(4)).u32be(NFTA_GEN_ID, number).done();
  return reply(request, messageType(NFT_MSG_NEWGEN), body);
}

/** What the kernel would tell of an object, as a part of a dump or as an answer; a rule has got a handle. */
function told(request: NetlinkMessage, command: Command, flags = NLM_F_MULTI): Uint8Array {
  const [message] = encodeCommands([command]);
  if (message === undefined) throw new Error('Nothing encoded');
  const handle = new AttributeWriter().u64be(NFTA_RULE_HANDLE, 5n).done();
  const isRule = message.type === messageType(NFT_MSG_NEWRULE);
  const body = isRule ? new Uint8Array(Buffer.concat([message.body, handle])) : message.body;
  return reply(request, message.type, body, flags);
}

describe('a kernel without nf_tables', () => {
  test('but with nfnetlink is known by its answer to the first question', () => {
    const missing = fakeKernel((request) => [ack(request, EINVAL)]);
    const failure = caught(() => connectNftables(connectNetlink(missing)));
    expect(isNfTablesMissing(failure)).toBe(true);
    expect(isNfTablesMissing(new Error('Cannot masquerade', { cause: failure }))).toBe(true);
    expect(String(failure)).toContain('the kernel has no nf_tables');
  });

  test('is not what other failures say', () => {
    const forbidding = fakeKernel((request) => [ack(request, EPERM)]);
    const failure = caught(() => connectNftables(connectNetlink(forbidding)));
    expect(failure).toMatchObject({ code: 'EPERM' });
    expect(isNfTablesMissing(failure)).toBe(false);
    expect(isNfTablesMissing(new SystemError('socket', EINVAL))).toBe(false);
    expect(isNfTablesMissing('nf_tables')).toBe(false);
  });
});

test('the generation is the number the kernel tells', () => {
  expect(open(() => []).generation()).toBe(4711);
});

describe('what is not there', () => {
  const nft = open((request) => [ack(request, ENOENT)]);

  test('is undefined when it was asked for by name or key', () => {
    expect(nft.findTable(TABLE)).toBeUndefined();
    expect(nft.findChain(POSTROUTING)).toBeUndefined();
    expect(nft.findElement(MASQUERADE4, Uint8Array.of(1, 2, 3, 4))).toBeUndefined();
  });

  test('has no members', () => {
    expect(nft.listChains(TABLE)).toEqual([]);
    expect(nft.listRules({ table: TABLE })).toEqual([]);
    expect(nft.listElements(MASQUERADE4)).toEqual([]);
  });
});

describe('other refusals name what was asked', () => {
  const nft = open((request) => [ack(request, EPERM)]);
  test.each<[() => unknown, string]>([
    [() => nft.findTable(TABLE), 'find table "inet patchbay"'],
    [() => nft.findChain(POSTROUTING), 'find chain "postrouting" of table "inet patchbay"'],
    [() => nft.listChains(TABLE), 'list the chains of table "inet patchbay"'],
    [() => nft.listRules({ table: TABLE }), 'list the rules of table "inet patchbay"'],
    [() => nft.listElements(MASQUERADE4), 'list the elements of map "masquerade4" of table "inet patchbay"'],
    [
      () => nft.findElement(MASQUERADE4, Uint8Array.of(10, 22, 0, 2)),
      'find element 10.22.0.2 of map "masquerade4" of table "inet patchbay"',
    ],
  ])('%#', (ask, operation) => {
    expect(caught(ask)).toMatchObject({ code: 'EPERM', operation });
  });
});

describe('a find', () => {
  test('asks for one object, not for a dump', () => {
    const kernel = fakeKernel((request) =>
      request.type === messageType(NFT_MSG_GETGEN)
        ? [generation(request)]
        : [told(request, add(request.type === messageType(NFT_MSG_GETTABLE) ? TABLE : POSTROUTING), 0)],
    );
    const nft = connectNftables(connectNetlink(kernel));
    expect(nft.findTable(TABLE)?.comment).toBe('table comment');
    expect(nft.findChain(POSTROUTING)?.comment).toBe('base chain comment');
    expect(kernel.received.every(({ flags }) => (flags & NLM_F_DUMP) === 0)).toBe(true);
  });

  test('of an element asks by its key', () => {
    const [first] = ruleset.ELEMENTS;
    if (first === undefined) throw new Error('No element');
    const kernel = fakeKernel((request) =>
      request.type === messageType(NFT_MSG_GETGEN)
        ? [generation(request)]
        : [told(request, add(first.node), 0)],
    );
    const nft = connectNftables(connectNetlink(kernel));
    expect(nft.findElement(MASQUERADE4, first.node.key)).toEqual(first.node);
    const asked = kernel.received.at(-1);
    expect(asked?.type).toBe(messageType(NFT_MSG_GETSETELEM));
    expect(Buffer.from(asked?.body ?? []).includes(first.node.key)).toBe(true);
  });
});

describe('a list', () => {
  test('leaves out what old kernels tell of other tables and chains', () => {
    const stranger = table({ family: 'inet', name: 'other' });
    const strange = chain({ table: stranger, name: 'postrouting' });
    const nft = open((request) => {
      if (request.type === messageType(NFT_MSG_GETCHAIN)) {
        return [datagram(told(request, add(POSTROUTING)), told(request, add(strange))), done(request)];
      }
      if (request.type !== messageType(NFT_MSG_GETRULE)) return [];
      const rules = [POSTROUTING, strange, ruleset.OTHER].map((to) =>
        told(request, add(rule({ chain: to, statements: [] }))),
      );
      return [datagram(...rules), done(request)];
    });
    expect(nft.listChains(TABLE).map(({ name }) => name)).toEqual(['postrouting']);
    expect(nft.listRules({ table: TABLE }).map((fact) => fact.chain.name)).toEqual(['postrouting', 'other']);
    expect(nft.listRules({ table: TABLE, chain: 'other' }).map((fact) => fact.chain.name)).toEqual(['other']);
  });

  test('that a change interrupted is asked for again', () => {
    let asked = 0;
    const nft = open((request) => {
      asked++;
      const elements = ruleset.ELEMENTS.slice(0, 1).map(({ node }) => told(request, add(node)));
      return asked < 3
        ? [...elements, done(request, 0, NLM_F_DUMP_INTR)]
        : [datagram(...elements), part(request, 3, new Uint8Array(4))];
    });
    expect(nft.listElements(MASQUERADE4)).toHaveLength(1);
    expect(asked).toBe(3);
  });
});

describe('a list in several datagrams', () => {
  const [first, second] = ruleset.ELEMENTS.slice(0, 2).map(({ node }) => add(node));
  if (first === undefined || second === undefined) throw new Error('No elements');
  let now = 7;
  const readings = (...orders: readonly (readonly Command[])[]) => {
    let reading = 0;
    const nft = open(
      (request) => {
        const order = orders[Math.min(reading++, orders.length - 1)] ?? [];
        return [...order.map((command) => told(request, command)), done(request)];
      },
      () => now,
    );
    return { nft, count: () => reading };
  };

  test('is read until two readings agree: a set being resized is told with repetitions and gaps', () => {
    const { nft, count } = readings([first, first], [first, second], [second, first], [second, first]);
    expect(nft.listElements(MASQUERADE4).map(({ comment }) => comment)).toEqual([undefined, 'owner 1']);
    expect(count()).toBe(4);
  });

  test('is not read again until the ruleset changes, and then it is', () => {
    const { nft, count } = readings([first, second], [first, second], [second]);
    expect(nft.listElements(MASQUERADE4)).toHaveLength(2);
    expect(nft.listElements(MASQUERADE4)).toHaveLength(2);
    expect(count()).toBe(2);
    now++;
    expect(nft.listElements(MASQUERADE4)).toHaveLength(1);
    expect(count()).toBe(3);
  });

  test('of another set is read for itself', () => {
    const { nft, count } = readings([first, second]);
    nft.listElements(MASQUERADE4);
    nft.listElements({ ...MASQUERADE4, name: 'other' });
    expect(count()).toBe(4);
  });

  test('that changed while it was read is read again by who asks again', () => {
    let reading = 0;
    const nft = open(
      (request) => {
        reading++;
        return [told(request, first), told(request, second), done(request)];
      },
      () => reading,
    );
    nft.listElements(MASQUERADE4);
    nft.listElements(MASQUERADE4);
    expect(reading).toBe(4);
  });

  test('is read once when it is one datagram, or none', () => {
    for (const order of [[first], []]) {
      const { nft, count } = readings(order);
      expect(nft.listElements(MASQUERADE4)).toHaveLength(order.length);
      expect(count()).toBe(1);
    }
  });

  test('is read once when the second says that there was no more to tell', () => {
    let reading = 0;
    const nft = open((request) => {
      reading++;
      const nothing = new AttributeWriter(request.body).nest(NFTA_SET_ELEM_LIST_ELEMENTS, () => {}).done();
      return [told(request, first), part(request, messageType(NFT_MSG_NEWSETELEM), nothing), done(request)];
    });
    expect(nft.listElements(MASQUERADE4)).toHaveLength(1);
    expect(reading).toBe(1);
  });

  test('tells an element once that was told twice in one datagram', () => {
    const nft = open((request) => [datagram(told(request, first), told(request, first)), done(request)]);
    expect(nft.listElements(MASQUERADE4)).toHaveLength(1);
  });

  test('that never agrees is given up', () => {
    const orders = Array.from({ length: 100 }, (_none, index) =>
      index % 2 === 0 ? [first, second] : [second, first],
    );
    const { nft, count } = readings(...orders);
    expect(caught(() => nft.listElements(MASQUERADE4))).toMatchObject({
      code: 'EAGAIN',
      operation: 'list the elements of map "masquerade4" of table "inet patchbay"',
    });
    expect(count()).toBe(20);
  });
});

test('a commit of nothing says nothing to the kernel', () => {
  const nft = open(() => {
    throw new Error('The kernel was asked');
  });
  expect(() => nft.commit([])).not.toThrow();
});
