// Wrong fields and wrong surroundings given to the packaged firewall plugin, which nothing else has validated.
// Part of `npm run test:binary`; each call must fail in the documented way and leave the host alone.
import { type BadCase, type Fields, type Scene, strictVerbs, testRefusals } from '../support/bad-input.ts';
import { admit } from '../support/firewall.ts';

/** A good config of firewall behind the resident's bridge, with these fields in place of some of it. */
function firewall(fields: Fields): (scene: Scene) => Fields {
  return ({ resident }) => ({ type: 'firewall', prevResult: resident.result, ...fields });
}

const CONFIG: readonly BadCase[] = (
  [
    ['a backend nobody has', { backend: 'ipfw' }, ['backend', 'ipfw']],
    ['a backend that is a number', { backend: 1 }, ['backend', '1']],
    ['a policy nobody knows', { ingressPolicy: 'closed' }, ['ingressPolicy', 'closed']],
    ['a policy that is a list', { ingressPolicy: ['open'] }, ['ingressPolicy', '["open"]']],
    [
      'a chain that is built in',
      { iptablesAdminChainName: 'FORWARD' },
      ['iptablesAdminChainName', 'FORWARD'],
    ],
    [
      'a chain with an option behind it',
      { iptablesAdminChainName: 'X -j ACCEPT' },
      ['iptablesAdminChainName', 'X -j ACCEPT'],
    ],
    [
      'a chain with a line behind it',
      { iptablesAdminChainName: 'X\n-F FORWARD' },
      ['iptablesAdminChainName'],
    ],
    ['a chain of a megabyte', { iptablesAdminChainName: 'X'.repeat(1_000_000) }, ['iptablesAdminChainName']],
    ['a zone that is an option', { firewalldZone: '--user' }, ['firewalldZone', '--user']],
    ['a zone with a blank', { firewalldZone: 'my zone' }, ['firewalldZone', 'my zone']],
    ['a strictness in quotes', { strictStatus: 'yes' }, ['strictStatus', 'yes']],
  ] as const
).map(([title, fields, says]) => ({
  title,
  config: firewall(fields),
  ...strictVerbs(7),
  says: [...says],
}));

/** What another plugin should not have said. */
const RESULTS: readonly BadCase[] = (
  [
    ['no result', undefined, ['prevResult']],
    [
      'an address that is none',
      { cniVersion: '1.1.0', interfaces: [{ name: 'br0' }], ips: [{ address: '10.66.0.300/24' }] },
      ['10.66.0.300/24'],
    ],
    [
      'a link with a quote in its name',
      { cniVersion: '1.1.0', interfaces: [{ name: 'br"0' }], ips: [{ address: '10.66.0.77/24' }] },
      ['prevResult.interfaces[0].name'],
    ],
    [
      'a link with a line in its name',
      { cniVersion: '1.1.0', interfaces: [{ name: 'br0\n-F' }], ips: [{ address: '10.66.0.77/24' }] },
      ['prevResult.interfaces[0].name'],
    ],
    [
      'a link whose name is too long',
      { cniVersion: '1.1.0', interfaces: [{ name: 'b'.repeat(16) }], ips: [{ address: '10.66.0.77/24' }] },
      ['prevResult.interfaces[0].name', 'bbbbbbbbbbbbbbbb'],
    ],
  ] as const
).map(([title, prevResult, says]) => ({
  title,
  config: firewall({ prevResult }),
  fails: { ADD: 7, CHECK: 7 },
  tolerates: ['STATUS', 'DEL', 'GC'],
  says: [...says],
}));

/** What iptables takes for more than a name, with the backend that writes it there. */
const NAMES: readonly BadCase[] = ['br+', 'br;0', '-i'].map((name) => ({
  title: `a link called ${name} in a rule of iptables`,
  config: firewall({
    backend: 'iptables',
    prevResult: { cniVersion: '1.1.0', interfaces: [{ name }], ips: [{ address: '10.66.0.77/24' }] },
  }),
  fails: { ADD: 7 },
  tolerates: ['STATUS', 'DEL', 'GC'],
  says: [name],
}));

testRefusals(
  'firewall',
  [CONFIG, RESULTS, NAMES]
    .flat()
    .map((badCase: BadCase) => ({ ...badCase, call: { ...badCase.call, plugin: 'firewall' } })),
  async ({ host, resident }) => {
    await admit(host, resident, { ingressPolicy: 'same-bridge' });
  },
);
