// A commit against a fake kernel: what is sent, and what is made of every kind of answer.
// The real kernel has its say in test/kernel/nftables-commit.test.ts.
import { describe, expect, test } from 'vitest';
import { SystemError } from '../../../shared/linux/system-error.ts';
import { readAttributes } from '../../../shared/netlink/attributes.ts';
import { connectNetlink } from '../../../shared/netlink/connection.ts';
import { type NetlinkMessage, NLM_F_ACK } from '../../../shared/netlink/message.ts';
import { NetlinkError } from '../../../shared/netlink/netlink-error.ts';
import { commitBatch } from '../../../shared/nftables/batch.ts';
import {
  NFNL_BATCH_GENID,
  NFNL_MSG_BATCH_BEGIN,
  NFNL_MSG_BATCH_END,
  NFT_MSG_DELSETELEM,
  NFT_MSG_NEWCHAIN,
  NFT_MSG_NEWSETELEM,
  NFT_MSG_NEWTABLE,
  NFTA_RULE_EXPRESSIONS,
} from '../../../shared/nftables/constants.ts';
import { decodeExprs } from '../../../shared/nftables/decode.ts';
import { encodeCommands, messageType } from '../../../shared/nftables/encode.ts';
import { lowerStatements } from '../../../shared/nftables/lower.ts';
import { isNfTablesMissing } from '../../../shared/nftables/missing.ts';
import {
  add,
  type Command,
  chain,
  create,
  delete_,
  element,
  rule,
} from '../../../shared/nftables/objects.ts';
import { drop, ip, jump, masquerade } from '../../../shared/nftables/statements.ts';
import * as ruleset from '../../fixtures/nftables/rules.ts';
import { type Answer, ack, type FakeKernel, fakeKernel } from '../../support/fake-kernel.ts';

const ENOENT = 2;
const EBUSY = 16;
const EOPNOTSUPP = 95;
const EAFNOSUPPORT = 97;
const ENOBUFS = 105;
const ERESTART = 85;
const { MASQUERADE4, OTHER, TABLE } = ruleset;

const owned = (index: number) =>
  element({
    map: MASQUERADE4,
    key: [Uint8Array.of(10, 22, index >> 8, index & 0xff)],
    data: jump(OTHER),
    comment: 'o'.repeat(100),
  });

function commit(
  commands: readonly Command[],
  answer: (request: NetlinkMessage) => readonly Answer[],
  generation?: number,
): { kernel: FakeKernel; error: NetlinkError | undefined } {
  const kernel = fakeKernel(answer);
  try {
    commitBatch(connectNetlink(kernel), commands, { generation });
    return { kernel, error: undefined };
  } catch (error) {
    if (!(error instanceof NetlinkError)) throw error;
    return { kernel, error };
  }
}

const accepting = (request: NetlinkMessage) => ((request.flags & NLM_F_ACK) === 0 ? [] : [ack(request)]);

describe('a commit', () => {
  test('is BEGIN, the objects and END, and asks for one acknowledgement, on the last object', () => {
    const { kernel, error } = commit([add(TABLE), add(OTHER)], accepting);
    expect(error).toBeUndefined();
    expect(kernel.received.map(({ type }) => type)).toEqual([
      NFNL_MSG_BATCH_BEGIN,
      messageType(NFT_MSG_NEWTABLE),
      messageType(NFT_MSG_NEWCHAIN),
      NFNL_MSG_BATCH_END,
    ]);
    expect(kernel.received.map(({ flags }) => (flags & NLM_F_ACK) !== 0)).toEqual([
      false,
      false,
      true,
      false,
    ]);
    // struct nfgenmsg: no family, version 0, NFNL_SUBSYS_NFTABLES in network order
    for (const index of [0, 3]) expect([...(kernel.received[index]?.body ?? [])]).toEqual([0, 0, 0, 10]);
  });

  test('of nothing sends nothing', () => {
    expect(commit([], accepting).kernel.received).toEqual([]);
  });

  test('carries the generation it was decided from', () => {
    const { kernel } = commit([add(TABLE)], accepting, 4711);
    const body = kernel.received[0]?.body ?? new Uint8Array();
    expect(readAttributes(body, 4).u32be(NFNL_BATCH_GENID)).toBe(4711);
  });

  test('after which the ruleset turned out to be another fails with ERESTART', () => {
    const refuse = (request: NetlinkMessage) =>
      request.type === NFNL_MSG_BATCH_BEGIN ? [ack(request, ERESTART)] : [];
    const { error } = commit([add(TABLE), add(OTHER)], refuse, 1);
    expect(error?.code).toBe('ERESTART');
    expect(error?.message).toContain('Cannot commit 2 changes to the nftables ruleset');
  });

  test('that the kernel acknowledges and refuses at once has failed', () => {
    // a failing commit is told on BEGIN, after the acknowledgements of the objects
    const { error } = commit([add(TABLE)], (request) => {
      if (request.type === NFNL_MSG_BATCH_END)
        return [ack({ ...request, sequence: request.sequence - 2 }, ENOENT)];
      return accepting(request);
    });
    expect(error?.code).toBe('ENOENT');
  });

  test('without any answer has failed', () => {
    const { error } = commit([add(TABLE)], () => []);
    expect(error?.message).toContain('Cannot add table "inet patchbay"');
    expect(error?.message).toContain('no answer to the batch');
  });

  test('names the first object the kernel stumbled over', () => {
    const { error } = commit(
      [add(TABLE), add(chain({ table: TABLE, name: 'first' })), add(OTHER)],
      (request) => (request.type === messageType(NFT_MSG_NEWCHAIN) ? [ack(request, ENOENT)] : []),
    );
    expect(error?.operation).toBe('add chain "first" of table "inet patchbay"');
  });
});

describe('so many refusals that the kernel drops some', () => {
  const lost = new SystemError('receive', ENOBUFS);

  test('leave the first to be told', () => {
    const { error } = commit([add(TABLE), add(OTHER)], (request) =>
      request.type === messageType(NFT_MSG_NEWTABLE) ? [lost, ack(request, ENOENT)] : [],
    );
    expect(error).toMatchObject({ operation: 'add table "inet patchbay"', code: 'ENOENT' });
  });

  test('are a failure even when none is left', () => {
    const { error } = commit([add(TABLE)], (request) => [
      ...accepting(request),
      ...(request.type === NFNL_MSG_BATCH_END ? [lost] : []),
    ]);
    expect(error?.code).toBe('ENOBUFS');
  });
});

describe('an object is named in words', () => {
  test.each<[Command, string]>([
    [add(owned(2)), 'add element 10.22.0.2 to map "masquerade4" of table "inet patchbay"'],
    [delete_(owned(2)), 'delete element 10.22.0.2 from map "masquerade4" of table "inet patchbay"'],
    [create(TABLE), 'create table "inet patchbay"'],
    [add(MASQUERADE4), 'add map "masquerade4" of table "inet patchbay"'],
    [add(ruleset.LINKS), 'add set "links" of table "inet patchbay"'],
    [
      add(rule({ chain: OTHER, statements: [drop()], comment: 'why' })),
      'add rule "why" to chain "other" of table "inet patchbay"',
    ],
    [add(rule({ chain: OTHER, statements: [] })), 'add rule to chain "other" of table "inet patchbay"'],
    [
      delete_({ kind: 'rule', chain: OTHER, handle: 12n }),
      'delete rule 12 from chain "other" of table "inet patchbay"',
    ],
    [
      delete_({ kind: 'element', set: { table: TABLE, name: 'm' }, key: Uint8Array.of(1, 2) }),
      'delete element 0x0102 from set "m" of table "inet patchbay"',
    ],
    [{ verb: 'remove', node: TABLE }, 'remove table "inet patchbay"'],
    [{ verb: 'flush', node: OTHER }, 'flush chain "other" of table "inet patchbay"'],
  ])('%#: %s', (command, words) => {
    const { error } = commit([command], (request) =>
      request.type > NFNL_MSG_BATCH_END ? [ack(request, ENOENT)] : [],
    );
    expect(error?.operation).toBe(words);
    expect(error?.code).toBe('ENOENT');
  });
});

describe('a kernel built without what is needed is told from a missing object', () => {
  function failure(commands: readonly Command[], errno: number, offset?: number): unknown {
    const last = (request: NetlinkMessage) =>
      (request.flags & NLM_F_ACK) === 0 ? [] : [ack(request, errno, offset === undefined ? {} : { offset })];
    try {
      commitBatch(connectNetlink(fakeKernel(last)), commands, {});
    } catch (error) {
      return error;
    }
    return undefined;
  }

  test('by a table of a family it does not have', () => {
    for (const errno of [EOPNOTSUPP, EAFNOSUPPORT]) {
      const error = failure([add(TABLE)], errno);
      expect(isNfTablesMissing(error)).toBe(true);
      expect(String(error)).toContain('the kernel has no tables of family "inet"');
    }
    expect(isNfTablesMissing(failure([add(OTHER)], EOPNOTSUPP))).toBe(false);
  });

  test('by a base chain in a table that is surely there', () => {
    const error = failure([add(TABLE), add(ruleset.POSTROUTING)], ENOENT);
    expect(isNfTablesMissing(error)).toBe(true);
    expect(String(error)).toContain('no nat chains in tables of family "inet", which Linux 5.2 brought');
    expect(isNfTablesMissing(failure([add(ruleset.POSTROUTING)], ENOENT))).toBe(false);
    expect(isNfTablesMissing(failure([add(TABLE), add(OTHER)], ENOENT))).toBe(false);
    expect(isNfTablesMissing(failure([add(TABLE), add(ruleset.POSTROUTING)], EBUSY))).toBe(false);
  });

  test('by the expression it points at, unless that names something', () => {
    const commands = [add(rule({ chain: OTHER, statements: [ip.saddr.vmap(MASQUERADE4), masquerade()] }))];
    const offsets = encodeCommands(commands)[0]?.offsets ?? [];
    expect(offsets).toHaveLength(5); // meta, cmp, payload, lookup, masq
    const at = (index: number) => failure(commands, ENOENT, 16 + (offsets[index] ?? 0));
    expect(isNfTablesMissing(at(4))).toBe(true);
    expect(String(at(4))).toContain('the kernel has no expression "masq"');
    expect(isNfTablesMissing(at(3))).toBe(false);
    expect(isNfTablesMissing(failure(commands, ENOENT))).toBe(false);
    expect(isNfTablesMissing(failure(commands, ENOENT, 20))).toBe(false);
  });
});

describe('elements of one set', () => {
  const many = Array.from({ length: 1000 }, (_none, index) => owned(index));

  test('share messages of some 32 KiB', () => {
    const messages = encodeCommands(many.map(add));
    expect(messages.length).toBeGreaterThan(3);
    expect(messages.length).toBeLessThan(10);
    for (const { body } of messages) expect(body.length).toBeLessThan(33_000);
    expect(messages.flatMap(({ commands }) => commands.map(({ node }) => node))).toEqual(many);
  });

  test('never share one with what another verb does, with another set, or across another object', () => {
    const other = ruleset.ELEMENTS[1]?.node ?? owned(0);
    const messages = encodeCommands([
      add(owned(1)),
      add(owned(2)),
      delete_(owned(1)),
      create(owned(1)),
      add(other),
      add(owned(3)),
      add(OTHER),
      add(owned(4)),
    ]);
    expect(messages.map(({ commands }) => commands.length)).toEqual([2, 1, 1, 1, 1, 1, 1]);
    expect(messages.map(({ type }) => type & 0xff)).toEqual([
      NFT_MSG_NEWSETELEM,
      NFT_MSG_DELSETELEM,
      NFT_MSG_NEWSETELEM,
      NFT_MSG_NEWSETELEM,
      NFT_MSG_NEWSETELEM,
      NFT_MSG_NEWCHAIN,
      NFT_MSG_NEWSETELEM,
    ]);
  });

  test('are told apart by the place the kernel names', () => {
    const [message] = encodeCommands(many.map(add));
    const offset = 16 + (message?.offsets[7] ?? 0);
    const { error } = commit(many.map(add), (request) =>
      request.type > NFNL_MSG_BATCH_END ? [ack(request, ENOENT, { offset })] : [],
    );
    expect(error?.operation).toBe('add element 10.22.0.7 to map "masquerade4" of table "inet patchbay"');
  });

  test.each([undefined, 17])('are named together when it names none (%s)', (offset) => {
    const { error } = commit([add(owned(1)), add(owned(2))], (request) =>
      request.type > NFNL_MSG_BATCH_END ? [ack(request, ENOENT, offset === undefined ? {} : { offset })] : [],
    );
    expect(error?.operation).toBe('add one of 2 elements of map "masquerade4" of table "inet patchbay"');
  });
});

test('a program longer than the memory the writer begins with is written whole', () => {
  const statements = Array.from({ length: 40 }, () => ruleset.RULES[13]?.statements ?? []).flat();
  const [message] = encodeCommands([add(rule({ chain: ruleset.PREROUTING, statements }))]);
  const program = readAttributes(message?.body ?? new Uint8Array(), 4).bytes(NFTA_RULE_EXPRESSIONS);
  const exprs = decodeExprs(program ?? new Uint8Array());
  expect(exprs.length).toBeGreaterThan(200);
  expect(exprs).toEqual(lowerStatements(statements, 'inet'));
});
