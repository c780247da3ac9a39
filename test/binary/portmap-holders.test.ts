// Whose port it is: a port that somebody holds, in our own table, in iptables or in the reference's, and what becomes of it
// when another attachment wants it. Part of `npm run test:binary`; PATCHBAY_REFERENCE_DIR names a release with nftables.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { attach } from '../support/attachment.ts';
import {
  byOurs,
  type ChainOptions,
  type Fields,
  type Mapping,
  PORTS,
  portCallOf,
  publish,
  publishFor,
  runPortmap,
} from '../support/chain.ts';
import { mapped, openFreshHost, openPrimedHost } from '../support/port-host.ts';
import type { PrivateHost } from '../support/private-host.ts';
import { openPortWorld, WEB } from '../support/reachability.ts';
import { expectError, expectResult, expectSuccess } from '../support/run-plugin.ts';
import { onAllTransports, openTalk, serve, whoAnswers } from '../support/service.ts';
import { difference } from '../support/snapshot.ts';
import { runTraced } from '../support/strace.ts';
import { LAN, OUTSIDE } from '../support/traffic.ts';

function web(hostPort: number, hostIP = ''): Mapping {
  return { hostPort, containerPort: 80, protocol: 'tcp', hostIP };
}

async function chainsOf(host: PrivateHost): Promise<string> {
  return (await host.shell('iptables-save -t nat; ip6tables-save -t nat')).stdout;
}

describe('a port that is taken', () => {
  const cases: readonly [what: string, held: Mapping, wanted: Mapping, named: string][] = [
    ['on every address', web(8080), web(8080), 'tcp port 8080'],
    ['on one address, and wanted on every', web(8080, '192.0.2.7'), web(8080), 'tcp port 8080 of 192.0.2.7'],
    ['on every address, and wanted on one', web(8080), web(8080, '192.0.2.7'), 'tcp port 8080'],
    ['on one address', web(8080, '2001:db8::7'), web(8080, '2001:db8::7'), 'tcp port 8080 of 2001:db8::7'],
    ['on every IPv4 address, and wanted on every', web(8080, '0.0.0.0'), web(8080), 'tcp port 8080'],
    ['on every IPv6 address, and wanted on one', web(8080, '::'), web(8080, '2001:db8::7'), 'tcp port 8080'],
  ];

  test.for(cases)(
    '%s is refused, naming the holder, and nothing changes',
    async ([, held, wanted, named]) => {
      const { host, pod } = await openPrimedHost();
      await publish(host, await host.addSandbox('holder'), [held]);
      const attached = await attach(host, PORTS, pod);
      const before = await host.snapshot();
      const others = [web(8079), wanted, web(8081)];
      const { code, msg } = expectError(await host.runPlugin('ADD', portCallOf(attached, others)));
      expect(code).toBe(103);
      expect(msg).toContain('"net: ports, if: eth0, id: holder"');
      expect(msg).toContain(named);
      expect(difference(before, await host.snapshot())).toEqual([]);
    },
  );

  test.for([
    ['over another protocol', web(8080), { ...web(8080), protocol: 'udp' }],
    ['on another address', web(8080, '192.0.2.7'), web(8080, '192.0.2.8')],
    ['in the other family', web(8080, '0.0.0.0'), web(8080, '::')],
    ['in the other family, on one address', web(8080, '0.0.0.0'), web(8080, '2001:db8::7')],
  ] as const)('%s is free', async ([, held, wanted]) => {
    const { host, pod } = await openFreshHost();
    const first = await publish(host, await host.addSandbox('holder'), [held]);
    const second = await publish(host, pod, [wanted]);
    for (const published of [first, second]) expectSuccess(await runPortmap(host, 'CHECK', published));
  });

  test('by a container whose host link is gone is given away with a line', async () => {
    const { host, pod } = await openFreshHost();
    const holder = await publish(host, await host.addSandbox('holder'), WEB);
    await host.run('ip', ['link', 'delete', holder.result.interfaces?.[1]?.name ?? '']);
    const published = await publish(host, pod, [web(8080)]);
    expect(published.said).toMatch(
      /Removed tcp port 8080 \(IPv4\) of ".*id: holder": the host link of its container is gone/,
    );
    expectSuccess(await runPortmap(host, 'CHECK', published));
    expectSuccess(await runPortmap(host, 'DEL', holder));
    expectSuccess(await runPortmap(host, 'CHECK', published));
  });

  test.for([
    ['without conditions', {}],
    ['with conditions', { conditionsV4: ['-s', '192.0.2.0/24'], conditionsV6: ['-s', '2001:db8::/64'] }],
  ] as const)('%s by whoever had the address before is given away with a line', async ([, portmap]) => {
    const { host, pod } = await openFreshHost();
    const attached = await attach(host, PORTS, pod);
    const ghost = { ...attached, call: { ...attached.call, containerId: 'ghost' } };
    await publishFor(host, ghost, [web(7070)], portmap);
    const { said } = await publishFor(host, attached, [web(8080)]);
    expect(said).toMatch(
      /Removed tcp port 7070 \(IPv4\) of ".*id: ghost": its address 10\.92\.0\.2 was leased anew/,
    );
    expect(said).toMatch(
      /Removed tcp port 7070 \(IPv6\) of ".*id: ghost": its address fd00:92::2 was leased anew/,
    );
    expect(await mapped(host)).toEqual(['tcp 8080']);
    expect((await host.run('nft', ['list', 'ruleset'])).stdout).not.toContain('7070');
  });
});

// Debian's 1.1.1 takes iptables and nothing newer than 1.0.0.
const network = { ...PORTS, cniVersion: '1.0.0' };
const modern = process.env['PATCHBAY_REFERENCE_DIR'];
const hasModern = modern !== undefined && existsSync(join(modern, 'portmap'));
if (!hasModern) {
  console.log(
    'Not tried: holders in the nftables backend of the reference, as PATCHBAY_REFERENCE_DIR names no release',
  );
}

/** Each format in which somebody may hold a port, and how a message names the holder. */
const formats: readonly (readonly [what: string, options: ChainOptions, named: string])[] = [
  ['our own table', {}, '"net: ports, if: eth0, id: holder"'],
  ['iptables, by us', { portmap: { backend: 'iptables' } }, '"net: ports, id: holder" in iptables'],
  ['iptables, by the reference', { directory: '/usr/lib/cni' }, '"net: ports, id: holder" in iptables'],
  ...(hasModern
    ? [
        [
          'nftables, by the reference',
          { directory: modern, portmap: { backend: 'nftables' } },
          'container "holder" in table "ip cni_hostport"',
        ] as const,
      ]
    : []),
];

describe.for(formats)('a port that is held in %s', ([, holding, named]) => {
  test.for(['nftables', 'iptables'])(
    'is refused to backend %s, naming the holder, and nothing changes; others are free',
    async (backend) => {
      const { host, pod } = await openPrimedHost({ backend });
      const held = [web(7000), web(8080), web(8081, '192.0.2.7')];
      const holder = await publish(host, await host.addSandbox('holder'), held, { network, ...holding });
      const attached = await attach(host, network, pod);
      const before = await host.snapshot();
      for (const wanted of [web(8080), web(8080, '192.0.2.7'), web(8081)]) {
        const call = portCallOf(attached, [web(8079), wanted], { backend });
        const { code, msg } = expectError(await host.runPlugin('ADD', call));
        expect({ code, msg }).toEqual({ code: 103, msg: expect.stringContaining(named) });
        expect(msg).toContain(`Cannot publish tcp port ${wanted.hostPort}`);
        expect(difference(before, await host.snapshot())).toEqual([]);
      }
      const free = [web(8081, '192.0.2.8'), { ...web(8080), protocol: 'udp' }, web(8082)];
      const { portCall } = await publishFor(host, attached, free, { backend });
      for (const call of [portCall, byOurs(holder.portCall)])
        expectSuccess(await host.runPlugin('CHECK', call));
    },
  );
});

describe('a port in iptables', () => {
  const iptables = { portmap: { backend: 'iptables' } };

  test('is found without a program, and its owner may have it again by either backend', async () => {
    const { host, pod } = await openFreshHost();
    await publish(host, await host.addSandbox('holder'), [web(8080)], iptables);
    const attached = await attach(host, PORTS, pod);
    const options = ['-f', '-e', 'trace=execve,execveat'];
    const refused = await runTraced(host, 'ADD', portCallOf(attached, [web(8080)]), options);
    expect(expectError(refused).code).toBe(103);
    expect(refused.lines.filter((line) => /exec/.test(line))).toHaveLength(1);
    const taken = await runTraced(host, 'ADD', portCallOf(attached, [web(8081)]), options);
    expect(taken.exitCode).toBe(0);
    expect(taken.lines.filter((line) => /exec/.test(line))).toHaveLength(1);
  });

  test('moves to our table when ADD comes again for its owner, and back', async () => {
    const { host, pod } = await openFreshHost();
    const published = await publish(host, pod, [web(8080), web(8081, '192.0.2.7')], iptables);
    const other = { runtimeConfig: { portMappings: [web(8080)] } };
    expectSuccess(await runPortmap(host, 'ADD', published, { ...other, backend: 'nftables' }));
    expect(await chainsOf(host)).not.toMatch(/CNI-DN-|808\d/);
    expect(await mapped(host)).toEqual(['tcp 8080']);
    expectSuccess(await runPortmap(host, 'CHECK', published, { ...other, backend: 'nftables' }));
    expectSuccess(await runPortmap(host, 'ADD', published));
    expect(await mapped(host)).toEqual([]);
    expect((await host.run('nft', ['list', 'map', 'inet', 'patchbay', 'hairpin4'])).stdout).not.toContain(
      'id: pod',
    );
    expectSuccess(await runPortmap(host, 'CHECK', published));
  });

  test.for(['nftables', 'iptables'])(
    'that leads to an address leased anew is given away to backend %s with a line',
    async (backend) => {
      const { host, pod } = await openFreshHost();
      const attached = await attach(host, PORTS, pod);
      const ghost = { ...attached, call: { ...attached.call, containerId: 'ghost' } };
      await publishFor(host, ghost, [web(8080), web(7070)], iptables.portmap);
      const { said, portCall } = await publishFor(host, attached, [web(8080)], { backend });
      expect(said).toContain(
        `Removed tcp port 8080 (IPv4) that belonged to "net: ports, id: ghost" in iptables: its address ${attached.ip4} was leased anew`,
      );
      expect(await chainsOf(host)).not.toMatch(/ghost|7070/);
      expectSuccess(await host.runPlugin('CHECK', portCall));
    },
  );

  test('of one container whose id is too long for a comment is its own, and is named to others', async () => {
    const { host, pod } = await openFreshHost();
    const containerId = `long.${'x'.repeat(300)}`;
    const long = await publish(host, await host.addSandbox('long'), [web(8080)], {
      ...iptables,
      containerId,
    });
    expectSuccess(await runPortmap(host, 'ADD', long, { backend: 'nftables' }));
    expectSuccess(await runPortmap(host, 'ADD', long));
    const attached = await attach(host, PORTS, pod);
    expect(expectError(await host.runPlugin('ADD', portCallOf(attached, [web(8080)]))).msg).toContain('xxx');
  });

  test('is wanted by twelve at once and goes to one of them, by whatever backend', async () => {
    const { host } = await openFreshHost();
    const attached = [];
    for (let n = 0; n < 12; n++) attached.push(await attach(host, PORTS, await host.addSandbox(`pod${n}`)));
    const outcomes = await Promise.all(
      attached.map((one, n) =>
        host.runPlugin(
          'ADD',
          portCallOf(one, [web(8080)], { backend: n % 2 === 0 ? 'iptables' : 'nftables' }),
        ),
      ),
    );
    expect(outcomes.filter(({ exitCode }) => exitCode === 0)).toHaveLength(1);
    for (const outcome of outcomes.filter(({ exitCode }) => exitCode !== 0)) {
      expect(expectError(outcome).code).toBe(103);
    }
    const ours = (await mapped(host)).length;
    const theirs = (await chainsOf(host)).match(/--dport 8080 -j DNAT --to-destination 10\./g)?.length ?? 0;
    expect(ours + theirs).toBe(1);
  });
});

describe('a port with conditions', () => {
  const cases: readonly (readonly [what: string, held: Fields, wanted: Fields, isFree: boolean])[] = [
    ['the same condition', { conditionsV4: ['-i', 'eth0'] }, { conditionsV4: ['-i', 'eth0'] }, false],
    [
      'conditions of different kinds',
      { conditionsV4: ['-i', 'eth0'] },
      { conditionsV4: ['-s', '192.0.2.0/24'] },
      false,
    ],
    ['none of its own', { conditionsV4: ['-i', 'eth0'] }, {}, false],
    ['a condition where the holder has none', {}, { conditionsV4: ['-i', 'eth0'] }, false],
    [
      'a network around the other',
      { conditionsV4: ['-s', '192.0.2.0/25'] },
      { conditionsV4: ['-s', '192.0.2.0/24'] },
      false,
    ],
    ['two exceptions', { conditionsV4: ['! -s 192.0.2.1'] }, { conditionsV4: ['! -s 192.0.2.2'] }, false],
    [
      'one address of several',
      { conditionsV4: ['-d', '192.0.2.1,192.0.2.2'] },
      { conditionsV4: ['-d', '192.0.2.2'] },
      false,
    ],
    ['another link', { conditionsV4: ['-i', 'eth0'] }, { conditionsV4: ['-i', 'eth1'] }, true],
    [
      'another network',
      { conditionsV4: ['-s', '192.0.2.0/25'] },
      { conditionsV4: ['-s', '192.0.2.128/25'] },
      true,
    ],
    [
      'what the other leaves out',
      { conditionsV4: ['! -s 192.0.2.0/24'] },
      { conditionsV4: ['-s', '192.0.2.7'] },
      true,
    ],
    [
      'what the other leaves out, in the other spelling',
      { conditionsV4: ['iifname != "eth*"'] },
      { conditionsV4: ['-i', 'eth0'] },
      true,
    ],
  ];

  for (const [holding, wanting] of [
    ['nftables', 'nftables'],
    ['iptables', 'nftables'],
    ['nftables', 'iptables'],
    ['iptables', 'iptables'],
  ]) {
    test(`of backend ${holding} is free for backend ${wanting} exactly when no packet can fulfil both`, async () => {
      const { host, pod } = await openFreshHost();
      const holder = await attach(host, PORTS, await host.addSandbox('holder'));
      const attached = await attach(host, PORTS, pod);
      const only4 = [web(8080, '0.0.0.0')];
      for (const [what, held, wanted, isFree] of cases) {
        const first = portCallOf(holder, only4, { ...held, backend: holding });
        const second = portCallOf(attached, only4, { ...wanted, backend: wanting });
        expectResult(await host.runPlugin('ADD', first));
        const outcome = await host.runPlugin('ADD', second);
        if (isFree) expect(outcome, what).toMatchObject({ exitCode: 0 });
        else {
          const { code, msg } = expectError(outcome);
          expect({ code, msg }, what).toEqual({
            code: 103,
            msg: expect.stringMatching(/id: holder".*, and a packet may fulfil the conditions of both/),
          });
        }
        for (const call of [second, first]) expectSuccess(await host.runPlugin('DEL', call));
      }
    });
  }

  test('leaves one address to another attachment that names it', async () => {
    const world = await openPortWorld();
    onTestFinished(() => world[Symbol.asyncDispose]());
    const { host, pod, lan } = world;
    const second = await host.addSandbox('second');
    await serve(second, onAllTransports(80));
    await publish(host, pod, [web(8080, '0.0.0.0')], {
      portmap: { conditionsV4: ['!', '-d', OUTSIDE.host4] },
    });
    await publish(host, second, [web(8080, OUTSIDE.host4)]);
    expect(await whoAnswers(lan, 'tcp4', LAN.host4, 8080)).toBe('pod');
    expect(await whoAnswers(lan, 'tcp4', OUTSIDE.host4, 8080)).toBe('second');
  });

  test('of a container whose host link is gone is given away with a line', async () => {
    const { host, pod } = await openFreshHost();
    const portmap = { conditionsV4: ['-i', 'eth0'] };
    const holder = await publish(host, await host.addSandbox('holder'), [web(8080, '0.0.0.0')], { portmap });
    await host.run('ip', ['link', 'delete', holder.result.interfaces?.[1]?.name ?? '']);
    const { said } = await publish(host, pod, [web(8080, '0.0.0.0')], { portmap });
    expect(said).toMatch(
      /Removed tcp port 8080 \(IPv4\) of ".*id: holder": the host link of its container is gone/,
    );
    const { stdout } = await host.run('nft', ['list', 'chain', 'inet', 'patchbay', 'conditional']);
    expect(stdout).not.toContain('id: holder');
  });
});

describe('an ADD that comes again', () => {
  for (const backend of ['nftables', 'iptables']) {
    test.for([
      ['without ports', { runtimeConfig: undefined }],
      ['with ports of a family that the container lacks by now', { prevResult: undefined }],
    ] as const)(
      `%s takes back what it published by backend ${backend}, flows included`,
      async ([, change]) => {
        const world = await openPortWorld();
        onTestFinished(() => world[Symbol.asyncDispose]());
        const { host, outside, pod } = world;
        await serve(host, onAllTransports(8080));
        const attached = await attach(host, PORTS, pod);
        const published = await publishFor(host, attached, WEB, { backend });
        await using talk = await openTalk(outside, 'udp4', OUTSIDE.host4, 8080);
        expect(await talk.say()).toBe('pod');
        const layer2 = { ...attached.result, ips: [] };
        const fields = 'prevResult' in change ? { prevResult: layer2 } : change;
        expectSuccess(await runPortmap(host, 'ADD', published, fields));
        expect(await talk.say()).toBe('host');
        expect((await host.snapshot()).filter((line) => /\b8080\b/.test(line))).toEqual([]);
        expect(await mapped(host)).toEqual([]);
        expect((await host.run('nft', ['list', 'table', 'inet', 'patchbay'])).stdout).not.toMatch(
          /hairpin.*\{[^}]*id: pod/s,
        );
      },
    );
  }

  test('without ports leaves those of others', async () => {
    const { host, pod } = await openFreshHost();
    const other = await publish(host, await host.addSandbox('other'), [web(8081)]);
    const published = await publish(host, pod, [web(8080)]);
    expectSuccess(await runPortmap(host, 'ADD', published, { runtimeConfig: undefined }));
    expect(await mapped(host)).toEqual(['tcp 8081']);
    expectSuccess(await runPortmap(host, 'CHECK', other));
  });

  test('with another address, or without masquerading, keeps nothing of the way back', async () => {
    const { host, pod } = await openFreshHost();
    const published = await publish(host, pod, [web(8080)]);
    const hairpins = async () =>
      (await host.run('nft', ['list', 'ruleset'])).stdout.match(/10\.92\.0\.\d+ comment/g);
    const moved = JSON.parse(JSON.stringify(published.result).replaceAll(published.ip4, '10.92.0.99'));
    expectSuccess(await runPortmap(host, 'ADD', published, { prevResult: moved, snat: true }));
    expect(await hairpins()).toContain('10.92.0.99 comment');
    const { stdout } = await host.run('nft', ['list', 'map', 'inet', 'patchbay', 'hairpin4']);
    expect(stdout).not.toContain(published.ip4);
    expectSuccess(await runPortmap(host, 'ADD', published, { snat: false }));
    for (const map of ['hairpin4', 'hairpin6']) {
      expect((await host.run('nft', ['list', 'map', 'inet', 'patchbay', map])).stdout).not.toContain(
        'id: pod',
      );
    }
  });
});
