// One process for a whole attachment: nothing but the number of processes may differ from a list of the four plugins, and
// what one of the two has made, the other checks and removes. Part of `npm run test:binary`.
import { describe, expect, test } from 'vitest';
import {
  addList,
  asOne,
  CHAIN,
  callsOfList,
  checkList,
  delList,
  gcList,
  type List,
  MAPPINGS,
  withFields,
} from '../support/list-runner.ts';
import { openTestHost } from '../support/primed-host.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import {
  expectError,
  expectResult,
  expectSuccess,
  type PluginCall,
  type Verb,
} from '../support/run-plugin.ts';
import { difference, type Snapshot } from '../support/snapshot.ts';
import { runTraced } from '../support/strace.ts';

const ONE = asOne(CHAIN);
const CHECKED = withFields(CHAIN, { bridge: { ipspoofchk: true } });

/** With what each of them has to do in a way of its own. */
const VARIANTS: readonly (readonly [title: string, list: List])[] = [
  ['with everything', CHAIN],
  ['with checked frames', CHECKED],
  [
    'with iptables',
    withFields(CHAIN, { bridge: { ipMasqBackend: 'iptables' }, portmap: { backend: 'iptables' } }),
  ],
  ['with isolated containers', withFields(CHAIN, { firewall: { ingressPolicy: 'isolated' } })],
  ['of bridge and portmap', { ...CHAIN, plugins: CHAIN.plugins.slice(0, 2) }],
];

interface Scene {
  readonly host: PrivateHost;
  readonly pod: Sandbox;
  readonly before: Snapshot;
}

/** A host on which the network was in use, by either. */
async function openUsed(list: List = CHAIN): Promise<Scene> {
  const host = await openTestHost();
  for (const used of [list, asOne(list)]) {
    const earlier = await host.addSandbox('earlier');
    const prevResult = await addList(host, used, { sandbox: earlier });
    await delList(host, used, { sandbox: earlier, prevResult });
    await earlier.delete();
  }
  const pod = await host.addSandbox('pod');
  return { host, pod, before: await stateOf(host) };
}

/** The index beside the store is rebuilt whenever it is in doubt. */
async function stateOf(host: PrivateHost): Promise<Snapshot> {
  return (await host.snapshot()).filter((line) => !line.includes('/networks/.patchbay'));
}

/** MACs, in whatever form, and the identity of a namespace are other ones on every host. */
function masked(lines: readonly string[]): string[] {
  return lines
    .map((line) =>
      line
        .replace(/\b[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}\b/g, 'MAC')
        .replace(/ cookie \d+/, ' cookie')
        .replace(/fe80::[0-9a-f:]+|0xfe80[0-9a-f]{28}/g, 'LINK-LOCAL')
        // ARP and neighbour discovery hold it in numbers.
        .replace(/^(nft element of (?:arps|ndoptions): .*?",)\d+/, '$1MAC'),
    )
    .sort();
}

describe('one process is the same as a list', () => {
  for (const [title, list] of VARIANTS) {
    test.for(['0.4.0', '1.0.0', '1.1.0'])(`${title}: result and host at %s`, async (cniVersion) => {
      const made = await Promise.all(
        [list, asOne(list)].map(async (plugins) => {
          const host = await openTestHost();
          const sandbox = await host.addSandbox('pod');
          const result = await addList(host, { ...plugins, cniVersion }, { sandbox });
          return { result: masked([JSON.stringify(result)]), host: masked(await stateOf(host)) };
        }),
      );
      const [chain, one] = made;
      expect(one?.result).toEqual(chain?.result);
      expect(one?.result[0]).toContain(`"cniVersion":"${cniVersion}"`);
      expect(difference(chain?.host ?? [], one?.host ?? [])).toEqual([]);
    });

    test(`${title}: what is left after DEL is nothing`, async () => {
      const { host, pod, before } = await openUsed(list);
      const known = { sandbox: pod, prevResult: await addList(host, asOne(list), { sandbox: pod }) };
      expectSuccess(await checkList(host, asOne(list), known));
      await delList(host, asOne(list), known);
      expect(difference(before, await stateOf(host))).toEqual([]);
      await delList(host, asOne(list), known);
      expect(difference(before, await stateOf(host))).toEqual([]);
    });

    test(`${title}: either checks and removes what the other made`, async () => {
      const { host, pod, before } = await openUsed(list);
      for (const [maker, other] of [
        [list, asOne(list)],
        [asOne(list), list],
      ] as const) {
        const known = { sandbox: pod, prevResult: await addList(host, maker, { sandbox: pod }) };
        expectSuccess(await checkList(host, other, known));
        await delList(host, other, known);
        expect(difference(before, await stateOf(host))).toEqual([]);

        await addList(host, maker, { sandbox: pod });
        await gcList(host, other, []);
        expect(difference(before, await stateOf(host))).toEqual([]);
      }
    });
  }

  test('but for what DEL knows: it needs neither ports nor result, nor the parts that made them', async () => {
    const { host, pod, before } = await openUsed();
    const { cniVersion, name } = ONE;
    const [config] = ONE.plugins;
    for (const fields of [
      { ipam: config?.['ipam'] },
      { ...config, firewall: undefined, portmap: undefined },
    ]) {
      await addList(host, ONE, { sandbox: pod });
      const bare = { cniVersion, name, type: 'patchbay', ...fields };
      const call = { plugin: 'patchbay', config: bare, containerId: 'pod', netns: '', ifname: 'eth0' };
      expectSuccess(await host.runPlugin('DEL', call));
      expect(
        difference(before, await stateOf(host)).filter((line) => !line.includes('/run/cni/tuning')),
      ).toEqual([]);
    }
  });
});

describe('one process', () => {
  test.for([
    ['', ONE, 1],
    [' of checked frames, the first before the port comes up', asOne(CHECKED), 2],
  ] as const)('changes the ruleset once in DEL and %s', async ([, list, batches]) => {
    const host = await openTestHost();
    const pod = await host.addSandbox('pod');
    for (const turn of ['on a fresh host', 'later']) {
      const added = await traced(host, 'ADD', list, { sandbox: pod });
      const prevResult = expectResult(added);
      expect(countsIn(added), turn).toEqual({ batches, programs: 1 });
      const removed = await traced(host, 'DEL', list, { sandbox: pod, prevResult });
      expectSuccess(removed);
      expect(countsIn(removed), turn).toEqual({ batches: 1, programs: 1 });
    }
  });

  test('runs no program and changes no rule in CHECK and STATUS', async () => {
    const host = await openTestHost();
    const pod = await host.addSandbox('pod');
    const prevResult = await addList(host, ONE, { sandbox: pod });
    const checked = await traced(host, 'CHECK', ONE, { sandbox: pod, prevResult });
    expect(countsIn(checked)).toEqual({ batches: 0, programs: 1 });
    const before = await stateOf(host);
    expect(await host.runPlugin('STATUS', callFor(ONE, pod))).toMatchObject({
      exitCode: 0,
      stdout: '',
      stderr: '',
    });
    expect(difference(before, await stateOf(host))).toEqual([]);
  });

  test('that cannot publish a port leaves nothing, and says whose it is', async () => {
    const { host, pod } = await openUsed();
    const holder = await host.addSandbox('holder');
    await addList(host, CHAIN, { sandbox: holder });
    const before = await stateOf(host);
    for (const portMappings of [MAPPINGS, MAPPINGS.slice(1)]) {
      const [call] = callsOfList(ONE, { sandbox: pod, portMappings });
      const { code, msg } = expectError(await host.runPlugin('ADD', call as PluginCall));
      expect({ code, msg }).toEqual({
        code: 103,
        msg: expect.stringMatching(/^In "portmap": .*5353|^In "portmap": .*8080/),
      });
      expect(msg).toContain('id: holder');
      expect(difference(before, await stateOf(host))).toEqual([]);
    }
  });

  test('that is asked twice refuses, and leaves the first attachment alone', async () => {
    const { host, pod } = await openUsed();
    const prevResult = await addList(host, ONE, { sandbox: pod });
    const before = await stateOf(host);
    const { code, msg } = expectError(await host.runPlugin('ADD', callFor(ONE, pod)));
    expect({ code, msg }).toEqual({ code: 102, msg: expect.stringMatching(/^In "bridge": .*DEL/) });
    expect(difference(before, await stateOf(host))).toEqual([]);
    expectSuccess(await checkList(host, ONE, { sandbox: pod, prevResult }));
  });

  test('of another container does not see what one on this network has', async () => {
    const { host, pod, before } = await openUsed();
    const neighbour = await host.addSandbox('neighbour');
    await addList(host, ONE, { sandbox: pod });
    const alone = await stateOf(host);
    const others = [{ hostPort: 9090, containerPort: 90, protocol: 'tcp' }];
    await addList(host, CHAIN, { sandbox: neighbour, portMappings: others });
    await delList(host, ONE, { sandbox: neighbour });
    expect(difference(alone, await stateOf(host))).toEqual([]);
    await delList(host, CHAIN, { sandbox: pod });
    await neighbour.delete();
    expect(difference(before, await stateOf(host))).toEqual([]);
  });

  test('that collects without a list frees what has lost its link, addresses too, and nothing else', async () => {
    const { host, pod, before } = await openUsed();
    const lost = await host.addSandbox('lost');
    const prevResult = await addList(host, ONE, { sandbox: pod });
    const others = [{ hostPort: 9090, containerPort: 90, protocol: 'tcp' }];
    await addList(host, ONE, { sandbox: lost, portMappings: others });
    await lost.delete();
    await gcList(host, ONE);
    expectSuccess(await checkList(host, ONE, { sandbox: pod, prevResult }));
    await delList(host, ONE, { sandbox: pod, prevResult });
    // What a link was like before is kept until somebody says that its container is gone.
    expect(
      difference(before, await stateOf(host)).filter((line) => !line.includes('/run/cni/tuning')),
    ).toEqual([]);
  });
});

describe('CHECK names the plugin and the difference', () => {
  test.for<readonly [string, string, string, RegExp]>([
    ['bridge', 'an address', 'ip -n pod addr del 10.95.0.2/24 dev eth0', /lacks address "10\.95\.0\.2\/24"/],
    [
      'bridge',
      'a masqueraded address',
      'nft delete element inet patchbay masquerade4 { 10.95.0.2 }',
      /10\.95\.0\.2/,
    ],
    ['portmap', 'a port', 'nft delete element inet patchbay hostports4 { tcp . 8080 }', /tcp port 8080/i],
    ['firewall', 'a policy', 'nft flush set inet patchbay closed-bridges', /policy/],
    ['tuning', 'an MTU', 'ip -n pod link set eth0 mtu 1300', /mtu.*1300/i],
    ['tuning', 'a sysctl', 'ip netns exec pod sysctl -qw net.ipv4.conf.eth0.arp_filter=0', /arp_filter/],
  ])('of %s: %s', async ([plugin, , damage, says]) => {
    const host = await openTestHost();
    const pod = await host.addSandbox('pod');
    const prevResult = await addList(host, ONE, { sandbox: pod });
    await host.shell(damage);
    const { code, msg } = expectError(await checkList(host, ONE, { sandbox: pod, prevResult }));
    expect({ code, msg }).toEqual({ code: 107, msg: expect.stringMatching(says) });
    expect(msg).toMatch(new RegExp(`^In "${plugin}": `));
  });
});

test('STATUS names the plugin that cannot serve', async () => {
  const host = await openTestHost();
  await host.shell('ip link add cni-whole0 type veth peer name other');
  const { code, msg } = expectError(
    await host.runPlugin('STATUS', { plugin: 'patchbay', config: callFor(ONE).config }),
  );
  expect({ code, msg }).toEqual({ code: 50, msg: expect.stringMatching(/^In "bridge": .*cni-whole0/) });
});

function callFor(list: List, sandbox = { name: 'pod', path: '/run/netns/pod' } as Sandbox): PluginCall {
  return callsOfList(list, { sandbox })[0] as PluginCall;
}

function traced(host: PrivateHost, verb: Verb, list: List, known: Parameters<typeof callsOfList>[1]) {
  const [call] = callsOfList(list, known);
  return runTraced(host, verb, call as PluginCall, ['-f', '-e', 'trace=sendto,sendmsg,execve']);
}

function countsIn({ lines }: { readonly lines: readonly string[] }) {
  const count = (pattern: RegExp) => lines.filter((line) => pattern.test(line)).length;
  return { batches: count(/NFNL_MSG_BATCH_BEGIN/), programs: count(/execve\(/) };
}
