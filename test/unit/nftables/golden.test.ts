// Our messages against the bytes that nft sends, and our programs against what it says it sends: every golden of
// test/fixtures/nftables, and no other.
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { encodeMessages, type NetlinkRequest, NLM_F_REQUEST } from '../../../shared/netlink/message.ts';
import { NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END } from '../../../shared/nftables/constants.ts';
import { encodeCommands } from '../../../shared/nftables/encode.ts';
import { lowerStatements } from '../../../shared/nftables/lower.ts';
import { formatExprs } from '../../../shared/nftables/mnemonic.ts';
import { add, type Command, chain, create, delete_, flush } from '../../../shared/nftables/objects.ts';
import { annotate } from '../../fixtures/annotate.ts';
import { BRIDGE_OBJECTS, TYPEOF_SETS } from '../../fixtures/nftables/bridge-rules.ts';
import { FIRST_RULE_HANDLE, GOLDEN_RULES, namesOf } from '../../fixtures/nftables/captures.ts';
import * as ruleset from '../../fixtures/nftables/rules.ts';

const FOLDER = new URL('../../fixtures/nftables/', import.meta.url);
const { ELEMENTS, MASQUERADE4, POSTROUTING, SUBNET, TABLE } = ruleset;

const elementOf = (index: number) => delete_(ELEMENTS[index]?.node ?? TABLE);
const WISHES: Readonly<Record<string, readonly Command[]>> = {
  'table-and-chains': [TABLE, ...ruleset.CHAINS.map(({ node }) => node)].map(add),
  sets: ruleset.SETS.map(({ node }) => add(node)),
  rules: GOLDEN_RULES.map(({ node }) => add(node)),
  elements: ELEMENTS.map(({ node }) => add(node)),
  'sets-by-place': TYPEOF_SETS.map(({ node }) => add(node)),
  bridge: BRIDGE_OBJECTS.map(({ node }) => add(node)),
  delete: [
    elementOf(0),
    elementOf(2),
    flush(POSTROUTING),
    delete_({ kind: 'rule', chain: SUBNET, handle: BigInt(FIRST_RULE_HANDLE) }),
    flush(TABLE),
    delete_(POSTROUTING),
    delete_(MASQUERADE4),
    delete_(ruleset.LINKS),
    create(chain({ table: TABLE, name: 'fresh' })),
    delete_(TABLE),
  ],
};

/** What ours leaves out, or says otherwise, on purpose: the goldens' headers say why. */
const DIFFERENCES: Readonly<Record<string, readonly string[]>> = {
  sets: ['SET_ID', 'SET_USERDATA'],
  rules: ['LOOKUP_SET_ID', 'BITWISE_OP'],
  elements: ['SET_ELEM_LIST_SET_ID'],
  'sets-by-place': ['SET_ID'],
  bridge: ['SET_ID', 'SET_USERDATA', 'LOOKUP_SET_ID', 'SET_ELEM_LIST_SET_ID'],
  delete: ['SET_ELEM_LIST_SET_ID'],
};

test.each(Object.keys(WISHES))('%s: nft sends the same', (name) => {
  const golden = readFileSync(new URL(`${name}.hex`, FOLDER), 'utf8');
  const body = Uint8Array.of(0, 0, 0, 10);
  const requests: NetlinkRequest[] = [
    { type: NFNL_MSG_BATCH_BEGIN, flags: 0, body },
    ...encodeCommands(WISHES[name] ?? []),
    { type: NFNL_MSG_BATCH_END, flags: 0, body },
  ];
  const flagged = requests.map((request) => ({ ...request, flags: request.flags | NLM_F_REQUEST }));
  const { text } = annotate(encodeMessages(flagged, 1), namesOf);
  const differences = DIFFERENCES[name] ?? [];
  expect(comparable(text, differences)).toEqual(comparable(golden.split('\n\n', 2)[1] ?? '', differences));
});

test('every rule runs the program nft says it would make of it', () => {
  const theirs: string[][] = [];
  for (const line of readFileSync(new URL('mnemonics.txt', FOLDER), 'utf8').split('\n')) {
    if (/^inet patchbay \w+$/.test(line)) theirs.push([]);
    // For a port written down (not from a map) nft also sends NF_NAT_RANGE_PROTO_SPECIFIED, which follows from there
    // being a register for it: the kernel adds it.
    if (line.startsWith('  [ '))
      theirs.at(-1)?.push(line.trim().replace(/(proto_min reg 2) flags 0x2/, '$1'));
  }
  const ours = ruleset.RULES.map(({ statements }) => formatExprs(lowerStatements(statements, 'inet')));
  expect(ours).toEqual(theirs);
});

test('every golden is compared', () => {
  const names = readdirSync(FOLDER).flatMap((file) => /^(.*)\.hex$/.exec(file)?.[1] ?? []);
  expect(names.sort()).toEqual(Object.keys(WISHES).sort());
});

/**
 * The named fields, one a line, without the attributes that differ on purpose; the lengths of what may hold one of
 * them are masked: they follow from what is compared.
 */
function comparable(text: string, differences: readonly string[]): string[] {
  const lines: string[] = [];
  let dropped = -1; // the indent of the attribute being left out
  for (const line of text.split('\n').filter((candidate) => candidate.trim() !== '')) {
    const indent = line.search(/\S/);
    if (dropped >= 0 && indent > dropped) continue;
    const name = line.slice(indent).split(/ {2,}/)[1] ?? '';
    dropped = differences.includes(name) ? indent : -1;
    if (dropped >= 0) continue;
    const isLength = name === 'length' || /^\s*(?:[0-9a-f]{2} ){3}8[0-9a-f] /.test(line);
    lines.push(differences.length > 0 && isLength ? line.replace(/[0-9a-f]{2} [0-9a-f]{2}/, '-- --') : line);
  }
  return lines;
}
