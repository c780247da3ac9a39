// Wrong fields in the network configuration given to the packaged plugins, which nothing else has validated.
// Part of `npm run test:binary`; each call must fail in the documented way and leave the host alone.
import { type BadCase, strictVerbs, testRefusals } from '../support/bad-input.ts';

/** Fields of the bridge plugin: what, the fields, and what the message must hold. */
const BRIDGE: BadCase[] = (
  [
    ['a bridge name of 16 bytes', { bridge: 'bridge0123456789' }, ['bridge', 'bridge0123456789']],
    ['a bridge name with a slash', { bridge: 'br/0' }, ['bridge', 'br/0']],
    ['a bridge name that leads elsewhere', { bridge: '../all' }, ['bridge', '../all']],
    ['a bridge name of two dots', { bridge: '..' }, ['bridge', '..']],
    ['a bridge name with a blank', { bridge: 'br 0' }, ['bridge', 'br 0']],
    ['a bridge name with a colon', { bridge: 'br:0' }, ['bridge', 'br:0']],
    ['a bridge name that the kernel would number', { bridge: 'br%d' }, ['bridge', 'br%d']],
    ['a bridge name of a megabyte', { bridge: 'b'.repeat(1_000_000) }, ['bridge', 'bbbb']],
    ['a bridge name that is a number', { bridge: 5 }, ['bridge', '5']],
    ['a flag in quotes', { isGateway: 'true' }, ['isGateway', 'true']],
    ['a flag that is 1', { isDefaultGateway: 1 }, ['isDefaultGateway', '1']],
    ['a flag that is a word', { ipMasq: 'yes' }, ['ipMasq', 'yes']],
    ['a flag that is a list', { hairpinMode: [] }, ['hairpinMode']],
    ['a flag that is an object', { promiscMode: {} }, ['promiscMode']],
    ['a flag that is "no"', { forceAddress: 'no' }, ['forceAddress', 'no']],
    ['a flag that is 0', { enabledad: 0 }, ['enabledad', '0']],
    ['a port isolation of "on"', { portIsolation: 'on' }, ['portIsolation', 'on']],
    ['an unknown masquerade backend', { ipMasqBackend: 'ebtables' }, ['ipMasqBackend', 'ebtables']],
    ['a masquerade backend that is a flag', { ipMasqBackend: true }, ['ipMasqBackend', 'true']],
    ['an MTU in quotes', { mtu: '1500' }, ['mtu', '1500']],
    ['an MTU with a fraction', { mtu: 1499.5 }, ['mtu', '1499.5']],
    ['a negative MTU', { mtu: -1 }, ['mtu', '-1']],
    ['an MTU that no link can have', { mtu: 67 }, ['mtu', '67']],
    ['an MTU beyond that of any veth', { mtu: 65536 }, ['mtu', '65536']],
    ['an MTU beyond 64 bits', { mtu: 1e30 }, ['mtu', '1e+30']],
    [
      'hairpin and promiscuous mode at once',
      { hairpinMode: true, promiscMode: true },
      ['hairpinMode', 'promiscMode'],
    ],
    [
      'addresses for a link it must leave alone',
      { disableContainerInterface: true },
      ['disableContainerInterface'],
    ],
    ['a MAC that is none', { runtimeConfig: { mac: 'zz' } }, ['mac', 'zz']],
    ['a MAC of four bytes', { runtimeConfig: { mac: '02:00:00:01' } }, ['mac', '02:00:00:01']],
    ['a MAC that is a number', { runtimeConfig: { mac: 2 } }, ['mac', '2']],
    ['a MAC in args that is none', { args: { cni: { mac: 'zz' } } }, ['mac', 'zz']],
    ['args that are a list', { args: [] }, ['args']],
    ['runtime values that are text', { runtimeConfig: 'mac' }, ['runtimeConfig', 'mac']],
    ['name servers that are text', { dns: { nameservers: '9.9.9.9' } }, ['nameservers', '9.9.9.9']],
    ['a DNS section that is a list', { dns: ['9.9.9.9'] }, ['dns']],
    ['a spoof check in quotes', { macspoofchk: 'true' }, ['macspoofchk', 'true']],
    ['an address check that is a number', { ipspoofchk: 1 }, ['ipspoofchk', '1']],
    ['an address check without addresses', { ipspoofchk: true, ipam: undefined }, ['ipspoofchk', 'ipam']],
    ['a VLAN in quotes', { vlan: '10' }, ['vlan', '10']],
    ['a VLAN beyond the last one', { vlan: 4095 }, ['vlan', '4095']],
    ['a trunk that is no list', { vlanTrunk: 100 }, ['vlanTrunk', '100']],
    ['a trunk of VLAN 0', { vlanTrunk: [{ id: 0 }] }, ['vlanTrunk', '0']],
    ['a trunk with half a range', { vlanTrunk: [{ minID: 10 }] }, ['vlanTrunk[0]', '10']],
    ['a trunk that runs backwards', { vlanTrunk: [{ minID: 20, maxID: 10 }] }, ['vlanTrunk[0]', '20', '10']],
    [
      'a VLAN gateway with too long a name',
      { bridge: 'bridge012345', vlan: 4094, isGateway: true },
      ['bridge', 'bridge012345.4094'],
    ],
    ['a plugin type that is a number', { type: 7 }, ['type', '7']],
  ] as const
).map(([title, config, says]) => ({ title, config, says, ...strictVerbs(7) }));

const IPAM_SECTION: BadCase[] = (
  [
    ['an IPAM section that is a list', { ipam: [] }, ['ipam']],
    ['an IPAM section that is text', { ipam: 'host-local' }, ['ipam', 'host-local']],
    ['an IPAM section that is a number', { ipam: 7 }, ['ipam', '7']],
    ['an IPAM type that is a number', { ipam: { type: 7 } }, ['type', '7']],
  ] as const
).map(([title, config, says]) => ({ title, config, says, ...strictVerbs(7) }));

const IPAM_TYPES: BadCase[] = [
  ...['../bridge', '/bin/true', '..', 'a/b', 'host-local\0'].map((type) => ({
    title: `the IPAM type ${JSON.stringify(type)}`,
    config: { ipam: { type } },
    ...strictVerbs(7),
    says: ['ipam.type', JSON.stringify(type).slice(1, -1)],
  })),
  {
    title: 'an IPAM type that is not installed',
    config: { ipam: { type: 'nosuch' } },
    fails: { ADD: 111, CHECK: 111, STATUS: 111 },
    says: ['nosuch', 'CNI_PATH'],
  },
];

/** Shorthand for a network of one range. */
function range(subnet: unknown, more: object = {}): object {
  return { ranges: [[{ subnet, ...more }]] };
}

/** Fields of host-local: what, the fields of the IPAM section, and what the message must hold. */
const HOST_LOCAL: BadCase[] = (
  [
    ['no ranges', { ranges: undefined }, ['ranges']],
    ['ranges that are null', { ranges: null }, ['ranges']],
    ['an empty list of ranges', { ranges: [] }, ['ranges']],
    ['an empty range set', { ranges: [[]] }, ['ranges[0]']],
    ['ranges one level short', { ranges: [{ subnet: '10.66.0.0/24' }] }, ['ranges']],
    ['ranges that are text', { ranges: '10.66.0.0/24' }, ['ranges', '10.66.0.0/24']],
    ['ranges that are an object', { ranges: { subnet: '10.66.0.0/24' } }, ['ranges']],
    ['a range without a subnet', { ranges: [[{}]] }, ['subnet']],
    ['a subnet that is a number', range(10), ['subnet', '10']],
    ['a subnet that is empty', range(''), ['subnet']],
    ['a subnet that is prose', range('ten slash eight'), ['subnet', 'ten slash eight']],
    ['a subnet without a prefix', range('10.66.0.0'), ['subnet', '10.66.0.0']],
    ['a subnet with a prefix of 33', range('10.66.0.0/33'), ['subnet', '10.66.0.0/33']],
    ['a subnet with a negative prefix', range('10.66.0.0/-1'), ['subnet', '10.66.0.0/-1']],
    ['a subnet with a padded prefix', range('10.66.0.0/024'), ['subnet', '10.66.0.0/024']],
    ['a subnet with two prefixes', range('10.66.0.0/24/24'), ['subnet', '10.66.0.0/24/24']],
    ['a subnet with a leading zero', range('010.66.0.0/24'), ['subnet', '010.66.0.0/24']],
    ['a subnet of three octets', range('10.66.0/24'), ['subnet', '10.66.0/24']],
    ['a subnet with an octet of 256', range('10.66.256.0/24'), ['subnet', '10.66.256.0/24']],
    ['a subnet with host bits', range('10.66.0.5/24'), ['subnet', '10.66.0.5/24', '10.66.0.0/24']],
    ['a subnet of /31', range('10.66.0.0/31'), ['subnet', '10.66.0.0/31', '/30']],
    ['a subnet of /32', range('10.66.0.1/32'), ['subnet', '10.66.0.1/32', '/30']],
    ['an IPv6 subnet of /127', range('fd00:66::/127'), ['subnet', 'fd00:66::/127', '/126']],
    ['an IPv6 subnet of /128', range('fd00:66::1/128'), ['subnet', 'fd00:66::1/128', '/126']],
    ['an IPv6 subnet of /129', range('fd00:66::/129'), ['subnet', 'fd00:66::/129']],
    ['an IPv6 subnet with a zone', range('fe80::%eth0/64'), ['subnet', 'fe80::%eth0/64']],
    ['an IPv6 subnet with host bits', range('fd00:66::5/64'), ['subnet', 'fd00:66::5/64', 'fd00:66::/64']],
    ['a mapped subnet wider than IPv4', range('::ffff:10.66.0.0/64'), ['subnet', '::ffff:10.66.0.0/64']],
    ['a mapped subnet that is too small', range('::ffff:10.66.0.0/127'), ['subnet', '10.66.0.0/31']],
    ['a mapped subnet with host bits', range('::ffff:10.66.0.5/120'), ['subnet', '10.66.0.5/24']],
    ['a start outside', range('10.66.0.0/24', { rangeStart: '10.67.0.5' }), ['rangeStart', '10.67.0.5']],
    ['an end outside', range('10.66.0.0/24', { rangeEnd: '10.67.0.5' }), ['rangeEnd', '10.67.0.5']],
    [
      'a start of the other family',
      range('10.66.0.0/24', { rangeStart: 'fd00::5' }),
      ['rangeStart', 'fd00::5'],
    ],
    ['an end that is no address', range('10.66.0.0/24', { rangeEnd: 'last' }), ['rangeEnd', 'last']],
    ['an end that is a number', range('10.66.0.0/24', { rangeEnd: 99 }), ['rangeEnd', '99']],
    [
      'a start behind the end',
      range('10.66.0.0/24', { rangeStart: '10.66.0.90', rangeEnd: '10.66.0.80' }),
      ['10.66.0.90', '10.66.0.80'],
    ],
    ['a gateway that is no address', range('10.66.0.0/24', { gateway: 'router' }), ['gateway', 'router']],
    [
      'a gateway with a prefix',
      range('10.66.0.0/24', { gateway: '10.66.0.1/24' }),
      ['gateway', '10.66.0.1/24'],
    ],
    [
      'a gateway of the other family',
      range('10.66.0.0/24', { gateway: 'fd00:66::1' }),
      ['gateway', 'fd00:66::1'],
    ],
    [
      'two families in one set',
      { ranges: [[{ subnet: '10.66.0.0/24' }, { subnet: 'fd00:66::/64' }]] },
      ['10.66.0.0/24', 'fd00:66::/64'],
    ],
    [
      'ranges that overlap in one set',
      { ranges: [[{ subnet: '10.66.0.0/24' }, { subnet: '10.66.0.0/25' }]] },
      ['overlap', '10.66.0.1-10.66.0.254', '10.66.0.1-10.66.0.126'],
    ],
    [
      'ranges that overlap between sets',
      { ranges: [[{ subnet: '10.66.0.0/24' }], [{ subnet: '10.66.0.128/25' }]] },
      ['overlap', '10.66.0.1-10.66.0.254', '10.66.0.129-10.66.0.254'],
    ],
    [
      'a mapped range that overlaps',
      { ranges: [[{ subnet: '10.66.0.0/24' }], [{ subnet: '::ffff:10.66.0.0/120' }]] },
      ['overlap', '10.66.0.1-10.66.0.254'],
    ],
    ['routes that are text', { routes: '0.0.0.0/0' }, ['routes', '0.0.0.0/0']],
    ['a route without a destination', { routes: [{ gw: '10.66.0.1' }] }, ['dst']],
    ['a route to no network', { routes: [{ dst: 'default' }] }, ['dst', 'default']],
    ['a route by no address', { routes: [{ dst: '0.0.0.0/0', gw: 'router' }] }, ['gw', 'router']],
    [
      'a route with a metric in quotes',
      { routes: [{ dst: '0.0.0.0/0', priority: '10' }] },
      ['priority', '10'],
    ],
    ['a route with a negative metric', { routes: [{ dst: '0.0.0.0/0', priority: -1 }] }, ['priority', '-1']],
    ['a route with a scope of 256', { routes: [{ dst: '0.0.0.0/0', scope: 256 }] }, ['scope', '256']],
    [
      'a route with a table beyond 32 bits',
      { routes: [{ dst: '0.0.0.0/0', table: 2 ** 32 }] },
      ['table', '4294967296'],
    ],
    ['a data directory that is a number', { dataDir: 7 }, ['dataDir', '7']],
    ['a data directory that is relative', { dataDir: 'networks' }, ['dataDir', 'networks']],
    [
      'a data directory that climbs',
      { dataDir: '/var/lib/cni/../../../etc' },
      ['dataDir', '/var/lib/cni/../../../etc'],
    ],
    ['a data directory with a NUL', { dataDir: '/var/lib/cni\0' }, ['dataDir']],
    ['a data directory of 5,000 characters', { dataDir: `/${'d'.repeat(4999)}` }, ['dataDir', '/dddd']],
    ['a resolver file that is a list', { resolvConf: ['/etc/resolv.conf'] }, ['resolvConf']],
  ] as const
).map(([title, ipam, says]) => ({ title, config: { ipam }, says, ...strictVerbs(7) }));

const REQUESTS: BadCase[] = (
  [
    ['wished addresses that are text', { runtimeConfig: { ips: '10.66.0.9' } }, ['ips', '10.66.0.9']],
    ['a wished address of three octets', { runtimeConfig: { ips: ['10.66.0'] } }, ['ips', '10.66.0']],
    ['a wished address that is a number', { runtimeConfig: { ips: [9] } }, ['ips', '9']],
    [
      'a wished address with a bad prefix',
      { runtimeConfig: { ips: ['10.66.0.9/99'] } },
      ['ips', '10.66.0.9/99'],
    ],
    ['a wished address in args that is none', { args: { cni: { ips: ['nine'] } } }, ['ips', 'nine']],
    [
      'wished ranges that are text',
      { runtimeConfig: { ipRanges: '10.66.0.0/24' } },
      ['ipRanges', '10.66.0.0/24'],
    ],
    [
      'wished ranges that are too small',
      { runtimeConfig: { ipRanges: [[{ subnet: '10.68.0.0/31' }]] } },
      ['10.68.0.0/31'],
    ],
    [
      'wished ranges that overlap the configured ones',
      { runtimeConfig: { ipRanges: [[{ subnet: '10.66.0.0/16' }]] } },
      ['overlap', '10.66.0.1-10.66.255.254'],
    ],
  ] as const
).map(([title, config, says]) => ({ title, config, says, ...strictVerbs(7) }));

const UNAVAILABLE: BadCase[] = (
  [
    ['outside every range', '10.67.0.9'],
    ['that is the gateway', '10.66.0.1'],
    ['that another container has', 'fd00:66::2'],
  ] as const
).map(([what, ip]) => ({
  title: `a wished address ${what}`,
  config: { runtimeConfig: { ips: [ip] } },
  fails: { ADD: 101 },
  tolerates: ['DEL', 'GC'],
  says: [ip],
}));

testRefusals('bridge', [BRIDGE, IPAM_SECTION, IPAM_TYPES].flat());
const HOST_LOCAL_CASES = [HOST_LOCAL, REQUESTS, UNAVAILABLE].flat();
testRefusals('host-local below bridge', HOST_LOCAL_CASES);
testRefusals(
  'host-local by itself',
  HOST_LOCAL_CASES.map((badCase) => ({ ...badCase, call: { plugin: 'host-local' } })),
);
