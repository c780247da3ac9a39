// The bridge plugin and the kernel's own limits: no nf_tables, the place among other programs' rules, the order in which
// things go, and the system calls a verb is made of. Part of `npm run test:binary`.
import { describe, expect, onTestFinished, test } from 'vitest';
import { attach, detach, withPrevResult } from '../support/attachment.ts';
import { type BridgeConfig, installResolvConf, listNetworks, readNetwork } from '../support/network-list.ts';
import { openPrivateHost, type PrivateHost, type Sandbox } from '../support/private-host.ts';
import { expectError, expectResult, expectSuccess, type PluginCall } from '../support/run-plugin.ts';
import { difference, type Snapshot } from '../support/snapshot.ts';
import { injecting, runTraced, type Traced } from '../support/strace.ts';

const { config } = readNetwork('bridge-dual-stack.conflist');
const iptables = { ...config, ipMasqBackend: 'iptables' };

async function openHost(): Promise<{ host: PrivateHost; pod: Sandbox }> {
  const host = await openPrivateHost();
  onTestFinished(() => host.close());
  return { host, pod: await host.addSandbox('pod') };
}

function callOf(pod: Sandbox, more: Partial<PluginCall> = {}): PluginCall {
  return { config, containerId: pod.name, netns: pod.path, ifname: 'eth0', ...more };
}

describe('A kernel without nf_tables', () => {
  /** Which of the sockets a verb opens are those of nf_tables; what an ADD opens after its first one may fail as well. */
  const SOCKETS = { STATUS: '2', ADD: '3+', CHECK: '3', DEL: '1', GC: '1' } as const;

  /** Runs a verb on a kernel that knows no such protocol (netlink(7), EPROTONOSUPPORT). */
  async function runWithout(
    host: PrivateHost,
    verb: keyof typeof SOCKETS,
    call: PluginCall,
  ): Promise<Traced> {
    const fault = `error=EPROTONOSUPPORT:when=${SOCKETS[verb]}`;
    const traced = await runTraced(host, verb, call, injecting('socket', fault));
    const asked = traced.lines.filter((line) => line.includes('NETLINK_NETFILTER'));
    expect(asked.length).toBeGreaterThan(0);
    expect(asked.filter((line) => !line.includes('INJECTED'))).toEqual([]);
    return traced;
  }

  const SAID = /needs nf_tables with NAT.*Linux 5\.10.*"nf_tables".*"ipMasqBackend" to "iptables"/;

  test('makes STATUS fail with code 50, naming what to do', async () => {
    const { host, pod } = await openHost();
    const report = expectError(await runWithout(host, 'STATUS', callOf(pod)));
    expect(report).toMatchObject({ code: 50, msg: expect.stringMatching(SAID) });
  });

  test('makes ADD fail with code 106, naming what to do, and nothing is left', async () => {
    const { host, pod } = await openHost();
    await detach(host, await attach(host, config, pod));
    const before = await host.snapshot();
    const report = expectError(await runWithout(host, 'ADD', callOf(pod)));
    expect(report).toMatchObject({ code: 106, msg: expect.stringMatching(SAID) });
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('makes CHECK fail with code 106, naming what to do', async () => {
    const { host, pod } = await openHost();
    const call = withPrevResult(await attach(host, config, pod));
    const report = expectError(await runWithout(host, 'CHECK', call));
    expect(report).toMatchObject({ code: 106, msg: expect.stringMatching(SAID) });
  });

  test('is good enough for the iptables backend with the tables of old', async () => {
    const { host, pod } = await openHost();
    await host.shell(`
      for program in {iptables,ip6tables}{,-save,-restore}; do
        ln -sfn /usr/sbin/\${program/tables/tables-legacy} /etc/alternatives/$program
      done`);
    const before = await attachAndDetach(host, iptables, pod);
    const attached = await attach(host, iptables, pod);
    expect((await host.run('iptables-legacy-save')).stdout).toContain(attached.ip4);
    for (const verb of ['STATUS', 'CHECK', 'DEL'] as const) {
      const asks = verb === 'DEL';
      const call = withPrevResult(attached);
      expectSuccess(await (asks ? runWithout(host, verb, call) : host.runPlugin(verb, call)));
    }
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test.for(['DEL', 'GC'] as const)('does not keep %s from removing what is there', async (verb) => {
    const { host, pod } = await openHost();
    const plain = { ...config, ipMasq: false };
    const before = await attachAndDetach(host, plain, pod);
    const { call } = await attach(host, plain, pod);
    const gone = { ...call, config: { ...plain, 'cni.dev/valid-attachments': [] } };
    expectSuccess(await runWithout(host, verb, gone));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  async function attachAndDetach(host: PrivateHost, network: BridgeConfig, pod: Sandbox): Promise<Snapshot> {
    await detach(host, await attach(host, network, pod));
    return host.snapshot();
  }
});

describe('Our hooks', () => {
  const DSTNAT = -100; // NF_IP_PRI_NAT_DST of linux/netfilter_ipv4.h, where services are translated
  const SRCNAT = 100; // NF_IP_PRI_NAT_SRC

  interface BaseChain {
    readonly name: string;
    readonly type: string;
    readonly hook: string;
    readonly prio: number;
  }

  test.for(listNetworks())('of $file translate after whatever translates services', async (network) => {
    const { host, pod } = await openHost();
    installResolvConf(host);
    const { result } = await attach(host, network.config, pod);
    for (const next of network.chained) {
      const mapping = { hostPort: 8080, containerPort: 80, protocol: 'tcp' };
      const chained = { ...next, prevResult: result, runtimeConfig: { portMappings: [mapping] } };
      expectResult(await host.runPlugin('ADD', callOf(pod, { plugin: next.type, config: chained })));
    }
    const chains = await listBaseChains(host);
    expect(chains.some(({ name }) => name === 'postrouting')).toBe(network.facts.ipMasq ?? false);
    for (const { name, hook, prio } of chains.filter(({ type }) => type === 'nat')) {
      if (name === 'postrouting') expect(prio).toBe(SRCNAT);
      if (hook !== 'postrouting') expect(prio, name).toBeGreaterThan(DSTNAT);
    }
  });

  test('of bridge are in postrouting alone', async () => {
    const { host, pod } = await openHost();
    await attach(host, config, pod);
    expect((await listBaseChains(host)).map(({ name, hook, prio }) => ({ name, hook, prio }))).toEqual([
      { name: 'postrouting', hook: 'postrouting', prio: SRCNAT },
    ]);
  });

  async function listBaseChains(host: PrivateHost): Promise<BaseChain[]> {
    const { stdout } = await host.run('nft', ['-j', 'list', 'chains']);
    const { nftables } = JSON.parse(stdout) as { nftables: { chain?: BaseChain }[] };
    return nftables.flatMap(({ chain }) => (chain?.hook === undefined ? [] : [chain]));
  }
});

describe('DEL', () => {
  test('takes rules, then link, then lets the sockets go, and frees the addresses at the end', async () => {
    const { host, pod } = await openHost();
    const { call } = await attach(host, config, pod);
    const options = ['-yy', '-e', 'trace=sendto,close,unlink'];
    const { lines } = await runTraced(host, 'DEL', call, options);
    const steps = [
      /sendto.*NFT_MSG_DELSETELEM/,
      /sendto.*RTM_DELLINK/,
      /close.*ROUTE/,
      /close.*NETFILTER/,
      /unlink\(.*\/10\.89\.0\.2"/,
      /unlink\(.*\/fd00:89::2"/,
    ];
    const places = steps.map((step) => lines.findIndex((line) => step.test(line)));
    expect(places.filter((place) => place === -1)).toEqual([]);
    expect(places).toEqual([...places].sort((one, other) => one - other));
  });
});

test('ADD changes namespaces for a socket and for sysctls, and comes back each time at once', async () => {
  const { host, pod } = await openHost();
  const { lines } = await runTraced(host, 'ADD', callOf(pod), [
    '-f',
    '-yy',
    '-e',
    'trace=setns,socket,sendto',
  ]);
  const inside: string[] = [];
  let isInside = false;
  for (const line of lines) {
    if (line.includes('setns(')) {
      isInside = line.includes(pod.path);
      if (isInside) inside.push('enter');
    } else if (isInside) inside.push(/socket\(|sendto\(/.exec(line)?.[0] ?? line);
  }
  expect(isInside).toBe(false);
  expect(inside).toEqual(['enter', 'socket(', 'enter']);
});

test('ADD into a sandbox that does not exist makes nothing on a fresh host', async () => {
  const { host, pod } = await openHost();
  const before = await host.snapshot();
  expect(expectError(await host.runPlugin('ADD', callOf(pod, { netns: '/run/netns/none' }))).code).toBe(8);
  expect(difference(before, await host.snapshot())).toEqual([]);
});
