// The life of admitted addresses and ingress policies by the packaged plugins: every verb, alone and beside others.
// Part of `npm run test:binary`; who reaches whom under a policy is the matter of firewall-reach.
import { describe, expect, onTestFinished, test } from 'vitest';
import { type Attached, attach, detach } from '../support/attachment.ts';
import type { Fields } from '../support/chain.ts';
import { admit, runFirewall, WALLED, wallCallOf } from '../support/firewall.ts';
import { openTestHost } from '../support/primed-host.ts';
import type { PrivateHost, Sandbox } from '../support/private-host.ts';
import { openPortWorld } from '../support/reachability.ts';
import { expectError, expectResult, expectSuccess, type PluginOutcome } from '../support/run-plugin.ts';
import { ask } from '../support/service.ts';
import { difference, type Snapshot } from '../support/snapshot.ts';
import { runTraced } from '../support/strace.ts';

const POLICIES = ['open', 'same-bridge', 'isolated'] as const;
const TABLE = 'inet patchbay';

interface Primed {
  readonly host: PrivateHost;
  readonly pod: Sandbox;
  /** After an earlier attachment came and went. */
  readonly before: Snapshot;
}

async function openPrimedHost(): Promise<Primed> {
  const host = await openTestHost();
  const earlier = await host.addSandbox('earlier');
  const attached = await attach(host, WALLED, earlier);
  await admit(host, attached);
  await dismissed(host, attached);
  await earlier.delete();
  const pod = await host.addSandbox('pod');
  return { host, pod, before: await host.snapshot() };
}

async function admitted(host: PrivateHost, sandbox: Sandbox, fields: Fields = {}): Promise<Attached> {
  const attached = await attach(host, WALLED, sandbox);
  await admit(host, attached, fields);
  return attached;
}

async function dismissed(host: PrivateHost, attached: Attached, fields: Fields = {}): Promise<void> {
  expectSuccess(await runFirewall(host, 'DEL', attached, fields));
  await detach(host, attached);
}

/** The elements of the firewall's sets without comments, as `nft` writes them. */
async function elements(host: PrivateHost): Promise<string[]> {
  const { stdout } = await host.run('nft', ['list', 'table', 'inet', 'patchbay']);
  return [...stdout.matchAll(/(?:set|map) ([\w-]+) \{\n[^}]*?elements = \{([^}]*)\}/g)].flatMap(
    ([, name = '', list = '']) =>
      /^(admitted|intra|closed)/.test(name)
        ? list.split(/,\n/).map((element) => `${name} ${element.replace(/ comment "[^"]*"/, '').trim()}`)
        : [],
  );
}

describe('an attachment', () => {
  for (const ingressPolicy of POLICIES) {
    test(`with policy ${ingressPolicy} comes, is checked, goes without a trace, and goes again`, async () => {
      const { host, pod, before } = await openPrimedHost();
      const attached = await admitted(host, pod, { ingressPolicy });
      expectSuccess(await runFirewall(host, 'CHECK', attached, { ingressPolicy }));
      expectSuccess(await host.runPlugin('STATUS', wallCallOf(attached, { ingressPolicy })));
      await dismissed(host, attached, { ingressPolicy });
      expect(difference(before, await host.snapshot())).toEqual([]);
      await dismissed(host, attached, { ingressPolicy });
      expect(difference(before, await host.snapshot())).toEqual([]);
    });

    test(`with policy ${ingressPolicy} goes when DEL knows neither sandbox, result nor policy`, async () => {
      const { host, pod, before } = await openPrimedHost();
      const attached = await admitted(host, pod, { ingressPolicy });
      const call = wallCallOf(attached, { prevResult: undefined });
      expectSuccess(await host.runPlugin('DEL', { ...call, netns: '' }));
      await detach(host, attached);
      expect(difference(before, await host.snapshot())).toEqual([]);
    });
  }

  test('is written down as one element per address, with its owner', async () => {
    const { host, pod } = await openPrimedHost();
    const { ip4, ip6 } = await admitted(host, pod, { ingressPolicy: 'same-bridge' });
    const { bridge } = WALLED;
    expect(await elements(host)).toEqual([
      `admitted4 ${ip4} . "${bridge}"`,
      `admitted6 ${ip6} . "${bridge}"`,
      `intra-bridge "${bridge}" . "${bridge}" : accept`,
      `closed-bridges "${bridge}"`,
    ]);
    const { stdout } = await host.run('nft', ['list', 'set', 'inet', 'patchbay', 'admitted4']);
    expect(stdout).toMatch(/comment "[0-9a-f]{32} [0-9a-f]{16}, net: walled, if: eth0, id: pod"/);
  });

  test('lives through a reload of the whole ruleset as nft lists it', async () => {
    const { host, pod } = await openPrimedHost();
    const attached = await admitted(host, pod, { ingressPolicy: 'isolated' });
    const before = await host.snapshot();
    await host.shell('nft list ruleset > /run/rules; nft flush ruleset; nft -f /run/rules; rm /run/rules');
    expect(difference(before, await host.snapshot())).toEqual([]);
    expectSuccess(await runFirewall(host, 'CHECK', attached, { ingressPolicy: 'isolated' }));
  });

  test('is restored by another ADD when the ruleset was flushed', async () => {
    const { host, pod } = await openPrimedHost();
    const attached = await admitted(host, pod, { ingressPolicy: 'same-bridge' });
    const before = await elements(host);
    await host.run('nft', ['flush', 'ruleset']);
    expect(expectError(await runFirewall(host, 'CHECK', attached)).code).toBe(107);
    await admit(host, attached, { ingressPolicy: 'same-bridge' });
    expect(await elements(host)).toEqual(before);
  });

  test('is not doubled when ADD comes again, and loses the addresses it has no more', async () => {
    const { host, pod } = await openPrimedHost();
    const attached = await admitted(host, pod, { ingressPolicy: 'same-bridge' });
    const once = await host.snapshot();
    await admit(host, attached, { ingressPolicy: 'same-bridge' });
    expect(difference(once, await host.snapshot())).toEqual([]);
    const moved = { ...attached.result, ips: [{ address: '10.93.0.77/24', interface: 2 }] };
    await admit(host, attached, { ingressPolicy: 'same-bridge', prevResult: moved });
    expect((await elements(host)).filter((element) => element.startsWith('admitted'))).toEqual([
      `admitted4 10.93.0.77 . "${WALLED.bridge}"`,
    ]);
  });

  test('takes over what a dead owner left under its address', async () => {
    const { host, pod } = await openPrimedHost();
    const attached = await attach(host, WALLED, pod);
    const ghost = { ...attached, call: { ...attached.call, containerId: 'ghost' } };
    await admit(host, ghost);
    await admit(host, attached);
    expectSuccess(await runFirewall(host, 'CHECK', attached));
    expectSuccess(await runFirewall(host, 'DEL', ghost));
    expectSuccess(await runFirewall(host, 'CHECK', attached));
  });

  test('with a link of another plugin is found by what that plugin reported', async () => {
    const { host, pod, before } = await openPrimedHost();
    await host.shell('ip link add veth-foreign type veth peer name eth7 netns pod');
    const interfaces = [{ name: 'veth-foreign' }, { name: 'eth7', sandbox: pod.path }];
    const result = { cniVersion: '1.1.0', interfaces, ips: [{ address: '192.0.2.9/32', interface: 1 }] };
    const call = { containerId: 'pod', netns: pod.path, ifname: 'eth7', config: WALLED };
    const attached = { call, result, ip4: '192.0.2.9', ip6: '' };
    await admit(host, attached);
    expect(await elements(host)).toEqual(['admitted4 192.0.2.9 . "veth-foreign"']);
    expectSuccess(await runFirewall(host, 'CHECK', attached));
    expectSuccess(await runFirewall(host, 'DEL', attached));
    await host.run('ip', ['link', 'delete', 'veth-foreign']);
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('that nothing on this host leads to is passed on as it is', async () => {
    const { host, pod, before } = await openPrimedHost();
    const result = {
      cniVersion: '1.1.0',
      interfaces: [{ name: 'eth0', sandbox: pod.path }],
      ips: [{ address: '192.0.2.9/24', interface: 0 }],
    };
    const call = { containerId: 'pod', netns: pod.path, ifname: 'eth0', config: WALLED };
    const attached = { call, result, ip4: '', ip6: '' };
    const outcome = await runFirewall(host, 'ADD', attached, { ingressPolicy: 'isolated' });
    expect(expectResult(outcome)).toEqual(result);
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test.for(['0.4.0', '1.0.0', '1.1.0'])('gets its result back at version %s', async (cniVersion) => {
    const { host, pod } = await openPrimedHost();
    const network = { ...WALLED, cniVersion };
    const attached = await attach(host, network, pod);
    const prevResult = { ...attached.result, 'example.org/extra': { kept: true } };
    const outcome = await runFirewall(host, 'ADD', attached, { prevResult });
    expect(JSON.parse(outcome.stdout)).toEqual(prevResult);
    expectSuccess(await runFirewall(host, 'CHECK', attached));
  });

  test('starts no program', async () => {
    const { host, pod } = await openPrimedHost();
    const attached = await attach(host, WALLED, pod);
    for (const verb of ['ADD', 'CHECK', 'DEL'] as const) {
      const call = wallCallOf(attached, { ingressPolicy: 'isolated' });
      const { exitCode, lines } = await runTraced(host, verb, call, ['-f', '-e', 'trace=execve,execveat']);
      expect(exitCode).toBe(0);
      expect(lines.filter((line) => /execve/.test(line))).toHaveLength(1);
    }
  });
});

describe('an ingress policy', () => {
  test('is what the last ADD on the bridge said', async () => {
    const { host, pod, before } = await openPrimedHost();
    const attached = await attach(host, WALLED, pod);
    const seen: string[][] = [];
    for (const ingressPolicy of ['isolated', 'same-bridge', 'open', 'isolated', 'open'] as const) {
      await admit(host, attached, { ingressPolicy });
      seen.push((await elements(host)).filter((element) => !element.startsWith('admitted')));
    }
    const [bridge, pair] = [`"${WALLED.bridge}"`, `"${WALLED.bridge}" . "${WALLED.bridge}"`];
    const closed = (verdict: string) => [`intra-bridge ${pair} : ${verdict}`, `closed-bridges ${bridge}`];
    expect(seen).toEqual([closed('drop'), closed('accept'), [], closed('drop'), []]);
    await dismissed(host, attached);
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('stays with its bridge until the last attachment leaves', async () => {
    const { host, pod, before } = await openPrimedHost();
    const fields = { ingressPolicy: 'same-bridge' };
    const first = await admitted(host, pod, fields);
    const second = await admitted(host, await host.addSandbox('second'), fields);
    await dismissed(host, first, fields);
    expectSuccess(await runFirewall(host, 'CHECK', second, fields));
    await dismissed(host, second, fields);
    await host.run('ip', ['netns', 'delete', 'second']);
    expect(difference(before, await host.snapshot())).toEqual([]);
  });
});

describe('GC', () => {
  const valid = 'cni.dev/valid-attachments';
  const fields = { ingressPolicy: 'isolated' };

  async function collect(host: PrivateHost, more: Fields): Promise<PluginOutcome> {
    const { cniVersion, name } = WALLED;
    return host.runPlugin('GC', {
      plugin: 'firewall',
      config: { cniVersion, name, type: 'firewall', ...more },
    });
  }

  test('removes what is not on the list, and the policy with the last attachment', async () => {
    const { host, pod } = await openPrimedHost();
    await admitted(host, pod, fields);
    const kept = await admitted(host, await host.addSandbox('kept'), fields);
    expectSuccess(await collect(host, { [valid]: [{ containerID: 'kept', ifname: 'eth0' }] }));
    expect((await elements(host)).filter((element) => element.startsWith('admitted4'))).toHaveLength(1);
    expectSuccess(await runFirewall(host, 'CHECK', kept, fields));
    expectSuccess(await collect(host, { [valid]: [] }));
    expect(await elements(host)).toEqual([]);
  });

  test('leaves other networks alone, and without a list whatever has its link', async () => {
    const { host, pod } = await openPrimedHost();
    const attached = await admitted(host, pod, fields);
    const before = await host.snapshot();
    expectSuccess(await collect(host, { name: 'other', [valid]: [] }));
    expectSuccess(await collect(host, {}));
    expect(difference(before, await host.snapshot())).toEqual([]);
    await host.run('ip', ['link', 'delete', attached.result.interfaces?.[1]?.name ?? '']);
    expectSuccess(await collect(host, {}));
    expect(await elements(host)).toEqual([]);
  });
});

describe('CHECK', () => {
  const fields = { ingressPolicy: 'isolated' };
  const bridge = `"${WALLED.bridge}"`;
  const breakages: readonly [what: string, script: string, said: string][] = [
    ['an address', `nft flush set ${TABLE} admitted4`, 'is not in set "admitted4" of table "inet patchbay"'],
    [
      'an address to somebody else',
      `nft flush set ${TABLE} admitted6
       nft 'add element ${TABLE} admitted6 { fd00:93::2 . ${bridge} comment "mine" }'
       nft 'add element ${TABLE} admitted6 { fd00:93::3 . ${bridge} comment "mine" }'`,
      'belongs to "mine"',
    ],
    ['its policy', `nft flush set ${TABLE} closed-bridges`, 'is not in set "closed-bridges"'],
    [
      'the strictness of its policy',
      `nft flush map ${TABLE} intra-bridge
       nft 'add element ${TABLE} intra-bridge { ${bridge} . ${bridge} : accept }'`,
      'in map "intra-bridge" of table "inet patchbay" leads to "accept"',
    ],
    ['the rules', `nft flush chain ${TABLE} forward`, 'Rule 1 of chain "forward"'],
    ['their order', `nft insert rule ${TABLE} forward accept`, 'Rule 1 of chain "forward"'],
    ['the table', `nft delete table ${TABLE}`, 'Chain "forward" of table "inet patchbay" does not exist'],
    [
      'the isolation of its port',
      `for port in $(ls /sys/class/net/${WALLED.bridge}/brif); do bridge link set dev $port isolated off; done`,
      `of bridge ${bridge} is not isolated`,
    ],
  ];

  test.for(breakages)(
    'of an attachment that lost %s names it and changes nothing',
    async ([, script, said]) => {
      const { host, pod } = await openPrimedHost();
      const attached = await admitted(host, pod, fields);
      expectSuccess(await runFirewall(host, 'CHECK', attached, fields));
      await host.shell(script);
      const before = await host.snapshot();
      const { code, msg } = expectError(await runFirewall(host, 'CHECK', attached, fields));
      expect({ code, msg }).toEqual({ code: 107, msg: expect.stringContaining(said) });
      expect(difference(before, await host.snapshot())).toEqual([]);
    },
  );

  test('of another policy than the bridge has names both', async () => {
    const { host, pod } = await openPrimedHost();
    const attached = await admitted(host, pod, fields);
    const { msg } = expectError(await runFirewall(host, 'CHECK', attached));
    expect(msg).toContain('Ingress policy "open"');
    expect(msg).toContain('ingressPolicy isolated');
  });
});

describe('a forward chain whose administrator set its policy to drop', () => {
  test('lets containers and their published ports through, and nobody else', async () => {
    const world = await openPortWorld({ network: WALLED });
    onTestFinished(() => world[Symbol.asyncDispose]());
    const { host, pod, lan, peerAttached, stranger } = world;
    const attached = await attach(host, WALLED, pod);
    await admit(host, attached);
    await admit(host, peerAttached);
    await host.run('nft', ['chain', 'inet', 'patchbay', 'forward', '{ policy drop; }']);
    const portmap = { ...wallCallOf(attached, { type: 'portmap' }), plugin: 'portmap' };
    const runtimeConfig = { portMappings: [{ hostPort: 8080, containerPort: 80 }] };
    expectResult(
      await host.runPlugin('ADD', { ...portmap, config: { ...(portmap.config as Fields), runtimeConfig } }),
    );
    const reached = async (place: typeof lan, address: string, port: number) =>
      (await ask(place, 'tcp4', address, port))?.name;
    expect(await reached(lan, '198.51.100.1', 8080)).toBe('pod');
    expect(await reached(lan, attached.ip4, 80)).toBeUndefined();
    expect(await reached(stranger, attached.ip4, 80)).toBeUndefined();
    expectSuccess(await runFirewall(host, 'CHECK', attached));
  });
});

describe('the program', () => {
  test.for(['0.1.0', '0.3.1', '2.0.0'])('refuses version %s', async (cniVersion) => {
    const { host, pod } = await openPrimedHost();
    const attached = await attach(host, WALLED, pod);
    const outcome = await runFirewall(host, 'ADD', attached, { cniVersion });
    expect(expectError(outcome).code).toBe(1);
  });

  test('says who it is when it is run bare', async () => {
    const host = await openTestHost();
    const { exitCode, stdout, stderr } = await host.runPlugin(undefined as never, { plugin: 'firewall' });
    expect({ exitCode, stdout }).toEqual({ exitCode: 0, stdout: '' });
    expect(stderr).toMatch(/^CNI firewall plugin v(?:[2-9]|\d\d+)\.\d+\.\d+/);
  });
});
