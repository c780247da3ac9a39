// Where each mapping leads: the container's addresses, the families, and what nothing comes of.
import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../../plugins/portmap/config.ts';
import { planMappings } from '../../../plugins/portmap/plan.ts';
import { describeHostPort } from '../../../plugins/portmap/port-mapping.ts';
import { CniError } from '../../../shared/cni/error.ts';
import type { Result } from '../../../shared/cni/result.ts';
import { formatCidr, formatIp, parseIp } from '../../../shared/ip/cidr.ts';
import { published, source } from './source.ts';

const ATTACHMENT = { network: 'n1', containerId: 'c1', ifname: 'eth0' };
const WEB = { hostPort: 8080, containerPort: 80 };
const DUAL: Result = { ips: [{ address: '10.22.0.2/24' }, { address: 'fd00:22::2/64' }] };
const ONLY4: Result = { ips: [{ address: '10.22.0.2/24' }] };
const ONLY6: Result = { ips: [{ address: 'fd00:22::2/64' }] };

function plan(prevResult: Result, ...mappings: readonly unknown[]) {
  return planMappings(parseConfig(source(published(...mappings))), prevResult, ATTACHMENT);
}

/** Each entry as text: `8080/tcp on any IPv4 address to 10.22.0.2 80`. */
function entriesOf(prevResult: Result, ...mappings: readonly unknown[]): string[] {
  return plan(prevResult, ...mappings).entries.map(
    (entry) => `${describeHostPort(entry)} to ${formatIp(entry.target)} ${entry.containerPort}`,
  );
}

function addressesOf(prevResult: Result): (string | undefined)[] {
  const { address4, address6 } = plan(prevResult);
  return [address4, address6].map((address) => address && formatCidr(address));
}

describe('the address of the container', () => {
  const interfaces = [
    { name: 'cni0' },
    { name: 'veth1' },
    { name: 'eth0', sandbox: '/run/netns/c1' },
    { name: 'eth1', sandbox: '/run/netns/c1' },
  ];

  test('is the first of each family, with its subnet', () => {
    const ips = ['fd00:22::2/64', '10.22.0.2/24', '10.22.0.3/24', 'fd00:22::3/64'];
    expect(addressesOf({ ips: ips.map((address) => ({ address })) })).toEqual([
      '10.22.0.2/24',
      'fd00:22::2/64',
    ]);
  });

  test('is that of the link named like the attachment, inside the sandbox', () => {
    const ips = [
      { address: '10.1.0.1/24', interface: 0 },
      { address: '10.2.0.1/24', interface: 3 },
      { address: '10.22.0.2/24', interface: 2 },
    ];
    expect(addressesOf({ interfaces, ips })).toEqual(['10.22.0.2/24', undefined]);
  });

  test.each([
    ['without a sandbox', { name: 'eth0' }],
    ['with an empty sandbox', { name: 'eth0', sandbox: '' }],
    ['of another name', { name: 'eth1', sandbox: '/run/netns/c1' }],
  ])('is none that lies on a link %s', (_, link) => {
    expect(addressesOf({ interfaces: [link], ips: [{ address: '10.22.0.2/24', interface: 0 }] })).toEqual([
      undefined,
      undefined,
    ]);
  });

  test('may point nowhere', () => {
    expect(addressesOf({ interfaces, ips: [{ address: '10.22.0.2/24', interface: 4 }] })[0]).toBe(
      '10.22.0.2/24',
    );
    expect(addressesOf({ ips: [{ address: '10.22.0.2/24', interface: 0 }] })[0]).toBe('10.22.0.2/24');
  });

  test('is never one that packets cannot be sent on to', () => {
    const ips = ['127.0.0.1/8', '0.0.0.0/0', '224.0.0.9/4', '::1/128', '::/0', 'fe80::2/64', 'ff02::1/8'];
    expect(addressesOf({ ips: ips.map((address) => ({ address })) })).toEqual([undefined, undefined]);
    const usable = [...ips, '169.254.7.7/16', 'fd00:22::2/64'];
    expect(addressesOf({ ips: usable.map((address) => ({ address })) })).toEqual([
      '169.254.7.7/16',
      'fd00:22::2/64',
    ]);
  });

  test('is named when it is none', () => {
    const broken = () => plan({ ips: [{ address: '10.22.0.2/24' }, { address: 'fd00:::2/64' }] });
    expect(broken).toThrow(CniError);
    expect(broken).toThrow(
      expect.objectContaining({
        code: 7,
        message: expect.stringMatching(/"prevResult\.ips\[1\]\.address".*"fd00:::2\/64"/),
      }),
    );
  });

  test('of another link may be whatever it likes', () => {
    const ips = [{ address: 'nonsense', interface: 0 }, { address: '10.22.0.2/24' }];
    expect(addressesOf({ interfaces, ips })[0]).toBe('10.22.0.2/24');
  });
});

describe('a mapping', () => {
  test('without hostIP leads to both addresses', () => {
    expect(entriesOf(DUAL, WEB)).toEqual([
      '8080/tcp on any IPv4 address to 10.22.0.2 80',
      '8080/tcp on any IPv6 address to fd00:22::2 80',
    ]);
  });

  test('without hostIP follows the families the container has, without a word', () => {
    expect(entriesOf(ONLY4, WEB)).toEqual(['8080/tcp on any IPv4 address to 10.22.0.2 80']);
    expect(entriesOf(ONLY6, WEB)).toEqual(['8080/tcp on any IPv6 address to fd00:22::2 80']);
    expect(plan(ONLY4, WEB).skipped).toEqual([]);
  });

  test.each([
    ['0.0.0.0', '8080/udp on any IPv4 address to 10.22.0.2 80'],
    ['::', '8080/udp on any IPv6 address to fd00:22::2 80'],
    ['192.0.2.7', '8080/udp on 192.0.2.7 to 10.22.0.2 80'],
    ['127.0.0.1', '8080/udp on 127.0.0.1 to 10.22.0.2 80'],
    ['2001:db8::7', '8080/udp on 2001:db8::7 to fd00:22::2 80'],
    ['::ffff:192.0.2.7', '8080/udp on 192.0.2.7 to 10.22.0.2 80'],
  ])('with hostIP %s leads to the address of its family', (hostIP, entry) => {
    expect(entriesOf(DUAL, { ...WEB, protocol: 'UDP', hostIP })).toEqual([entry]);
    expect(plan(DUAL, { ...WEB, hostIP })).toMatchObject({ skipped: [], warnings: [] });
  });

  test('carries all that a rule needs', () => {
    expect(plan(DUAL, { ...WEB, hostIP: '192.0.2.7' }).entries).toEqual([
      {
        family: 4,
        protocol: 'tcp',
        hostIp: parseIp('192.0.2.7'),
        hostPort: 8080,
        target: parseIp('10.22.0.2'),
        containerPort: 80,
      },
    ]);
  });

  test.each([
    [ONLY4, '::', 'Skipping port 8080/tcp on any IPv6 address: the container has no IPv6 address'],
    [ONLY4, '2001:db8::7', 'Skipping port 8080/tcp on 2001:db8::7: the container has no IPv6 address'],
    [ONLY6, '0.0.0.0', 'Skipping port 8080/tcp on any IPv4 address: the container has no IPv4 address'],
    [ONLY6, '127.0.0.1', 'Skipping port 8080/tcp on 127.0.0.1: the container has no IPv4 address'],
    [{}, '', 'Skipping port 8080/tcp on any address: the container has no address'],
    [DUAL, '::1', 'Skipping port 8080/tcp on ::1: the kernel brings no answer of a container back to "::1"'],
  ])('of %j on "%s" is skipped with a line that says why', (prevResult, hostIP, line) => {
    const { entries, skipped, warnings } = plan(prevResult, { ...WEB, hostIP });
    expect(entries).toEqual([]);
    expect(skipped).toEqual([expect.stringContaining(line)]);
    expect(warnings).toEqual([]);
  });

  test('on a link-local IPv6 address is made with a warning', () => {
    const { entries, skipped, warnings } = plan(DUAL, { ...WEB, hostIP: 'fe80::1' });
    expect(entries).toHaveLength(1);
    expect(skipped).toEqual([]);
    expect(warnings).toEqual([expect.stringContaining('Port 8080/tcp on fe80::1 answers this host alone')]);
  });

  test('that is skipped does not hold up the others', () => {
    const { entries, skipped } = plan(ONLY4, { ...WEB, hostIP: '::' }, { ...WEB, hostPort: 8081 });
    expect(entries.map(({ hostPort }) => hostPort)).toEqual([8081]);
    expect(skipped).toHaveLength(1);
  });
});

test('the order of the request is kept, IPv4 before IPv6', () => {
  const mappings = [3, 1, 2].map((hostPort) => ({ hostPort, containerPort: 80 }));
  const order = plan(DUAL, ...mappings).entries.map(({ hostPort, family }) => [hostPort, family]);
  expect(order).toEqual([
    [3, 4],
    [3, 6],
    [1, 4],
    [1, 6],
    [2, 4],
    [2, 6],
  ]);
});
