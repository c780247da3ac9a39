// What the tuning plugin makes of a config for one attachment: names of sysctls, and the result it passes on.
import { describe, expect, test } from 'vitest';
import { isEmpty, planTuning, tunedResult } from '../../../plugins/tuning/plan.ts';
import { encodeResult, parseResult } from '../../../shared/cni/result.ts';
import { parsed, refusalOf } from './source.ts';

function namesOf(sysctl: Readonly<Record<string, string>>, ifname = 'eth0'): string[] {
  return planTuning(parsed({ sysctl }), ifname).sysctls.map(({ name }) => name);
}

describe('the name of a sysctl', () => {
  test.each([
    ['net.ipv4.conf.IFNAME.arp_filter', 'eth0', 'net/ipv4/conf/eth0/arp_filter'],
    ['net/ipv4/conf/IFNAME/arp_filter', 'eth0.5', 'net/ipv4/conf/eth0.5/arp_filter'],
    ['net.ipv4.conf.IFNAME.IFNAME', 'eth0', 'net/ipv4/conf/eth0/IFNAME'],
    ['net.ipv4.conf.IFNAME.arp_filter', '$&', 'net/ipv4/conf/$&/arp_filter'],
    ['net.ipv4.conf.IFNAME.arp_filter', 'IFNAME', 'net/ipv4/conf/IFNAME/arp_filter'],
    ['net.core.somaxconn', 'eth0', 'net/core/somaxconn'],
  ])('that is written %s is, on %s, %s', (key, ifname, name) => {
    expect(namesOf({ [key]: '1' }, ifname)).toEqual([name]);
  });

  test('may come once, in whatever spelling', () => {
    const twice = { 'net.ipv4.conf.IFNAME.arp_filter': '1', 'net/ipv4/conf/eth0/arp_filter': '1' };
    const { code, msg } = refusalOf(() => namesOf(twice));
    expect({ code, msg }).toMatchObject({ code: 7 });
    for (const key of Object.keys(twice)) expect(msg).toContain(key);
    expect(namesOf(twice, 'eth1')).toHaveLength(2);
  });
});

test('a plan is empty without sysctls and settings', () => {
  expect(isEmpty(planTuning(parsed({ promisc: false, mtu: 0 }), 'eth0'))).toBe(true);
  expect(isEmpty(planTuning(parsed({ allmulti: false }), 'eth0'))).toBe(false);
  expect(isEmpty(planTuning(parsed({ sysctl: { 'net.a': '' } }), 'eth0'))).toBe(false);
});

describe('the result', () => {
  const prevResult = parseResult(
    {
      cniVersion: '1.1.0',
      mine: true,
      interfaces: [
        { name: 'eth0', mac: '02:00:00:00:00:01' },
        { name: 'eth0', mac: '02:00:00:00:00:02', mtu: 1500, sandbox: '/run/netns/x', extra: 'kept' },
        { name: 'eth1', mac: '02:00:00:00:00:03', sandbox: '/run/netns/x' },
      ],
    },
    '1.1.0',
  );
  const resultOf = (fields: object) =>
    JSON.parse(
      encodeResult(tunedResult(planTuning(parsed({ ...fields }), 'eth0'), prevResult, 'eth0'), '1.1.0'),
    );

  test('has the new MAC address, in lower case, on the link in the sandbox alone', () => {
    expect(resultOf({ mac: '02:00:00:00:00:AA' })).toEqual({
      cniVersion: '1.1.0',
      mine: true,
      interfaces: [
        { name: 'eth0', mac: '02:00:00:00:00:01' },
        { name: 'eth0', mac: '02:00:00:00:00:aa', mtu: 1500, sandbox: '/run/netns/x', extra: 'kept' },
        { name: 'eth1', mac: '02:00:00:00:00:03', sandbox: '/run/netns/x' },
      ],
    });
  });

  test('has the new MTU where it spoke of one', () => {
    expect(resultOf({ mtu: 1400 }).interfaces.map(({ mtu }: { mtu?: number }) => mtu)).toEqual([
      undefined,
      1400,
      undefined,
    ]);
  });

  test('is what it was without them', () => {
    expect(resultOf({ promisc: true })).toEqual(JSON.parse(encodeResult(prevResult, '1.1.0')));
    const bare = { ips: [{ address: '10.0.0.2/24' }] };
    expect(tunedResult(planTuning(parsed({ mtu: 1400 }), 'eth0'), bare, 'eth0')).toBe(bare);
  });
});
