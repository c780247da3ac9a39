// Replies as facts, and the promise that no reply makes the decoder throw.
// Run with the unit tests; test/kernel/nftables-read.test.ts reads the real kernel.
import { describe, expect, test } from 'vitest';
import { ipToBytes, parseIp } from '../../../shared/ip/cidr.ts';
import { AttributeWriter } from '../../../shared/netlink/attributes.ts';
import type { NetlinkMessage } from '../../../shared/netlink/message.ts';
import * as constants from '../../../shared/nftables/constants.ts';
import {
  decodeChain,
  decodeElements,
  decodeExprs,
  decodeGeneration,
  decodeRule,
  decodeTable,
  type ElementFact,
} from '../../../shared/nftables/decode.ts';
import { encodeCommands, messageType } from '../../../shared/nftables/encode.ts';
import { writeExpr } from '../../../shared/nftables/exprs/expr.ts';
import { lowerStatements } from '../../../shared/nftables/lower.ts';
import { formatExprs } from '../../../shared/nftables/mnemonic.ts';
import { add, element, map, rule, table } from '../../../shared/nftables/objects.ts';
import { drop, jump } from '../../../shared/nftables/statements.ts';
import * as ruleset from '../../fixtures/nftables/rules.ts';

// What we send for a new object has the form in which the kernel tells of one, but for the handles it adds.
function told(...commands: Parameters<typeof encodeCommands>[0]): NetlinkMessage {
  const [message] = encodeCommands(commands);
  if (message === undefined) throw new Error('Nothing encoded');
  return { type: message.type, flags: 0, sequence: 1, portId: 0, body: message.body.slice() };
}

function withAttribute(message: NetlinkMessage, write: (w: AttributeWriter) => void): NetlinkMessage {
  const w = new AttributeWriter();
  write(w);
  return { ...message, body: new Uint8Array(Buffer.concat([message.body, w.done()])) };
}

const elements = (message: NetlinkMessage, prefix?: string): ElementFact[] => {
  const found: ElementFact[] = [];
  const commentPrefix = prefix === undefined ? undefined : Buffer.from(prefix);
  decodeElements(message, ruleset.MASQUERADE4, found, { commentPrefix });
  return found;
};

describe('a table', () => {
  test('is told with family, name, comment, handle and use', () => {
    const message = withAttribute(told(add(ruleset.TABLE)), (w) => {
      w.u64be(constants.NFTA_TABLE_HANDLE, 7n).u32be(constants.NFTA_TABLE_USE, 3);
    });
    const fact = {
      kind: 'table',
      family: 'inet',
      name: 'patchbay',
      comment: 'table comment',
      handle: 7n,
      use: 3,
    };
    expect(decodeTable(message)).toEqual(fact);
  });

  test('of a family we do not know is none', () => {
    const message = told(add(table({ family: 'ip', name: 't' })));
    message.body[0] = 99;
    expect(decodeTable(message)).toBeUndefined();
  });
});

describe('a chain', () => {
  test('is told with its hook', () => {
    expect(decodeChain(told(add(ruleset.POSTROUTING)))).toEqual({
      kind: 'chain',
      table: { family: 'inet', name: 'patchbay' },
      name: 'postrouting',
      comment: 'base chain comment',
      handle: undefined,
      use: undefined,
      base: { type: 'nat', hook: 4, priority: 100, policy: 'accept' },
    });
    expect(decodeChain(told(add(ruleset.FORWARD)))?.base?.policy).toBe('drop');
    expect(decodeChain(told(add(ruleset.PREROUTING)))?.base?.priority).toBe(-90);
  });

  test('without hook has no base', () => {
    expect(decodeChain(told(add(ruleset.SUBNET)))?.base).toBeUndefined();
  });
});

describe('a rule', () => {
  test('keeps its program to be read on demand', () => {
    for (const { chain, statements, nft } of ruleset.RULES) {
      const message = withAttribute(told(add(rule({ chain, statements, comment: 'c' }))), (w) => {
        w.u64be(constants.NFTA_RULE_HANDLE, 12n);
      });
      const fact = decodeRule(message);
      expect(fact).toMatchObject({ kind: 'rule', chain: { name: chain.name }, handle: 12n, comment: 'c' });
      expect(formatExprs(decodeExprs(fact?.program ?? new Uint8Array())), nft).toEqual(
        formatExprs(lowerStatements(statements, 'inet')),
      );
    }
  });

  test('without handle is none: it could not be deleted', () => {
    expect(decodeRule(told(add(rule({ chain: ruleset.OTHER, statements: [] }))))).toBeUndefined();
  });

  test('keeps expressions of another kind, or of another form', () => {
    const w = new AttributeWriter();
    writeExpr(w, { kind: 'immediate', dreg: 0, data: drop() });
    const expr = (name: string, inner: (data: AttributeWriter) => void) =>
      w.nest(constants.NFTA_LIST_ELEM, (e) => {
        e.string(constants.NFTA_EXPR_NAME, name).nest(constants.NFTA_EXPR_DATA, inner);
      });
    expr('counter', (data) => data.u64be(1, 5n));
    expr('meta', (data) => data.u64be(constants.NFTA_META_KEY, 5n)); // a number of another size
    expr('ct', (data) => data.u32be(constants.NFTA_CT_KEY, 3).u32be(constants.NFTA_CT_SREG, 1));
    w.nest(constants.NFTA_LIST_ELEM, () => {});
    const exprs = decodeExprs(w.done());
    expect(exprs.map(({ kind }) => kind)).toEqual(['immediate', ...new Array(4).fill('unknown')]);
    expect(exprs[1]).toMatchObject({ name: 'counter', data: { length: 12 } });
    expect(exprs[4]).toEqual({ kind: 'unknown', name: '', data: undefined });
    expect(formatExprs(exprs)[1]).toBe('[ counter ? ]');
  });
});

describe('elements', () => {
  const OWN = [1, 2, 3].map((last) =>
    element({
      map: ruleset.MASQUERADE4,
      key: [Uint8Array.of(10, 22, 0, last)],
      data: jump(ruleset.SUBNET),
      ...(last === 3 ? {} : { comment: `owner${last} text` }),
    }),
  );
  const message = told(...OWN.map(add));

  test('are told with key, data and comment', () => {
    expect(elements(message)).toEqual(
      OWN.map(({ key, comment }) => ({
        kind: 'element',
        set: ruleset.MASQUERADE4,
        key,
        data: { kind: 'verdict', code: 'jump', chain: 'subnet' },
        comment,
      })),
    );
  });

  test('can be chosen by the bytes they hold, in key or comment', () => {
    const nodes = ['10.0.0.1', '10.0.0.2', '10.0.0.3'].map((text) =>
      element({
        map: ruleset.MASQUERADE4,
        key: [ipToBytes(parseIp(text))],
        data: jump({ name: 'c' }),
        comment: `owner of ${text}`,
      }),
    );
    const message = told(...nodes.map(add));
    const chosen = (containing: readonly Uint8Array[]) => {
      const found: ElementFact[] = [];
      decodeElements(message, ruleset.MASQUERADE4, found, { containing });
      return found.map(({ comment }) => comment);
    };
    expect(chosen([Uint8Array.of(10, 0, 0, 2)])).toEqual(['owner of 10.0.0.2']);
    expect(chosen([Buffer.from('10.0.0.3'), Uint8Array.of(10, 0, 0, 1)])).toEqual([
      'owner of 10.0.0.1',
      'owner of 10.0.0.3',
    ]);
    expect(chosen([Uint8Array.of(10, 9, 9, 9)])).toEqual([]);
  });

  test('can be chosen by how their comment begins', () => {
    expect(elements(message, 'owner2').map(({ key }) => key[3])).toEqual([2]);
    expect(elements(message, 'owner').map(({ key }) => key[3])).toEqual([1, 2]);
    expect(elements(message, 'text')).toEqual([]);
    expect(elements(message, 'owner1 text and more')).toEqual([]);
  });

  test('hold values as well as verdicts', () => {
    const found: ElementFact[] = [];
    for (const { node } of ruleset.ELEMENTS) decodeElements(told(add(node)), node.set, found);
    expect(found).toEqual(ruleset.ELEMENTS.map(({ node }) => node));
  });

  test('without a key, and verdicts that are not ours, are left out', () => {
    const w = new AttributeWriter(Uint8Array.of(1, 0, 0, 0)).nest(
      constants.NFTA_SET_ELEM_LIST_ELEMENTS,
      (list) => {
        list.nest(1, (e) => e.u32be(3, 2)); // NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_CATCHALL
        list.nest(1, (e) => {
          e.nest(constants.NFTA_SET_ELEM_KEY, (key) =>
            key.bytes(constants.NFTA_DATA_VALUE, Uint8Array.of(9)),
          );
          e.nest(constants.NFTA_SET_ELEM_DATA, (data) => {
            data.nest(constants.NFTA_DATA_VERDICT, (v) => v.u32be(constants.NFTA_VERDICT_CODE, 3)); // NF_QUEUE
          });
        });
      },
    );
    const odd = { ...message, body: w.done().slice() };
    expect(elements(odd)).toMatchObject([{ key: Uint8Array.of(9), data: undefined, comment: undefined }]);
  });
});

describe('nothing in a reply makes the decoder throw', () => {
  const real = [
    ...[ruleset.TABLE, ruleset.POSTROUTING, ruleset.SUBNET].map((node) => told(add(node))),
    ...ruleset.RULES.map(({ chain, statements }) => told(add(rule({ chain, statements, comment: 'c' })))),
    ...ruleset.ELEMENTS.map(({ node }) => told(add(node))),
  ];

  function decodeAll(message: NetlinkMessage): void {
    decodeTable(message);
    decodeChain(message);
    const fact = decodeRule(withAttribute(message, (w) => w.u64be(constants.NFTA_RULE_HANDLE, 1n)));
    if (fact !== undefined) formatExprs(decodeExprs(fact.program));
    decodeExprs(message.body);
    decodeGeneration(message);
    elements(message);
    elements(message, 'o');
  }

  test('cut off anywhere', () => {
    for (const message of real) {
      for (let length = 0; length <= message.body.length; length++) {
        decodeAll({ ...message, body: message.body.slice(0, length) });
      }
    }
  });

  test('with any one byte changed', () => {
    for (const message of real.filter((_message, index) => index % 3 === 0)) {
      for (let at = 0; at < message.body.length; at++) {
        for (const value of [0, 0xff]) {
          const body = message.body.slice();
          body[at] = value;
          decodeAll({ ...message, body });
        }
      }
    }
  });

  test('made of noise', () => {
    let seed = 1;
    const random = () => {
      seed = (seed * 48271) % 0x7fffffff; // Lehmer: the same noise in every run
      return seed;
    };
    for (let round = 0; round < 200; round++) {
      const body = Uint8Array.from(
        { length: random() % 96 },
        () => random() & (round % 2 === 0 ? 0xff : 0x0f),
      );
      for (let type = 0; type <= 16; type++) {
        decodeAll({ type: messageType(type), flags: 0, sequence: 1, portId: 0, body });
      }
    }
  });
});

test('a message of another type is none of them', () => {
  const message = { ...told(add(ruleset.TABLE)), type: 3 };
  expect([
    decodeTable(message),
    decodeChain(message),
    decodeRule(message),
    decodeGeneration(message),
  ]).toEqual(new Array(4).fill(undefined));
  expect(elements(message)).toEqual([]);
});

test('the declaration of the map decides nothing about decoding: unknown ones are read as well', () => {
  const stranger = map({
    table: table({ family: 'ip', name: 'x' }),
    name: 'y',
    key: ['mark'],
    data: 'verdict',
  });
  const found: ElementFact[] = [];
  decodeElements(told(...ruleset.ELEMENTS.slice(0, 1).map(({ node }) => add(node))), stranger, found);
  expect(found[0]?.key).toEqual(Uint8Array.of(10, 22, 0, 2));
});
