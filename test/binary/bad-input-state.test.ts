// Wrong results handed back, damaged stores, and hosts on which the kernel has to refuse.
// Part of `npm run test:binary`; each call must fail in the documented way and leave the host alone.
import { createHash } from 'node:crypto';
import { type BadCase, type Fields, type Scene, testRefusals } from '../support/bad-input.ts';
import type { CniResult } from '../support/run-plugin.ts';

const UNREADABLE_RESULTS: BadCase[] = (
  [
    ['text', () => 'result', ['prevResult', 'result']],
    ['a number', () => 42, ['prevResult', '42']],
    ['a list', () => [], ['prevResult']],
    ['interfaces that are an object', (good) => ({ ...good, interfaces: {} }), ['interfaces']],
    ['an interface name that is a number', (good) => ({ ...good, interfaces: [{ name: 7 }] }), ['name', '7']],
    ['addresses that are text', (good) => ({ ...good, ips: '10.66.0.2/24' }), ['ips', '10.66.0.2/24']],
    ['an address without a prefix', withIp({ address: '10.66.0.2' }), ['address', '10.66.0.2']],
    ['an address that is none', withIp({ address: '10.66.0.300/24' }), ['address', '10.66.0.300/24']],
    ['an address that is a number', withIp({ address: 10 }), ['address', '10']],
    ['a gateway that is none', withIp({ address: '10.66.0.2/24', gateway: 'router' }), ['gateway', 'router']],
    ['an index in quotes', withIp({ address: '10.66.0.2/24', interface: '2' }), ['interface', '2']],
    ['an index with a fraction', withIp({ address: '10.66.0.2/24', interface: 1.5 }), ['interface', '1.5']],
    ['routes that are an object', (good) => ({ ...good, routes: {} }), ['routes']],
    ['a route to no network', (good) => ({ ...good, routes: [{ dst: 'default' }] }), ['dst', 'default']],
    ['a DNS section that is text', (good) => ({ ...good, dns: '9.9.9.9' }), ['dns', '9.9.9.9']],
    ['a version of another family', (good) => ({ ...good, cniVersion: '0.4.0' }), ['cniVersion', '0.4.0']],
    ['a version that does not exist', (good) => ({ ...good, cniVersion: '7.7.7' }), ['cniVersion', '7.7.7']],
  ] as [string, (good: CniResult) => unknown, string[]][]
).map(([what, change, says]) => ({
  title: `an earlier result with ${what}`,
  config: ({ resident }) => ({ prevResult: change(resident.result) }),
  fails: { ADD: 7, CHECK: 7 },
  tolerates: ['DEL', 'GC'],
  says,
}));

const WRONG_RESULTS: BadCase[] = (
  [
    ['no interfaces', (good) => ({ ...good, interfaces: [] }), ['eth0']],
    ['a link without a name', withInterface({ name: undefined }), ['eth0']],
    ['another sandbox', withInterface({ sandbox: '/run/netns/newcomer' }), ['/run/netns/newcomer']],
    ['another name for the link', withInterface({ name: 'eth7' }), ['eth0']],
    ['another MAC', withInterface({ mac: '02:00:5e:00:53:99' }), ['02:00:5e:00:53:99']],
    ['another address', withIp({ address: '10.66.0.99/24', interface: 2 }), ['10.66.0.99']],
    ['another prefix', withIp({ address: '10.66.0.2/25', interface: 2 }), ['10.66.0.2/25']],
    ['a route more', withRoute({ dst: '198.18.0.0/15', gw: '10.66.0.1' }), ['198.18.0.0/15']],
    [
      'a route by another gateway',
      withRoute({ dst: '0.0.0.0/0', gw: '10.66.0.254' }),
      ['0.0.0.0/0', '10.66.0.254'],
    ],
  ] as [string, (good: CniResult) => unknown, string[]][]
).map(([what, change, says]) => ({
  title: `CHECK of an earlier result with ${what}`,
  config: ({ resident }) => ({ prevResult: change(resident.result) }),
  fails: { CHECK: 107 },
  says,
}));

const MISSING_RESULTS: BadCase[] = [undefined, null].map((prevResult) => ({
  title: `CHECK of an earlier result that is ${prevResult === null ? 'null' : 'missing'}`,
  config: { prevResult },
  fails: { CHECK: 7 },
  says: ['prevResult'],
}));

const LOST_SANDBOXES: BadCase[] = ['/run/odd/file', '/run/netns/nowhere', '/proc/self/ns/uts'].map(
  (netns) => ({
    title: `CHECK in the sandbox ${netns}`,
    call: { netns },
    config: ({ resident }) => ({ prevResult: withInterface({ sandbox: netns })(resident.result) }),
    fails: { CHECK: 8 },
    says: [netns],
  }),
);

const STORE = '/var/lib/cni/networks/scene';

const STORES: BadCase[] = [
  {
    title: 'a store that is a file',
    prepare: inHost(`mv ${STORE} /run/store; touch ${STORE}`, `rm ${STORE}; mv /run/store ${STORE}`),
    fails: { ADD: 110, CHECK: 110, STATUS: 50 },
    tolerates: ['DEL', 'GC'],
    says: [STORE],
  },
  {
    title: 'a data directory that is a file',
    config: { ipam: { dataDir: '/run/odd/file' } },
    fails: { ADD: 110, CHECK: 110, STATUS: 50 },
    tolerates: ['DEL', 'GC'],
    says: ['/run/odd/file'],
  },
  {
    title: 'a data directory in /proc',
    config: { ipam: { dataDir: '/proc/cni' } },
    fails: { ADD: 110, STATUS: 50 },
    says: ['/proc/cni'],
  },
  {
    title: 'a lock that is a directory',
    prepare: inHost(
      `mv ${STORE}/lock /run/lock-file; mkdir ${STORE}/lock`,
      `rmdir ${STORE}/lock; mv /run/lock-file ${STORE}/lock`,
    ),
    fails: { ADD: 110, CHECK: 110 },
    says: [STORE],
  },
  {
    title: 'a lock that leads elsewhere',
    prepare: inHost(
      `mv ${STORE}/lock /run/lock-file; ln -s /run/odd/elsewhere ${STORE}/lock`,
      `rm ${STORE}/lock; mv /run/lock-file ${STORE}/lock`,
    ),
    fails: { ADD: 110, CHECK: 110 },
    says: [STORE],
  },
  {
    title: 'a store that cannot be written to',
    prepare: inHost(`mount --bind ${STORE} ${STORE}; mount -o remount,ro,bind ${STORE}`, `umount ${STORE}`),
    fails: { ADD: 110, STATUS: 50 },
    says: [STORE],
  },
  {
    title: 'a store without room for one more file',
    prepare: inHost(`mount -t tmpfs -o nr_inodes=2 full ${STORE}; touch ${STORE}/lock`, `umount ${STORE}`),
    fails: { ADD: 110 },
    says: [STORE],
  },
  {
    title: 'an address that the store gives to this attachment already',
    prepare: inHost(
      `printf 'newcomer\\r\\neth0' > ${STORE}/10.66.0.77; chmod 600 ${STORE}/10.66.0.77`,
      `rm ${STORE}/10.66.0.77`,
    ),
    fails: { ADD: 102 },
    says: ['newcomer', '10.66.0.77'],
  },
  {
    title: 'an address that an old release gave to this container already',
    prepare: inHost(
      `printf newcomer > ${STORE}/10.66.0.78; chmod 600 ${STORE}/10.66.0.78`,
      `rm ${STORE}/10.66.0.78`,
    ),
    fails: { ADD: 102 },
    says: ['newcomer', '10.66.0.78'],
  },
  {
    title: 'a range whose every address is taken',
    config: range({ subnet: '10.66.0.0/24', rangeStart: '10.66.0.2', rangeEnd: '10.66.0.2' }),
    fails: { ADD: 100 },
    tolerates: ['STATUS', 'DEL', 'GC'],
    says: ['no IP addresses available in range set', '10.66.0.2-10.66.0.2'],
  },
  {
    title: 'a range that only its gateway is in',
    config: range({ subnet: '10.66.0.0/24', rangeStart: '10.66.0.1', rangeEnd: '10.66.0.1' }),
    fails: { ADD: 100 },
    tolerates: ['STATUS', 'DEL', 'GC'],
    says: ['no IP addresses available in range set', '10.66.0.1-10.66.0.1'],
  },
  {
    title: 'STATUS of an exhausted range, where the config wants to hear of it',
    config: {
      ipam: {
        strictStatus: true,
        ranges: [[{ subnet: '10.66.0.0/24', rangeStart: '10.66.0.2', rangeEnd: '10.66.0.2' }]],
      },
    },
    fails: { STATUS: 50 },
    says: ['10.66.0.2-10.66.0.2'],
  },
];

const RESOLVERS: BadCase[] = ['/nowhere/resolv.conf', '/run/odd', '/run/odd/loop'].map((resolvConf) => ({
  title: `the resolver file ${resolvConf}`,
  config: { ipam: { resolvConf } },
  fails: { ADD: 7 },
  tolerates: ['DEL', 'GC'],
  says: ['resolvConf', resolvConf],
}));

const KERNEL: BadCase[] = [
  ...['lo', 'not-a-bridge'].map((bridge) => ({
    title: `a bridge that is the link ${bridge}`,
    config: { bridge },
    prepare: inHost('ip link add not-a-bridge type veth peer name its-peer', 'ip link del not-a-bridge'),
    fails: { ADD: 109, CHECK: 109, STATUS: 50 },
    tolerates: ['DEL', 'GC'] as const,
    says: [bridge],
  })),
  {
    title: 'a bridge that serves another subnet, and says which network that is',
    config: range({ subnet: '10.70.0.0/24' }),
    fails: { ADD: 104 },
    tolerates: ['DEL', 'GC'],
    says: ['br-scene', '10.66.0.1/24', '10.70.0.1/24', 'scene', '(1 attached'],
  },
  {
    title: 'a sandbox that has a link of that name',
    prepare: inHost('ip -n newcomer link add eth0 type veth peer name eth1', 'ip -n newcomer link del eth0'),
    fails: { ADD: 102 },
    tolerates: ['DEL'],
    says: ['eth0', '/run/netns/newcomer'],
  },
  {
    title: 'a host link that looks like this attachment',
    prepare: inHost(
      `ip link add ${hostLinkName('newcomer')} type veth peer name its-peer`,
      `ip link del its-peer`,
    ),
    fails: { ADD: 102 },
    says: [hostLinkName('newcomer'), 'newcomer'],
  },
  ...['01:00:5e:00:00:01', '00:00:00:00:00:00', 'ff:ff:ff:ff:ff:ff'].map((mac) => ({
    title: `the MAC ${mac}, which no link can have`,
    config: { runtimeConfig: { mac } },
    fails: { ADD: 7 },
    tolerates: ['DEL', 'GC'] as const,
    says: ['mac', mac],
  })),
  {
    title: 'a gateway outside its subnet',
    config: range({ subnet: '10.66.0.0/24', gateway: '10.99.0.1' }),
    fails: { ADD: 7 },
    tolerates: ['DEL', 'GC'],
    says: ['gateway', '10.99.0.1'],
  },
  {
    title: 'a route by a gateway that is nowhere near',
    config: { ipam: { routes: [{ dst: '198.18.0.0/15', gw: '172.31.0.1' }] } },
    fails: { ADD: 105 },
    tolerates: ['DEL', 'GC'],
    says: ['198.18.0.0/15', '172.31.0.1'],
  },
  {
    title: 'the same on a bridge that was to be promiscuous',
    config: { promiscMode: true, ipam: { routes: [{ dst: '198.18.0.0/15', gw: '172.31.0.1' }] } },
    fails: { ADD: 105 },
    tolerates: ['DEL', 'GC'],
    says: ['198.18.0.0/15'],
  },
  {
    title: 'a range of multicast addresses',
    config: range({ subnet: 'ff05::/64' }),
    fails: { ADD: 105 },
    tolerates: ['DEL', 'GC'],
    says: ['ff05::'],
  },
];

testRefusals('bridge', [UNREADABLE_RESULTS, WRONG_RESULTS, MISSING_RESULTS, LOST_SANDBOXES, KERNEL].flat());
testRefusals('host-local', [STORES, RESOLVERS].flat());

function withIp(ip: Fields): (good: CniResult) => unknown {
  return (good) => ({ ...good, ips: [ip, ...(good.ips ?? []).slice(1)] });
}

function withInterface(changes: Fields): (good: CniResult) => unknown {
  return (good) => ({
    ...good,
    interfaces: good.interfaces?.map((link, index) => (index === 2 ? { ...link, ...changes } : link)),
  });
}

function withRoute(route: Fields): (good: CniResult) => unknown {
  return (good) => {
    const others = (good.routes ?? []).filter(({ dst }) => dst !== route['dst']);
    return { ...good, routes: [...others, route] };
  };
}

function range(only: Fields): Fields {
  return { ipam: { ranges: [[only]] } };
}

function inHost(script: string, undo: string): (scene: Scene) => Promise<() => Promise<unknown>> {
  return async ({ host }) => {
    await host.shell(script);
    return () => host.shell(undo);
  };
}

// The name that the attachment's host link must have, worked out apart from the plugins.
function hostLinkName(containerId: string): string {
  return `veth${createHash('sha256').update(`scene\0${containerId}\0eth0`).digest('hex').slice(0, 11)}`;
}
