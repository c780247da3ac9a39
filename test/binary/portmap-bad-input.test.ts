// Wrong fields and wrong surroundings given to the packaged portmap plugin, which nothing else has validated.
// Part of `npm run test:binary`; each call must fail in the documented way and leave the host alone.
import {
  type BadCase,
  everyVerb,
  type Fields,
  type Scene,
  strictVerbs,
  testRefusals,
} from '../support/bad-input.ts';
import { publishFor } from '../support/chain.ts';

const GOOD = { hostPort: 9090, containerPort: 90, protocol: 'tcp' };

/** A good config of portmap behind the resident's bridge, with these fields in place of some of it. */
function portmap(fields: Fields): (scene: Scene) => Fields {
  return ({ resident }) => ({
    type: 'portmap',
    prevResult: resident.result,
    runtimeConfig: { portMappings: [GOOD] },
    ...fields,
  });
}

/** A mapping that is wrong, behind one that is right. */
function mapping(fields: Fields): (scene: Scene) => Fields {
  return portmap({
    runtimeConfig: { portMappings: [GOOD, { hostPort: 8081, containerPort: 81, ...fields }] },
  });
}

type Row = readonly [title: string, fields: unknown, says: readonly string[]];

const MAPPINGS: readonly Row[] = [
  ['a host port of 0', { hostPort: 0 }, ['portMappings[1].hostPort', '0']],
  ['a negative host port', { hostPort: -1 }, ['portMappings[1].hostPort', '-1']],
  ['a host port of 65536', { hostPort: 65_536 }, ['portMappings[1].hostPort', '65536']],
  ['a host port in quotes', { hostPort: '8081' }, ['portMappings[1].hostPort', '8081']],
  ['a host port with a fraction', { hostPort: 80.5 }, ['portMappings[1].hostPort', '80.5']],
  ['a host port beyond 64 bits', { hostPort: 1e30 }, ['portMappings[1].hostPort', '1e+30']],
  ['a host port that is null', { hostPort: null }, ['portMappings[1].hostPort']],
  ['a host port that is a list', { hostPort: [8081] }, ['portMappings[1].hostPort']],
  ['a container port of 0', { containerPort: 0 }, ['portMappings[1].containerPort', '0']],
  ['a container port of 65536', { containerPort: 65_536 }, ['portMappings[1].containerPort', '65536']],
  ['a negative container port', { containerPort: -80 }, ['portMappings[1].containerPort', '-80']],
  ['a container port that is a word', { containerPort: 'http' }, ['portMappings[1].containerPort', 'http']],
  ['a container port that is absent', { containerPort: undefined }, ['portMappings[1].containerPort']],
  [
    'a protocol nobody translates',
    { protocol: 'icmp' },
    ['portMappings[1].protocol', 'icmp', 'tcp, udp or sctp'],
  ],
  ['a protocol of two', { protocol: 'tcp/udp' }, ['portMappings[1].protocol', 'tcp/udp']],
  ['a protocol that is a number', { protocol: 6 }, ['portMappings[1].protocol', '6']],
  [
    'a protocol with a rule behind it',
    { protocol: 'tcp -j ACCEPT' },
    ['portMappings[1].protocol', 'tcp -j ACCEPT'],
  ],
  ['a protocol of a megabyte', { protocol: 'x'.repeat(1_000_000) }, ['portMappings[1].protocol', 'xxxx']],
  ['a hostIP that is a name', { hostIP: 'localhost' }, ['portMappings[1].hostIP', 'localhost']],
  ['a hostIP with a prefix', { hostIP: '192.0.2.7/24' }, ['portMappings[1].hostIP', '192.0.2.7/24']],
  ['a hostIP of three octets', { hostIP: '192.0.2' }, ['portMappings[1].hostIP', '192.0.2']],
  ['a hostIP with a leading zero', { hostIP: '192.0.2.07' }, ['portMappings[1].hostIP', '192.0.2.07']],
  ['a hostIP with a zone', { hostIP: 'fe80::1%eth0' }, ['portMappings[1].hostIP', 'fe80::1%eth0']],
  ['a hostIP in brackets', { hostIP: '[2001:db8::7]' }, ['portMappings[1].hostIP', '[2001:db8::7]']],
  ['a hostIP with a port', { hostIP: '192.0.2.7:80' }, ['portMappings[1].hostIP', '192.0.2.7:80']],
  ['a hostIP that is a blank', { hostIP: ' ' }, ['portMappings[1].hostIP']],
  ['a hostIP that is a number', { hostIP: 3_221_225_991 }, ['portMappings[1].hostIP', '3221225991']],
  ['a hostIP of many', { hostIP: '224.0.0.1' }, ['portMappings[1].hostIP', '224.0.0.1']],
  ['a hostIP of all', { hostIP: '255.255.255.255' }, ['portMappings[1].hostIP', '255.255.255.255']],
  ['a hostIP of many in IPv6', { hostIP: 'ff02::1' }, ['portMappings[1].hostIP', 'ff02::1']],
];

const LISTS: readonly Row[] = [
  ['mappings that are text', '8080:80', ['portMappings', '8080:80']],
  ['mappings that are an object', { '8080': 80 }, ['portMappings']],
  ['mappings that are numbers', [8080], ['portMappings[0]', '8080']],
  ['mappings that are lists', [[GOOD]], ['portMappings[0]']],
  ['a port twice', [GOOD, GOOD], ['portMappings[0]', 'portMappings[1]', '9090/tcp']],
  [
    'a port twice in two spellings',
    [GOOD, { HostPort: 9090, ContainerPort: 1, Protocol: 'TCP' }],
    ['9090/tcp'],
  ],
  [
    'a port on one address and on all',
    [{ ...GOOD, hostIP: '192.0.2.7' }, GOOD],
    ['192.0.2.7', 'any address'],
  ],
  [
    'a port on all IPv4 addresses and on one',
    [
      { ...GOOD, hostIP: '0.0.0.0' },
      { ...GOOD, hostIP: '192.0.2.7' },
    ],
    ['any IPv4 address', '192.0.2.7'],
  ],
  [
    'a port on an address in two spellings',
    [
      { ...GOOD, hostIP: '2001:db8::7' },
      { ...GOOD, hostIP: '2001:DB8:0::7' },
    ],
    ['2001:db8::7'],
  ],
  [
    'a port on an address and on the same one mapped',
    [
      { ...GOOD, hostIP: '192.0.2.7' },
      { ...GOOD, hostIP: '::ffff:192.0.2.7' },
    ],
    ['192.0.2.7'],
  ],
];

const FIELDS: readonly Row[] = [
  ['a backend of another kind', { backend: 'ebtables' }, ['backend', 'ebtables']],
  ['a backend in capitals', { backend: 'NFTABLES' }, ['backend', 'NFTABLES']],
  ['a backend that is a flag', { backend: true }, ['backend', 'true']],
  ['an snat in quotes', { snat: 'false' }, ['snat', 'false']],
  ['an snat that is 0', { snat: 0 }, ['snat', '0']],
  ['a masqAll that is a word', { masqAll: 'yes' }, ['masqAll', 'yes']],
  ['a mark of bit 32', { markMasqBit: 32 }, ['markMasqBit', '32']],
  ['a mark of bit -1', { markMasqBit: -1 }, ['markMasqBit', '-1']],
  ['a mark with half a bit', { markMasqBit: 1.5 }, ['markMasqBit', '1.5']],
  ['a mark in hexadecimal text', { markMasqBit: '0x2000' }, ['markMasqBit', '0x2000']],
  [
    'a mark with the native backend',
    { markMasqBit: 5, backend: 'nftables' },
    ['markMasqBit', '5', 'needs the backend "iptables"'],
  ],
  [
    'a chain for the mark with the native backend',
    { externalSetMarkChain: 'KUBE-MARK-MASQ', backend: 'nftables' },
    ['externalSetMarkChain', 'KUBE-MARK-MASQ', 'needs the backend "iptables"'],
  ],
  [
    'a mark and a chain for it',
    { markMasqBit: 5, externalSetMarkChain: 'KUBE-MARK-MASQ' },
    ['markMasqBit', 'externalSetMarkChain', 'exclude each other'],
  ],
  ['a chain of 29 characters', { externalSetMarkChain: 'C'.repeat(29) }, ['externalSetMarkChain', 'CCCC']],
  ['a chain with a blank', { externalSetMarkChain: 'A B' }, ['externalSetMarkChain', 'A B']],
  ['a chain that is an option', { externalSetMarkChain: '-F' }, ['externalSetMarkChain', '-F']],
  ['a chain with a line behind it', { externalSetMarkChain: 'A\nCOMMIT' }, ['externalSetMarkChain']],
  ['a chain that is built in', { externalSetMarkChain: 'ACCEPT' }, ['externalSetMarkChain', 'ACCEPT']],
  ['a chain that is a number', { externalSetMarkChain: 5 }, ['externalSetMarkChain', '5']],
  ['runtime values that are a list', { runtimeConfig: [] }, ['runtimeConfig']],
];

const CONDITIONS: readonly Row[] = [
  ['conditions that are text', { conditionsV4: '! -d 192.0.2.0/24' }, ['conditionsV4', '! -d 192.0.2.0/24']],
  ['conditions that are numbers', { conditionsV4: [5] }, ['conditionsV4[0]', '5']],
  ['a match of iptables', { conditionsV4: ['-m', 'set'] }, ['conditionsV4', '"-m"']],
  ['a jump', { conditionsV4: ['-d', '192.0.2.7', '-j', 'ACCEPT'] }, ['conditionsV4', '"-j"']],
  ['an outgoing link', { conditionsV4: ['-o', 'eth0'] }, ['conditionsV4', '"-o"', 'outgoing']],
  ['a verdict of nft', { conditionsV4: ['ip daddr 192.0.2.7 accept'] }, ['conditionsV4', '"accept"']],
  ['a rule behind a condition', { conditionsV4: ['ip daddr 192.0.2.7; drop'] }, ['conditionsV4']],
  [
    'a second command',
    { conditionsV4: ['ip', 'daddr', '192.0.2.7\nflush ruleset'] },
    ['conditionsV4', '"flush"'],
  ],
  ['a named set', { conditionsV4: ['ip', 'daddr', '@mine'] }, ['conditionsV4', '@mine']],
  ['a condition without a value', { conditionsV4: ['-d'] }, ['conditionsV4', '"-d"', 'value']],
  [
    'a condition that says no twice',
    { conditionsV4: ['!', '-d', '!', '192.0.2.7'] },
    ['conditionsV4', 'twice'],
  ],
  ['a condition on no address', { conditionsV4: ['-d', 'everywhere'] }, ['conditionsV4', 'everywhere']],
  [
    'a condition that nothing fulfils',
    { conditionsV4: ['!', '-d', '0.0.0.0/0'] },
    ['conditionsV4', '0.0.0.0/0'],
  ],
  ['a condition on a link of 16 bytes', { conditionsV4: ['-i', 'abcdefghij123456'] }, ['abcdefghij123456']],
  [
    'an IPv6 address in conditionsV4',
    { conditionsV4: ['-d', '2001:db8::7'] },
    ['conditionsV4', '2001:db8::7', 'IPv4'],
  ],
  [
    'an IPv4 address in conditionsV6',
    { conditionsV6: ['-s', '192.0.2.7'] },
    ['conditionsV6', '192.0.2.7', 'IPv6'],
  ],
  [
    'a selector of the other family',
    { conditionsV6: ['ip', 'saddr', '192.0.2.7'] },
    ['conditionsV6', 'ip saddr'],
  ],
  [
    'more combinations than anybody needs',
    { conditionsV4: ['-s', octets(40), '-d', octets(40)] },
    ['conditionsV4', '1600', '1024'],
  ],
  [
    'a condition twice for iptables',
    { conditionsV4: ['ip daddr != { 192.0.2.7, 192.0.2.8 }'], backend: 'iptables' },
    ['conditionsV4', 'more than once'],
  ],
];

function octets(count: number): string {
  return Array.from({ length: count }, (_, n) => `192.0.2.${n}`).join(',');
}

const CONFIG: readonly BadCase[] = [
  ...MAPPINGS.map(([title, fields, says]) => ({ title, config: mapping(fields as Fields), says })),
  ...LISTS.map(([title, portMappings, says]) => ({
    title,
    config: portmap({ runtimeConfig: { portMappings } }),
    says,
  })),
  ...[...FIELDS, ...CONDITIONS].map(([title, fields, says]) => ({
    title,
    config: portmap(fields as Fields),
    says,
  })),
].map((badCase) => ({ ...badCase, ...strictVerbs(7) }));

/** What is wrong with the result of the plugins before this one; DEL and GC do not look at it. */
const RESULTS: readonly BadCase[] = (
  [
    ['a list without an interface plugin', undefined, ['prevResult', 'must follow an interface plugin']],
    ['a result that is text', 'none', ['prevResult', 'none']],
    ['a result with addresses that are text', { cniVersion: '1.1.0', ips: '10.66.0.2' }, ['prevResult']],
    [
      'a result with an address that is none',
      { cniVersion: '1.1.0', ips: [{ address: 'ten' }] },
      ['prevResult', 'ips[0].address', 'ten'],
    ],
    [
      'a result with an address without prefix',
      { cniVersion: '1.1.0', ips: [{ address: '10.66.0.2' }] },
      ['prevResult', 'ips[0].address', '10.66.0.2'],
    ],
  ] as const
).map(([title, prevResult, says]) => ({
  title,
  config: portmap({ prevResult }),
  fails: { ADD: 7, CHECK: 7 },
  tolerates: ['DEL', 'GC'],
  says,
}));

/** The result of somebody with addresses of its own. */
const ELSEWHERE = {
  cniVersion: '1.1.0',
  ips: [{ address: '10.66.0.77/24' }, { address: 'fd00:66::77/64' }],
};

/** The resident publishes 8080 on every address, and 8443 on 192.0.2.7. */
const TAKEN: readonly BadCase[] = (
  [
    ['a port that the resident has', { hostPort: 8080 }, 'tcp port 8080'],
    [
      'a port of which the resident has all addresses',
      { hostPort: 8080, hostIP: '192.0.2.9' },
      'of 192.0.2.9',
    ],
    ['a port of which the resident has an address', { hostPort: 8443 }, 'tcp port 8443 of 192.0.2.7'],
  ] as const
).map(([title, fields, port]) => ({
  title,
  config: (scene: Scene) => ({ ...mapping(fields)(scene), prevResult: ELSEWHERE }),
  fails: { ADD: 103 },
  tolerates: ['STATUS', 'DEL', 'GC'],
  says: [port, 'net: scene, if: eth0, id: resident'],
}));

const SURROUNDINGS: readonly BadCase[] = [
  ...(
    [
      ['no container id', { containerId: '' }, ['CNI_CONTAINERID']],
      ['a container id with a blank', { containerId: 'a b' }, ['CNI_CONTAINERID', 'a b']],
      ['a link name of 16 bytes', { ifname: 'abcdefghij123456' }, ['CNI_IFNAME', 'abcdefghij123456']],
      ['a link name with a slash', { ifname: 'eth/0' }, ['CNI_IFNAME', 'eth/0']],
    ] as const
  ).map(([title, call, says]) => ({
    title,
    call,
    config: portmap({}),
    fails: { ADD: 4, CHECK: 4, DEL: 4 },
    says,
  })),
  {
    title: 'a config that is cut off',
    stdin: '{"cniVersion":"1.1.0","name":"scene"',
    fails: everyVerb(6),
    says: [],
  },
  {
    title: 'a version of the future',
    config: portmap({ cniVersion: '9.9.9' }),
    fails: everyVerb(1),
    says: ['9.9.9'],
  },
];

const CASES = [CONFIG, RESULTS, TAKEN, SURROUNDINGS].flat();

testRefusals(
  'portmap',
  CASES.map((badCase) => ({ ...badCase, call: { ...badCase.call, plugin: 'portmap' } })),
  async ({ host, resident }) => {
    await publishFor(host, resident, [
      { hostPort: 8080, containerPort: 80 },
      { hostPort: 8443, containerPort: 443, hostIP: '192.0.2.7' },
    ]);
  },
);
