// The names of published ports that are shared with the reference, against strings captured from it, and the spelling in
// which rules are compared. Run by vitest, project "unit".

import { expect, test } from 'vitest';
import {
  hostportsChain,
  hostportsComment,
  hostportsSourceChain,
  isHostportsChain,
  isMasqueradeChain,
  masqueradeChain,
  ownerInComment,
  ownerInHostportsComment,
} from '../../../shared/iptables/names.ts';
import { normalizeSpec } from '../../../shared/iptables/save-format.ts';
import { capturedListing } from '../../fixtures/iptables/hostports.ts';

const owner = { network: 'n1', containerId: 'c1' };
const long = { network: 'n1', containerId: 'c'.repeat(300) };

test('the chains are those the reference plugin gives', () => {
  expect(hostportsChain(owner)).toBe('CNI-DN-7be53730afe4dc6eb2178');
  expect(hostportsSourceChain(owner)).toBe('CNI-SN-7be53730afe4dc6eb2178');
  const captured = capturedListing('names longer than a comment', 4);
  expect(captured).toContain(`:${hostportsChain(long)} -`);
});

test('a chain of published ports is told from other chains by its shape', () => {
  expect(isHostportsChain(hostportsChain(owner))).toBe(true);
  expect(isHostportsChain(hostportsSourceChain(owner))).toBe(true);
  for (const other of [masqueradeChain(owner), 'CNI-HOSTPORT-DNAT', 'CNI-DN-7be5', 'PREROUTING']) {
    expect(isHostportsChain(other), other).toBe(false);
  }
  expect(isMasqueradeChain(hostportsChain(owner))).toBe(false);
});

test('the comment names network and container, and its owner can be read back', () => {
  expect(hostportsComment(owner)).toBe('dnat name: "n1" id: "c1"');
  expect(ownerInHostportsComment(hostportsComment(owner))).toEqual(owner);
  expect(ownerInHostportsComment('snat name: "n1" id: "c1"')).toEqual(owner);
  expect(ownerInComment(hostportsComment(owner))).toBeUndefined();
});

test('a comment longer than the kernel takes is cut where the kernel cuts it, and then names nobody', () => {
  const comment = hostportsComment(long);
  expect(comment).toHaveLength(255);
  const captured = capturedListing('names longer than a comment', 4).join('\n');
  expect(captured).toContain(`--comment "${comment.replaceAll('"', '\\"')}"`);
  expect(ownerInHostportsComment(comment)).toBeUndefined();
});

test('names that could end a quoted word or a line are refused', () => {
  for (const bad of ['', 'a b', 'a"', 'a\nCOMMIT', '-A']) {
    expect(() => hostportsChain({ network: bad, containerId: 'c1' }), bad).toThrow('network name');
    expect(() => hostportsComment({ network: 'n1', containerId: bad }), bad).toThrow('container id');
  }
});

test('rules that mean the same have one spelling', () => {
  for (const [one, other] of [
    ['-s 192.0.2.7/32 -p tcp -j A', '-p 6 -s 192.0.2.7 -j A'],
    ['! -d 2001:db8::7/128 -p sctp -j A', '-p 132 ! -d 2001:db8::7 -j A'],
    ['-s 0.0.0.0/0 -d ::/0 -j A', '-j A'],
    ['-m comment --comment "plain" -j A', '-m comment --comment plain -j A'],
  ] as const) {
    expect(normalizeSpec(other)).toBe(normalizeSpec(one));
  }
});

test('rules that mean something else have another', () => {
  for (const [one, other] of [
    ['-s 192.0.2.7/32 -j A', '! -s 192.0.2.7/32 -j A'],
    ['-s 192.0.2.7/32 -j A', '-d 192.0.2.7/32 -j A'],
    ['-p tcp -j A', '-p udp -j A'],
    ['! -s 0.0.0.0/0 -j A', '-j A'],
    ['-m comment --comment "! -j B" -j A', '-m comment ! --comment -j B -j A'],
  ] as const) {
    expect(normalizeSpec(other)).not.toBe(normalizeSpec(one));
  }
});
