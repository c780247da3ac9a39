// Configs as structures: the fields of each plugin with right, nearly right and odd values, and what runtimes put beside.
// Used by calls.ts and by the targets of single fields; names of things on the host come from few, so that a call in a
// private host leaves nothing there that was not there before.
import fc from 'fast-check';
import { cidrText, field, fields, ipText, junk, macText, oddText, seldom } from './values.ts';

export const PLUGINS = [
  'bridge',
  'host-local',
  'portmap',
  'firewall',
  'tuning',
  'loopback',
  'patchbay',
] as const;
export type PluginName = (typeof PLUGINS)[number];

/** What the fuzzed calls are about: the names in a private host that black-box.ts makes. */
export const NETWORK = 'fuzz';
export const BRIDGE = 'br-fuzz';

/** A config of the plugin with all that stands beside its own fields. */
export function configOf(plugin: PluginName): fc.Arbitrary<Record<string, unknown>> {
  return fc
    .tuple(OWN_FIELDS[plugin], common(plugin))
    .map(([own, beside]): Record<string, unknown> => ({ ...beside, ...own }));
}

/** The plugin's own fields. */
export function ownFieldsOf(plugin: PluginName): fc.Arbitrary<Record<string, unknown>> {
  return OWN_FIELDS[plugin];
}

/** A result of the plugins before, in the shape of some version. */
export function prevResult(): fc.Arbitrary<Record<string, unknown>> {
  return fc.oneof({ weight: 4, arbitrary: MODERN_RESULT }, { weight: 1, arbitrary: OLD_RESULT });
}

export const cniVersion = (): fc.Arbitrary<unknown> =>
  fc.oneof(
    { weight: 20, arbitrary: fc.constant<unknown>('1.1.0') },
    { weight: 6, arbitrary: fc.constantFrom('1.0.0', '0.4.0', '0.3.1', '0.2.0', '0.1.0', '') },
    {
      weight: 1,
      arbitrary: fc.constantFrom('1.2.0', '1.1', 'v1.1.0', '1.1.0-rc1', '0.0.0', '-1', '99999999999.0.0'),
    },
  );

const rarely = (right: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> =>
  fc.oneof({ weight: 30, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: field(right) });
const flag = (): fc.Arbitrary<unknown> => field(fc.boolean());
const number = (...edges: number[]): fc.Arbitrary<unknown> =>
  field(fc.oneof(fc.constantFrom(...edges), fc.integer({ min: 0, max: 70_000 })));
const textOf = (...words: string[]): fc.Arbitrary<unknown> => field(fc.constantFrom(...words));
const list = (item: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> => field(fc.array(item, { maxLength: 3 }));
const nest = (model: Record<string, fc.Arbitrary<unknown>>): fc.Arbitrary<unknown> => field(fields(model));
const present = (object: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));

const DNS = nest({
  nameservers: list(ipText()),
  domain: textOf('example.org', ''),
  search: list(fc.constantFrom('example.org', 'example.net')),
  options: list(fc.constantFrom('ndots:2', 'trust-ad')),
});

const RANGE = fields({
  subnet: field(cidrText()),
  rangeStart: seldom(ipText()),
  rangeEnd: seldom(ipText()),
  gateway: seldom(ipText()),
});

// Mostly one that works, so that what comes behind it is reached.
const RANGES = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.constantFrom(
      [[{ subnet: '10.66.0.0/24' }]],
      [[{ subnet: '10.66.0.0/24' }], [{ subnet: 'fd00:66::/64' }]],
    ),
  },
  { weight: 2, arbitrary: list(list(RANGE)) },
);

const ROUTE = fields({
  dst: field(cidrText()),
  gw: seldom(ipText()),
  mtu: seldom(number(0, 1500)),
  advmss: seldom(number(0, 1400)),
  priority: seldom(number(0, 100, 2 ** 32 - 1)),
  table: seldom(number(0, 254, 2 ** 32 - 1)),
  scope: seldom(number(0, 253, 255)),
});

const HOST_LOCAL = fc
  .record({
    type: field(
      fc.constantFrom('host-local', 'host-local', 'host-local', 'host-local', '', 'nowhere', '../bridge'),
    ),
    ranges: RANGES,
    subnet: seldom(cidrText()),
    rangeStart: seldom(ipText()),
    rangeEnd: seldom(ipText()),
    gateway: seldom(ipText()),
    routes: seldom(list(ROUTE)),
    dataDir: seldom(
      fc.constantFrom('/run/fuzz/store', '', 'relative', '/proc/nowhere', '/run/odd/file', '/run/odd/fifo'),
    ),
    resolvConf: seldom(
      fc.constantFrom('/etc/resolv.conf', '/run/odd/fifo', '/dev/zero', '/proc/self/environ', '/'),
    ),
    strictStatus: seldom(fc.boolean()),
  })
  .map(present);

const PORT_MAPPING = fields({
  hostPort: field(
    fc.oneof(fc.constantFrom(8080, 8080, 1, 65535, 0, 65536), fc.integer({ min: 1, max: 65535 })),
  ),
  containerPort: field(fc.constantFrom(80, 80, 80, 1, 65535, 0)),
  protocol: seldom(fc.constantFrom('tcp', 'udp', 'sctp', 'TCP', '', 'icmp')),
  hostIP: seldom(ipText()),
});

const MODERN_RESULT = fc
  .record({
    cniVersion: seldom(cniVersion()),
    interfaces: field(
      fc.constantFrom<unknown>(
        [{ name: 'eth0', mac: '02:00:5e:00:53:01', sandbox: '/run/netns/fuzzed' }],
        [{ name: BRIDGE }, { name: 'veth1' }, { name: 'eth0', sandbox: '/run/netns/fuzzed' }],
        [{ name: 'net1', sandbox: '/run/netns/fuzzed' }],
        [],
      ),
    ),
    ips: field(
      fc.oneof(
        fc.constantFrom<unknown>(
          [{ address: '10.66.0.50/24', gateway: '10.66.0.1', interface: 0 }],
          [{ address: '10.66.0.50/24' }, { address: 'fd00:66::50/64' }],
          [{ address: '10.66.0.50/24', interface: 2 }],
        ),
        fc.array(
          fields({
            address: field(cidrText()),
            gateway: seldom(ipText()),
            interface: seldom(number(0, 1, 2, 7)),
            version: seldom(fc.constantFrom('4', '6')),
          }),
          { maxLength: 3 },
        ),
      ),
    ),
    routes: seldom(list(ROUTE)),
    dns: seldom(DNS),
    extra: seldom(junk()),
  })
  .map(present);

const OLD_IP = fields({ ip: field(cidrText()), gateway: seldom(ipText()), routes: seldom(list(ROUTE)) });
const OLD_RESULT = fc
  .record({
    cniVersion: seldom(fc.constantFrom('0.2.0', '0.1.0')),
    ip4: seldom(OLD_IP),
    ip6: seldom(OLD_IP),
    dns: seldom(DNS),
  })
  .map(present);

const RUNTIME_CONFIG = nest({
  portMappings: list(PORT_MAPPING),
  mac: seldom(macText()),
  ips: seldom(list(fc.oneof(ipText(), cidrText()))),
  ipRanges: seldom(RANGES),
  bandwidth: seldom(fields({ ingressRate: number(0) })),
  dns: seldom(DNS),
});

const ARGS = nest({
  cni: nest({
    mac: seldom(macText()),
    ips: seldom(list(cidrText())),
    mtu: seldom(number(0, 68, 1400)),
    sysctl: seldom(fc.dictionary(sysctlKey(), fc.constantFrom('0', '1', ''), { maxKeys: 2 })),
  }),
});

const VALID_ATTACHMENTS = list(
  fields({
    containerID: field(fc.constantFrom('fuzzed', 'other', '')),
    ifname: field(fc.constantFrom('eth0', 'net1')),
  }),
);

function sysctlKey(): fc.Arbitrary<string> {
  return fc.oneof(
    fc.constantFrom(
      'net.ipv4.conf.IFNAME.arp_filter',
      'net.ipv4.conf.all.log_martians',
      'net/ipv4/conf/IFNAME/arp_notify',
      'net.ipv4.conf.IFNAME.IFNAME',
      'net.core.somaxconn',
      'net.nowhere',
      'net.ipv4',
      'net.',
      'net',
      'kernel.core_pattern',
      'net.../../kernel.hostname',
      'net/../kernel/hostname',
      '/net/ipv4/ip_forward',
      '',
    ),
    oddText(),
  );
}

const BRIDGE_FIELDS = {
  bridge: field(fc.constantFrom(BRIDGE, BRIDGE, BRIDGE, 'lo', 'not-a-bridge', '', 'name-of-sixteen-')),
  isGateway: flag(),
  isDefaultGateway: flag(),
  forceAddress: seldom(fc.boolean()),
  ipMasq: flag(),
  ipMasqBackend: seldom(fc.constantFrom('nftables', 'nftables', 'iptables', '', 'ipfw')),
  mtu: seldom(number(0, 67, 68, 1500, 65535, 65536)),
  hairpinMode: seldom(fc.boolean()),
  promiscMode: seldom(fc.boolean()),
  portIsolation: seldom(fc.boolean()),
  vlan: seldom(number(0, 1, 100, 4094, 4095)),
  vlanTrunk: seldom(
    list(
      fields({ id: seldom(number(1, 4094)), minID: seldom(number(1, 10)), maxID: seldom(number(10, 4094)) }),
    ),
  ),
  preserveDefaultVlan: seldom(fc.boolean()),
  macspoofchk: flag(),
  ipspoofchk: seldom(fc.boolean()),
  enabledad: seldom(fc.boolean()),
  disableContainerInterface: seldom(fc.boolean()),
};

const CHAIN_NAME = fc.constantFrom(
  'KUBE-MARK-MASQ',
  '',
  'name with blanks',
  '-A',
  '!',
  'x'.repeat(29),
  'CNI-ADMIN',
);
const TOKENS = fc.array(
  fc.constantFrom(
    '-s',
    '-d',
    '-i',
    '!',
    '10.0.0.0/8',
    'fd00::/8',
    'eth0',
    'eth+',
    'ip',
    'saddr',
    '!=',
    '{',
    ',',
    '}',
    'iifname',
    '"lo"',
    '-j',
    'ACCEPT',
    '--source=10.1.0.0/16',
  ),
  { maxLength: 6 },
);

const PORTMAP_FIELDS = {
  backend: seldom(fc.constantFrom('nftables', 'nftables', 'iptables', '', 'pf')),
  snat: flag(),
  masqAll: seldom(fc.boolean()),
  markMasqBit: seldom(number(0, 13, 31, 32)),
  externalSetMarkChain: seldom(CHAIN_NAME),
  conditionsV4: seldom(TOKENS),
  conditionsV6: seldom(TOKENS),
};

const FIREWALL_FIELDS = {
  backend: seldom(fc.constantFrom('nftables', 'nftables', 'iptables', 'firewalld', '', 'ufw')),
  iptablesAdminChainName: seldom(CHAIN_NAME),
  firewalldZone: seldom(fc.constantFrom('trusted', '', 'a zone', 'z'.repeat(18))),
  ingressPolicy: textOf('open', 'same-bridge', 'isolated', '', 'closed'),
  strictStatus: seldom(fc.boolean()),
};

const TUNING_FIELDS = {
  sysctl: field(
    fc.dictionary(sysctlKey(), field(fc.constantFrom('0', '1', '', '\0', 'x'.repeat(5000))), { maxKeys: 3 }),
  ),
  mac: seldom(macText()),
  mtu: seldom(number(0, 67, 68, 1400, 65536)),
  promisc: seldom(fc.boolean()),
  allmulti: seldom(fc.boolean()),
  txQLen: seldom(number(0, 500, 2 ** 31)),
  dataDir: seldom(fc.constantFrom('/run/fuzz/tuning', '', 'relative', '/run/odd/file')),
};

const OWN_FIELDS: Readonly<Record<PluginName, fc.Arbitrary<Record<string, unknown>>>> = {
  bridge: fields(BRIDGE_FIELDS),
  'host-local': fc.constant({}),
  portmap: fields(PORTMAP_FIELDS),
  firewall: fields(FIREWALL_FIELDS),
  tuning: fields(TUNING_FIELDS),
  loopback: fc.constant({}),
  patchbay: fc
    .record({
      bridge: field(fields(BRIDGE_FIELDS)),
      portmap: seldom(fields(PORTMAP_FIELDS)),
      firewall: seldom(fields(FIREWALL_FIELDS)),
      tuning: seldom(fields(TUNING_FIELDS)),
    })
    .map(present),
};

const CHAINED: ReadonlySet<PluginName> = new Set(['portmap', 'firewall', 'tuning', 'patchbay']);

function common(plugin: PluginName): fc.Arbitrary<Record<string, unknown>> {
  const isChained = CHAINED.has(plugin);
  return fc
    .record({
      cniVersion: cniVersion(),
      name: fc.oneof(
        { weight: 50, arbitrary: fc.constant<unknown>(NETWORK) },
        { weight: 1, arbitrary: junk() },
      ),
      type: fc.oneof(
        { weight: 20, arbitrary: fc.constant<unknown>(plugin) },
        { weight: 1, arbitrary: junk() },
      ),
      ipam: isChained && plugin !== 'patchbay' ? seldom(HOST_LOCAL) : field(HOST_LOCAL),
      dns: seldom(DNS),
      args: seldom(ARGS),
      runtimeConfig: plugin === 'portmap' ? RUNTIME_CONFIG : seldom(RUNTIME_CONFIG),
      prevResult: isChained ? field(prevResult()) : seldom(prevResult()),
      log: rarely(fc.constantFrom('journal', '/var/log/patchbay/net1.log', '/var/log/patchbay/../x', '')),
      'cni.dev/valid-attachments': seldom(VALID_ATTACHMENTS),
    })
    .map(present);
}
