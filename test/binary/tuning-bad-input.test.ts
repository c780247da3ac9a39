// Wrong fields and wrong surroundings given to the packaged tuning and loopback plugins, which nothing else has validated.
// Part of `npm run test:binary`; each call must fail in the documented way and leave the host alone.
import { mkdirSync, writeFileSync } from 'node:fs';
import {
  type BadCase,
  everyVerb,
  type Fields,
  type Scene,
  strictVerbs,
  testRefusals,
} from '../support/bad-input.ts';
import { tuningCallOf } from '../support/tuned.ts';

const SYSCTL = { 'net.core.somaxconn': '512' };

/** A good config of tuning behind the resident's bridge, with these fields in place of some of it. */
function tuning(fields: Fields): (scene: Scene) => Fields {
  return ({ resident }) => ({
    type: 'tuning',
    prevResult: resident.result,
    sysctl: SYSCTL,
    mtu: 1400,
    ...fields,
  });
}

type Row = readonly [title: string, fields: Fields, says: readonly string[]];

const KEYS: readonly Row[] = (
  [
    ['of the kernel', 'kernel.hostname'],
    ['of the file system', 'fs.file-max'],
    ['by its whole path', '/proc/sys/net/core/somaxconn'],
    ['that leads out of its directory', '../../../etc/passwd'],
    ['that is its directory', 'net'],
    ['that is nothing', ''],
    ['with a NUL', 'net.core.somaxconn\0'],
    ['of 300 characters', `net.${'x'.repeat(300)}`],
  ] as const
).map(([title, key]) => [
  `a sysctl ${title}`,
  { sysctl: { ...SYSCTL, [key]: '1' } },
  ['"sysctl"', 'below "net."'],
]);

const FIELDS: readonly Row[] = [
  ...KEYS,
  [
    'a sysctl in args that is none',
    { args: { cni: { sysctl: { 'vm.swappiness': '1' } } } },
    ['vm.swappiness'],
  ],
  [
    'a sysctl that is a number',
    { sysctl: { 'net.core.somaxconn': 512 } },
    ['sysctl.net.core.somaxconn', '512'],
  ],
  ['a sysctl that is null', { sysctl: { 'net.core.somaxconn': null } }, ['sysctl.net.core.somaxconn']],
  [
    'a sysctl with a NUL in its value',
    { sysctl: { 'net.core.somaxconn': '1\0' } },
    ['sysctl.net.core.somaxconn'],
  ],
  ['sysctls that are a list', { sysctl: ['net.core.somaxconn=512'] }, ['"sysctl"']],
  ['sysctls that are text', { sysctl: 'net.core.somaxconn=512' }, ['"sysctl"', 'net.core.somaxconn=512']],
  ['a MAC address of words', { mac: 'aa:bb:cc' }, ['"mac"', 'aa:bb:cc']],
  ['a MAC address of many', { mac: '01:00:5e:00:00:01' }, ['"mac"', '01:00:5e:00:00:01', 'multicast']],
  ['a MAC address of zeros', { mac: '00:00:00:00:00:00' }, ['"mac"', '00:00:00:00:00:00', 'zero']],
  ['a MAC address that is a number', { mac: 2 }, ['"mac"', '2']],
  ['a wrong MAC address of the runtime', { runtimeConfig: { mac: 'x' } }, ['"runtimeConfig.mac"', '"x"']],
  ['a wrong MAC address in args', { args: { cni: { mac: 'x' } } }, ['"args.cni.mac"', '"x"']],
  ['an MTU of 67', { mtu: 67 }, ['"mtu"', '67']],
  ['an MTU of 65536', { mtu: 65_536 }, ['"mtu"', '65536']],
  ['a negative MTU', { mtu: -1 }, ['"mtu"', '-1']],
  ['an MTU in quotes', { mtu: '1400' }, ['"mtu"', '1400']],
  ['an MTU with a fraction', { mtu: 1400.5 }, ['"mtu"', '1400.5']],
  ['a promisc in quotes', { promisc: 'true' }, ['"promisc"', 'true']],
  ['an allmulti that is 1', { allmulti: 1 }, ['"allmulti"', '1']],
  ['a negative txQLen', { txQLen: -1 }, ['"txQLen"', '-1']],
  ['a txQLen beyond 31 bits', { txQLen: 2 ** 31 }, ['"txQLen"', '2147483648']],
  ['a txQLen beyond 64 bits', { txQLen: 1e30 }, ['"txQLen"', '1e+30']],
  ['a wrong txQLen in args', { args: { cni: { txQLen: 'x' } } }, ['"args.cni.txQLen"', '"x"']],
  ['a dataDir without a root', { dataDir: 'run/cni' }, ['"dataDir"', 'run/cni']],
  ['a dataDir that is a number', { dataDir: 7 }, ['"dataDir"', '7']],
  ['args that are text', { args: 'MAC=x' }, ['"args"', 'MAC=x']],
  ['runtime values that are a list', { runtimeConfig: [] }, ['"runtimeConfig"']],
];

const CONFIG: readonly BadCase[] = FIELDS.map(([title, fields, says]) => ({
  title,
  config: tuning(fields),
  says,
  ...strictVerbs(7),
}));

const TEXT = '{"cniVersion":"1.1.0","name":"scene","type":"tuning","prevResult":{"cniVersion":"1.1.0"},';

const SURROUNDINGS: readonly BadCase[] = [
  {
    title: 'a sysctl twice',
    stdin: `${TEXT}"sysctl":{"net.core.somaxconn":"1","net.core.somaxconn":"2"}}`,
    fails: { ADD: 7, CHECK: 7, STATUS: 7 },
    tolerates: ['DEL'],
    says: ['"sysctl"', '"net.core.somaxconn" twice'],
  },
  {
    title: 'a sysctl twice in two spellings',
    config: tuning({ sysctl: { 'net.core.somaxconn': '1', 'net/core/somaxconn': '1' } }),
    fails: { ADD: 7, CHECK: 7 },
    tolerates: ['DEL', 'GC'],
    says: ['net.core.somaxconn', 'net/core/somaxconn', 'twice'],
  },
  ...(
    [
      ['a list without an interface plugin', undefined, ['prevResult', 'must follow an interface plugin']],
      ['a result that is text', 'none', ['prevResult', 'none']],
      ['a result of another family', { cniVersion: '0.2.0' }, ['prevResult', '0.2.0']],
    ] as const
  ).map(
    ([title, prevResult, says]): BadCase => ({
      title,
      config: tuning({ prevResult }),
      fails: { ADD: 7, CHECK: 7 },
      tolerates: ['DEL', 'GC'],
      says,
    }),
  ),
  {
    title: 'unknown keys in CNI_ARGS',
    call: { args: 'K8S_POD_NAME=web' },
    config: tuning({}),
    fails: { ADD: 4 },
    tolerates: ['DEL'],
    says: ['CNI_ARGS', 'K8S_POD_NAME', 'IgnoreUnknown'],
  },
  {
    title: 'a wrong MAC address in CNI_ARGS',
    call: { args: 'MAC=x' },
    config: tuning({}),
    fails: { ADD: 7 },
    tolerates: ['DEL'],
    says: ['CNI_ARGS MAC', '"x"'],
  },
  {
    title: 'a link that nobody has made',
    config: tuning({}),
    fails: { ADD: 7 },
    tolerates: ['DEL', 'GC'],
    says: ['"eth0" does not exist', '/run/netns/newcomer'],
  },
  {
    title: 'a setting that the kernel does not have',
    config: tuning({ mtu: 0, sysctl: { ...SYSCTL, 'net.ipv4.nosuch': '1' } }),
    fails: { ADD: 106, CHECK: 107 },
    tolerates: ['STATUS', 'DEL', 'GC'],
    says: [],
  },
  {
    title: 'a value that the kernel will not have',
    config: tuning({ mtu: 0, sysctl: { ...SYSCTL, 'net.ipv4.ip_forward': 'x' } }),
    fails: { ADD: 105, CHECK: 107 },
    tolerates: ['STATUS', 'DEL', 'GC'],
    says: [],
  },
  ...(['/run/odd/file', '/run/odd/fifo', '/run/odd/loop', '/run/nowhere'] as const).map(
    (netns): BadCase => ({
      title: `the sandbox ${netns}`,
      call: { containerId: 'newcomer', netns, ifname: 'eth0' },
      config: tuning({}),
      fails: { ADD: 8, CHECK: 8 },
      tolerates: ['DEL'],
      says: [netns],
    }),
  ),
  {
    title: 'a dataDir that is a file',
    config: tuning({ mtu: 0, dataDir: '/run/odd/file' }),
    fails: { ADD: 5 },
    tolerates: ['STATUS', 'DEL', 'GC'],
    says: ['/run/odd/file/newcomer_eth0.json'],
  },
  {
    title: 'a dataDir that leads in circles',
    config: tuning({ mtu: 0, dataDir: '/run/odd/loop' }),
    fails: { ADD: 5 },
    tolerates: ['STATUS', 'DEL', 'GC'],
    says: ['/run/odd/loop/newcomer_eth0.json'],
  },
  {
    title: 'a container id longer than a file name can be',
    call: { containerId: 'c'.repeat(300), netns: '/run/netns/newcomer', ifname: 'eth0' },
    config: tuning({ mtu: 0 }),
    fails: { ADD: 5 },
    tolerates: ['DEL'],
    says: ['/run/cni/tuning/cccc'],
  },
  {
    title: 'a config that is cut off',
    stdin: '{"cniVersion":"1.1.0","name":"scene"',
    fails: everyVerb(6),
    says: [],
  },
  {
    title: 'a version of the future',
    config: tuning({ cniVersion: '9.9.9' }),
    fails: everyVerb(1),
    says: ['9.9.9'],
  },
];

testRefusals(
  'tuning',
  [...CONFIG, ...SURROUNDINGS].map((badCase) => ({
    ...badCase,
    call: { ...badCase.call, plugin: 'tuning' },
  })),
  async ({ host, resident }) => {
    await host.runPlugin('ADD', tuningCallOf(resident, { sysctl: SYSCTL, mtu: 1400 }));
    mkdirSync(host.file('/run/cni/tuning/keep'), { recursive: true });
    writeFileSync(host.file('/run/cni/tuning/keep/me'), '');
  },
);

const LOOPBACK: readonly BadCase[] = [
  {
    title: 'no sandbox',
    call: { containerId: 'newcomer', netns: '/run/nowhere', ifname: 'lo' },
    fails: { ADD: 8, CHECK: 8 },
    tolerates: ['DEL'],
    says: ['/run/nowhere'],
  },
  {
    title: 'a FIFO in its place',
    call: { containerId: 'newcomer', netns: '/run/odd/fifo', ifname: 'lo' },
    fails: { ADD: 8, CHECK: 8 },
    tolerates: ['DEL'],
    says: ['/run/odd/fifo'],
  },
  {
    title: 'a result that is text',
    config: { type: 'loopback', prevResult: 'none' },
    fails: { ADD: 7, CHECK: 7 },
    tolerates: ['GC'],
    says: ['prevResult', 'none'],
  },
  {
    title: 'a config that is cut off',
    stdin: '{"cniVersion":"1.1.0","name":"scene"',
    fails: everyVerb(6),
    says: [],
  },
  {
    title: 'a network name with a slash',
    config: { type: 'loopback', name: 'a/b' },
    fails: everyVerb(7),
    says: ['a/b'],
  },
];

testRefusals(
  'loopback',
  LOOPBACK.map((badCase) => ({ ...badCase, call: { ...badCase.call, plugin: 'loopback' } })),
);
