// The format of tuning's backups: the reference's keys, ours beside them, and what is believed of a file.
import { describe, expect, test } from 'vitest';
import {
  type Backup,
  backupFiles,
  decodeBackup,
  draftOwner,
  encodeBackup,
  mergeBackups,
} from '../../../plugins/tuning/backup.ts';
import { networkHash, ownerHash } from '../../../shared/cni/attachment.ts';

const ATTACHMENT = { network: 'n1', containerId: 'c_1', ifname: 'eth0' };
const BACKUP: Backup = {
  link: { mac: '02:00:00:00:00:01', promisc: false, mtu: 1500, allmulti: false, txQLen: 0 },
  sysctls: new Map([['net/core/somaxconn', '4096']]),
  origin: { attachment: ATTACHMENT, netns: 'boot cookie 7', link: 2 },
};

test('the file is named as the reference names it, and its draft by network and owner', () => {
  const { path, draft } = backupFiles('/run/cni/tuning', ATTACHMENT);
  expect(path).toBe('/run/cni/tuning/c_1_eth0.json');
  expect(draftOwner(draft.slice('/run/cni/tuning/'.length))).toEqual({
    network: networkHash('n1'),
    owner: ownerHash(ATTACHMENT),
  });
  expect(draftOwner('c_1_eth0.json')).toBeUndefined();
});

test('the text is indented by one space, ends without a newline, and holds what it was made from', () => {
  const text = encodeBackup(BACKUP);
  expect(text).toMatch(/^\{\n "mac": "02:00:00:00:00:01",\n "promisc": false,\n "mtu": 1500,\n/);
  expect(text.endsWith('}')).toBe(true);
  expect(decodeBackup(text)).toEqual(BACKUP);
});

test('what the reference wrote is understood, without an origin', () => {
  const text = '{\n "mac": "76:ff:60:a4:70:a5",\n "promisc": false,\n "mtu": 1500\n}';
  expect(decodeBackup(text)).toEqual({
    link: { mac: '76:ff:60:a4:70:a5', promisc: false, mtu: 1500 },
    sysctls: new Map(),
    origin: undefined,
  });
});

test.each(['', '{', 'null', '[]', '"mac"', '{"mac": }'])('%j is unreadable', (text) => {
  expect(decodeBackup(text)).toBe('unreadable');
});

test('values of a wrong kind are passed over, and the rest is believed', () => {
  const text = '{"mac": "nonsense", "mtu": -1, "promisc": 1, "allmulti": true, "txQLen": 1.5}';
  expect(decodeBackup(text)).toMatchObject({ link: { allmulti: true } });
});

test.each(['kernel/hostname', 'net/../../etc/passwd', 'net/./x', '/etc/passwd', 'net', 'net//x', 'net/x\0'])(
  'a sysctl called %j is passed over',
  (name) => {
    const text = JSON.stringify({
      patchbay: {
        ...{ network: 'n1', containerID: 'c_1', ifname: 'eth0', netns: 'x' },
        sysctl: { [name]: '1', 'net/core/somaxconn': '2' },
      },
    });
    expect(decodeBackup(text)).toMatchObject({ sysctls: new Map([['net/core/somaxconn', '2']]) });
  },
);

describe('a backup that comes second', () => {
  test('adds what the first one does not know, and keeps its order', () => {
    const now: Backup = {
      ...BACKUP,
      link: { mtu: 1400, txQLen: 5 },
      sysctls: new Map([
        ['net/core/somaxconn', '512'],
        ['net/ipv4/ip_forward', '1'],
      ]),
    };
    const earlier: Backup = { ...BACKUP, link: { mtu: 1500 } };
    expect(mergeBackups(now, earlier)).toEqual({
      origin: BACKUP.origin,
      link: { mtu: 1500, txQLen: 5 },
      sysctls: new Map([
        ['net/core/somaxconn', '4096'],
        ['net/ipv4/ip_forward', '1'],
      ]),
    });
  });
});
