// Wrong environment variables, sandboxes and CNI_ARGS given to the packaged plugins.
// Part of `npm run test:binary`; each call must fail in the documented way and leave the host alone.
import { printable } from '../../shared/cni/error.ts';
import { type BadCase, everyVerb, testRefusals } from '../support/bad-input.ts';

/** A text as messages show it, without its quotes. */
const shown = (text: string) => printable(JSON.stringify(text).slice(1, -1));

/** The verbs that are about one attachment. */
const attachmentVerbs = { ADD: 4, CHECK: 4, DEL: 4 };

const VARIABLES: BadCase[] = [
  {
    title: 'a command that does not exist',
    call: { env: { CNI_COMMAND: 'PLUG' } },
    says: ['CNI_COMMAND', 'PLUG'],
  },
  { title: 'a command in lower case', call: { env: { CNI_COMMAND: 'add' } }, says: ['CNI_COMMAND', 'add'] },
  { title: 'a command with a space', call: { env: { CNI_COMMAND: 'ADD ' } }, says: ['CNI_COMMAND', 'ADD '] },
  {
    title: 'a command that is a property of every object',
    call: { env: { CNI_COMMAND: 'constructor' } },
    says: ['CNI_COMMAND', 'constructor'],
  },
  { title: 'a path list that is missing', call: { env: { CNI_PATH: undefined } }, says: ['CNI_PATH'] },
  { title: 'a path list that is empty', call: { env: { CNI_PATH: '' } }, says: ['CNI_PATH'] },
].map((badCase) => ({ ...badCase, fails: everyVerb(4) }));

const IDENTITIES: BadCase[] = [
  ...[
    '../../etc/passwd',
    'a/b',
    '.hidden',
    '-dash',
    '_low',
    'a b',
    'naïve',
    'a\nb',
    'a;b',
    '"',
    '\u202e',
  ].map((containerId) => ({
    title: `the container id ${JSON.stringify(containerId)}`,
    call: { containerId },
    says: ['CNI_CONTAINERID', shown(containerId)],
  })),
  {
    title: 'a container id that is missing',
    call: { env: { CNI_CONTAINERID: undefined } },
    says: ['CNI_CONTAINERID'],
  },
  { title: 'a container id that is empty', call: { containerId: '' }, says: ['CNI_CONTAINERID'] },
  {
    title: 'a container id of 100,000 characters that ends in a slash',
    call: { containerId: `${'a'.repeat(100_000)}/` },
    says: ['CNI_CONTAINERID', 'aaaa'],
  },
  ...[
    '.',
    '..',
    'a/b',
    '../eth0',
    'a:b',
    'a b',
    'tab\there',
    'line\nfeed',
    'no\u00a0break',
    'next\u0085line',
  ].map((ifname) => ({
    title: `the link name ${JSON.stringify(ifname)}`,
    call: { ifname },
    says: ['CNI_IFNAME', shown(ifname)],
  })),
  {
    title: 'a link name of 16 bytes',
    call: { ifname: 'eth0123456789abc' },
    says: ['CNI_IFNAME', 'eth0123456789abc'],
  },
  {
    title: 'a link name of 8 letters and 16 bytes',
    call: { ifname: 'äöüäöüäö' },
    says: ['CNI_IFNAME', 'äöüäöüäö'],
  },
  { title: 'a link name that is missing', call: { env: { CNI_IFNAME: undefined } }, says: ['CNI_IFNAME'] },
  { title: 'a link name that is empty', call: { ifname: '' }, says: ['CNI_IFNAME'] },
].map((badCase) => ({ ...badCase, fails: attachmentVerbs }));

const MISSING: BadCase[] = [
  {
    title: 'a sandbox that is missing',
    call: { env: { CNI_NETNS: undefined } },
    fails: { ADD: 4, CHECK: 4 },
    tolerates: ['DEL'],
    says: ['CNI_NETNS'],
  },
  {
    title: 'all variables missing, and names each of them',
    call: {
      env: { CNI_CONTAINERID: undefined, CNI_NETNS: undefined, CNI_IFNAME: undefined, CNI_PATH: undefined },
    },
    fails: { ADD: 4, CHECK: 4 },
    says: ['CNI_CONTAINERID', 'CNI_NETNS', 'CNI_IFNAME', 'CNI_PATH'],
  },
];

// For DEL a path that is no network namespace means that the sandbox is gone.
const SANDBOXES: BadCase[] = [
  ['does not exist', '/run/netns/nowhere'],
  ['is a regular file', '/run/odd/file'],
  ['is a directory', '/run/odd'],
  ['is a pipe that nobody writes to', '/run/odd/fifo'],
  ['is a symlink to itself', '/run/odd/loop'],
  ['is a device', '/dev/null'],
  ['lies below a file', '/run/odd/file/netns'],
  ['is a namespace of another kind', '/proc/self/ns/uts'],
  ['is a file of /proc that is no namespace', '/proc/self/status'],
  ['is a relative path to nothing', 'newcomer'],
  ['has 5,000 characters', `/${'n'.repeat(4999)}`],
].map(([what = '', netns = '']) => ({
  title: `a sandbox that ${what}`,
  call: { netns },
  fails: { ADD: 8 },
  tolerates: ['DEL'],
  says: ['CNI_NETNS', netns.slice(0, 60)],
}));

const OWN_SANDBOX: BadCase[] = [
  ['by the path of the process itself', '/proc/self/ns/net'],
  ['by the path of another process on the host', '/proc/1/ns/net'],
].map(([how = '', netns = '']) => ({
  title: `the host itself as sandbox, given ${how}`,
  call: { netns },
  fails: { ADD: 8 },
  says: ['CNI_NETNS', netns],
}));

const ARGS: BadCase[] = [
  ['a pair without a value', 'MAC', ['MAC']],
  ['a pair with two values', 'MAC=a=b', ['MAC=a=b']],
  ['a semicolon at the end', 'IgnoreUnknown=1;', ['CNI_ARGS']],
  ['a key that nobody knows', 'FOO=1', ['FOO', 'IgnoreUnknown']],
  ['an address without IgnoreUnknown', 'IP=10.66.0.9', ['IP', 'IgnoreUnknown']],
  ['a key in the wrong case', 'mac=02:00:00:00:00:01', ['mac', 'IgnoreUnknown']],
  ['IgnoreUnknown that is no boolean', 'IgnoreUnknown=maybe', ['IgnoreUnknown', 'maybe']],
  ['an address that is none', 'IgnoreUnknown=1;IP=10.66.0.300', ['IP', '10.66.0.300']],
  ['an address with a zone', 'IgnoreUnknown=1;IP=fe80::1%eth0', ['IP', 'fe80::1%eth0']],
  ['100,000 characters of nonsense', 'x'.repeat(100_000), ['CNI_ARGS', 'xxxx']],
].map(([what, args, says]) => ({
  title: `CNI_ARGS with ${what}`,
  call: { args: args as string },
  fails: { ADD: 4, CHECK: 4 },
  tolerates: ['DEL'],
  says: says as string[],
}));

const REQUESTS: BadCase[] = [
  ['outside every range', '10.67.0.9'],
  ['that is the gateway', '10.66.0.1'],
  ['that is the network', '10.66.0.0'],
  ['that is the broadcast address', '10.66.0.255'],
  ['that another container has', '10.66.0.2'],
  ['that another container has, written as IPv6', '::ffff:10.66.0.2'],
].map(([what, ip = '']) => ({
  title: `CNI_ARGS with an address ${what}`,
  call: { args: `IgnoreUnknown=1;IP=${ip}` },
  fails: { ADD: 101 },
  tolerates: ['DEL'],
  says: [ip.replace('::ffff:', '')],
}));

const MACS: BadCase[] = [
  ['no MAC at all', 'MAC=zz', 'zz'],
  ['a MAC of eight bytes', 'MAC=02:00:00:00:00:00:00:01', '02:00:00:00:00:00:00:01'],
].map(([what, args = '', mac = '']) => ({
  title: `CNI_ARGS with ${what}`,
  call: { args },
  fails: { ADD: 7, CHECK: 7 },
  tolerates: ['DEL'],
  says: ['MAC', mac],
}));

testRefusals('bridge', [VARIABLES, IDENTITIES, MISSING, SANDBOXES, OWN_SANDBOX, ARGS, REQUESTS, MACS].flat());
