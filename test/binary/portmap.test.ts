// The life of published ports by the packaged plugins: every verb, at every version, alone and beside others.
// Part of `npm run test:binary`; who reaches the ports is the matter of portmap-reach, whom they leave alone of
// portmap-untouched, who else holds them of portmap-holders.
import { describe, expect, onTestFinished, test } from 'vitest';
import { attach, detach, withPrevResult } from '../support/attachment.ts';
import {
  changed,
  type Fields,
  type Mapping,
  PORTS,
  type Published,
  portCallOf,
  publish,
  publishFor,
  runPortmap,
  unpublish,
} from '../support/chain.ts';
import { mapped, openFreshHost, openHost, openPrimedHost } from '../support/port-host.ts';
import type { PrivateHost } from '../support/private-host.ts';
import { openPortWorld, type PortWorld, WEB } from '../support/reachability.ts';
import { expectError, expectResult, expectSuccess } from '../support/run-plugin.ts';
import { askAll, onAllTransports, serve, whoAnswers } from '../support/service.ts';
import { difference } from '../support/snapshot.ts';
import { LAN, OUTSIDE } from '../support/traffic.ts';

const MIXED: readonly Mapping[] = [
  { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
  { hostPort: 5353, containerPort: 53, protocol: 'udp' },
  { hostPort: 8443, containerPort: 443, protocol: 'tcp', hostIP: '192.0.2.7' },
  { hostPort: 9, containerPort: 9, protocol: 'sctp', hostIP: '2001:db8::7' },
];

async function openWorld(): Promise<PortWorld> {
  const world = await openPortWorld();
  onTestFinished(() => world[Symbol.asyncDispose]());
  return world;
}

/** Has Debian's alternatives lead the name of a program elsewhere, on this host alone. */
async function replaceProgram(host: PrivateHost, name: string, by: string): Promise<void> {
  await host.shell(`
    [ "$(readlink /usr/sbin/${name})" = /etc/alternatives/${name} ]
    ln -sfn ${by} /etc/alternatives/${name}
  `);
}

describe('published ports', () => {
  for (const backend of ['nftables', 'iptables']) {
    test(`of the ${backend} backend come, are checked, go without a trace, and go again`, async () => {
      const { host, pod, before } = await openPrimedHost({ backend });
      const published = await publish(host, pod, MIXED, { portmap: { backend } });
      expectSuccess(await runPortmap(host, 'CHECK', published));
      await unpublish(host, published);
      expect(difference(before, await host.snapshot())).toEqual([]);
      await unpublish(host, published);
      expect(difference(before, await host.snapshot())).toEqual([]);
    });

    test(`of the ${backend} backend go when DEL knows neither ports, sandbox, result nor backend`, async () => {
      const { host, pod, before } = await openPrimedHost({ backend });
      const published = await publish(host, pod, MIXED, { portmap: { backend } });
      const bare = changed(published.portCall, {
        runtimeConfig: undefined,
        prevResult: undefined,
        backend: undefined,
      });
      expectSuccess(await host.runPlugin('DEL', { ...bare, netns: '' }));
      await detach(host, published);
      expect(difference(before, await host.snapshot())).toEqual([]);
    });

    test(`of the ${backend} backend go although DEL is told other ports, and after the sandbox is gone`, async () => {
      const { host, before } = await openPrimedHost({ backend });
      await host.run('ip', ['netns', 'delete', 'pod']);
      const doomed = await host.addSandbox('doomed');
      const published = await publish(host, doomed, MIXED, { portmap: { backend } });
      await doomed.delete();
      const other = { runtimeConfig: { portMappings: [{ hostPort: 1, containerPort: 1 }] } };
      expectSuccess(await runPortmap(host, 'DEL', published, other));
      await detach(host, published);
      await host.addSandbox('pod');
      expect(difference(before, await host.snapshot())).toEqual([]);
    });

    test(`of the ${backend} backend are replaced when ADD comes again, and never doubled`, async () => {
      const { host, pod } = await openPrimedHost({ backend });
      const published = await publish(host, pod, MIXED, { portmap: { backend } });
      const once = await host.snapshot();
      expectSuccess(await runPortmap(host, 'ADD', published));
      expect(difference(once, await host.snapshot())).toEqual([]);
      const other = [{ hostPort: 9090, containerPort: 90 }];
      expectSuccess(await runPortmap(host, 'ADD', published, { runtimeConfig: { portMappings: other } }));
      const after = (await host.snapshot()).join('\n');
      expect(after).toMatch(backend === 'nftables' ? /"tcp",9090/ : /--dport 9090/);
      expect(after).not.toMatch(/\b(8080|5353|8443)\b/);
    });
  }

  test('do not change when DEL is about an attachment that never was', async () => {
    const { host, pod } = await openPrimedHost();
    const published = await publish(host, pod, MIXED);
    const before = await host.snapshot();
    for (const stranger of [{ containerId: 'nobody' }, { ifname: 'eth9' }]) {
      expectSuccess(await host.runPlugin('DEL', { ...published.portCall, ...stranger }));
    }
    expectSuccess(await host.runPlugin('DEL', changed(published.portCall, { name: 'elsewhere' })));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('of one container on two networks, and on one network twice, go one attachment at a time', async () => {
    const { host, pod } = await openPrimedHost();
    const second = {
      ...PORTS,
      name: 'second',
      bridge: 'cni-second0',
      isDefaultGateway: false,
      isGateway: true,
    };
    const ipam = { type: 'host-local', ranges: [[{ subnet: '10.95.0.0/24' }]] };
    const ports = (hostPort: number) => [{ hostPort, containerPort: 80, hostIP: '0.0.0.0' }];
    const first = await publish(host, pod, ports(8081));
    const network = { ...second, ipam };
    await publish(host, pod, ports(8082), { network, ifname: 'eth1' });
    const third = await publish(host, pod, ports(8083), {
      network: { ...PORTS, isDefaultGateway: false, isGateway: true },
      ifname: 'eth2',
    });
    expect(await mapped(host)).toEqual(['tcp 8081', 'tcp 8082', 'tcp 8083']);
    expectSuccess(await runPortmap(host, 'DEL', first));
    expect(await mapped(host)).toEqual(['tcp 8082', 'tcp 8083']);
    expectSuccess(await runPortmap(host, 'DEL', third));
    expect(await mapped(host)).toEqual(['tcp 8082']);
  });

  test('that a container wants on two networks, as runtimes ask for, lead to it until both attachments are gone', async () => {
    const wanted = [WEB[0], { hostPort: 8081, containerPort: 80, hostIP: '127.0.0.1' }] as readonly Mapping[];
    const asked = [
      { transport: 'tcp4', address: '127.0.0.1', port: 8080 },
      { transport: 'tcp6', address: 'fd00:95::1', port: 8080 },
      { transport: 'tcp4', address: '127.0.0.1', port: 8081 },
    ] as const;
    for (const goesFirst of [0, 1] as const) {
      const { host, pod, peerAttached } = await openWorld();
      const network = {
        ...PORTS,
        name: 'second',
        bridge: 'cni-second0',
        isDefaultGateway: false,
        isGateway: true,
        ipam: { type: 'host-local', ranges: [[{ subnet: '10.95.0.0/24' }], [{ subnet: 'fd00:95::/64' }]] },
      };
      const answers = async () => (await askAll(host, asked)).map((reply) => reply?.name ?? '');
      await unpublish(host, await publish(host, pod, wanted));
      await unpublish(host, await publish(host, pod, wanted, { network, ifname: 'eth1' }));
      const before = await host.snapshot();
      const first = await publish(host, pod, wanted);
      const alone = await host.snapshot();
      const second = await publish(host, pod, wanted, { network, ifname: 'eth1' });
      for (const each of [first, second]) expectSuccess(await runPortmap(host, 'CHECK', each));
      expect(await answers()).toEqual(['pod', 'pod', 'pod']);
      const refused = await host.runPlugin('ADD', portCallOf(peerAttached, wanted));
      expect(expectError(refused)).toMatchObject({ code: 103, msg: expect.stringContaining('id: pod') });

      const [gone, left] = goesFirst === 0 ? [first, second] : [second, first];
      await unpublish(host, gone);
      expect(await answers()).toEqual(['pod', 'pod', 'pod']);
      expectSuccess(await runPortmap(host, 'CHECK', left));
      if (goesFirst === 1) expect(difference(alone, await host.snapshot())).toEqual([]);
      await unpublish(host, left);
      expect(await answers()).toEqual(['', '', '']);
      expect(difference(before, await host.snapshot())).toEqual([]);
    }
  });

  test.for([
    ['nftables', 'iptables'],
    ['iptables', 'nftables'],
    ['iptables', 'iptables'],
  ] as const)(
    'that a container wants on two networks are published by backends %s and %s',
    async ([one, two]) => {
      const { host, pod } = await openFreshHost();
      const ipam = { type: 'host-local', ranges: [[{ subnet: '10.95.0.0/24' }]] };
      const network = { ...PORTS, name: 'second', bridge: 'cni-second0', isDefaultGateway: false, ipam };
      const publishBoth = async () => [
        await publish(host, pod, WEB, { portmap: { backend: one } }),
        await publish(host, pod, WEB, { portmap: { backend: two }, network, ifname: 'eth1' }),
      ];
      for (const each of await publishBoth()) await unpublish(host, each);
      const before = await host.snapshot();
      const both = await publishBoth();
      for (const each of both) expectSuccess(await runPortmap(host, 'CHECK', each));
      for (const each of both) await unpublish(host, each);
      expect(difference(before, await host.snapshot())).toEqual([]);
    },
  );

  test('are not needed: without mappings every verb succeeds and nothing changes', async () => {
    const host = await openHost();
    const attached = await attach(host, PORTS, await host.addSandbox('pod'));
    const before = await host.snapshot();
    for (const runtimeConfig of [undefined, {}, { portMappings: [] }, { portMappings: null }]) {
      const call = changed(portCallOf(attached, []), { runtimeConfig });
      expect(expectResult(await host.runPlugin('ADD', call))).toEqual(attached.result);
      for (const verb of ['CHECK', 'STATUS', 'DEL', 'GC'] as const)
        expectSuccess(await host.runPlugin(verb, call));
    }
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('are published although /proc/sys is read-only, except on 127.0.0.1, and a line says so', async () => {
    const { host, pod, lan } = await openWorld();
    const attached = await attach(host, PORTS, pod);
    await host.shell('mount --bind -o ro /proc/sys /proc/sys');
    const { said } = await publishFor(host, attached, WEB);
    expect(said).toContain('Published ports do not answer on 127.0.0.1');
    expect(await whoAnswers(lan, 'tcp4', LAN.host4, 8080)).toBe('pod');
  });

  test('of both families are undone when the second one fails', async () => {
    const { host, pod, before } = await openPrimedHost({ backend: 'iptables' });
    const attached = await attach(host, PORTS, pod);
    const between = await host.snapshot();
    await replaceProgram(host, 'ip6tables-restore', '/bin/false');
    expectError(await host.runPlugin('ADD', portCallOf(attached, MIXED, { backend: 'iptables' })));
    expect(difference(between, await host.snapshot())).toEqual([]);
    await detach(host, attached);
    expect(difference(before, await host.snapshot())).toEqual([]);
  });
});

describe('a chain at version', () => {
  test.for(['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'])(
    '%s passes the result on as it came, and goes through every verb',
    async (cniVersion) => {
      const host = await openHost();
      const network = { ...PORTS, cniVersion };
      const pod = await host.addSandbox('pod');
      const attached = await attach(host, network, pod);
      const call = portCallOf(attached, MIXED);
      expect(expectResult(await host.runPlugin('ADD', call))).toEqual(attached.result);
      expect(await mapped(host)).toEqual(['tcp 8080', 'udp 5353']);
      const checked = await host.runPlugin('CHECK', call);
      if (cniVersion < '0.4.0') expect(expectError(checked).code).toBe(1);
      else expectSuccess(checked);
      expectSuccess(await host.runPlugin('DEL', call));
      expect(await mapped(host)).toEqual([]);
    },
  );
});

describe('conditions', () => {
  test.for([
    ['-s', ['-s', LAN.neighbour4]],
    ['! -s', ['!', '-s', OUTSIDE.outside4]],
    ['-i', ['-i', 'lan']],
    ['a prefix of -i, in one token', ['! -i up+']],
    ['-d', ['-d', `${LAN.host4}/32`]],
    ['ip saddr', ['ip', 'saddr', LAN.neighbour4]],
    ['ip daddr !=', ['ip', 'daddr', '!=', OUTSIDE.host4]],
    ['iifname', ['iifname', '"lan"']],
    ['iifname != with an asterisk, in one token', ['iifname != "up*"']],
    ['a set', ['ip', 'saddr', '{', `${LAN.neighbour4},`, '192.0.2.9', '}']],
  ] as const)('spelt as %s let the LAN in and the outside not', async ([, conditionsV4]) => {
    const { host, pod, lan, outside } = await openWorld();
    const published = await publish(host, pod, WEB, { portmap: { conditionsV4 } });
    expectSuccess(await runPortmap(host, 'CHECK', published));
    const [fromLan, fromOutside, ...overIpv6] = await Promise.all([
      whoAnswers(lan, 'tcp4', LAN.host4, 8080),
      whoAnswers(outside, 'tcp4', OUTSIDE.host4, 8080),
      whoAnswers(lan, 'udp6', LAN.host6, 8080),
      whoAnswers(outside, 'tcp6', OUTSIDE.host6, 8080),
    ]);
    expect([fromLan, fromOutside]).toEqual(['pod', '']);
    // IPv6 has conditions of its own.
    expect(overIpv6).toEqual(['pod', 'pod']);
  });

  test('of IPv6 let the LAN in and the outside not, and leave IPv4 alone', async () => {
    const { host, pod, lan, outside } = await openWorld();
    await publish(host, pod, WEB, { portmap: { conditionsV6: ['ip6', 'saddr', '2001:db8:51::/64'] } });
    expect(await whoAnswers(lan, 'udp6', LAN.host6, 8080)).toBe('pod');
    expect(await whoAnswers(outside, 'tcp6', OUTSIDE.host6, 8080)).toBe('');
    expect(await whoAnswers(outside, 'tcp4', OUTSIDE.host4, 8080)).toBe('pod');
  });

  test('apply to their attachment alone, also when two of them share a port', async () => {
    const { host, pod, lan, outside } = await openWorld();
    const second = await host.addSandbox('second');
    const third = await host.addSandbox('third');
    await serve(second, onAllTransports(80));
    await serve(third, onAllTransports(80));
    const first = await publish(host, pod, WEB, {
      portmap: { conditionsV4: ['-i', 'lan'], conditionsV6: ['-i', 'lan'] },
    });
    await publish(host, second, WEB, {
      portmap: { conditionsV4: ['-i', 'uplink'], conditionsV6: ['-i', 'uplink'] },
    });
    await publish(host, third, [{ hostPort: 8081, containerPort: 80 }]);
    expect(await whoAnswers(lan, 'tcp4', LAN.host4, 8080)).toBe('pod');
    expect(await whoAnswers(outside, 'tcp6', OUTSIDE.host6, 8080)).toBe('second');
    expect(await whoAnswers(outside, 'tcp4', OUTSIDE.host4, 8081)).toBe('third');
    expectSuccess(await runPortmap(host, 'DEL', first));
    expect(await whoAnswers(lan, 'udp4', LAN.host4, 8080)).toBe('');
    expect(await whoAnswers(outside, 'tcp4', OUTSIDE.host4, 8080)).toBe('second');
  });
});

describe('GC', () => {
  const valid = 'cni.dev/valid-attachments';

  async function openCrowd(): Promise<{
    host: PrivateHost;
    config: Fields;
    keep: Published;
    stale: Published;
  }> {
    const { host, pod } = await openFreshHost();
    const ports = (hostPort: number) => [{ hostPort, containerPort: 80, hostIP: '0.0.0.0' }];
    const keep = await publish(host, pod, ports(8081));
    const stale = await publish(host, await host.addSandbox('stale'), ports(8082), {
      portmap: { conditionsV4: ['-i', 'lan'] },
    });
    await publish(host, await host.addSandbox('more'), ports(8083));
    const network = {
      ...PORTS,
      name: 'other',
      bridge: 'cni-other0',
      ipam: { type: 'host-local', ranges: [[{ subnet: '10.96.0.0/24' }]] },
    };
    await publish(host, await host.addSandbox('elsewhere'), ports(8084), { network });
    const { cniVersion, name } = PORTS;
    return { host, config: { cniVersion, name, type: 'portmap' }, keep, stale };
  }

  async function published(host: PrivateHost): Promise<string[]> {
    const { stdout } = await host.run('nft', ['list', 'table', 'inet', 'patchbay']);
    return [...stdout.matchAll(/\b808\d\b/g)].map(String).sort();
  }

  test('removes the ports of attachments that are not on the list, and no others', async () => {
    const { host, config, keep } = await openCrowd();
    const list = [{ containerID: 'pod', ifname: 'eth0' }];
    expectSuccess(await host.runPlugin('GC', { plugin: 'portmap', config: { ...config, [valid]: list } }));
    expect(await published(host)).toEqual(['8081', '8084']);
    expectSuccess(await runPortmap(host, 'CHECK', keep));
  });

  test.for([
    ['null', null],
    ['an empty list', []],
  ] as const)('takes %s for "no attachment is valid"', async ([, list]) => {
    const { host, config } = await openCrowd();
    expectSuccess(await host.runPlugin('GC', { plugin: 'portmap', config: { ...config, [valid]: list } }));
    expect(await published(host)).toEqual(['8084']);
  });

  test('without a list removes only what has lost its host link', async () => {
    const { host, config, stale } = await openCrowd();
    const before = await host.snapshot();
    expectSuccess(await host.runPlugin('GC', { plugin: 'portmap', config }));
    expect(difference(before, await host.snapshot())).toEqual([]);
    await host.run('ip', ['link', 'delete', stale.result.interfaces?.[1]?.name ?? '']);
    expectSuccess(await host.runPlugin('GC', { plugin: 'portmap', config }));
    expect(await published(host)).toEqual(['8081', '8083', '8084']);
  });

  test('removes chains of the iptables backend likewise', async () => {
    const { host, pod } = await openFreshHost();
    const portmap = { backend: 'iptables' };
    await publish(host, pod, [{ hostPort: 8081, containerPort: 80 }], { portmap });
    const keep = await publish(host, await host.addSandbox('keep'), [{ hostPort: 8082, containerPort: 80 }], {
      portmap,
    });
    const list = [{ containerID: 'keep', ifname: 'eth0' }];
    const config = changed(keep.portCall, { [valid]: list, prevResult: undefined }).config;
    expectSuccess(await host.runPlugin('GC', { plugin: 'portmap', config }));
    const { stdout } = await host.shell('iptables-save -t nat; ip6tables-save -t nat');
    expect(stdout.match(/--dport 808\d .*DNAT/g)).toEqual([
      expect.stringContaining('--dport 8082'),
      expect.stringContaining('--dport 8082'),
    ]);
    expectSuccess(await runPortmap(host, 'CHECK', keep));
  });
});

describe('CHECK', () => {
  const table = 'inet patchbay';
  const breakages: readonly [what: string, script: string, said: string][] = [
    [
      'a port',
      `nft delete element ${table} hostports4 { tcp . 8080 }`,
      'Tcp port 8080 (IPv4) is not in map "hostports4"',
    ],
    [
      'a port of one address',
      `nft delete element ${table} hostipports4 { 192.0.2.7 . tcp . 8443 }`,
      'Tcp port 8443 of 192.0.2.7 is not in map "hostipports4"',
    ],
    [
      'a port of IPv6',
      `nft delete element ${table} hostports6 { udp . 5353 }`,
      'Udp port 5353 (IPv6) is not in map "hostports6"',
    ],
    [
      'a port that leads elsewhere',
      `nft -j list map ${table} hostports4 > /run/map
       COMMENT=$(nft list map ${table} hostports4 | grep -o '[0-9a-f]* [0-9a-f]*, net[^"]*' | head -n 1)
       nft delete element ${table} hostports4 { tcp . 8080 }
       nft -f - <<< "add element ${table} hostports4 { tcp . 8080 comment \\"$COMMENT\\" : 10.92.0.99 . 80 }"
       rm /run/map`,
      'leads elsewhere than ADD left it',
    ],
    [
      'a port to somebody else',
      `nft delete element ${table} hostports4 { tcp . 8080 }
       nft 'add element ${table} hostports4 { tcp . 8080 comment "mine" : 10.92.0.99 . 80 }'`,
      'belongs to "mine"',
    ],
    [
      'the hook for packets from outside',
      `nft flush chain ${table} prerouting`,
      'Rule 1 of chain "prerouting"',
    ],
    ['the hook for packets of the host', `nft flush chain ${table} output`, 'Rule 1 of chain "output"'],
    [
      'a hook that is hooked elsewhere',
      `nft delete chain ${table} output; nft 'add chain ${table} output { type nat hook output priority 5; }'`,
      'Chain "output" of table "inet patchbay" is not hooked as nat at hook output',
    ],
    ['a rule of the look-up', `nft flush chain ${table} hostports`, 'Rule 1 of chain "hostports"'],
    [
      'the way back',
      `nft flush map ${table} hairpin4`,
      'The hairpin of address "10.92.0.2" is not in map "hairpin4"',
    ],
    ['the rules of the way back', `nft flush chain ${table} hairpin`, 'Rule 1 of chain "hairpin"'],
    [
      'the chain of its subnet',
      `nft flush chain ${table} hairpin6-fd00-92--/64`,
      'Rule 1 of chain "hairpin6-fd00-92--/64"',
    ],
    ['the guard', `nft flush chain ${table} guard`, 'Rule 1 of chain "guard"'],
    ['the guard to a stranger', `nft insert rule ${table} guard accept`, 'Rule 1 of chain "guard"'],
    ['its table', `nft delete table ${table}`, 'Chain "prerouting" of table "inet patchbay" does not exist'],
    [
      'route_localnet',
      `sysctl -qw net.ipv4.conf.${PORTS.bridge}.route_localnet=0`,
      `Sysctl "net/ipv4/conf/${PORTS.bridge}/route_localnet" is 0`,
    ],
  ];

  test.for(breakages)(
    'of ports that lost %s names the difference and changes nothing',
    async ([, script, said]) => {
      const { host, pod } = await openFreshHost();
      const published = await publish(host, pod, MIXED);
      expectSuccess(await runPortmap(host, 'CHECK', published));
      await host.shell(script);
      const before = await host.snapshot();
      const { code, msg } = expectError(await runPortmap(host, 'CHECK', published));
      expect({ code, msg }).toEqual({ code: 107, msg: expect.stringContaining(said) });
      expect(difference(before, await host.snapshot())).toEqual([]);
    },
  );

  test('of a rule with conditions that is gone names it', async () => {
    const { host, pod } = await openFreshHost();
    const published = await publish(host, pod, MIXED, { portmap: { conditionsV4: ['-i', 'lan'] } });
    expectSuccess(await runPortmap(host, 'CHECK', published));
    await host.shell('nft flush chain inet patchbay conditional');
    const { code, msg } = expectError(await runPortmap(host, 'CHECK', published));
    expect({ code, msg }).toEqual({
      code: 107,
      msg: expect.stringContaining('Chain "conditional" of table "inet patchbay" lacks the rule'),
    });
  });

  test.for([
    ['a jump', 'iptables -t nat -F CNI-HOSTPORT-DNAT', 'lacks rule'],
    ['a hook', 'iptables -t nat -F PREROUTING', 'chain "PREROUTING" lacks rule'],
    [
      'the mark of IPv6',
      'ip6tables -t nat -F CNI-HOSTPORT-SETMARK',
      'chain "CNI-HOSTPORT-SETMARK" lacks rule',
    ],
    ['masquerading', 'iptables -t nat -F POSTROUTING', 'chain "POSTROUTING" lacks rule'],
  ] as const)('of the iptables backend that lost %s names it', async ([, script, said]) => {
    const { host, pod } = await openFreshHost();
    const published = await publish(host, pod, MIXED, { portmap: { backend: 'iptables' } });
    expectSuccess(await runPortmap(host, 'CHECK', published));
    await host.shell(script);
    const before = await host.snapshot();
    const { code, msg } = expectError(await runPortmap(host, 'CHECK', published));
    expect({ code, msg }).toEqual({ code: 107, msg: expect.stringContaining(said) });
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('of a port that was never published names it', async () => {
    const { host, pod } = await openFreshHost();
    const published = await publish(host, pod, MIXED);
    const more = { runtimeConfig: { portMappings: [...MIXED, { hostPort: 7777, containerPort: 7 }] } };
    expect(expectError(await runPortmap(host, 'CHECK', published, more)).msg).toContain('Tcp port 7777');
  });
});

describe('STATUS', () => {
  test.for([{}, { backend: 'iptables' }])(
    'is good before and after the first port, and changes nothing: %o',
    async (more) => {
      const host = await openHost();
      const config = { cniVersion: '1.1.0', name: 'ports', type: 'portmap', ...more };
      const untouched = await host.snapshot();
      expect(await host.runPlugin('STATUS', { plugin: 'portmap', config })).toMatchObject({
        exitCode: 0,
        stdout: '',
      });
      expect(difference(untouched, await host.snapshot())).toEqual([]);
      await publish(host, await host.addSandbox('pod'), WEB, { portmap: more });
      const used = await host.snapshot();
      expect(await host.runPlugin('STATUS', { plugin: 'portmap', config })).toMatchObject({
        exitCode: 0,
        stdout: '',
      });
      expect(difference(used, await host.snapshot())).toEqual([]);
    },
  );

  test('of the iptables backend names the program that is missing', async () => {
    const host = await openHost();
    const config = { cniVersion: '1.1.0', name: 'ports', type: 'portmap', backend: 'iptables' };
    await replaceProgram(host, 'ip6tables-restore', '/nowhere');
    const outcome = await host.runPlugin('STATUS', { plugin: 'portmap', config });
    const { code, msg } = expectError(outcome);
    expect(code).toBe(50);
    expect(msg).toContain('ip6tables-restore');
  });
});

describe('several hundred mappings', () => {
  test('are published and removed in one go, each of them works, and rules stay as many as for one', async () => {
    const { host, pod, lan } = await openWorld();
    const one = await publish(host, pod, [{ hostPort: 19_999, containerPort: 80 }]);
    const rules = async () =>
      (await host.run('nft', ['-j', 'list', 'ruleset'])).stdout.match(/"rule":/g)?.length;
    const constant = await rules();
    const before = await host.snapshot();
    const many = Array.from({ length: 400 }, (_, n) => ({
      hostPort: 20_000 + n,
      containerPort: 80,
      protocol: n % 2 ? 'udp' : 'tcp',
    }));
    const portMappings = [{ hostPort: 19_999, containerPort: 80 }, ...many];
    expectSuccess(await runPortmap(host, 'ADD', one, { runtimeConfig: { portMappings } }));
    expect(await rules()).toBe(constant);
    expectSuccess(await runPortmap(host, 'CHECK', one, { runtimeConfig: { portMappings } }));
    expect(await whoAnswers(lan, 'tcp4', LAN.host4, 20_398)).toBe('pod');
    expect(await whoAnswers(lan, 'udp6', LAN.host6, 20_399)).toBe('pod');
    expectSuccess(await runPortmap(host, 'ADD', one));
    expect(difference(before, await host.snapshot())).toEqual([]);
    expectSuccess(await runPortmap(host, 'DEL', one));
    expect(await mapped(host)).toEqual([]);
  });
});

describe('12 first ADDs at once', () => {
  test.for(['nftables', 'iptables'])(
    'by the %s backend leave each hook once and every port',
    async (backend) => {
      const host = await openHost();
      const portmap = { backend };
      const attached = [];
      for (let n = 0; n < 12; n++) attached.push(await attach(host, PORTS, await host.addSandbox(`pod${n}`)));
      const all = await Promise.all(
        attached.map((one, n) => publishFor(host, one, [{ hostPort: 8000 + n, containerPort: 80 }], portmap)),
      );
      for (const published of all) expectSuccess(await runPortmap(host, 'CHECK', published));
      const lines = (await host.snapshot()).filter((line) =>
        /^(nft (rule|chain)|ip6?tables-save)/.test(line),
      );
      expect(lines.filter((line, position) => lines.indexOf(line) < position)).toEqual([]);
      await Promise.all(all.map((published) => runPortmap(host, 'DEL', published)));
      const left = (await host.snapshot()).filter((line) =>
        /^(nft|ip6?tables).*(\b80(0\d|1[01])\b|CNI-DN-)/.test(line),
      );
      expect(left).toEqual([]);
    },
  );
});

describe('our part of the ruleset', () => {
  test('with ports, conditions and odd names survives nft list ruleset and nft -f', async () => {
    const { host, pod } = await openFreshHost();
    const published = await publish(host, pod, MIXED);
    const odd = await host.addSandbox('odd');
    const strange = await publish(host, odd, [{ hostPort: 1, containerPort: 65535 }], {
      containerId: `long.${'x'.repeat(200)}`,
      ifname: 'e"\\é$(x)',
      portmap: {
        conditionsV4: ['! -s 192.0.2.0/24 -i eth+'],
        conditionsV6: ['ip6 daddr != { 2001:db8::1, 2001:db8::2 }'],
      },
    });
    const { stdout } = await host.run('nft', ['list', 'ruleset']);
    await host.shell('nft flush ruleset');
    await host.run('nft', ['-f', '-'], { input: stdout });
    expect((await host.run('nft', ['list', 'ruleset'])).stdout).toBe(stdout);
    for (const each of [published, strange]) {
      expectSuccess(await runPortmap(host, 'CHECK', each));
      expectSuccess(await runPortmap(host, 'DEL', each));
    }
    expect(await mapped(host)).toEqual([]);
  });

  test('names the owner of each port in words', async () => {
    const { host, pod } = await openFreshHost();
    await publish(host, pod, WEB);
    const { stdout } = await host.run('nft', ['list', 'map', 'inet', 'patchbay', 'hostports4']);
    expect(stdout).toMatch(
      /tcp \. 8080 comment "[0-9a-f]{32} [0-9a-f]{16}, net: ports, if: eth0, id: pod" : 10\.92\./,
    );
  });

  test('leaves a foreign ruleset untouched', async () => {
    const { host, pod } = await openPrimedHost();
    const foreign = `
      table inet firewalld { chain c { type filter hook forward priority 10; policy accept; tcp dport 22 accept; }; }
      table ip nat { chain PREROUTING { type nat hook prerouting priority -100; fib daddr type local tcp dport 22 redirect to :2222; }; }`;
    await host.run('nft', ['-f', '-'], { input: foreign });
    const before = await host.snapshot();
    await unpublish(host, await publish(host, pod, MIXED));
    expect(difference(before, await host.snapshot())).toEqual([]);
  });

  test('belongs to nobody’s host when the attachment was made by another interface plugin', async () => {
    const { host, pod } = await openFreshHost();
    await host.shell('ip link add foreign0 up type veth peer name eth0 netns pod');
    const result = {
      cniVersion: '1.1.0',
      interfaces: [{ name: 'foreign0' }, { name: 'eth0', sandbox: pod.path }],
      ips: [{ address: '10.97.0.2/24', interface: 1 }],
    };
    const call = { config: PORTS, containerId: 'pod', netns: pod.path, ifname: 'eth0' };
    const published = await publishFor(host, { call, result, ip4: '10.97.0.2', ip6: '' }, WEB);
    expectSuccess(await runPortmap(host, 'CHECK', published));
    const other = await publish(host, await host.addSandbox('other'), []);
    const portCall = portCallOf(withResultOf(other), WEB);
    expect(expectError(await host.runPlugin('ADD', portCall)).code).toBe(103);
    await host.run('ip', ['link', 'delete', 'foreign0']);
    expect((await publishFor(host, other, WEB)).said).toContain('the host link of its container is gone');

    function withResultOf(published: Published): Published {
      return { ...published, call: withPrevResult(published) };
    }
  });
});
