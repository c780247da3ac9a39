// The names shared with the reference, against strings captured from it, and the hash under them.
// Run by vitest, project "unit".

import { hash } from 'node:crypto';
import { expect, test } from 'vitest';
import {
  attachmentTag,
  isMasqueradeChain,
  masqueradeChain,
  masqueradeComment,
  networkTag,
  ownerInComment,
} from '../../../shared/iptables/names.ts';
import { sha512 } from '../../../shared/iptables/sha512.ts';

const owner = { network: 'n1', containerId: 'c1' };

test('the chain and the tags are those the reference plugins give', () => {
  expect(masqueradeChain(owner)).toBe('CNI-7be53730afe4dc6eb2178d03');
  expect(networkTag('n1')).toBe('43d91f8451058a70-');
  expect(attachmentTag({ ...owner, ifname: 'eth0' })).toBe('43d91f8451058a70-f4d01f2ef4b92245');
  expect(attachmentTag({ network: 'n1', containerId: 'c2', ifname: 'eth0' })).toBe(
    '43d91f8451058a70-8c6ebb285a95686c',
  );
});

test('a masquerade chain is told from other chains by its shape', () => {
  expect(isMasqueradeChain(masqueradeChain(owner))).toBe(true);
  for (const other of ['CNI-DN-7be53730afe4dc6eb2178', 'CNI-HOSTPORT-DNAT', 'POSTROUTING', 'CNI-7be5']) {
    expect(isMasqueradeChain(other), other).toBe(false);
  }
});

test('the comment names network and container, and its owner can be read back', () => {
  expect(masqueradeComment(owner)).toBe('name: "n1" id: "c1"');
  expect(ownerInComment(masqueradeComment(owner))).toEqual(owner);
});

test('a comment longer than the kernel takes is cut, and then names nobody', () => {
  const comment = masqueradeComment({ network: 'n1', containerId: 'c'.repeat(300) });
  expect(comment).toHaveLength(255);
  expect(comment.endsWith('...')).toBe(true);
  expect(ownerInComment(comment)).toBeUndefined();
});

test('comments of other formats name nobody', () => {
  for (const comment of [
    '',
    'name: "" id: "c1"',
    'dnat name: "n1" id: "c1"',
    'name: "n 1" id: "c1"',
    'name: "n1" id: "c1" or so',
  ]) {
    expect(ownerInComment(comment), comment).toBeUndefined();
  }
});

test('names that could end a quoted word or a line are refused', () => {
  for (const bad of ['', 'a b', 'a"', "a'", 'a\nCOMMIT', '-A', 'a\\', 'ä', '.a']) {
    expect(() => masqueradeChain({ network: bad, containerId: 'c1' }), bad).toThrow('network name');
    expect(() => masqueradeComment({ network: 'n1', containerId: bad }), bad).toThrow('container id');
  }
});

test('SHA-512 agrees with OpenSSL on every length around its block borders', () => {
  for (let length = 0; length <= 300; length++) {
    const text = 'ä€x'.repeat(length).slice(0, length);
    expect(sha512(text), `length ${length}`).toBe(hash('sha512', text));
  }
});
