// The identity of an attachment: hashes, host link names and comments, and how they are read back.
// Run with the unit tests; what is expected is worked out with Node's own SHA-256.
import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  hostLinkName,
  hostLinkNameOf,
  isOfContainer,
  networkHash,
  networkOf,
  ownerComment,
  ownerHash,
  ownerHashIn,
  ownerIn,
} from '../../../shared/cni/attachment.ts';

const attachment = { network: 'n1', containerId: 'c1', ifname: 'eth0' };

describe('attachment', () => {
  test('the owner hash is the start of SHA-256 over network, container id and ifname with NUL between', () => {
    const expected = createHash('sha256').update('n1\0c1\0eth0').digest('hex').slice(0, 32);
    expect(ownerHash(attachment)).toBe(expected);
    expect(networkHash('n1')).toBe(createHash('sha256').update('n1').digest('hex').slice(0, 16));
  });

  test('the owner hash takes UTF-8 bytes of any length', () => {
    const ifname = 'nétz-€-😀';
    const containerId = 'c'.repeat(5000);
    const expected = createHash('sha256').update(`n1\0${containerId}\0${ifname}`).digest('hex').slice(0, 32);
    expect(ownerHash({ network: 'n1', containerId, ifname })).toBe(expected);
  });

  test('each of the three parts decides, and moving a character between them makes another owner', () => {
    const owners = [
      attachment,
      { ...attachment, network: 'n2' },
      { ...attachment, containerId: 'c2' },
      { ...attachment, ifname: 'eth1' },
      { network: 'n1c', containerId: '1', ifname: 'eth0' },
      { network: 'n', containerId: '1c1', ifname: 'eth0' },
      { network: 'n1', containerId: 'c1e', ifname: 'th0' },
    ].map(ownerHash);
    expect(new Set(owners).size).toBe(owners.length);
  });

  test('the host link name is veth and 11 hex digits: the 15 bytes a link name may have', () => {
    expect(hostLinkName(attachment)).toBe(`veth${ownerHash(attachment).slice(0, 11)}`);
    expect(hostLinkNameOf(ownerHash(attachment))).toBe(hostLinkName(attachment));
    expect(hostLinkName(attachment)).toMatch(/^veth[0-9a-f]{11}$/);
  });

  test('the comment says a station behind the hashes, whole or not at all', () => {
    const station = '02:00:00:00:00:01 10.22.0.2 fd00:22::2';
    const comment = ownerComment(attachment, 'own', station);
    expect(comment).toContain(` is ${station}, net: n1, if: eth0, id: c1`);
    expect(ownerIn(comment)).toMatchObject({ ownerHash: ownerHash(attachment), station });
    expect(networkOf(comment)).toBe('n1');
    const long = `${station} ${'2001:db8:1234:5678:9abc:def0:1234:5678'}`;
    expect(ownerComment(attachment, 'own', long)).toBe(ownerComment(attachment));
  });

  test('the comment says the owner in hashes and in words', () => {
    const comment = ownerComment(attachment);
    expect(comment).toBe(`${ownerHash(attachment)} ${networkHash('n1')}, net: n1, if: eth0, id: c1`);
    expect(ownerIn(comment)).toEqual({
      ownerHash: ownerHash(attachment),
      networkHash: networkHash('n1'),
      hostLink: hostLinkName(attachment),
      station: undefined,
    });
    expect(ownerHashIn(comment)).toBe(ownerHash(attachment));
    expect(networkOf(comment)).toBe('n1');
  });

  test('a long comment is cut to 127 bytes and still names owner and network by hash', () => {
    const long = { network: 'n'.repeat(200), containerId: 'c'.repeat(64), ifname: 'eth0' };
    const comment = ownerComment(long);
    expect(Buffer.byteLength(comment)).toBe(127);
    expect(ownerIn(comment)).toMatchObject({
      ownerHash: ownerHash(long),
      networkHash: networkHash(long.network),
    });
    expect(networkOf(comment)).toBeUndefined();
  });

  test.each([
    [{ name: 'veth12345678' }, 'veth12345678'],
    ['unknown' as const, undefined],
    [{ name: 'odd,name' }, undefined],
    [{ name: 'odd"name' }, undefined],
    [{ name: 'odd name' }, undefined],
  ])('the host link %j of another plugin is named beside the hashes, or counts as unknown', (link, known) => {
    const comment = ownerComment(attachment, link);
    expect(comment).toBe(
      `${ownerHash(attachment)} ${networkHash('n1')} via ${known ?? '-'}, net: n1, if: eth0, id: c1`,
    );
    expect(ownerIn(comment)).toMatchObject({ ownerHash: ownerHash(attachment), hostLink: known });
    expect(networkOf(comment)).toBe('n1');
  });

  test('a network name is read from a cut comment only if it is whole', () => {
    for (let length = 1; length <= 80; length++) {
      const network = 'n'.repeat(length);
      const comment = ownerComment({ network, containerId: 'c'.repeat(64), ifname: 'a-15-byte-name1' });
      expect(comment.length).toBeLessThanOrEqual(127);
      const named = networkOf(comment);
      if (named !== undefined) expect(named).toBe(network);
      expect(named !== undefined, `${length} bytes`).toBe(comment.includes(`net: ${network}, if: `));
    }
  });

  test('the comment is printable ASCII without what nft cannot read back', () => {
    const comment = ownerComment({ network: 'n1', containerId: 'c1', ifname: 'a"b\\cé😀\u0001' });
    expect(comment).toMatch(/, if: a\?b\?c\?\?\?, id: c1$/);
    expect(comment).toMatch(/^[ !#-[\]-~]+$/);
  });

  test('the comment tells a container from others whatever the network, as long as enough of its id is left', () => {
    const containerId = `default-${'0123456789abcdef'.repeat(4)}`;
    const other = `${containerId.slice(0, -1)}0`;
    for (let length = 1; length <= 80; length++) {
      const comment = ownerComment(
        { network: 'n'.repeat(length), containerId, ifname: 'eth1' },
        { name: 'veth1' },
      );
      const left = / id: (.*)/.exec(comment)?.[1]?.length ?? 0;
      expect(isOfContainer(comment, containerId), `${left} digits left`).toBe(left >= 20);
      expect(isOfContainer(comment, `default-1${containerId.slice(9)}`)).toBe(false);
    }
    const whole = ownerComment({ network: 'n1', containerId: 'c1', ifname: 'eth0' });
    expect([isOfContainer(whole, 'c1'), isOfContainer(whole, 'c12'), isOfContainer(whole, 'c')]).toEqual([
      true,
      false,
      false,
    ]);
    expect(isOfContainer(ownerComment({ network: 'n', containerId: other, ifname: 'e' }), 'c1')).toBe(false);
    expect(isOfContainer('net: n1, if: eth0, id: c1', 'c1')).toBe(false);
  });

  test.each([
    '',
    'net: n1, if: eth0, id: c1',
    'some comment of somebody else',
    `${'0'.repeat(31)} ${'0'.repeat(16)}, net: n1, if: eth0, id: c1`,
    `${'0'.repeat(33)} ${'0'.repeat(16)}, net: n1, if: eth0, id: c1`,
    `${'A'.repeat(32)} ${'0'.repeat(16)}, net: n1, if: eth0, id: c1`,
    `${'0'.repeat(32)}, net: n1, if: eth0, id: c1`,
    `x${'0'.repeat(32)} ${'0'.repeat(16)}, net: n1`,
  ])('"%s" is no comment of ours', (comment) => {
    expect(ownerIn(comment)).toBeUndefined();
    expect(ownerHashIn(comment)).toBeUndefined();
    expect(networkOf(comment)).toBeUndefined();
  });
});
