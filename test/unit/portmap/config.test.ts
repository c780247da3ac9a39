// How the portmap plugin reads its config: both spellings of the runtimes, backends, and what it refuses by name.
import { describe, expect, test } from 'vitest';
import { parseConfig, parseTeardown } from '../../../plugins/portmap/config.ts';
import { formatIp } from '../../../shared/ip/cidr.ts';
import { type Fields, published, refusal, source } from './source.ts';

const WEB = { hostPort: 8080, containerPort: 80, protocol: 'tcp' };

function mappingsOf(fields: Fields) {
  return parseConfig(source(fields)).mappings.map(({ hostIp, ...mapping }) => ({
    ...mapping,
    hostIp: hostIp === undefined ? undefined : formatIp(hostIp),
  }));
}

test('an empty config publishes nothing, natively', () => {
  expect(parseConfig(source({}))).toEqual({
    backend: 'nftables',
    snat: true,
    masqAll: false,
    markMasqBit: 13,
    externalSetMarkChain: undefined,
    conditions4: [],
    conditions6: [],
    mappings: [],
  });
});

test('a field that is null or an empty string is not set', () => {
  const empty = {
    backend: '',
    snat: null,
    masqAll: null,
    markMasqBit: null,
    externalSetMarkChain: '',
    conditionsV4: null,
    conditionsV6: [''],
    runtimeConfig: { portMappings: null },
  };
  expect(parseConfig(source(empty))).toEqual(parseConfig(source({})));
});

test('fields that portmap does not know are ignored', () => {
  expect(() => parseConfig(source({ capabilities: { portMappings: true }, ipam: 7 }))).not.toThrow();
});

describe('a port mapping', () => {
  test('is read in camelCase, as podman writes it', () => {
    expect(mappingsOf(published(WEB))).toEqual([
      { hostPort: 8080, containerPort: 80, protocol: 'tcp', hostIp: undefined, families: [4, 6] },
    ]);
  });

  test('is read in PascalCase, as containerd and nerdctl write it', () => {
    const mapping = { HostPort: 18080, ContainerPort: 80, Protocol: 'tcp', HostIP: '' };
    expect(mappingsOf({ RuntimeConfig: { PortMappings: [mapping] } })).toEqual([
      { hostPort: 18080, containerPort: 80, protocol: 'tcp', hostIp: undefined, families: [4, 6] },
    ]);
  });

  test.each([
    [undefined, 'tcp'],
    [null, 'tcp'],
    ['', 'tcp'],
    ['tcp', 'tcp'],
    ['TCP', 'tcp'],
    ['Udp', 'udp'],
    ['SCTP', 'sctp'],
  ])('with protocol %j is for %s', (given, protocol) => {
    expect(mappingsOf(published({ ...WEB, protocol: given }))).toMatchObject([{ protocol }]);
  });

  test.each([
    [undefined, undefined, [4, 6]],
    [null, undefined, [4, 6]],
    ['', undefined, [4, 6]],
    ['0.0.0.0', undefined, [4]],
    ['::', undefined, [6]],
    ['0:0:0:0:0:0:0:0', undefined, [6]],
    ['192.0.2.7', '192.0.2.7', [4]],
    ['127.0.0.1', '127.0.0.1', [4]],
    ['2001:DB8::7', '2001:db8::7', [6]],
    ['::1', '::1', [6]],
    ['fe80::1', 'fe80::1', [6]],
    ['::ffff:192.0.2.7', '192.0.2.7', [4]],
    ['::ffff:0.0.0.0', undefined, [4]],
  ])('with hostIP %j is on %s of IPv%j', (hostIP, hostIp, families) => {
    expect(mappingsOf(published({ ...WEB, hostIP }))).toMatchObject([{ hostIp, families }]);
  });

  test('may use the first and the last port', () => {
    const mapping = { hostPort: 1, containerPort: 65535 };
    expect(mappingsOf(published(mapping))).toMatchObject([mapping]);
  });

  test('keys that no runtime of today sends are ignored', () => {
    expect(mappingsOf(published({ ...WEB, name: 'web' }))).toHaveLength(1);
  });

  test.each<[string, unknown, readonly string[]]>([
    ['without a host port', { containerPort: 80 }, ['portMappings[0].hostPort', 'missing']],
    ['with host port 0', { ...WEB, hostPort: 0 }, ['hostPort', '1 to 65535', '0']],
    ['with host port 65536', { ...WEB, hostPort: 65536 }, ['hostPort', '65536']],
    ['with a negative host port', { ...WEB, hostPort: -8080 }, ['hostPort', '-8080']],
    ['with a host port in quotes', { ...WEB, hostPort: '8080' }, ['hostPort', '"8080"']],
    ['with half a host port', { ...WEB, hostPort: 80.5 }, ['hostPort', '80.5']],
    ['with a host port beyond 64 bits', { ...WEB, hostPort: 1e30 }, ['hostPort', '1e+30']],
    ['with a host port range', { ...WEB, hostPort: '8080-8090' }, ['hostPort', '8080-8090']],
    ['with a host port that is a list', { ...WEB, hostPort: [8080] }, ['hostPort', '[8080]']],
    ['without a container port', { hostPort: 8080 }, ['containerPort', 'missing']],
    ['with container port 0', { ...WEB, containerPort: 0 }, ['containerPort', '0']],
    ['with container port 65536', { ...WEB, containerPort: 65536 }, ['containerPort', '65536']],
    ['with a negative container port', { ...WEB, containerPort: -1 }, ['containerPort', '-1']],
    ['with a container port that is true', { ...WEB, containerPort: true }, ['containerPort', 'true']],
    ['for icmp', { ...WEB, protocol: 'icmp' }, ['protocol', 'tcp, udp or sctp', '"icmp"']],
    ['for a protocol with a blank', { ...WEB, protocol: ' tcp' }, ['protocol', '" tcp"']],
    ['for two protocols', { ...WEB, protocol: 'tcp/udp' }, ['protocol', '"tcp/udp"']],
    ['for a protocol by number', { ...WEB, protocol: 6 }, ['protocol', 'a string', '6']],
    ['for a protocol of the prototype', { ...WEB, protocol: 'constructor' }, ['protocol', 'constructor']],
    ['on a host name', { ...WEB, hostIP: 'localhost' }, ['hostIP', 'an IP address', '"localhost"']],
    ['on a star', { ...WEB, hostIP: '*' }, ['hostIP', '"*"']],
    ['on a network', { ...WEB, hostIP: '192.0.2.0/24' }, ['hostIP', '"192.0.2.0/24"']],
    ['on half an address', { ...WEB, hostIP: '192.0.2' }, ['hostIP', '"192.0.2"']],
    ['on an octal address', { ...WEB, hostIP: '192.0.2.010' }, ['hostIP', '"192.0.2.010"']],
    ['on an octet too large', { ...WEB, hostIP: '192.0.2.256' }, ['hostIP', '"192.0.2.256"']],
    ['on an address in brackets', { ...WEB, hostIP: '[::1]' }, ['hostIP', '"[::1]"']],
    ['on an address with a port', { ...WEB, hostIP: '192.0.2.7:80' }, ['hostIP', '"192.0.2.7:80"']],
    ['on an address with a blank', { ...WEB, hostIP: ' 192.0.2.7' }, ['hostIP', '" 192.0.2.7"']],
    ['on a blank', { ...WEB, hostIP: ' ' }, ['hostIP', '" "']],
    ['on an address with a zone', { ...WEB, hostIP: 'fe80::1%eth0' }, ['hostIP', 'zone', 'fe80::1%eth0']],
    ['on a multicast address', { ...WEB, hostIP: '224.0.0.1' }, ['hostIP', 'multicast', '"224.0.0.1"']],
    ['on an IPv6 multicast address', { ...WEB, hostIP: 'ff02::1' }, ['hostIP', 'multicast', '"ff02::1"']],
    ['on the broadcast address', { ...WEB, hostIP: '255.255.255.255' }, ['hostIP', 'broadcast']],
    ['on an address that is a number', { ...WEB, hostIP: 3221225991 }, ['hostIP', 'a string']],
    ['on several addresses', { ...WEB, hostIP: ['192.0.2.7'] }, ['hostIP', 'a string', '192.0.2.7']],
    ['that is null', null, ['portMappings[0]', 'an object', 'null']],
    ['that is text', '8080:80', ['portMappings[0]', 'an object', '"8080:80"']],
    ['that is a list', [8080, 80], ['portMappings[0]', 'an object', '[8080,80]']],
  ])('%s is refused', (_, mapping, words) => {
    const { code, msg } = refusal(published(mapping));
    expect(code).toBe(7);
    expect(words.filter((word) => !msg.includes(word))).toEqual([]);
  });

  test('that is wrong is named by its place', () => {
    expect(refusal(published(WEB, { ...WEB, hostPort: 8081, hostIP: 'x' })).msg).toBe(
      'Field "runtimeConfig.portMappings[1].hostIP" of the network configuration must be an IP address, or empty for any, not "x"',
    );
  });
});

describe('the same port', () => {
  test.each<[string, Fields, Fields]>([
    ['for tcp and for udp', {}, { protocol: 'udp' }],
    ['on two addresses', { hostIP: '192.0.2.7' }, { hostIP: '192.0.2.8' }],
    ['on any IPv4 and any IPv6 address', { hostIP: '0.0.0.0' }, { hostIP: '::' }],
    ['on an IPv4 and any IPv6 address', { hostIP: '192.0.2.7' }, { hostIP: '::' }],
  ])('%s can be published', (_, first, second) => {
    expect(mappingsOf(published({ ...WEB, ...first }, { ...WEB, ...second }))).toHaveLength(2);
  });

  test('of the container can be published twice', () => {
    expect(mappingsOf(published(WEB, { ...WEB, hostPort: 8081 }))).toHaveLength(2);
  });

  test.each<[string, Fields, Fields, string, string]>([
    ['twice', {}, {}, '8080/tcp on any address', '8080/tcp on any address'],
    ['for another port', {}, { containerPort: 81 }, '8080/tcp on any address', '8080/tcp on any address'],
    ['for TCP and tcp', { protocol: 'TCP' }, {}, '8080/tcp on any address', '8080/tcp on any address'],
    [
      'on any address and on one',
      {},
      { hostIP: '127.0.0.1' },
      '8080/tcp on any address',
      '8080/tcp on 127.0.0.1',
    ],
    [
      'on one address and on any',
      { hostIP: '2001:db8::7' },
      { hostIP: '' },
      '8080/tcp on 2001:db8::7',
      '8080/tcp on any address',
    ],
    [
      'on any IPv4 address and on one',
      { hostIP: '0.0.0.0' },
      { hostIP: '192.0.2.7' },
      '8080/tcp on any IPv4 address',
      '8080/tcp on 192.0.2.7',
    ],
    [
      'on any address and on any IPv6 address',
      {},
      { hostIP: '::' },
      '8080/tcp on any address',
      '8080/tcp on any IPv6 address',
    ],
    [
      'on one address in two spellings',
      { hostIP: '192.0.2.7' },
      { hostIP: '::ffff:c000:207' },
      '8080/tcp on 192.0.2.7',
      '8080/tcp on 192.0.2.7',
    ],
  ])('%s is refused, with both named', (_, first, second, held, wanted) => {
    const other = { hostPort: 1, containerPort: 1 };
    const { code, msg } = refusal(published({ ...WEB, ...first }, other, { ...WEB, ...second }));
    expect(code).toBe(7);
    expect(msg).toContain(`"runtimeConfig.portMappings[0]" (${held})`);
    expect(msg).toContain(`"runtimeConfig.portMappings[2]" (${wanted})`);
  });
});

test('five thousand mappings are read, and compared with each other, within a second', () => {
  const many = Array.from({ length: 5000 }, (_, index) => ({
    HostPort: 10_000 + index,
    ContainerPort: 80,
    Protocol: 'TCP',
    HostIP: index % 2 === 0 ? '192.0.2.7' : '2001:db8::7',
  }));
  const before = Date.now();
  expect(mappingsOf(published(...many))).toHaveLength(5000);
  expect(Date.now() - before).toBeLessThan(1000);
});

describe('the backend', () => {
  test.each<[Fields, string]>([
    [{}, 'nftables'],
    [{ backend: '' }, 'nftables'],
    [{ backend: 'nftables' }, 'nftables'],
    [{ backend: 'iptables' }, 'iptables'],
    [{ markMasqBit: 0 }, 'iptables'],
    [{ backend: '', markMasqBit: 13 }, 'iptables'],
    [{ externalSetMarkChain: 'KUBE-MARK-MASQ' }, 'iptables'],
    [{ backend: 'iptables', markMasqBit: 31 }, 'iptables'],
    [{ backend: 'nftables', externalSetMarkChain: '', markMasqBit: null }, 'nftables'],
    [{ conditionsV4: ['!', '-d', '192.0.2.0/24'] }, 'nftables'],
    [{ backend: 'iptables', conditionsV4: ['ip', 'daddr', '!=', '192.0.2.0/24'] }, 'iptables'],
  ])('of %j is %s', (fields, backend) => {
    expect(parseConfig(source(fields)).backend).toBe(backend);
  });

  test('masquerading everything depends on masquerading at all', () => {
    expect(parseConfig(source({ masqAll: true })).masqAll).toBe(true);
    expect(parseConfig(source({ masqAll: true, snat: false }))).toMatchObject({
      snat: false,
      masqAll: false,
    });
  });

  test.each(['KUBE-MARK-MASQ', 'CNI-HOSTPORT-SETMARK', 'a', '_x.y:z', 'C'.repeat(28)])(
    'takes "%s" for a chain',
    (externalSetMarkChain) => {
      expect(parseConfig(source({ externalSetMarkChain })).externalSetMarkChain).toBe(externalSetMarkChain);
    },
  );
});

describe('these are refused:', () => {
  test.each<[string, Fields, readonly string[]]>([
    ['an unknown backend', { backend: 'ebtables' }, ['backend', '"ebtables"']],
    ['a backend in capitals', { backend: 'IPTABLES' }, ['backend', '"IPTABLES"']],
    ['a backend that is a flag', { backend: true }, ['backend', 'true']],
    ['a backend that is a list', { backend: ['nftables'] }, ['backend', 'nftables']],
    ['snat in quotes', { snat: 'false' }, ['snat', 'true or false', '"false"']],
    ['snat that is 0', { snat: 0 }, ['snat', '0']],
    ['masqAll that is a word', { masqAll: 'yes' }, ['masqAll', '"yes"']],
    ['masqAll that is an object', { masqAll: {} }, ['masqAll', '{}']],
    ['mark bit 32', { markMasqBit: 32 }, ['markMasqBit', '0 to 31', '32']],
    ['mark bit -1', { markMasqBit: -1 }, ['markMasqBit', '-1']],
    ['half a mark bit', { markMasqBit: 13.5 }, ['markMasqBit', '13.5']],
    ['a mark bit in quotes', { markMasqBit: '13' }, ['markMasqBit', '"13"']],
    ['a mark in place of a bit', { markMasqBit: 0x2000 }, ['markMasqBit', '8192']],
    ['a mark bit that is true', { markMasqBit: true }, ['markMasqBit', 'true']],
    ['a chain with a blank', { externalSetMarkChain: 'A B' }, ['externalSetMarkChain', '"A B"']],
    ['a chain with a line break', { externalSetMarkChain: 'A\nCOMMIT' }, ['externalSetMarkChain', 'COMMIT']],
    ['a chain with a quote', { externalSetMarkChain: 'A"' }, ['externalSetMarkChain', 'A\\"']],
    ['a chain like an option', { externalSetMarkChain: '-j' }, ['externalSetMarkChain', '"-j"']],
    ['a chain like a negation', { externalSetMarkChain: '!A' }, ['externalSetMarkChain', '"!A"']],
    ['a chain with shell signs', { externalSetMarkChain: 'A;$(B)' }, ['externalSetMarkChain', 'A;$(B)']],
    ['a chain of 29 letters', { externalSetMarkChain: 'C'.repeat(29) }, ['externalSetMarkChain', 'CCC']],
    ['a chain of other letters', { externalSetMarkChain: 'KETTÉ' }, ['externalSetMarkChain', 'KETTÉ']],
    [
      'a verdict for a chain',
      { externalSetMarkChain: 'DROP' },
      ['externalSetMarkChain', 'built in', '"DROP"'],
    ],
    ['a built-in chain', { externalSetMarkChain: 'OUTPUT' }, ['externalSetMarkChain', '"OUTPUT"']],
    ['a chain that is a number', { externalSetMarkChain: 5 }, ['externalSetMarkChain', 'a string', '5']],
    [
      'a mark bit with a chain of others',
      { markMasqBit: 13, externalSetMarkChain: 'KUBE-MARK-MASQ' },
      ['markMasqBit', '13', 'externalSetMarkChain', '"KUBE-MARK-MASQ"'],
    ],
    [
      'a mark bit with a chain of others and backend nftables',
      { backend: 'nftables', markMasqBit: 13, externalSetMarkChain: 'X' },
      ['exclude each other'],
    ],
    [
      'a mark bit with backend nftables',
      { backend: 'nftables', markMasqBit: 13 },
      ['"markMasqBit"', '13', '"backend"', '"iptables"', '"nftables"'],
    ],
    [
      'a chain of others with backend nftables',
      { backend: 'nftables', externalSetMarkChain: 'X' },
      ['"externalSetMarkChain"', '"X"', '"backend"', '"iptables"', '"nftables"'],
    ],
    ['conditions that are text', { conditionsV4: '! -d 192.0.2.0/24' }, ['conditionsV4', 'a list', '! -d']],
    ['conditions that are an object', { conditionsV6: {} }, ['conditionsV6', 'a list', '{}']],
    ['a condition that is a number', { conditionsV4: ['-d', 7] }, ['conditionsV4[1]', 'a string', '7']],
    ['a condition that is null', { conditionsV6: [null] }, ['conditionsV6[0]', 'a string', 'null']],
    [
      'two sources for one rule of iptables',
      { backend: 'iptables', conditionsV4: ['ip saddr != { 192.0.2.1, 192.0.2.2 }'] },
      ['conditionsV4', 'saddr', '192.0.2.1', 'iptables', 'nftables'],
    ],
    ['runtimeConfig that is text', { runtimeConfig: 'x' }, ['runtimeConfig', 'an object', '"x"']],
    ['runtimeConfig that is a list', { runtimeConfig: [] }, ['runtimeConfig', 'an object']],
    [
      'mappings that are an object',
      { runtimeConfig: { portMappings: {} } },
      ['portMappings', 'a list', '{}'],
    ],
    ['mappings that are text', { runtimeConfig: { portMappings: '80:80' } }, ['portMappings', '"80:80"']],
    ['mappings that are a number', { runtimeConfig: { PortMappings: 80 } }, ['portMappings', '80']],
  ])('%s', (_, fields, words) => {
    const { code, msg } = refusal(fields);
    expect(code).toBe(7);
    expect(words.filter((word) => !msg.includes(word))).toEqual([]);
  });

  test('a value of a megabyte, without repeating it all', () => {
    expect(refusal({ externalSetMarkChain: 'C'.repeat(1_000_000) }).msg.length).toBeLessThan(400);
    expect(refusal({ conditionsV4: ['c'.repeat(1_000_000)] }).msg.length).toBeLessThan(400);
    expect(refusal(published({ ...WEB, hostIP: '1'.repeat(1_000_000) })).msg.length).toBeLessThan(400);
  });
});

describe('DEL and GC understand what they can:', () => {
  test.each<[string, Fields, string]>([
    ['nothing', {}, 'nftables'],
    ['the backend', { backend: 'iptables' }, 'iptables'],
    ['the backend in any case of its key', { Backend: 'iptables' }, 'iptables'],
    ['a backend that ADD refuses', { backend: 'ebtables' }, 'nftables'],
    ['a backend of another type', { backend: [{}] }, 'nftables'],
    ['a mark bit that ADD refuses', { markMasqBit: 'x' }, 'iptables'],
    ['a chain that ADD refuses', { externalSetMarkChain: '-j' }, 'iptables'],
    ['what contradicts itself', { backend: 'nftables', markMasqBit: 13 }, 'nftables'],
    [
      'what ADD refuses altogether',
      { snat: 5, conditionsV4: 7, conditionsV6: ['x'], runtimeConfig: { portMappings: 'x' } },
      'nftables',
    ],
    ['mappings without ports', published({}, null, 7), 'nftables'],
  ])('%s', (_, fields, backend) => {
    expect(parseTeardown(source(fields))).toEqual({ backend });
  });
});
